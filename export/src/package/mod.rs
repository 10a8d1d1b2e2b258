//! From a checkpoint folder to a package: the steps of an export, in order.

mod existing;
mod fingerprint;
mod options;
mod output;

pub use existing::ExistingError;
pub use options::{DialectName, Options, OptionsError};
pub use output::{Output, OutputError};

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, ContractError, MANIFEST_NAME, ManifestFile, ManifestGraph};
use lfm2_graphs::ir::{Content, Graph};
use lfm2_graphs::lfm2::{BuildError, build};

use self::existing::{Existing, refuse_own_folder};
use self::fingerprint::fingerprint;
use crate::bind::{BindError, bind};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{ConfigError, ModelConfig};
use crate::layout::Layout;
use crate::proto::{Data, encode};
use crate::sidecars::{self, SidecarError};
use crate::write::{Producer, Staging, WriteError, Written};

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

    let precision = options.precision;
    let graph = Graph::new(precision.activations(), |_, role, _| precision.format(role));
    let mut contract = build(&config, &*dialect, &graph)?;
    let content = graph.content();
    bind(&content, &checkpoint)?;
    tracing::info!(nodes = content.nodes.len(), initializers = content.initializers.len(), "the graph is built");

    let layout = Layout::new(&content);
    contract.precision = precision.as_str().to_owned();
    layout.locate(&content, output.data_name(), &mut contract.table.values);
    if let Some(scales) = &mut contract.table.scales {
        layout.locate(&content, output.data_name(), scales);
    }

    refuse_own_folder(source, output)?;
    let mut staging = Staging::lock(output.folder())?;
    let mut package = Existing::open(output.folder())?;
    let model_hash = fingerprint(source, &checkpoint)?;
    package.refuse_other(&model_hash, output.graph_name())?;
    let sidecars = sidecars::prepare(&sidecars::Request {
        source,
        destination: output.folder(),
        model: &model,
        contract: &contract,
        graph: output.graph_name(),
    })?;
    let data_name = output.relative(output.data_name());
    let sidecar_names = sidecars.iter().map(|sidecar| sidecar.name.as_str());
    package.refuse_foreign(sidecar_names.chain([data_name.as_str(), output.graph_name()]))?;

    let mut files = Vec::new();
    let mut producer = Producer::new(&checkpoint);
    let data = write_data(&mut staging, &output.data(), &layout, &content, &mut producer, progress)?;
    tracing::info!(bytes = data.size, "the weights are written");
    files.push(manifest_file(data_name, data));
    for sidecar in sidecars {
        let written = staging.write(&output.folder().join(&sidecar.name), &sidecar.bytes)?;
        files.push(manifest_file(sidecar.name, written));
    }
    let placed = place(&layout, &content, &mut producer, output.data_name())?;
    let bytes = encode(&content, &contract.to_json()?, placed);
    let written = staging.write(&output.graph(), &bytes)?;
    files.push(manifest_file(output.graph_name().to_owned(), written));

    let bytes = files.iter().map(|file| file.size).sum();
    for stale in package.drop_stale(&files) {
        staging.remove(&output.folder().join(stale));
    }
    let mut manifest = package.manifest;
    manifest.model = model_hash;
    manifest.merge(manifest_graph(output, &contract), files);
    staging.write(&output.folder().join(MANIFEST_NAME), manifest.to_json()?.as_bytes())?;
    staging.commit()?;
    Ok(Summary { graph: output.graph(), data: output.data(), folder: output.folder().to_owned(), bytes })
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// The ONNX file.
    pub graph: PathBuf,
    /// The file with its weights.
    pub data: PathBuf,
    /// The folder with tokenizer and metadata.
    pub folder: PathBuf,
    /// Size of all files together.
    pub bytes: u64,
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

fn write_data(
    staging: &mut Staging,
    path: &Path,
    layout: &Layout,
    content: &Content,
    producer: &mut Producer<'_>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Written, WriteError> {
    let mut file = staging.create(path)?;
    for (span, initializer) in layout.written(content) {
        file.pad_to(span.offset)?;
        producer.produce(initializer, &mut |bytes| {
            file.write(bytes)?;
            match progress(file.size(), layout.length) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(WriteError::Interrupted),
            }
        })?;
    }
    file.finish()
}

/// Where each initializer's bytes are, with the bytes of those that go into the ONNX file.
fn place(layout: &Layout, content: &Content, producer: &mut Producer<'_>, file: &str) -> Result<Vec<Data>, WriteError> {
    let spans = layout.spans.iter().zip(&content.initializers);
    spans
        .map(|(span, (_, initializer))| match span {
            Some(span) => Ok(Data::External { file: file.to_owned(), offset: span.offset, length: span.length }),
            None => {
                let mut inline = Vec::new();
                producer.produce(initializer, &mut |bytes| {
                    inline.extend_from_slice(bytes);
                    Ok(())
                })?;
                Ok(Data::Inline(inline))
            }
        })
        .collect()
}

fn manifest_file(name: String, Written { size, sha256 }: Written) -> ManifestFile {
    ManifestFile { name, size, sha256 }
}

fn manifest_graph(output: &Output, contract: &Contract) -> ManifestGraph {
    ManifestGraph {
        file: output.graph_name().to_owned(),
        data: vec![output.relative(output.data_name())],
        purpose: contract.purpose,
        precision: contract.precision.clone(),
        dialect: contract.dialect.clone(),
        minimum_runtime_minor: contract.minimum_runtime_minor,
    }
}
