//! Packages: what the exporter writes and this program opens.

mod again;
mod files;
mod metadata;
mod pair;
mod prefill;
mod select;
mod used;

use std::fs::{self, File};
use std::path::{self, Path, PathBuf};

use lfm2_graphs::contract::{
    Contract, ContractError, MANIFEST_NAME, METADATA_KEY, Manifest, ManifestFile, Purpose, Target,
};

pub(crate) use again::Lacking;
pub(crate) use files::{hash_problem, path_in, sha256, size_problem};
use metadata::MetadataError;
pub(crate) use metadata::is_tensor_at;
pub use pair::Pair;
pub use prefill::Prefill;
pub use used::{FileRole, UsedFile};

/// One graph of a package, described and complete.
#[derive(Clone, Debug)]
pub struct Package {
    graph: PathBuf,
    folder: PathBuf,
    contract: Contract,
    manifest: Option<Manifest>,
}

impl Package {
    /// Opens an ONNX file of a package, or a folder with such files.
    ///
    /// A folder has them beside the tokenizer or in a folder `onnx`. If there are several precisions, the first there is
    /// of q4, q4f16, q8, fp16 and fp32 is taken. The weights are not read; [`Package::verify`] does that. Nothing
    /// needs to be loaded for this.
    pub fn open(path: &Path) -> Result<Self, PackageError> {
        // An absolute path has a folder, and messages with it help wherever they are read.
        let path = path::absolute(path).map_err(|source| PackageError::Unreadable { path: path.to_owned(), source })?;
        let (graph, contract) = if path.is_dir() {
            select::from_folder(&path)?
        } else {
            let contract = contract_of(&path)?;
            (path, contract)
        };
        let folder = sidecar_folder(&graph);
        let manifest = manifest_in(&folder)?;
        let package = Self { graph, folder, contract, manifest };
        match package.listed() {
            Some((manifest, name)) => files::check_sizes(&package.folder, manifest, &name)?,
            None => tracing::warn!(
                graph = %package.graph.display(),
                "there is no {MANIFEST_NAME} that lists this graph, so that missing or damaged files cannot be told"
            ),
        }
        Ok(package)
    }

    /// Compares every file that belongs to the graph with its SHA-256 in the manifest. Reads the whole package.
    pub fn verify(&self) -> Result<(), PackageError> {
        let (manifest, name) = self
            .listed()
            .ok_or_else(|| PackageError::NotListed { folder: self.folder.clone(), graph: self.graph.clone() })?;
        files::check_hashes(&self.folder, manifest, &name)
    }

    /// Fails unless the graph is for `purpose`.
    pub fn require(&self, purpose: Purpose) -> Result<(), PackageError> {
        if self.contract.purpose == purpose {
            return Ok(());
        }
        Err(PackageError::Purpose { graph: self.graph.clone(), needed: purpose, found: self.contract.purpose })
    }

    /// Fails if the graph, which is for calibration, is the one for ranges that lies beside the one for statistics.
    pub fn require_statistics(&self) -> Result<(), PackageError> {
        match self.contract.outputs.ranges {
            None => Ok(()),
            Some(_) => Err(PackageError::Observer { graph: self.graph.clone() }),
        }
    }

    /// Fails unless the states of the graph can be cut, so that tokens can be taken back.
    pub fn require_rollback(&self) -> Result<(), PackageError> {
        if self.contract.states.iter().all(|state| state.kind.grows() || state.columns.is_some()) {
            return Ok(());
        }
        Err(PackageError::NoRollback { graph: self.graph.clone(), again: self.again(Lacking::Rollback).to_string() })
    }

    /// The ONNX file.
    pub fn graph(&self) -> &Path {
        &self.graph
    }

    /// The folder of tokenizer, config and manifest.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Description of the graph.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// What the manifest says about the graph and then about its weights; nothing if no manifest lists the graph.
    pub fn graph_files(&self) -> Vec<&ManifestFile> {
        let Some((manifest, name)) = self.listed() else { return Vec::new() };
        let graph = manifest.graphs.iter().filter(|graph| graph.file == name);
        let names = graph.flat_map(|graph| [&graph.file].into_iter().chain(&graph.data));
        names.filter_map(|name| manifest.files.iter().find(|file| file.name == *name)).collect()
    }

