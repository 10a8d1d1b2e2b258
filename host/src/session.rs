//! One graph, loaded onto a provider.

use std::path::PathBuf;

use std::collections::HashSet;

use lfm2_graphs::contract::{Contract, DType, Port};
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::package::Package;
use crate::provider::{self, Provider, ProviderError, SessionOptions};
use crate::runtime::{Runtime, RuntimeError};

/// A graph that can be run.
#[derive(Debug)]
pub struct Session {
    pub(crate) inner: OrtSession,
    pub(crate) contract: Contract,
}

impl Session {
    /// Loads the graph of `package` onto `provider`.
    pub fn new(
        runtime: &Runtime,
        package: &Package,
        provider: &dyn Provider,
        options: &SessionOptions,
    ) -> Result<Self, SessionError> {
        let contract = package.contract();
        provider::check(provider, contract)?;
        runtime.require(contract.minimum_runtime_minor, package.graph())?;
        let load =
            |reason: ort::Error| SessionError::Load { graph: package.graph().to_owned(), reason: reason.to_string() };
        let builder = SessionBuilder::new(runtime.environment()).map_err(load)?;
        let mut builder = provider.configure(runtime, builder, options)?;
        let inner = builder.commit_from_file(package.graph()).map_err(load)?;
        let problems = differences(&inner, contract);
        if !problems.is_empty() {
            return Err(SessionError::Ports { graph: package.graph().to_owned(), problems });
        }
        Ok(Self { inner, contract: contract.clone() })
    }

    /// Description of the graph.
    pub fn contract(&self) -> &Contract {
        &self.contract
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
        DType::Int64 => TensorElementType::Int64,
        DType::Int32 => TensorElementType::Int32,
        DType::Int8 => TensorElementType::Int8,
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
