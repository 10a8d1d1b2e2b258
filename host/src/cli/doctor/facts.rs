//! What is found out about one provider, in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use lfm2_graphs::contract::{Purpose, Target};
use serde::{Deserialize, Serialize};

use crate::cli::CliError;
use crate::cli::provider::ProviderSettings;
use crate::package::Package;
use crate::provider::{self, Device, Provider, SessionOptions, Setup};
use crate::runtime::Runtime;
use crate::session::{Session, trial};

/// What is known about a provider here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Its name.
    pub(super) provider: String,
    /// The ONNX Runtime that was loaded for it.
    pub(super) runtime: Option<RuntimeFacts>,
    /// The library of its plugin, if it comes as one and that is there.
    pub(super) plugin: Option<String>,
    /// What it runs on.
    pub(super) devices: Vec<Device>,
    /// Whether a small graph ran on it.
    pub(super) works: bool,
    /// Why it does not work, and what to do.
    pub(super) problem: Option<String>,
    /// Whether it runs the package, if there is one.
    pub(super) package: Option<PackageFacts>,
}

/// An ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuntimeFacts {
    /// The file.
    pub(super) library: String,
    /// Its version.
    pub(super) version: String,
    /// The providers that are built into it, by its own names for them.
    pub(super) built_in: Vec<String>,
}

/// A package on a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PackageFacts {
    /// The graphs that were loaded.
    pub(super) graphs: Vec<GraphFacts>,
    /// Whether all that the provider needs were loaded.
    pub(super) runs: bool,
    /// Why they were not, and what to do.
    pub(super) problem: Option<String>,
}

/// A graph that was loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GraphFacts {
    /// The ONNX file.
    pub(super) file: String,
    /// Number formats, as in the contract.
    pub(super) precision: String,
    /// Nodes on each provider, by ONNX Runtime's names for them.
    pub(super) placement: BTreeMap<String, usize>,
    /// Time to load it.
    pub(super) load_ms: f64,
}

impl Facts {
    /// What is known before anything is asked.
    pub(super) fn of(provider: &str) -> Self {
        Self { provider: provider.to_owned(), ..Self::default() }
    }

    /// Whether the answer to what was asked is yes.
    pub(super) fn is_well(&self) -> bool {
        self.works && self.package.as_ref().is_none_or(|package| package.runs)
    }
}

/// Asks `provider`, with one thing after the other that it needs, up to the first that is missing.
pub(super) fn facts(provider: &'static dyn Provider, settings: &ProviderSettings, model: Option<&Path>) -> Facts {
    let mut facts = Facts::of(provider.name());
    let options = settings.session(provider, &SessionOptions::default());
    match ask(provider, settings, &options, &mut facts) {
        Ok(runtime) => facts.works = runtime.is_some(),
        Err(error) => facts.problem = error.report(),
    }
    if let (true, Some(model)) = (facts.works, model) {
        let mut package = PackageFacts::default();
        match load(provider, &options, settings, model, &mut package.graphs) {
            Ok(()) => package.runs = true,
            Err(error) => package.problem = error.report(),
        }
        facts.package = Some(package);
    }
    facts
}

fn ask(
    provider: &'static dyn Provider,
    settings: &ProviderSettings,
    options: &SessionOptions,
    facts: &mut Facts,
) -> Result<Option<&'static Runtime>, CliError> {
    let runtime = settings.runtime_for(provider)?;
    facts.runtime = Some(RuntimeFacts {
        library: runtime.library().display().to_string(),
        version: runtime.version().to_owned(),
        built_in: runtime.built_in().to_vec(),
    });
    if let Some(plugin) = provider.plugin() {
        let library = runtime.find_plugin(plugin, options.plugin.as_deref());
        facts.plugin = library.ok().map(|library| library.display().to_string());
    }
    facts.devices = provider.devices(runtime, options).map_err(CliError::failed)?;
    trial(provider, &Setup { runtime, options, fingerprint: None }).map_err(CliError::failed)?;
    Ok(Some(runtime))
}

/// Loads every graph that the package has for the provider.
fn load(
    provider: &'static dyn Provider,
    options: &SessionOptions,
    settings: &ProviderSettings,
    model: &Path,
    graphs: &mut Vec<GraphFacts>,
) -> Result<(), CliError> {
    let runtime = settings.runtime_for(provider)?;
    let general = Package::open(model).map_err(CliError::failed)?;
    for package in packages(provider, &general)? {
        let start = Instant::now();
        let session = Session::new(runtime, &package, provider, options).map_err(CliError::failed)?;
        graphs.push(GraphFacts {
            file: package.graph().display().to_string(),
            precision: package.contract().precision.clone(),
            placement: session.placement().counts(),
            load_ms: start.elapsed().as_secs_f64() * 1e3,
        });
    }
    Ok(())
}

/// The graphs of the package that `provider` runs.
fn packages(provider: &dyn Provider, general: &Package) -> Result<Vec<Package>, CliError> {
    // A graph that was named and fits is what was meant.
    if provider::check(provider, general.contract()).is_ok() {
        return Ok(vec![general.clone()]);
    }
    let target = Target::named(provider.name());
    let name = general.graph().file_name().and_then(|name| name.to_str());
    let purposes = [Purpose::General, Purpose::Chunk, Purpose::Token];
    let names = purposes.iter().filter_map(|purpose| target?.graph_name(name?, *purpose));
    let paths: Vec<_> = names.map(|name| general.graph().with_file_name(name)).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !path.is_file()).collect();
    if paths.is_empty() || !missing.is_empty() {
        let names = missing.iter().map(|path| crate::cli::load::name(path)).collect();
        let provider = provider.name();
        return Err(CliError::failed(NoGraph { provider, names, dialect: general.contract().dialect.clone() }));
    }
    paths.iter().map(|path| Package::open(path).map_err(CliError::failed)).collect()
}

/// A package that was exported for others.
#[derive(Debug, thiserror::Error)]
#[error(
    "--ep {provider} runs no graph of the dialect {dialect}{}; export the model again with `lfm2-export CHECKPOINT --for cpu,{provider} --out x.onnx`",
    missing(names)
)]
struct NoGraph {
    provider: &'static str,
    names: Vec<String>,
    dialect: String,
}

fn missing(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(", and there is no {} beside it", names.join(" and no ")),
    }
}
