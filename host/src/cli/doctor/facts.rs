//! What is found out about one provider, in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use lfm2_graphs::contract::Purpose;
use serde::{Deserialize, Serialize};

use crate::cli::CliError;
use crate::cli::provider::ProviderSettings;
use crate::decoder::{AnyDecoder, Opening};
use crate::package::{Package, Prefill};
use crate::provider::{Device, Provider, SessionOptions, Setup};
use crate::runtime::Runtime;
use crate::session::{Placement, trial};

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
    /// What is wrong although it works.
    pub(super) warning: Option<String>,
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
    /// Time to load all of them.
    pub(super) load_ms: Option<f64>,
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
        match load(provider, &options, settings, model, &mut package) {
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

/// Loads what the package has for the provider, as every command that runs it does.
fn load(
    provider: &'static dyn Provider,
    options: &SessionOptions,
    settings: &ProviderSettings,
    model: &Path,
    facts: &mut PackageFacts,
) -> Result<(), CliError> {
    let runtime = settings.runtime_for(provider)?;
    let package = Package::open(model).map_err(CliError::failed)?;
    package.require(Purpose::General).map_err(CliError::failed)?;
    let opening = Opening {
        runtime,
        package: &package,
        provider,
        options: options.clone(),
        max_context: None,
        // Whether there is another graph for prompts is not asked.
        prefill: Prefill::Same,
        compiled: None,
        verify: false,
        speculate: false,
    };
    let graphs = opening.graphs().map_err(CliError::failed)?;
    let start = Instant::now();
    let decoder = opening.decoder().map_err(CliError::failed)?;
    facts.load_ms = Some(start.elapsed().as_secs_f64() * 1e3);
    let placements = match &decoder {
        AnyDecoder::Dynamic(decoder) => vec![decoder.placement().counts()],
        AnyDecoder::Fixed(decoder) => decoder.placements().map(Placement::counts).to_vec(),
    };
    let graph = |(package, placement): (&Package, _)| GraphFacts {
        file: package.graph().display().to_string(),
        precision: package.contract().formats(),
        placement,
    };
    facts.graphs = graphs.iter().zip(placements).map(graph).collect();
    Ok(())
}
