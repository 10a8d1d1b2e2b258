//! What is already where a package goes.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use lfm2_graphs::contract::{MANIFEST_NAME, Manifest, ManifestFile, ManifestGraph, is_companion_name};

use super::Output;

/// The package in a folder, without what its manifest lists and is not there any more.
pub(super) struct Existing {
    folder: PathBuf,
    pub(super) manifest: Manifest,
}

impl Existing {
    /// Reads the manifest in `folder`; without one there is no package.
    pub(super) fn open(folder: &Path) -> Result<Self, ExistingError> {
        let path = folder.join(MANIFEST_NAME);
        let refused = |reason: String| ExistingError::Manifest { path: path.clone(), reason };
        let mut manifest = match fs::read_to_string(&path) {
            Ok(text) => Manifest::from_json(&text).map_err(|error| refused(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Manifest::default(),
            Err(error) => return Err(refused(error.to_string())),
        };
        // Files are removed by these names.
        if let Some(file) = manifest.files.iter().find(|file| !is_inside(&file.name)) {
            return Err(refused(format!("{} is no name of a file in the package", file.name)));
        }
        manifest.retain(|name| folder.join(name).is_file());
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Graphs of two checkpoints cannot share tokenizer and settings, even if their configs are equal.
    pub(super) fn refuse_other(&self, model: &str, graph: &str) -> Result<(), ExistingError> {
        // Companions go with the graph that they belong to.
        let is_other = |it: &&ManifestGraph| it.file != graph && !is_companion_name(&it.file);
        let others: Vec<_> = self.manifest.graphs.iter().filter(is_other).map(|it| it.file.clone()).collect();
        if others.is_empty() || self.manifest.model == model {
            return Ok(());
        }
        Err(ExistingError::OtherModel { folder: self.folder.clone(), graphs: others })
    }

    /// Files that no export has written are not replaced.
    pub(super) fn refuse_foreign<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), ExistingError> {
        let known = |name: &str| self.manifest.files.iter().any(|file| file.name == name);
        let foreign: Vec<_> =
            names.filter(|name| !known(name) && self.folder.join(name).is_file()).map(str::to_owned).collect();
        if foreign.is_empty() {
            return Ok(());
        }
        Err(ExistingError::Foreign { folder: self.folder.clone(), files: foreign })
    }

    /// Takes the files off the manifest that belong to no graph in particular and are not written again: a chat template that
    /// the checkpoint has no more would still be used. Returns their names.
    pub(super) fn drop_stale(&mut self, written: &[ManifestFile]) -> Vec<String> {
        let graphs = &self.manifest.graphs;
        let owned = |name: &str| graphs.iter().any(|it| it.file == name || it.data.iter().any(|data| data == name));
        let stale = |file: &&ManifestFile| !owned(&file.name) && !written.iter().any(|it| it.name == file.name);
        let names: Vec<_> = self.manifest.files.iter().filter(stale).map(|file| file.name.clone()).collect();
        self.manifest.files.retain(|file| !names.contains(&file.name));
        names
    }
}

/// Whether a name in a manifest stays in its folder.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A package has a config and a tokenizer config of its own, which must not replace those of the checkpoint.
pub(super) fn refuse_own_folder(source: &Path, output: &Output) -> Result<(), ExistingError> {
    match (source.canonicalize(), output.folder().canonicalize()) {
        (Ok(source), Ok(folder)) if source == folder => Err(ExistingError::OwnFolder { folder }),
        // A folder that is not there yet is another one; whatever else is wrong shows when it is used.
        _ => Ok(()),
    }
}

/// Why a package cannot go where it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExistingError {
    /// The manifest of the package that is already there.
    #[error("{path} is there but cannot be read ({reason}); remove it, or export into another folder", path = .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A package of another checkpoint.
    #[error("{folder} holds {list}, exported from another checkpoint; remove the package, or export into another folder", folder = .folder.display(), list = .graphs.join(", "))]
    OtherModel {
        /// The folder.
        folder: PathBuf,
        /// Its graphs.
        graphs: Vec<String>,
    },
    /// Files that are not part of a package.
    #[error("{folder} holds files that no export has written and that this one would replace: {list}; remove them, or export into another folder", folder = .folder.display(), list = .files.join(", "))]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The files.
        files: Vec<String>,
    },
    /// The package would replace files of the checkpoint.
    #[error("{folder} is the folder of the checkpoint itself, whose config and tokenizer a package would replace; export into another folder", folder = .folder.display())]
    OwnFolder {
        /// The folder.
        folder: PathBuf,
    },
}
