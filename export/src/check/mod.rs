//! Whether a provider takes a graph as a whole, by its rules and without the provider: node by node.

mod needs;
mod rules;
mod shapes;

#[cfg(test)]
mod tests;

pub use rules::{Need, Operator, Rules, rules};

use std::fmt;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Purpose, Target, companion_names};
use serde::Serialize;

use self::needs::Facts;
use crate::proto::{Model, Node};
use crate::report::{self, OpenedGraph, ReportError};

/// What the rules of a provider say about a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The ONNX file.
    pub graph: String,
    /// The provider.
    pub target: Target,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of parts in the order of execution that the provider would get: 1 if it takes every node.
    pub partitions: usize,
    /// Every rule that a node breaks.
    pub breaches: Vec<Breach>,
    /// What no rule can tell.
    pub caveat: Option<&'static str>,
}

/// A rule that a node breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// What it does that the provider does not take.
    pub problem: String,
    /// Where the rule is from.
    pub source: &'static str,
}

/// Checks the graph called `name` against the rules of a provider.
pub fn check(name: &str, model: &Model, rules: &Rules) -> Checked {
    let facts = Facts::new(model);
    let (mut breaches, mut partitions, mut inside) = (Vec::new(), 0, false);
    for node in &model.nodes {
        let before = breaches.len();
        breaches.extend(breaches_of(node, &facts, rules));
        let taken = breaches.len() == before;
        partitions += usize::from(taken && !inside);
        inside = taken;
    }
    Checked {
        graph: name.to_owned(),
        target: rules.target,
        nodes: model.nodes.len(),
        partitions,
        breaches,
        caveat: rules.caveat,
    }
}

/// The graphs of a package that are for a provider.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The graphs.
    pub graphs: Vec<OpenedGraph>,
    /// The general graphs of a folder that have none for the provider beside them, though others have.
    pub without: Vec<PathBuf>,
}

/// The graphs of a package that a provider would be given: the graph itself if it is not a general one, else its companions for
/// the provider, or those of every general graph of a folder. Fails if there are none, or only one of a pair.
pub fn graphs_for(path: &Path, target: Target) -> Result<Selected, CheckError> {
    let mut opened = report::open_all(path)?;
    // What calibrates runs on the processor, whatever it prepares.
    opened.retain(|it| it.contract.as_ref().is_none_or(|it| it.purpose != Purpose::Calibrate));
    let is_general = |it: &OpenedGraph| {
        // The graph for GPUs is no general graph of the package, though it takes prompts and single tokens too.
        let is_companion = |other: &OpenedGraph| is_companion(&it.path, &other.path);
        it.contract.as_ref().is_some_and(|it| it.purpose == Purpose::General) && !opened.iter().any(is_companion)
    };
    let (mut found, mut without, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for it in &opened {
        if is_general(it) {
            let (there, lacking): (Vec<_>, Vec<_>) = companions(&it.path, target).partition(|it| it.is_file());
            if there.is_empty() {
                without.push(it.path.clone());
            } else {
                missing.extend(lacking);
                for path in there {
                    found.extend(report::open_all(&path)?);
                }
            }
        } else if !path.is_dir() {
            found.push(it.clone());
        }
    }
    // Those whose general graph is not there, of which each is checked by itself.
    let is_ours = |it: &&OpenedGraph| it.contract.as_ref().is_some_and(|it| it.dialect == target.name());
    for it in opened.iter().filter(is_ours) {
        if found.iter().all(|known| known.path != it.path) {
            missing.extend(twin(&it.path, target).filter(|it| path.is_dir() && !it.is_file()));
            found.push(it.clone());
        }
    }
    if !missing.is_empty() {
        return Err(CheckError::Half { files: missing, target });
    }
    if found.is_empty() {
        return Err(CheckError::NoGraphs { path: path.to_owned(), target });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Selected { graphs: found, without })
}

/// Why graphs cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A file cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The package has only graphs for others.
    #[error("{path} has no graphs for {target}; export the model again with --for cpu,{target}, and with what else is to stay: the list replaces the graphs that are there", path = .path.display())]
    NoGraphs {
        /// What was to be checked.
        path: PathBuf,
        /// The provider.
        target: Target,
    },
    /// Providers need both graphs of a pair.
    #[error("of the pair of graphs for {target}, {list} is missing; export the model again with --for cpu,{target}, and with what else is to stay: the list replaces the graphs that are there", list = list(.files))]
    Half {
        /// The files that are missing.
        files: Vec<PathBuf>,
        /// The provider.
        target: Target,
    },
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The names of a provider's graphs beside a general one.
fn companions(graph: &Path, target: Target) -> impl Iterator<Item = PathBuf> {
    let name = graph.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let names = PAIR.into_iter().filter_map(move |it| target.graph_name(&name, it));
    names.map(|name| graph.with_file_name(name))
}

const PAIR: [Purpose; 2] = [Purpose::Chunk, Purpose::Token];

/// The other graph of the pair that the graph at `path` is of by its name, if it is of one.
fn twin(path: &Path, target: Target) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = |purpose| target.graph_name("", purpose);
    let stem = PAIR.into_iter().filter_map(ending).find_map(|ending| name.strip_suffix(&ending)).map(str::to_owned);
    let pair =
        stem.into_iter().flat_map(move |stem| PAIR.into_iter().filter_map(move |it| target.graph_name(&stem, it)));
    let name = name.to_owned();
    pair.filter(move |it| *it != name).map(|name| path.with_file_name(name))
}

