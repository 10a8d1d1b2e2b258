//! Execution providers: what ONNX Runtime runs a graph on. One file each.

mod cpu;
mod options;

pub use options::{Prepack, SessionOptions};

use lfm2_graphs::contract::Contract;
use ort::session::builder::SessionBuilder;

use crate::runtime::Runtime;

/// Something that ONNX Runtime can run graphs on.
pub trait Provider: Send + Sync {
    /// The name given to `--ep`.
    fn name(&self) -> &'static str;

    /// The dialects of graphs that it runs, best first.
    fn dialects(&self) -> &'static [&'static str];

    /// Sets up a session that runs on this provider and on nothing else.
    fn configure(
        &self,
        runtime: &Runtime,
        builder: SessionBuilder,
        options: &SessionOptions,
    ) -> Result<SessionBuilder, ProviderError>;
}

/// Every name that `--ep` knows; [`named`] says which of them work already.
pub const NAMES: &[&str] = &["cpu", "cuda", "coreml", "nnapi", "qnn"];

/// The provider that is used unless another is asked for.
pub const DEFAULT: &str = "cpu";

/// The provider called `name`.
pub fn named(name: &str) -> Result<&'static dyn Provider, ProviderError> {
    match name {
        "cpu" => Ok(&cpu::Cpu),
        _ if NAMES.contains(&name) => Err(ProviderError::NotYet { name: name.to_owned() }),
        _ => Err(ProviderError::Unknown { name: name.to_owned() }),
    }
}

/// Fails if `provider` cannot run the graph that `contract` describes.
pub fn check(provider: &dyn Provider, contract: &Contract) -> Result<(), ProviderError> {
    let dialects = provider.dialects();
    if dialects.contains(&contract.dialect.as_str()) {
        return Ok(());
    }
    Err(ProviderError::Dialect {
        provider: provider.name(),
        dialect: contract.dialect.clone(),
        runs: dialects.join(" or "),
    })
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A name that this version knows and cannot use yet.
    #[error("--ep {name} comes in a later version; until then use --ep {DEFAULT}")]
    NotYet {
        /// The name.
        name: String,
    },
    /// A name that no version knows.
    #[error("there is no execution provider {name}; --ep takes {names}", names = NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The graph is written for other providers.
    #[error("--ep {provider} runs graphs of the dialect {runs}, and this one is {dialect}; export the model with --dialect {first}", first = runs.split(' ').next().unwrap_or_default())]
    Dialect {
        /// The provider.
        provider: &'static str,
        /// Dialect of the graph.
        dialect: String,
        /// Dialects that the provider runs.
        runs: String,
    },
    /// The loaded library does not have it, or the machine does not.
    #[error("this ONNX Runtime has no device for --ep {provider}; it has {found}")]
    NoDevice {
        /// The provider.
        provider: &'static str,
        /// The providers that have devices.
        found: String,
    },
    /// ONNX Runtime refused the settings.
    #[error("--ep {provider} cannot be set up: {reason}")]
    Setup {
        /// The provider.
        provider: &'static str,
        /// What ONNX Runtime said.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(named(DEFAULT).unwrap().name(), "cpu");
        for &name in &NAMES[1..] {
            let message = named(name).err().unwrap().to_string();
            assert!(message.contains(name) && message.contains("later version"), "{message}");
        }
        let message = named("tpu").err().unwrap().to_string();
        assert!(message.contains("tpu") && NAMES.iter().all(|name| message.contains(name)), "{message}");
    }
}
