//! The model that is measured.

use lfm2_graphs::contract::Contract;
use serde::Serialize;

use crate::package::{FileRole, Package, UsedFile};

/// What a row says about its model.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// The general graph, with the folder of the package: `lfm2-350m/onnx/model_q4.onnx`. It names the model, whichever of its graphs ran: rows of
    /// several providers can be compared by it. Where that folder lies is left out, so that records of several machines can be.
    pub model_filename: String,
    /// Model family and recipe: `lfm2 q4`.
    pub model_type: String,
    /// Bytes of all files that were loaded, each counted once; none if no manifest lists them.
    pub model_size: Option<u64>,
    /// SHA-256 of every graph that was loaded, from the manifest, with commas between.
    pub model_sha256: Option<String>,
    /// SHA-256 of every file with weights that was loaded, from the manifest, with commas between.
    pub weights_sha256: Option<String>,
    /// Every file that was loaded, once; none of a cell that was not measured, whose other fields are about the general graph.
    pub model_files: Option<Vec<UsedFile>>,
    /// Whether the files were compared with these hashes before measuring.
    pub model_verified: bool,
    /// Bytes of weights that every run reads whole.
    pub weight_bytes: u64,
    /// Name of the recipe for weights and activations.
    pub precision: String,
    /// Dialect of the graph.
    pub dialect: String,
    /// Description of the graph.
    #[serde(skip)]
    pub contract: Contract,
}

impl Subject {
    /// Describes the model of a package, whose files `verified` says to be those of the manifest.
    pub fn new(package: &Package, verified: bool) -> Self {
        let subject = Self {
            model_filename: file_name(package),
            model_type: String::new(),
            model_size: None,
            model_sha256: None,
            weights_sha256: None,
            model_files: None,
            model_verified: verified,
            weight_bytes: 0,
            precision: String::new(),
            dialect: String::new(),
            contract: package.contract().clone(),
        };
        Self { model_files: None, ..subject.loaded(package.contract(), package.used_files()) }
    }

    /// The same model, of which a graph with this `contract` computes single tokens, and that was loaded from `files`.
    pub fn loaded(&self, contract: &Contract, files: Option<Vec<UsedFile>>) -> Self {
        let hashes = |role| {
            let files = files.iter().flatten().filter(|file| file.role == role);
            let hashes: Vec<&str> = files.map(|file| file.sha256.as_str()).collect();
            (!hashes.is_empty()).then(|| hashes.join(","))
        };
        Self {
            model_filename: self.model_filename.clone(),
            model_type: format!("{} {}", contract.family, contract.precision),
            model_size: files.as_ref().map(|files| files.iter().map(|file| file.size).sum()),
            model_sha256: hashes(FileRole::Graph),
            weights_sha256: hashes(FileRole::Data),
            model_files: files,
            model_verified: self.model_verified,
            weight_bytes: contract.weight_bytes,
            precision: contract.formats(),
            dialect: contract.dialect.clone(),
            contract: contract.clone(),
        }
    }
}

/// The graph's path from the folder around the package's, with `/` between parts.
pub(super) fn file_name(package: &Package) -> String {
    let (graph, folder) = (package.graph(), package.folder());
    let inside = graph.strip_prefix(folder).unwrap_or(graph);
    let parts = folder.file_name().into_iter().chain(inside.iter());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}