    /// What tells the graph and its weights from all others, in hexadecimal digits; nothing if no manifest lists the graph.
    pub fn fingerprint(&self) -> Option<String> {
        let files = self.graph_files();
        let hashes: Vec<&str> = files.iter().map(|file| file.sha256.as_str()).collect();
        (!hashes.is_empty()).then(|| files::sha256_of(hashes.join("\n").as_bytes()))
    }

    /// What tells the checkpoint from others, if there is a manifest that lists the graph.
    pub fn model(&self) -> Option<&str> {
        self.listed().map(|(manifest, _)| manifest.model.as_str())
    }

    /// The manifest and the name of the graph in it, if there is one that lists the graph.
    fn listed(&self) -> Option<(&Manifest, String)> {
        let manifest = self.manifest.as_ref()?;
        let name = files::name_in(&self.folder, &self.graph)?;
        manifest.graphs.iter().any(|graph| graph.file == name).then_some((manifest, name))
    }
}

/// The contract stored in the ONNX file at `path`.
fn contract_of(path: &Path) -> Result<Contract, PackageError> {
    let text = metadata_of(path, METADATA_KEY)?;
    let text = text.ok_or_else(|| PackageError::NoContract { path: path.to_owned() })?;
    Contract::from_json(&text).map_err(|source| PackageError::Contract { path: path.to_owned(), source })
}

/// What the ONNX file at `path` has under `key` in its metadata.
pub(crate) fn metadata_of(path: &Path, key: &str) -> Result<Option<String>, PackageError> {
    let unreadable = |source| PackageError::Unreadable { path: path.to_owned(), source };
    // Before opening it: opening a pipe waits for somebody who writes.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        let reason = "it is neither a file nor a folder".to_owned();
        return Err(PackageError::NotOnnx { path: path.to_owned(), reason });
    }
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    metadata::find(file, length, key).map_err(|error| match error {
        MetadataError::Io(source) => unreadable(source),
        other => PackageError::NotOnnx { path: path.to_owned(), reason: other.to_string() },
    })
}

/// The folder of the files that are neither graphs nor weights: that of `graph`, or in the layout of the hub the one above `onnx`.
fn sidecar_folder(graph: &Path) -> PathBuf {
    let sidecars = [MANIFEST_NAME, "config.json", "tokenizer.json"];
    let has_sidecars = |folder: &&Path| sidecars.iter().any(|name| folder.join(name).exists());
    let own = graph.parent().unwrap_or(graph);
    let above = own.parent().filter(|_| own.file_name().is_some_and(|name| name == select::HUB_FOLDER));
    let above = above.filter(|above| !has_sidecars(&own) && has_sidecars(above));
    above.unwrap_or(own).to_owned()
}

fn manifest_in(folder: &Path) -> Result<Option<Manifest>, PackageError> {
    let path = folder.join(MANIFEST_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PackageError::Unreadable { path, source }),
    };
    Manifest::from_json(&text).map(Some).map_err(|source| PackageError::Contract { path, source })
}

