//! What packages say about themselves.

mod diff;
mod inspect;

pub use diff::{Diff, diff};
pub use inspect::{FormatUse, Inspection, StateMemory, inspect};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, ContractError, MANIFEST_NAME, METADATA_KEY, Manifest};

use crate::proto::{DecodeError, Model, decode};

/// An ONNX file, read without its weights.
#[derive(Clone, Debug)]
pub struct OpenedGraph {
    /// The ONNX file.
    pub path: PathBuf,
    /// What it says.
    pub model: Model,
    /// Its contract; absent in files of other exporters.
    pub contract: Option<Contract>,
}

/// Opens the graph at `path`: an ONNX file, or a folder that holds one package with one graph.
pub fn open(path: &Path) -> Result<OpenedGraph, ReportError> {
    let path = if path.is_dir() { only_graph(path)? } else { path.to_owned() };
    let refused = |source| ReportError::Io { path: path.clone(), source };
    let bytes = fs::read(&path).map_err(refused)?;
    let model = decode(&bytes).map_err(|source| ReportError::Onnx { path: path.clone(), source })?;
    let contract = model.metadata.get(METADATA_KEY).map(|json| Contract::from_json(json)).transpose();
    let contract = contract.map_err(|source| ReportError::Contract { path: path.clone(), source })?;
    Ok(OpenedGraph { path, model, contract })
}

fn only_graph(folder: &Path) -> Result<PathBuf, ReportError> {
    let path = folder.join(MANIFEST_NAME);
    let text = fs::read_to_string(&path).map_err(|source| ReportError::Io { path: path.clone(), source })?;
    let manifest = Manifest::from_json(&text).map_err(|source| ReportError::Contract { path, source })?;
    match &manifest.graphs[..] {
        [graph] => Ok(folder.join(&graph.file)),
        graphs => {
            let graphs = graphs.iter().map(|graph| graph.file.clone()).collect();
            Err(ReportError::SeveralGraphs { folder: folder.to_owned(), graphs })
        }
    }
}

/// Why a package cannot be reported on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The file system refused.
    #[error("{path} cannot be read: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not an ONNX file.
    #[error("{path}: {source}", path = .path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// The contract or the manifest cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Contract {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ContractError,
    },
    /// A folder with more than one graph, or none.
    #[error("{folder} holds {count} graphs; name one: {list}", folder = .folder.display(), count = .graphs.len(), list = .graphs.join(", "))]
    SeveralGraphs {
        /// The folder.
        folder: PathBuf,
        /// The graphs.
        graphs: Vec<String>,
    },
}
