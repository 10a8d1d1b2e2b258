//! Arguments about providers, which several commands take, and what follows from them.

use std::path::PathBuf;

use super::{CliError, Problems};
use crate::provider::{self, Fallback, Provider, SessionOptions};
use crate::runtime::Runtime;

/// What runs the model.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct ProviderArgs {
    /// Execution provider: cpu, cuda, coreml, nnapi or qnn; of several, as in qnn,cpu, the first that works
    #[arg(long, value_name = "PROVIDER,..", default_value = provider::DEFAULT)]
    pub(super) ep: String,

    /// An option of the provider, such as htp_performance_mode=balanced; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) ep_option: Vec<String>,

    /// The library of a provider that comes as a plugin, as qnn does; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ep_lib: Option<PathBuf>,

    /// Fail if a part of the model would run on another provider, as is usual for cpu, coreml, nnapi and qnn
    #[arg(long, conflicts_with = "allow_fallback")]
    pub(super) strict: bool,

    /// Let other providers run what this one does not take, and say what that is
    #[arg(long)]
    pub(super) allow_fallback: bool,

    /// The ONNX Runtime library; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ort_lib: Option<PathBuf>,
}

/// Checked [`ProviderArgs`].
#[derive(Clone, Debug)]
pub(super) struct ProviderSettings {
    /// In the order in which they are to be tried.
    pub(super) providers: Vec<&'static dyn Provider>,
    /// Options for those that know them.
    options: Vec<(String, String)>,
    plugin: Option<PathBuf>,
    fallback: Option<Fallback>,
    library: Option<PathBuf>,
}

impl ProviderArgs {
    /// What is returned counts only if there is no problem.
    pub(super) fn resolve(self, problems: &mut Problems) -> ProviderSettings {
        let providers = provider::listed(&self.ep).map_err(|error| problems.say(error)).unwrap_or_default();
        let mut options = Vec::new();
        for option in &self.ep_option {
            match option.split_once('=') {
                Some((key, value)) => options.push((key.to_owned(), value.to_owned())),
                None => problems.add("--ep-option", format!("{option} has no value: give KEY=VALUE")),
            }
        }
        if !providers.is_empty() {
            provider::option_problems(&providers, &options).into_iter().for_each(|problem| problems.say(problem));
            let plugins = providers.iter().filter(|provider| provider.plugin().is_some()).count();
            if self.ep_lib.is_some() && plugins != 1 {
                let what = if plugins == 0 { "none is a plugin" } else { "several are plugins" };
                problems.add("--ep-lib", format!("is for one provider, and of --ep {} {what}", self.ep));
            }
        }
        let fallback = match (self.strict, self.allow_fallback) {
            (true, _) => Some(Fallback::Refused),
            (false, true) => Some(Fallback::Allowed),
            (false, false) => None,
        };
        ProviderSettings { providers, options, plugin: self.ep_lib, fallback, library: self.ort_lib }
    }
}