/// Why a package cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// A file that cannot be read, or is not there.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without a graph.
    #[error("{folder} holds no ONNX file, nor does its folder onnx; name a package that lfm2-export wrote, or write one with `lfm2-export MODEL --out {folder}/`", folder = folder.display())]
    NoGraph {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with graphs for calibration alone.
    #[error("{folder} holds no model to run, only graphs for `lfm2-host calibrate`, which takes them by name: {files}", folder = folder.display(), files = files.join(", "))]
    OnlyCalibration {
        /// The folder.
        folder: PathBuf,
        /// Their names.
        files: Vec<String>,
    },
    /// Several graphs between which nothing decides.
    #[error("{folder} holds several graphs of precision {precision}: {files}; name one of them", folder = folder.display(), files = files.join(", "))]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// The precision that all of them have.
        precision: String,
        /// Their names.
        files: Vec<String>,
    },
    /// Not an ONNX file.
    #[error("{path} cannot be opened: {reason}", path = path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An ONNX file of another exporter.
    #[error("{path} has no description of its states, so it was not written by lfm2-export; export it with `lfm2-export MODEL --out DIR/`", path = path.display())]
    NoContract {
        /// The file.
        path: PathBuf,
    },
    /// A contract or manifest that cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Contract {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ContractError,
    },
    /// Files that are not as the manifest says.
    #[error(
        "the package in {folder} is incomplete or damaged; fetch or export it again:\n{problems}",
        folder = folder.display(),
        problems = problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
    )]
    Files {
        /// The folder.
        folder: PathBuf,
        /// One sentence for each file.
        problems: Vec<String>,
    },
    /// A graph for something else.
    #[error("{graph} {found}; {needed}", graph = graph.display(), found = is_for(*found), needed = instead_of(*needed))]
    Purpose {
        /// The ONNX file.
        graph: PathBuf,
        /// What a graph was needed for.
        needed: Purpose,
        /// What this one is for.
        found: Purpose,
    },
    /// The companion of a graph.
    #[error("the graph for prompts cannot be used: {source}\n--prefill same does without it")]
    Prefill {
        /// What is wrong with it.
        source: Box<PackageError>,
    },
    /// A graph for prompts was asked for, and there is none.
    #[error("--prefill int8: {graph} has no graph for prompts beside it; {remedy}, or leave the flag out", graph = graph.display())]
    NoPrefill {
        /// The general graph.
        graph: PathBuf,
        /// What to do.
        remedy: String,
    },
    /// Tokens are to be taken back, and the graph cannot do that.
    #[error("--speculate needs a graph that can take tokens back, and {graph} cannot; write one with {again}, or leave the flag out", graph = graph.display())]
    NoRollback {
        /// The general graph.
        graph: PathBuf,
        /// What writes one that can.
        again: String,
    },
    /// A companion of another export.
    #[error("{companion} is not the companion of {graph}; write it again with {again}, or do without it with --prefill same", companion = companion.display(), graph = graph.display())]
    Companion {
        /// What writes it again.
        again: String,
        /// The general graph.
        graph: PathBuf,
        /// What lies in the companion's place.
        companion: PathBuf,
    },
    /// A provider that the package has no graphs for.
    #[error("{graph} has no graphs for --ep {target} beside it; write them with `{command}`, which exports the checkpoint MODEL again{notes}", graph = graph.display())]
    NoTarget {
        /// The general graph.
        graph: PathBuf,
        /// What the graphs were to be for.
        target: Target,
        /// What writes them.
        command: String,
        /// What there is to say about it, behind semicolons; empty if nothing.
        notes: String,
    },
    /// Graphs that were not exported together.
    #[error(
        "the graphs for --ep {target} beside {graph} do not belong to it; write them again with `{command}`, MODEL being the checkpoint:\n{problems}",
        graph = graph.display(),
        problems = problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
    )]
    Pair {
        /// The general graph.
        graph: PathBuf,
        /// What the graphs are for.
        target: Target,
        /// What writes them again.
        command: String,
        /// One sentence for each difference.
        problems: Vec<String>,
    },
    /// A graph that tells ranges, of another export or damaged.
    #[error(
        "{graph}, which tells between which bounds activations lie, cannot be used; write it again with `lfm2-export MODEL --for calibrate`:\n{problems}",
        graph = graph.display(),
        problems = problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
    )]
    Ranges {
        /// The graph.
        graph: PathBuf,
        /// What is wrong with it.
        problems: Vec<String>,
    },
    /// A graph beside that which was to be named.
    #[error(
        "{graph} tells between which bounds activations lie, and goes with the graph that takes statistics of its package; name that one",
        graph = graph.display()
    )]
    Observer {
        /// The graph.
        graph: PathBuf,
    },
    /// Verification of a graph that no manifest lists.
    #[error("{graph} cannot be verified: there is no {MANIFEST_NAME} in {folder} that lists it", graph = graph.display(), folder = folder.display())]
    NotListed {
        /// The folder where the manifest was looked for.
        folder: PathBuf,
        /// The ONNX file.
        graph: PathBuf,
    },
}

fn is_for(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::General => "is a model and takes no statistics",
        Purpose::Prefill => "is the part of another graph that computes prompts",
        Purpose::Calibrate => "takes statistics for `lfm2-host calibrate`, and is no model to run",
        Purpose::Chunk | Purpose::Token => "is a static graph, which goes with the general graph of its package",
    }
}

fn instead_of(needed: Purpose) -> &'static str {
    match needed {
        Purpose::General => "name the graph of a package that was exported without --for",
        Purpose::Prefill => "export the model with a graph for prompts",
        Purpose::Calibrate => "name a graph that `lfm2-export MODEL --for calibrate --out x.onnx` wrote",
        Purpose::Chunk | Purpose::Token => "export the model with --for and the provider that it is to run on",
    }
}

#[cfg(test)]
mod tests;
