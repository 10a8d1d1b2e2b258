//! One graph, loaded onto a provider.

mod compile;
mod memory;
mod placement;
mod trial;

pub(crate) use compile::compile;
pub use memory::Memory;
pub use placement::{PlacedNode, Placement};
pub use trial::trial;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lfm2_graphs::contract::{Contract, DType, Port, Target};
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::package::{Lacking, Package, UsedFile};
use crate::provider::{self, Fallback, Provider, ProviderError, SessionOptions, Setup};
use crate::runtime::{Runtime, RuntimeError};

/// Most nodes that an error lists.
const LISTED: usize = 20;

/// A graph that can be run.
#[derive(Debug)]
pub struct Session {
    pub(crate) inner: OrtSession,
    pub(crate) contract: Contract,
    placement: Placement,
    memory: Memory,
    files: Option<Vec<UsedFile>>,
    creation: Duration,
}

impl Session {
    /// Loads the graph of `package` onto `provider`.
    pub fn new(
        runtime: &Runtime,
        package: &Package,
        provider: &dyn Provider,
        options: &SessionOptions,
    ) -> Result<Self, SessionError> {
        Self::of(runtime, package, package.graph(), package.used_files(), provider, options)
    }

    /// Loads the ONNX file `graph`, which is that of `package` or was made from it by `provider` ahead of time. `files` are all that it is
    /// loaded from, as far as that is known.
    pub(crate) fn of(
        runtime: &Runtime,
        package: &Package,
        graph: &Path,
        files: Option<Vec<UsedFile>>,
        provider: &dyn Provider,
        options: &SessionOptions,
    ) -> Result<Self, SessionError> {
        let contract = package.contract();
        provider::check(provider, contract)?;
        runtime.require(contract.minimum_runtime_minor, package.graph())?;
        let fingerprint = package.fingerprint();
        let setup = Setup { runtime, options, fingerprint: fingerprint.as_deref() };
        let loaded = load(graph, provider, &setup).map_err(|error| error.with_remedy(package));
        let Loaded { session: inner, placement, creation } = loaded?;
        let problems = differences(&inner, contract);
        if !problems.is_empty() {
            return Err(SessionError::Ports { graph: graph.to_owned(), problems });
        }
        let memory = provider.memory(options);
        Ok(Self { inner, contract: contract.clone(), placement, memory, files, creation })
    }

    /// Description of the graph.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The memory that it works in.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Lets decoders take this session's memory for another one, to test what they do then.
    #[doc(hidden)]
    pub fn taken_for(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// The files that it was loaded from, each once; nothing if no manifest lists them.
    pub fn files(&self) -> Option<&[UsedFile]> {
        self.files.as_deref()
    }

    /// How long the runtime took to create it: reading the graph, compiling it where the provider does that then, and bringing the weights into
    /// the kernels' form. The runtime does not tell these apart.
    pub fn creation(&self) -> Duration {
        self.creation
    }

    /// Which of its nodes runs where.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }
}

/// What [`load`] has loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The session.
    pub session: OrtSession,
    /// Which node runs where.
    pub placement: Placement,
    /// How long the runtime took to create it.
    pub creation: Duration,
}

/// Loads the ONNX file `graph` onto `provider`, whatever is in it, and tells which node runs where.
///
/// # Errors
/// If a node runs elsewhere and [`SessionOptions::fallback`] or [`Provider::fallback`] does not allow it.
pub fn load(graph: &Path, provider: &dyn Provider, setup: &Setup<'_>) -> Result<Loaded, SessionError> {
    let failed = |reason: ort::Error| SessionError::Load {
        graph: graph.to_owned(),
        reason: provider::plain(&reason.to_string()),
    };
    let builder = SessionBuilder::new(setup.runtime.environment()).map_err(failed)?;
    let (key, value) = placement::RECORD;
    let builder = builder.with_config_entry(key, value).map_err(|error| failed(error.into()))?;
    // What a provider loads to be ready at all is none of a graph's.
    let mut builder = provider.configure(builder, setup)?;
    let start = Instant::now();
    let session = builder.commit_from_file(graph).map_err(failed)?;
    let creation = start.elapsed();
    let placement = Placement::of(&session).map_err(failed)?;
    let name = provider.runtime_name();
    let count = placement.elsewhere(name).count();
    if count == 0 {
        return Ok(Loaded { session, placement, creation });
    }
    match setup.options.fallback.unwrap_or(provider.fallback()) {
        Fallback::Allowed => {
            tracing::warn!(
                graph = %graph.display(),
                "not all runs on {}: {}", provider.name(), placement.summary_elsewhere(name)
            );
            Ok(Loaded { session, placement, creation })
        }
        Fallback::Refused => {
            let nodes = placement.elsewhere(name).map(|(other, node)| format!("{other}: {node}"));
            Err(SessionError::Elsewhere {
                graph: graph.to_owned(),
                provider: provider.name(),
                nodes: nodes.take(LISTED).collect(),
                count,
                of: placement.counts().values().sum(),
                again: None,
            })
        }
    }
}

