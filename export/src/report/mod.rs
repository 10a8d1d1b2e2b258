//! What packages say about themselves.

mod diff;
mod inspect;
mod numbers;

pub use diff::{Diff, diff};
pub(crate) use inspect::size;
pub use inspect::{FormatUse, Inspection, StateMemory, inspect};

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, ContractError, METADATA_KEY, companion_names};

use crate::input::{GRAPH, sized_file};
use crate::proto::{self, DecodeError, Model};

/// Folder of the ONNX files in the layout of the hub.
const HUB_FOLDER: &str = "onnx";

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

/// Opens the graph at `path`: an ONNX file, or a folder that holds a package with one graph. Companions do not count.
pub fn open(path: &Path) -> Result<OpenedGraph, ReportError> {
    let mut graphs = graphs(path)?;
    let names = graphs.iter().map(|graph| graph.display().to_string());
    let companions: HashSet<String> =
        names.flat_map(|name| companion_names(&name)).map(|(_, companion)| companion).collect();
    graphs.retain(|graph| !companions.contains(&graph.display().to_string()));
    match (graphs.pop(), graphs.is_empty()) {
        (Some(graph), true) => read(graph),
        (last, _) => {
            graphs.extend(last);
            let graphs = graphs.iter().map(|graph| graph.display().to_string()).collect();
            Err(ReportError::SeveralGraphs { folder: path.to_owned(), graphs })
        }
    }
}

/// Opens the graph at `path`, or all graphs of the package in the folder `path`.
pub fn open_all(path: &Path) -> Result<Vec<OpenedGraph>, ReportError> {
    graphs(path)?.into_iter().map(read).collect()
}

/// The file itself, or the graphs that are in the folder in either layout, sorted. At least one.
fn graphs(path: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for folder in [path.to_owned(), path.join(HUB_FOLDER)].into_iter().filter(|folder| folder.is_dir()) {
        let refused = |source| ReportError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            if path.is_file() && path.extension() == Some(OsStr::new("onnx")) {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(ReportError::NoGraph { folder: path.to_owned() }) } else { Ok(found) }
}

fn read(path: PathBuf) -> Result<OpenedGraph, ReportError> {
    let opened = sized_file(&path, GRAPH).map_err(|source| ReportError::Io { path: path.clone(), source });
    let (file, size) = opened?;
    let model = proto::read(file, size).map_err(|source| ReportError::Onnx { path: path.clone(), source })?;
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
    /// The contract cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Contract {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ContractError,
    },
    /// Sizes that no file can have.
    #[error("{path}: the sizes of {what} are beyond any file; the file is damaged, export the model again", path = .path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// The tensor or state.
        what: String,
    },
    /// A folder without a graph.
    #[error("{folder} holds no ONNX file, nor does its folder {HUB_FOLDER}", folder = .folder.display())]
    NoGraph {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with several graphs, where one is needed.
    #[error("{folder} holds {count} graphs; name one: {list}", folder = .folder.display(), count = .graphs.len(), list = .graphs.join(", "))]
    SeveralGraphs {
        /// The folder.
        folder: PathBuf,
        /// The graphs.
        graphs: Vec<String>,
    },
}
