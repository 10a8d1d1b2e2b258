//! From a path to an engine that is ready to answer.

use lfm2_graphs::contract::{Purpose, Target};
use std::{
    panic,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{CliError, report::Origin, settings::LoadSettings};
use crate::{
    cancel::Cancel,
    chat::ChatTemplate,
    decoder::{AnyDecoder, Opening},
    engine::{Engine, EngineError},
    generation::{GenerationDefaults, Overrides},
    package::Package,
    provider::Provider,
    text::Tokenizer,
};

/// A loaded model with everything around it.
pub(super) struct Loaded {
    pub(super) engine: Engine<AnyDecoder>,
    pub(super) defaults: GenerationDefaults,
    pub(super) origin: Origin,
    pub(super) time: Duration,
}

/// Opens the package and loads it. `chat` says whether a template is needed.
pub(super) fn load(
    settings: &LoadSettings,
    overrides: &Overrides,
    chat: bool,
    cancel: &Cancel,
) -> Result<Loaded, CliError> {
    let start = Instant::now();
    let package = open(settings, Purpose::General)?;
    let folder = package.folder();
    let defaults = GenerationDefaults::load(folder).map_err(CliError::failed)?;
    // Every answer resolves them again, for a seed of its own; what is wrong with them should be known before the loading.
    defaults.resolve(overrides).map_err(CliError::failed)?;
    // A tokenizer of LFM2's size takes about as long as ONNX Runtime needs to read the graph, which one thread does.
    let tokenizer = thread::spawn({
        let folder = folder.to_owned();
        move || Tokenizer::load(&folder)
    });
    let template = if chat { ChatTemplate::load(folder).map_err(CliError::failed)? } else { None };
    if chat && template.is_none() {
        return Err(CliError::failed(EngineError::NoTemplate));
    }

    let decoder = decoder(settings, &package, cancel);
    let tokenizer = tokenizer.join().unwrap_or_else(|panic| panic::resume_unwind(panic)).map_err(CliError::failed)?;
    let Placed { decoder, provider } = decoder?;
    let (placement, precision) = (decoder.placed(), decoder.contract().formats());
    let mut engine = Engine::new(decoder, tokenizer, template);
    engine.speculate(settings.speculate.map_or(0, usize::from)).map_err(CliError::failed)?;

    let origin = Origin {
        model: package.graph().display().to_string(),
        precision,
        provider: provider.name().to_owned(),
        placement,
    };
    Ok(Loaded { engine, defaults, origin, time: start.elapsed() })
}

/// Opens the package, which must be for `purpose`, and verifies it if that is wanted.
pub(super) fn open(settings: &LoadSettings, purpose: Purpose) -> Result<Package, CliError> {
    let package = Package::open(&settings.model).map_err(CliError::failed)?;
    package.require(purpose).map_err(CliError::failed)?;
    if settings.verify {
        let prefill = package.prefill(settings.prefill).map_err(CliError::failed)?;
        [&package].into_iter().chain(&prefill).try_for_each(Package::verify).map_err(CliError::failed)?;
        let targets = settings.provider.providers.iter().filter_map(|provider| Target::named(provider.name()));
        for target in targets.filter(|target| target.is_static()) {
            // If there is no pair, loading it says so.
            package.pair(target).map_or(Ok(()), |pair| pair.verify()).map_err(CliError::failed)?;
        }
        tracing::info!(folder = %package.folder().display(), "all files are as the manifest says");
    }
    Ok(package)
}

/// A decoder, and what runs it.
pub(super) struct Placed {
    pub(super) decoder: AnyDecoder,
    pub(super) provider: &'static dyn Provider,
}

/// Loads the graphs of the package onto the first provider that takes them.
pub(super) fn decoder(settings: &LoadSettings, package: &Package, cancel: &Cancel) -> Result<Placed, CliError> {
    let runtime = settings.provider.runtime()?;
    settings.provider.first_that_works(|provider| {
        let opening = Opening {
            runtime,
            package,
            provider,
            options: settings.provider.session(provider, &settings.session),
            max_context: settings.max_context.map(usize::from),
            prefill: settings.prefill,
            compiled: settings.compiled.as_deref(),
            verify: settings.verify,
            speculate: settings.speculate.is_some(),
        };
        let mut decoder = opening.decoder().map_err(CliError::failed)?;
        decoder.set_cancel(cancel.clone());
        Ok(Placed { decoder, provider })
    })
}

/// The file name of a path, or all of it if it has none.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
