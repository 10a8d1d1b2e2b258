//! One graph, loaded onto a provider.

use std::path::PathBuf;

use lfm2_graphs::contract::{Contract, Port};
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;

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
        let problems = missing_ports(&inner, contract);
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

/// The ports of the contract that the graph does not have.
fn missing_ports(session: &OrtSession, contract: &Contract) -> Vec<String> {
    let overridable = session.overridable_initializers();
    let inputs: Vec<_> =
        session.inputs().iter().map(|it| it.name()).chain(overridable.iter().map(|it| it.name())).collect();
    let outputs: Vec<_> = session.outputs().iter().map(|it| it.name()).collect();
    let past = contract.states.iter().map(|state| &state.past);
    let present = contract.states.iter().map(|state| &state.present);
    let described = &contract.inputs;
    let missing = |kind: &'static str, ports: Vec<&Port>, names: &[&str]| -> Vec<String> {
        ports
            .into_iter()
            .filter(|port| !names.contains(&&*port.name))
            .map(|port| format!("{kind} {}", port.name))
            .collect()
    };
    let wanted_inputs = [&described.input_ids, &described.attention_mask, &described.num_logits_to_keep];
    let mut problems = missing("input", wanted_inputs.into_iter().chain(past).collect(), &inputs);
    problems.extend(missing("output", [&contract.outputs.logits].into_iter().chain(present).collect(), &outputs));
    problems
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
    #[error("{graph} lacks what its description names: {problems}; export the model again", graph = graph.display(), problems = problems.join(", "))]
    Ports {
        /// The ONNX file.
        graph: PathBuf,
        /// The missing inputs and outputs.
        problems: Vec<String>,
    },
}