/// Whether the graph at `path` has the name of a companion of the graph at `general`.
fn is_companion(path: &Path, general: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    path.parent() == general.parent() && companion_names(&name(general)).iter().any(|(_, it)| *it == name(path))
}

fn breaches_of(node: &Node, facts: &Facts<'_>, rules: &Rules) -> Vec<Breach> {
    let breach = |problem: String, source| Breach { node: node.name.clone(), op: node.op.clone(), problem, source };
    let Some(operator) = rules.operators.iter().find(|operator| operator.name == node.op) else {
        return vec![breach("there is no such operator".to_owned(), rules.source)];
    };
    let names = node.inputs.iter().chain(&node.outputs).filter(|name| !name.is_empty());
    let mut problems: Vec<_> =
        names.flat_map(|name| general(name, facts, rules).into_iter().chain(beside(name, facts, rules))).collect();
    problems.dedup();
    let general = problems.into_iter().map(|problem| breach(problem, rules.source));
    let special = operator.needs.iter().filter_map(|need| Some(breach(facts.breach(node, *need)?, operator.source)));
    general.chain(special).collect()
}

/// What keeps a provider from taking any node with this value.
fn general(name: &str, facts: &Facts<'_>, rules: &Rules) -> Option<String> {
    let Some(known) = facts.known.get(name) else { return Some(format!("nothing produces {name}")) };
    let Some(shape) = &known.shape else { return Some(format!("the shape of {name} is not fixed")) };
    let is_float = known.dtype.contains("float");
    if shape.len() > rules.most_dimensions {
        Some(format!("{name} is {shape:?}, more than {} dimensions", rules.most_dimensions))
    } else if shape.contains(&0) {
        Some(format!("{name} is {shape:?}, which is empty"))
    } else if is_float && !rules.floats.contains(&known.dtype.as_str()) {
        Some(format!("{name} is {}", known.dtype))
    } else if !is_float && !facts.is_constant(name) && !rules.integers.contains(&known.dtype.as_str()) {
        Some(format!("{name} is {}, and only constants may be", known.dtype))
    } else {
        None
    }
}

/// What keeps a provider that reads no other files from taking a node with this value.
fn beside(name: &str, facts: &Facts<'_>, rules: &Rules) -> Option<String> {
    let file = facts.external.get(name).filter(|_| !rules.external)?;
    Some(format!(
        "{name} lies in {file}, and the provider passes over operators whose weights lie in a file of their own"
    ))
}

impl Checked {
    /// The first rule that is broken, in one line, and how many others are.
    pub fn summary(&self) -> String {
        let Some(Breach { node, op, problem, .. }) = self.breaches.first() else {
            return format!("{} takes all of {}", self.target, self.graph);
        };
        let more = match self.breaches.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        format!("{} has {node} ({op}): {problem}{more}", self.graph)
    }

    /// A line for every rule that is broken.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let line = |Breach { node, op, problem, source }: &Breach| {
            format!("{}: {node} ({op}): {problem} [{source}]", self.graph)
        };
        self.breaches.iter().map(line)
    }

    /// Whether the provider takes all of the graph.
    pub fn is_whole(&self) -> bool {
        self.breaches.is_empty()
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { graph, target, nodes, partitions, .. } = self;
        if self.is_whole() {
            writeln!(f, "{graph}: {target} takes all {nodes} nodes, in one partition")?;
        } else {
            writeln!(f, "{graph}: {target} would get {partitions} partitions of {nodes} nodes:")?;
        }
        for Breach { node, op, problem, source } in &self.breaches {
            writeln!(f, "  {node} ({op}): {problem} [{source}]")?;
        }
        self.caveat.iter().try_for_each(|caveat| writeln!(f, "  ({caveat})"))
    }
}