impl ProviderSettings {
    /// Loads ONNX Runtime for all that are to be tried.
    pub(super) fn runtime(&self) -> Result<&'static Runtime, CliError> {
        self.load(&self.providers)
    }

    /// Loads ONNX Runtime for one of them.
    pub(super) fn runtime_for(&self, provider: &'static dyn Provider) -> Result<&'static Runtime, CliError> {
        self.load(&[provider])
    }

    fn load(&self, providers: &[&'static dyn Provider]) -> Result<&'static Runtime, CliError> {
        let runtime = provider::load_runtime(providers, self.library.as_deref()).map_err(CliError::failed)?;
        tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime is loaded");
        Ok(runtime)
    }

    /// `options` with what was said about `provider`.
    pub(super) fn session(&self, provider: &dyn Provider, options: &SessionOptions) -> SessionOptions {
        let is_known = |key: &str| provider.known_options().iter().any(|option| option.key == key);
        SessionOptions {
            provider: self.options.iter().filter(|(key, _)| is_known(key)).cloned().collect(),
            plugin: self.plugin.clone().filter(|_| provider.plugin().is_some()),
            fallback: self.fallback,
            ..options.clone()
        }
    }

    /// What `attempt` makes with the first provider with which it succeeds. Why it does not with others is said on standard error.
    pub(super) fn first_that_works<T>(
        &self,
        mut attempt: impl FnMut(&'static dyn Provider) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let mut failures: Vec<(&str, CliError)> = Vec::new();
        for (index, provider) in self.providers.iter().enumerate() {
            match attempt(*provider) {
                Ok(made) => {
                    if index > 0 {
                        tracing::warn!("--ep {} is what runs the model", provider.name());
                    }
                    return Ok(made);
                }
                Err(error) => {
                    if let Some(next) = self.providers.get(index + 1) {
                        let reason = error.report().unwrap_or_default();
                        tracing::warn!("--ep {} does not work here, trying {}: {reason}", provider.name(), next.name());
                    }
                    failures.push((provider.name(), error));
                }
            }
        }
        // What was tried before is told already.
        match failures.pop() {
            Some((_, error)) if failures.is_empty() => Err(error),
            failed => {
                let failures: Vec<_> = failures.into_iter().chain(failed).collect();
                Err(CliError::failed(NoneWorks { failures: failures.iter().map(told).collect() }))
            }
        }
    }
}

fn told((name, error): &(&str, CliError)) -> String {
    format!("{name}: {}", error.report().unwrap_or_default())
}

/// None of several providers can be used.
#[derive(Debug, thiserror::Error)]
#[error("none of the providers works here:\n{}", failures.iter().map(|it| format!("  - {}", it.replace('\n', "\n    "))).collect::<Vec<_>>().join("\n"))]
struct NoneWorks {
    failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(ep: &str) -> ProviderArgs {
        ProviderArgs {
            ep: ep.to_owned(),
            ep_option: Vec::new(),
            ep_lib: None,
            strict: false,
            allow_fallback: false,
            ort_lib: None,
        }
    }

    fn resolve(args: ProviderArgs) -> Result<ProviderSettings, String> {
        let mut problems = Problems::default();
        let settings = args.resolve(&mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems.to_string()) }
    }

    #[test]
    fn an_option_goes_to_who_knows_it() {
        let options = ["soc_model=43", "device_id=0"].map(str::to_owned).to_vec();
        let settings = resolve(ProviderArgs { ep_option: options, ..args("qnn,cpu") }).unwrap();
        let set = |name: &str| {
            let provider = provider::named(name).unwrap();
            settings.session(provider, &SessionOptions::default()).provider.len()
        };
        assert_eq!((set("qnn"), set("cpu"), set("cuda")), (2, 0, 1));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_flag() {
        let options = ["soc_model", "soc_modle=1", "soc_model=x"].map(str::to_owned).to_vec();
        let message = resolve(ProviderArgs { ep_option: options, ep_lib: None, ..args("qnn") }).err().unwrap();
        for part in ["soc_model has no value", "did you mean soc_model?", "soc_model=x"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let message = resolve(ProviderArgs { ep_lib: Some("x.so".into()), ..args("cpu") }).err().unwrap();
        assert!(message.contains("--ep-lib") && message.contains("none is a plugin"), "{message}");
        resolve(ProviderArgs { ep_lib: Some("x.so".into()), ..args("qnn,cpu") }).unwrap();
    }

    #[test]
    fn the_first_that_works_is_taken() {
        let settings = resolve(args("cuda,qnn,cpu")).unwrap();
        let mut tried = Vec::new();
        let mut attempt = |working: &str| {
            tried.clear();
            settings.first_that_works(|provider| {
                tried.push(provider.name());
                let failure = || CliError::failed(format!("no {}", provider.name()));
                if provider.name() == working { Ok(provider.name()) } else { Err(failure()) }
            })
        };
        assert_eq!(attempt("qnn").unwrap(), "qnn");
        assert_eq!(attempt("cuda").unwrap(), "cuda");
        let message = attempt("none").unwrap_err().report().unwrap();
        assert!(["no cuda", "no qnn", "no cpu"].iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(tried, ["cuda", "qnn", "cpu"]);
        let one = resolve(args("qnn")).unwrap().first_that_works(|_| Err::<(), _>(CliError::failed("broken")));
        assert_eq!(one.unwrap_err().report().unwrap(), "broken");
    }
}
