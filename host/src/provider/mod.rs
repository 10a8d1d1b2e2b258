//! Execution providers: what ONNX Runtime runs a graph on. One file each.
//!
//! A provider is built into the library of ONNX Runtime or comes as a plugin, a library of its own. Nothing here falls back:
//! what is missing is an error that says how to get it, and whether all of a graph runs on the provider is for
//! [`Session`](crate::session::Session) to check.

mod common;
mod coreml;
mod cpu;
mod cuda;
mod error;
mod known;
mod nnapi;
mod options;
mod plugin;
mod qnn;

pub use common::Device;
pub(crate) use common::plain;
pub use error::ProviderError;
pub use known::{KnownOption, Values};
pub use options::{Fallback, Prepack, SessionOptions, SharedContext};
pub use qnn::soc;

use std::fmt;
use std::path::Path;

use lfm2_graphs::contract::Contract;
use ort::session::builder::SessionBuilder;

use crate::runtime::{LIBRARY_FOLDER, Plugin, Runtime, RuntimeError};
use crate::session::Memory;

/// Something that ONNX Runtime can run graphs on.
pub trait Provider: Send + Sync {
    /// The name given to `--ep`.
    fn name(&self) -> &'static str;

    /// The name that ONNX Runtime has for it, as in a [`Placement`](crate::session::Placement).
    fn runtime_name(&self) -> &'static str;

    /// The dialects of graphs that it runs, best first.
    fn dialects(&self) -> &'static [&'static str];

    /// The options that it takes, with their source.
    fn known_options(&self) -> &'static [KnownOption] {
        &[]
    }

    /// The folders, by name and best first, of the builds of ONNX Runtime that have it.
    fn builds(&self) -> &'static [&'static str] {
        &[LIBRARY_FOLDER]
    }

    /// The library that it comes in, if that is not ONNX Runtime's.
    fn plugin(&self) -> Option<&'static Plugin> {
        None
    }

    /// The memory that sessions with these options work in.
    fn memory(&self, _options: &SessionOptions) -> Memory {
        Memory::Shared
    }

    /// Whether creating a session compiles the graph for a device, and nothing is kept for the next one.
    fn compiles(&self) -> bool {
        false
    }

    /// What is done if a part of a graph would run elsewhere, unless [`SessionOptions::fallback`] says.
    fn fallback(&self) -> Fallback;

    /// What it would run on, or why it cannot be used. A plugin is loaded for that.
    fn devices(&self, runtime: &Runtime, options: &SessionOptions) -> Result<Vec<Device>, ProviderError>;

    /// Sets up a session that runs on this provider, and elsewhere only what this provider does not take.
    fn configure(&self, builder: SessionBuilder, setup: &Setup<'_>) -> Result<SessionBuilder, ProviderError>;
}

impl fmt::Debug for dyn Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a session is set up for.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// What is wanted.
    pub options: &'a SessionOptions,
    /// What tells the graph with its weights from all others, in letters and digits. Providers that keep what they have compiled
    /// do so under this name, and keep nothing without it.
    pub fingerprint: Option<&'a str>,
}

/// Every provider.
pub const ALL: [&dyn Provider; 5] = [&cpu::Cpu, &cuda::Cuda, &coreml::CoreMl, &nnapi::Nnapi, &qnn::Qnn];

/// The provider that is used unless another is asked for.
pub const DEFAULT: &str = "cpu";

/// Every name that `--ep` knows.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|provider| provider.name()).collect()
}

/// The provider called `name`.
pub fn named(name: &str) -> Result<&'static dyn Provider, ProviderError> {
    let unknown = || ProviderError::Unknown { name: name.to_owned() };
    ALL.into_iter().find(|provider| provider.name() == name).ok_or_else(unknown)
}

/// The providers in a list such as `qnn,cpu`, in the order in which they are to be tried.
pub fn listed(list: &str) -> Result<Vec<&'static dyn Provider>, ProviderError> {
    let mut providers: Vec<&'static dyn Provider> = Vec::new();
    for name in list.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(ProviderError::List { what: "nothing between two commas".to_owned() });
        }
        if providers.iter().any(|provider| provider.name() == name) {
            return Err(ProviderError::List { what: format!("{name} twice") });
        }
        providers.push(named(name)?);
    }
    Ok(providers)
}

