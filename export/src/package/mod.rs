//! From a checkpoint folder to a package: the steps of an export, in order.

mod calibration;
mod existing;
mod fingerprint;
mod inside;
mod integers;
mod options;
mod output;
mod part;
mod targets;

pub use calibration::CalibrationError;
pub use existing::ExistingError;
pub use integers::QnnPrecision;
pub use options::{Caches, DialectName, Options, OptionsError, Prefill};
pub use output::{Output, OutputError};
pub use part::{gpu_graph, static_graph};
pub use targets::{CHUNK, CudaActivations, STATIC_CONTEXT, Targets};

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{ContractError, MANIFEST_NAME, ManifestFile, Target};
use lfm2_graphs::dialect::Dialect;
use lfm2_graphs::ir::{Content, Graph, Role};
use lfm2_graphs::lfm2::{BuildError, Config, build};

use self::calibration::Calibrated;
use self::existing::{Existing, refuse_own_folder};
use self::fingerprint::fingerprint;
use self::integers::Integers;
use self::part::Part;
use self::targets::TargetParts;
use crate::bind::{BindError, bind, refuse_unstorable};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{ConfigError, ModelConfig};
use crate::layout::is_apart;
use crate::problems::lines;
use crate::proto::{Data, DecodeError, frame};
use crate::recipe::IdleRules;
use crate::sidecars::{self, SidecarError};
use crate::write::{Producer, Staging, WriteError, Written, write_data, write_graph};

