//! Whether a provider takes a graph as a whole, by its rules and without the provider: node by node.

mod needs;
mod rules;
mod shapes;

#[cfg(test)]
mod tests;

pub use rules::{Need, Operator, Rules, rules};

use std::fmt;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Purpose, Target};
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

/// The graphs of a package that a provider would be given: the graph itself if it is not a general one, else its companions for
/// the provider, or those of every general graph of a folder.
pub fn graphs_for(path: &Path, target: Target) -> Result<Vec<OpenedGraph>, CheckError> {
    let (mut found, mut general) = (Vec::new(), false);
    for opened in report::open_all(path)? {
        let purpose = opened.contract.as_ref().map(|contract| contract.purpose);
        if purpose == Some(Purpose::General) {
            general = true;
            // In a folder, they are among the others.
            for companion in companions(&opened.path, target).filter(|it| !path.is_dir() && it.is_file()) {
                found.extend(report::open_all(&companion)?);
            }
        } else if !path.is_dir() || opened.contract.as_ref().is_some_and(|it| it.dialect == target.name()) {
            found.push(opened);
        }
    }
    if found.is_empty() && general {
        return Err(CheckError::NoGraphs { path: path.to_owned(), target });
    }
    Ok(found)
}

/// Why graphs cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A file cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The package has only graphs for others.
    #[error("{path} has no graphs for {target}; export the model again with --for cpu,{target}", path = .path.display())]
    NoGraphs {
        /// What was to be checked.
        path: PathBuf,
        /// The provider.
        target: Target,
    },
}

fn companions(graph: &Path, target: Target) -> impl Iterator<Item = PathBuf> {
    let name = graph.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let names = [Purpose::Chunk, Purpose::Token].into_iter().filter_map(move |it| target.graph_name(&name, it));
    names.map(|name| graph.with_file_name(name))
}

fn breaches_of(node: &Node, facts: &Facts<'_>, rules: &Rules) -> Vec<Breach> {
    let breach = |problem: String, source| Breach { node: node.name.clone(), op: node.op.clone(), problem, source };
    let Some(operator) = rules.operators.iter().find(|operator| operator.name == node.op) else {
        return vec![breach("there is no such operator".to_owned(), rules.source)];
    };
    let names = node.inputs.iter().chain(&node.outputs).filter(|name| !name.is_empty());
    let mut problems: Vec<_> = names.filter_map(|name| general(name, facts, rules)).collect();
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
    } else if !is_float && !facts.is_constant(name) {
        Some(format!("{name} is {}, and only constants may be", known.dtype))
    } else {
        None
    }
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
