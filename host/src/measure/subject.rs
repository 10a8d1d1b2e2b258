//! The model that is measured.

use lfm2_graphs::contract::Contract;
use serde::Serialize;

use crate::package::Package;

/// What a row says about its model.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// The graph, with the folder of the package: `lfm2-350m/onnx/model_q4.onnx`. Where that folder lies is left out, so that
    /// records of several machines can be compared.
    pub model_filename: String,
    /// Model family and recipe: `lfm2 q4`.
    pub model_type: String,
    /// Bytes of graph and weights; none if no manifest lists them.
    pub model_size: Option<u64>,
    /// SHA-256 of the graph, from the manifest.
    pub model_sha256: Option<String>,
    /// SHA-256 of the weights, from the manifest; several with commas between.
    pub weights_sha256: Option<String>,
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
        let contract = package.contract();
        let files = package.graph_files();
        let hash = |file: &&lfm2_graphs::contract::ManifestFile| file.sha256.clone();
        let (graph, weights) = files.split_first().map_or((None, &[][..]), |(graph, weights)| (Some(graph), weights));
        let weights: Vec<_> = weights.iter().map(hash).collect();
        Self {
            model_filename: file_name(package),
            model_type: format!("{} {}", contract.family, contract.precision),
            model_size: (!files.is_empty()).then(|| files.iter().map(|file| file.size).sum()),
            model_sha256: graph.map(hash),
            weights_sha256: (!weights.is_empty()).then(|| weights.join(",")),
            model_verified: verified,
            weight_bytes: contract.weight_bytes,
            precision: contract.precision.clone(),
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