/// Exports the checkpoint in the folder `source`. `progress` is told how many bytes of weights are written, and of how many; it
/// may stop the export.
///
/// Nothing appears under its final name before everything is written. A package of the same checkpoint that is already at
/// `output` keeps its other graphs.
pub fn export(
    source: &Path,
    output: &Output,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Summary, ExportError> {
    let dialect = options.dialect()?;
    let model = ModelConfig::load(source)?;
    let config = options.limit(&model.graph)?;
    let checkpoint = Checkpoint::open(source)?;
    for note in &model.notes {
        tracing::warn!("{note}");
    }

    let recipe = &options.recipe;
    let model_hash = fingerprint(source, &checkpoint)?;
    let calibration = options.calibration.as_deref().map(|path| Calibrated::load(path, &model_hash)).transpose()?;
    let caches = caches(options, &config, &*dialect, calibration.as_ref())?;
    let general = Part::general(options, &config, &*dialect, &caches, output)?;
    let prefill = match options.prefill {
        Prefill::Same => None,
        Prefill::Int8 => Some(Part::prefill(options, &config, &*dialect, &caches, output, &general)?),
    };
    let importance = {
        let content = general.graph.content();
        let weights = || content.initializers.iter().filter_map(|(_, initializer)| initializer.source.weight());
        recipe.refuse_idle(weights())?;
        match &calibration {
            Some(calibration) => calibration.importance(recipe, options.targets.qnn, weights())?,
            None => BTreeMap::new(),
        }
    };
    for part in [&general].into_iter().chain(&prefill) {
        // The graphs of other providers are made of the same weights, or of some of them, in other formats.
        bind(&part.graph.content(), &checkpoint)?;
    }
    let table = table(&general.graph.content());
    let integers = Integers::new(options.targets.qnn, calibration.as_ref(), &checkpoint, &table)?;
    let (others, mut notes) = targets::build(options, &config, output, &general, integers.as_ref())?;
    for part in others.iter().flat_map(|it| &it.parts) {
        refuse_unstorable(&part.graph.content())?;
    }
    for note in &notes {
        tracing::warn!("{note}");
    }
    let of_targets = others.iter().flat_map(|it| &it.parts);
    let parts: Vec<&Part<'_>> = [&general].into_iter().chain(&prefill).chain(of_targets).collect();
    for part in &parts {
        let content = part.graph.content();
        tracing::info!(
            nodes = content.nodes.len(),
            initializers = content.initializers.len(),
            "{} is built",
            part.name
        );
    }

    refuse_own_folder(source, output)?;
    let mut staging = Staging::lock(output.folder())?;
    let mut package = Existing::open(output.folder())?;
    package.refuse_other(&model_hash, output.graph_name())?;
    let sidecars = sidecars::prepare(&sidecars::Request {
        source,
        destination: output.folder(),
        model: &model,
        contract: &general.contract,
        graph: output.graph_name(),
    })?;
    let mut names: Vec<String> = sidecars.iter().map(|sidecar| sidecar.name.clone()).collect();
    let data = parts.iter().filter(|part| part.writes_data).map(|part| output.relative(&part.data));
    names.extend(data.chain(parts.iter().map(|part| part.name.clone())));
    package.refuse_foreign(names.iter().map(String::as_str))?;
    package.refuse_shared(output.graph_name(), &names)?;

    let mut files = Vec::new();
    let producer = Producer::new(&checkpoint, recipe, &importance);
    let with_data: Vec<_> = parts.iter().filter(|part| part.writes_data).collect();
    // Of graphs with their weights in them, all is counted.
    let whole = parts.iter().filter(|part| part.is_whole()).filter_map(|part| part.whole_size);
    let total = with_data.iter().map(|part| part.layout.length).chain(whole).sum();
    let mut before = 0;
    for part in with_data {
        let mut progress = |done: u64, _: u64| progress(before + done, total);
        let name = output.relative(&part.data);
        let mut file = staging.create(&output.folder().join(&name))?;
        write_data(&mut file, &part.layout, &part.graph.content(), producer, options.threads, &mut progress)?;
        let data = file.finish()?;
        tracing::info!(bytes = data.size, "the weights in {name} are written");
        files.push(manifest_file(name, data));
        before += part.layout.length;
    }
    for sidecar in sidecars {
        let written = staging.write(&output.folder().join(&sidecar.name), &sidecar.bytes)?;
        files.push(manifest_file(sidecar.name, written));
    }
    for part in &parts {
        let content = part.graph.content();
        let placed = place(part, &content, producer)?;
        let frame = frame(&content, &part.contract.to_json()?, placed);
        let mut progress = |done: u64, _: u64| progress(before + done, total);
        let mut file = staging.create(&output.folder().join(&part.name))?;
        write_graph(&mut file, &frame, &content, producer, options.threads, &mut progress)?;
        files.push(manifest_file(part.name.clone(), file.finish()?));
        if part.is_whole() {
            before += frame.length();
        }
    }

    let bytes = files.iter().map(|file| file.size).sum();
    // Companions share bytes with the graph as it was: they go with it, or are written anew.
    let companions = package.manifest.drop_companions(output.graph_name());
    let orphans = package.manifest.drop_orphans();
    if !orphans.is_empty() {
        let note =
            format!("removed, because the graph that they belong to is not there any more: {}", orphans.join(", "));
        tracing::warn!("{note}");
        notes.push(note);
    }
    let companions = companions.into_iter().chain(orphans).filter(|name| files.iter().all(|file| file.name != *name));
    for stale in package.drop_stale(&files).into_iter().chain(companions) {
        staging.remove(&output.folder().join(stale));
    }
    let mut manifest = package.manifest;
    manifest.model = model_hash;
    for part in &parts {
        manifest.merge(part.listed(output), Vec::new());
    }
    manifest.merge(general.listed(output), files);
    staging.write(&output.folder().join(MANIFEST_NAME), manifest.to_json()?.as_bytes())?;
    staging.commit()?;
    Ok(Summary {
        graph: output.graph(),
        prefill: prefill.as_ref().map(|part| output.folder().join(&part.name)),
        targets: others.iter().map(|it| summary(it, output)).collect(),
        notes,
        data: output.data(),
        folder: output.folder().to_owned(),
        bytes,
    })
}

/// Name of the token table in the checkpoint.
fn table(content: &Content) -> String {
    let mut weights = content.initializers.iter().filter_map(|(_, initializer)| initializer.source.weight());
    weights.find(|weight| weight.role == Role::Table).map(|weight| weight.name.clone()).unwrap_or_default()
}

/// The scales of the caches by the names of their outputs; none for those that are kept as they are.
fn caches(
    options: &Options,
    config: &Config,
    dialect: &dyn Dialect,
    calibration: Option<&Calibrated>,
) -> Result<BTreeMap<String, Vec<f32>>, ExportError> {
    match (options.caches, calibration) {
        (Caches::Int8, None) => Err(OptionsError::Uncalibrated.into()),
        (Caches::Int8, Some(calibration)) => {
            // What caches there are is what the graph without scales says.
            let recipe = &options.recipe;
            let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
            let contract = build(config, dialect, options.extras(), &graph)?;
            Ok(calibration.cache_scales(&contract)?)
        }
        (Caches::Activations, _) => Ok(BTreeMap::new()),
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The ONNX file.
    pub graph: PathBuf,
    /// The companion for prompts, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<PathBuf>,
    /// The graphs for other providers.
    pub targets: Vec<TargetSummary>,
    /// What was left out or removed, and why.
    pub notes: Vec<String>,
    /// The file with its weights.
    pub data: PathBuf,
    /// The folder with tokenizer and metadata.
    pub folder: PathBuf,
    /// Size of all files together.
    pub bytes: u64,
}

/// What was written for a provider.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TargetSummary {
    /// The provider.
    pub target: Target,
    /// The ONNX files.
    pub graphs: Vec<PathBuf>,
    /// The file with the weights that no other graph has, if there are any.
    pub data: Option<PathBuf>,
}

fn summary(built: &TargetParts<'_>, output: &Output) -> TargetSummary {
    let data = built.parts.iter().find(|part| part.writes_data);
    TargetSummary {
        target: built.target,
        graphs: built.parts.iter().map(|part| output.folder().join(&part.name)).collect(),
        data: data.map(|part| output.folder().join(output.relative(&part.data))),
    }
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Options that exclude each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// config.json.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The graph cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Rules of the recipe that do nothing.
    #[error(transparent)]
    Recipe(#[from] IdleRules),
    /// The calibration.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A target without such graphs.
    #[error("there is no static graph for {target}")]
    Unnamed {
        /// The target.
        target: Target,
    },
    /// Graphs that their provider would not take as a whole.
    #[error(
        "{target} would not take these graphs as a whole; choose another precision, leave {target} out, or write them all the same with --force:{}", lines(.problems)
    )]
    Split {
        /// The provider.
        target: Target,
        /// What its rules say: one line for each node and rule, the first of them.
        problems: Vec<String>,
    },
    /// What is written is what is read.
    #[error("{graph} cannot be read back: {source}; please report this")]
    Unreadable {
        /// The graph.
        graph: String,
        /// Why.
        source: DecodeError,
    },
    /// Both graphs of a pair are made from one model with one recipe, as are those for calibration.
    #[error("{graph} has weights that the graph beside it lacks, whose file of weights it shares; please report this")]
    Unshared {
        /// The graph.
        graph: String,
    },
    /// The weights do not fit the config.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Tokenizer and metadata.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Contract or manifest cannot be put into JSON.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// What is already at the output stands in the way.
    #[error(transparent)]
    Existing(#[from] ExistingError),
}

/// Where each initializer's bytes are, with the bytes of those that go into the ONNX file with everything else of it.
fn place(part: &Part<'_>, content: &Content, producer: Producer<'_>) -> Result<Vec<Data>, WriteError> {
    let spans = part.layout.spans.iter().zip(&content.initializers);
    spans
        .map(|(span, (_, initializer))| match span {
            Some(span) => Ok(part.external(*span)),
            None if part.is_whole() && is_apart(initializer) => Ok(Data::Later { length: initializer.bytes() }),
            None => Ok(Data::Inline(producer.whole(initializer)?)),
        })
        .collect()
}

fn manifest_file(name: String, Written { size, sha256 }: Written) -> ManifestFile {
    ManifestFile { name, size, sha256 }
}
