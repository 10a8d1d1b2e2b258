//! From a path to an engine that is ready to answer.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{CliError, report::Origin, settings::LoadSettings};
use crate::{
    cancel::Cancel,
    chat::ChatTemplate,
    decoder::OrtDecoder,
    engine::{Engine, EngineError},
    generation::{GenerationDefaults, Overrides},
    package::Package,
    provider::{self, SessionOptions},
    runtime::Runtime,
    session::Session,
    text::Tokenizer,
};

/// A loaded model with everything around it.
pub(super) struct Loaded {
    pub(super) engine: Engine<OrtDecoder>,
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
    let package = Package::open(&settings.model).map_err(CliError::failed)?;
    if settings.verify {
        package.verify().map_err(CliError::failed)?;
        tracing::info!(folder = %package.folder().display(), "all files are as the manifest says");
    }
    let folder = package.folder();
    let defaults = GenerationDefaults::load(folder).map_err(CliError::failed)?;
    // Every answer resolves them again, for a seed of its own; what is wrong with them should be known before the loading.
    defaults.resolve(overrides).map_err(CliError::failed)?;
    let tokenizer = Tokenizer::load(folder).map_err(CliError::failed)?;
    let template = if chat { ChatTemplate::load(folder).map_err(CliError::failed)? } else { None };
    if chat && template.is_none() {
        return Err(CliError::failed(EngineError::NoTemplate));
    }

    let provider = provider::named(settings.provider).map_err(CliError::failed)?;
    let runtime = Runtime::load(settings.library.as_deref()).map_err(CliError::failed)?;
    tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime is loaded");
    let options = SessionOptions { threads: settings.threads.map(usize::from), ..SessionOptions::default() };
    let session = Session::new(runtime, &package, provider, &options).map_err(CliError::failed)?;
    let mut decoder = OrtDecoder::new(session, settings.max_context.map(usize::from)).map_err(CliError::failed)?;
    decoder.set_cancel(cancel.clone());
    let engine = Engine::new(decoder, tokenizer, template);

    let contract = package.contract();
    let origin = Origin {
        model: package.graph().display().to_string(),
        precision: contract.precision.clone(),
        provider: provider.name().to_owned(),
    };
    Ok(Loaded { engine, defaults, origin, time: start.elapsed() })
}

/// The file name of a path, or all of it if it has none.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