/// What the contract says otherwise than the graph. Nothing may be allocated by a contract before this is empty.
fn differences(session: &OrtSession, contract: &Contract) -> Vec<String> {
    let (inputs, outputs) = (contract.input_ports(), contract.output_ports());
    let required = session.inputs();
    // Inputs with a default are listed apart.
    let optional = session.overridable_initializers();
    let optional = optional.iter().map(|it| (it.name(), it.dtype()));
    let taken: Vec<_> = required.iter().map(|it| (it.name(), it.dtype())).chain(optional).collect();
    let given: Vec<_> = session.outputs().iter().map(|it| (it.name(), it.dtype())).collect();

    let mut problems = unlike("input", &inputs, &taken);
    problems.extend(unlike("output", &outputs, &given));
    let unfed = required.iter().map(Outlet::name).filter(|name| inputs.iter().all(|port| port.name != *name));
    problems.extend(unfed.map(|name| format!("the input {name} is not described")));
    let logits = contract.outputs.logits.as_ref();
    let short = logits.filter(|it| it.shape.last().and_then(|dim| dim.fixed()) != Some(contract.vocab_size));
    problems.extend(short.map(|it| format!("the output {} has no row of {} logits", it.name, contract.vocab_size)));
    problems
}

/// The ports that occur twice, or that the graph does not have like that.
fn unlike(kind: &str, ports: &[&Port], graph: &[(&str, &ValueType)]) -> Vec<String> {
    let mut seen = HashSet::new();
    ports
        .iter()
        .filter_map(|port| {
            let name = &port.name;
            if !seen.insert(name) {
                return Some(format!("the {kind} {name} is described twice"));
            }
            let Some((_, found)) = graph.iter().find(|(other, _)| other == name) else {
                return Some(format!("there is no {kind} {name}"));
            };
            let expected = port_type(port);
            (!fits(port, found)).then(|| format!("the {kind} {name} is {found}, not {expected}"))
        })
        .collect()
}

/// Whether type, rank and fixed dimensions are those of the port.
fn fits(port: &Port, found: &ValueType) -> bool {
    let ValueType::Tensor { ty, shape, .. } = found else { return false };
    let same_size = |(expected, &found): (Option<usize>, &i64)| match expected {
        Some(size) => usize::try_from(found) == Ok(size),
        None => true,
    };
    *ty == element_type(port.dtype)
        && shape.len() == port.shape.len()
        && port.shape.iter().map(|dim| dim.fixed()).zip(shape.iter()).all(same_size)
}

fn port_type(port: &Port) -> String {
    let dims: Vec<_> = port.shape.iter().map(|dim| dim.to_string()).collect();
    format!("{}[{}]", port.dtype, dims.join(", "))
}

fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float16 => TensorElementType::Float16,
        DType::Bfloat16 => TensorElementType::Bfloat16,
        DType::Int64 => TensorElementType::Int64,
        DType::Int32 => TensorElementType::Int32,
        DType::Int16 => TensorElementType::Int16,
        DType::Uint16 => TensorElementType::Uint16,
        DType::Int8 => TensorElementType::Int8,
        DType::Int4 => TensorElementType::Int4,
        DType::Uint8 => TensorElementType::Uint8,
        DType::Bool => TensorElementType::Bool,
    }
}

/// Why a graph cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The provider refused.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The runtime is too old for the graph.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// ONNX Runtime could not load the file.
    #[error("{graph} cannot be loaded: {reason}", graph = graph.display())]
    Load {
        /// The ONNX file.
        graph: PathBuf,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// The provider's compiler failed.
    #[error("{graph} cannot be compiled: {reason}", graph = graph.display())]
    Compile {
        /// The ONNX file.
        graph: PathBuf,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// Not even a small graph runs.
    #[error("--ep {provider} does not work here: {reason}")]
    Trial {
        /// The provider.
        provider: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A part of the graph would run on another provider.
    #[error(
        "{graph}: {count} of {of} nodes would not run on {provider}:\n{listed}{more}\nRun these nodes there with --allow-fallback{again}",
        graph = graph.display(),
        listed = nodes.iter().map(|node| format!("  - {node}")).collect::<Vec<_>>().join("\n"),
        more = if *count > nodes.len() { format!("\n  - and {} more", count - nodes.len()) } else { String::new() },
        again = again.as_ref().map(|again| format!(", or write other graphs with {again}")).unwrap_or_default()
    )]
    Elsewhere {
        /// The ONNX file.
        graph: PathBuf,
        /// The provider that was asked for.
        provider: &'static str,
        /// The first of the nodes, each with who would run it.
        nodes: Vec<String>,
        /// How many there are.
        count: usize,
        /// How many nodes the graph has.
        of: usize,
        /// What writes graphs for the provider, if this is one of a package.
        again: Option<String>,
    },
    /// The file was changed since its description was written.
    #[error(
        "{graph} is not as its description says; export the model again:\n{problems}",
        graph = graph.display(),
        problems = problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
    )]
    Ports {
        /// The ONNX file.
        graph: PathBuf,
        /// One sentence for each port.
        problems: Vec<String>,
    },
}

impl SessionError {
    /// The same, with what writes graphs that the provider takes, if that is what is missing.
    fn with_remedy(mut self, package: &Package) -> Self {
        if let Self::Elsewhere { provider, again, .. } = &mut self {
            *again = Target::named(provider).map(|target| package.again(Lacking::Graphs(target)).to_string());
        }
        self
    }
}
