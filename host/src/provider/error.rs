//! Why a provider cannot be used.

use super::{DEFAULT, names};
use crate::runtime::RuntimeError;

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A name that no version knows.
    #[error("there is no execution provider {name}; --ep takes {names}", names = names().join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// A list of names that is not one.
    #[error(
        "--ep names {what}; it takes one provider, or several in the order in which they are to be tried, as in --ep qnn,{DEFAULT}"
    )]
    List {
        /// What is wrong with it.
        what: String,
    },
    /// The graph is written for other providers.
    #[error(
        "--ep {provider} runs graphs of the dialect {runs}, and this one is {dialect}; export the model with --for {provider}"
    )]
    Dialect {
        /// The provider.
        provider: &'static str,
        /// Dialect of the graph.
        dialect: String,
        /// Dialects that the provider runs.
        runs: String,
    },
    /// The loaded library was built without it.
    #[error("--ep {provider} is not in {library} (ONNX Runtime {version}); {remedy}")]
    NotBuiltIn {
        /// The provider.
        provider: &'static str,
        /// The loaded library.
        library: String,
        /// Its version.
        version: String,
        /// How to get one that has it.
        remedy: &'static str,
    },
    /// The library of the provider cannot be used.
    #[error("--ep {provider}: {source}")]
    Plugin {
        /// The provider.
        provider: &'static str,
        /// What is wrong with it.
        source: RuntimeError,
    },
    /// The machine has nothing that it could run on.
    #[error("this ONNX Runtime has no device for --ep {provider}; it has {found}")]
    NoDevice {
        /// The provider.
        provider: &'static str,
        /// The providers that have devices.
        found: String,
    },
    /// Options that it does not know.
    #[error("{}", .problems.join("\n"))]
    Options {
        /// One sentence for each.
        problems: Vec<String>,
    },
    /// ONNX Runtime refused the settings.
    #[error("--ep {provider} cannot be set up: {reason}{hint}")]
    Setup {
        /// The provider.
        provider: &'static str,
        /// What ONNX Runtime said.
        reason: String,
        /// What may help, behind a semicolon; empty if nothing is known.
        hint: &'static str,
    },
}