/// What is wrong with the options for those of `providers` that take them. An option is for each provider that knows it, and one
/// has to; it is given once.
pub fn option_problems(providers: &[&dyn Provider], options: &[(String, String)]) -> Vec<String> {
    let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
    let known: Vec<_> = providers.iter().flat_map(|provider| provider.known_options()).copied().collect();
    let problem = |(key, value): &(String, String)| known::problem(&names.join(","), &known, key, value);
    let mut problems: Vec<_> = options.iter().filter_map(problem).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in options {
        let values: Vec<_> = options.iter().filter(|(other, _)| other == key).map(|(_, value)| &**value).collect();
        if values.len() > 1 && !keys.contains(&&**key) {
            problems
                .push(format!("--ep-option {key} is given several times, as {}; give it once", values.join(" and ")));
        }
        keys.push(key);
    }
    problems
}

/// Loads the build of ONNX Runtime that suits `providers` best, as [`Runtime::load`] does.
pub fn load_runtime(providers: &[&dyn Provider], library: Option<&Path>) -> Result<&'static Runtime, RuntimeError> {
    let mut builds: Vec<&'static str> = Vec::new();
    // A build with more in it has the processor too, so what is rarest decides.
    let mut wanted: Vec<_> = providers.iter().flat_map(|provider| provider.builds()).copied().collect();
    wanted.sort_by_key(|build| *build == LIBRARY_FOLDER);
    for build in wanted {
        if !builds.contains(&build) {
            builds.push(build);
        }
    }
    Runtime::load_build(library, &builds)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(named(DEFAULT).unwrap().name(), "cpu");
        for name in names() {
            assert_eq!(named(name).unwrap().name(), name);
        }
        let message = named("tpu").err().unwrap().to_string();
        assert!(message.contains("tpu") && names().iter().all(|name| message.contains(name)), "{message}");
    }

    #[test]
    fn lists_keep_their_order() {
        let names = |list: &str| {
            let providers = listed(list).map_err(|error| error.to_string())?;
            Ok::<_, String>(providers.iter().map(|it| it.name()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("qnn, cpu").unwrap(), "qnn cpu");
        assert_eq!(names("cpu").unwrap(), "cpu");
        assert!(names("qnn,cpu,qnn").unwrap_err().contains("qnn twice"));
        assert!(names("qnn,").unwrap_err().contains("nothing between"));
        assert!(names("qnn,tpu").unwrap_err().contains("tpu"));
    }

    #[test]
    fn an_option_is_for_the_provider_that_knows_it() {
        let problems = |list: &str, key: &str, value: &str| {
            option_problems(&listed(list).unwrap(), &[(key.to_owned(), value.to_owned())])
        };
        assert!(problems("qnn,cpu", "soc_model", "69").is_empty());
        assert!(problems("cpu,qnn", "htp_performance_mode", "burst").is_empty());
        assert!(problems("cpu", "soc_model", "69")[0].contains("--ep cpu"));
        assert!(problems("cuda,qnn", "device_id", "0").is_empty(), "both know it");
        assert!(problems("qnn", "htp_performance_mode", "fastest")[0].contains("burst"));
    }

    #[test]
    fn an_option_is_given_once() {
        let options = [("device_id", "0"), ("soc_model", "69"), ("device_id", "1")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let problems = option_problems(&listed("qnn").unwrap(), &options);
        assert_eq!(problems, ["--ep-option device_id is given several times, as 0 and 1; give it once"]);
        assert!(option_problems(&listed("qnn").unwrap(), &options[..2]).is_empty());
    }

    #[test]
    fn defaults_are_options_that_are_known() {
        for provider in ALL {
            let mut keys: Vec<_> = provider.known_options().iter().map(|option| option.key).collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all, "{}", provider.name());
        }
    }
}
