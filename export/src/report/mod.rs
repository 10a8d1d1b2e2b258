//! What packages say about themselves.

mod diff;
mod inspect;

pub use diff::{Diff, diff};
pub use inspect::{FormatUse, Inspection, StateMemory, inspect};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, ContractError, MANIFEST_NAME, METADATA_KEY, Manifest};

use crate::input::{GRAPH, read_file};
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

/// Opens the graph at `path`: an ONNX file, or a folder that holds a package with one graph.
pub fn open(path: &Path) -> Result<OpenedGraph, ReportError> {
    let mut graphs = graphs(path)?;
    match (graphs.pop(), graphs.is_empty()) {
        (Some(graph), true) => read(graph),
        (last, _) => {
            graphs.extend(last);
            let graphs = graphs.iter().map(|graph| graph.display().to_string()).collect();
            Err(ReportError::OneGraph { folder: path.to_owned(), graphs })
        }
    }
}

/// Opens the graph at `path`, or all graphs of the package in the folder `path`.
pub fn open_all(path: &Path) -> Result<Vec<OpenedGraph>, ReportError> {
    graphs(path)?.into_iter().map(read).collect()
}

/// The file itself, or the graphs that the folder's manifest names.
fn graphs(path: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let manifest = path.join(MANIFEST_NAME);
    let text = fs::read_to_string(&manifest).map_err(|source| ReportError::Io { path: manifest.clone(), source })?;
    let parsed = Manifest::from_json(&text).map_err(|source| ReportError::Contract { path: manifest, source })?;
    Ok(parsed.graphs.iter().map(|graph| path.join(&graph.file)).collect())
}

fn read(path: PathBuf) -> Result<OpenedGraph, ReportError> {
    let bytes = read_file(&path, GRAPH).map_err(|source| ReportError::Io { path: path.clone(), source })?;
    let model = decode(&bytes).map_err(|source| ReportError::Onnx { path: path.clone(), source })?;
    let contract = model.metadata.get(METADATA_KEY).map(|json| Contract::from_json(json)).transpose();
    let contract = contract.map_err(|source| ReportError::Contract { path: path.clone(), source })?;
    Ok(OpenedGraph { path, model, contract })
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
    /// A folder with more than one graph, or none, where one is needed.
    #[error("{folder} holds {count} graphs; name one{list}", folder = .folder.display(), count = .graphs.len(), list = list(.graphs))]
    OneGraph {
        /// The folder.
        folder: PathBuf,
        /// The graphs.
        graphs: Vec<String>,
    },
}

fn list(graphs: &[String]) -> String {
    if graphs.is_empty() { " by its file name".to_owned() } else { format!(": {}", graphs.join(", ")) }
}
