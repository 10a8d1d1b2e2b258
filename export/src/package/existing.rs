//! What is already where a package goes.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use lfm2_graphs::contract::{MANIFEST_NAME, Manifest, ManifestFile, ManifestGraph};

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
        let of_graphs = manifest.graphs.iter().flat_map(|graph| graph.data.iter().chain([&graph.file]));
        let outside = manifest.files.iter().map(|file| &file.name).chain(of_graphs).find(|name| !is_inside(name));
        if let Some(name) = outside {
            return Err(refused(format!("{name} is no name of a file in the package")));
        }
        manifest.retain(|name| folder.join(name).is_file());
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Graphs of two checkpoints cannot share tokenizer and settings, even if their configs are equal.
    pub(super) fn refuse_other(&self, model: &str, graph: &str) -> Result<(), ExistingError> {
        // Companions go with the graph that they belong to.
        let is_other = |it: &&ManifestGraph| it.file != graph && !Manifest::is_companion_of_any(it);
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

    /// Files of graphs that stay are not replaced. Those of `graph` and of its companions are written anew, or go.
    pub(super) fn refuse_shared(&self, graph: &str, names: &[String]) -> Result<(), ExistingError> {
        let stays = |it: &&ManifestGraph| it.file != graph && !Manifest::is_companion(it, graph);
        let replaced = |it: &ManifestGraph| {
            let own = it.data.iter().chain([&it.file]).filter(|name| names.contains(name));
            own.map(|name| format!("{name} of {}", it.file)).collect::<Vec<_>>()
        };
        // Companions whose graph is gone are removed by every export.
        let is_orphan = |it: &ManifestGraph| {
            Manifest::is_companion_of_any(it)
                && !self.manifest.graphs.iter().any(|general| Manifest::is_companion(it, &general.file))
        };
        let staying = self.manifest.graphs.iter().filter(stays).filter(|it| !is_orphan(it));
        let files: Vec<_> = staying.flat_map(replaced).collect();
        if files.is_empty() {
            return Ok(());
        }
        Err(ExistingError::Shared { folder: self.folder.clone(), files })
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
    /// Files of other graphs of the package.
    #[error("{folder} holds other graphs whose files this export would replace: {list}; give this one another name, or export into another folder", folder = .folder.display(), list = .files.join(", "))]
    Shared {
        /// The folder.
        folder: PathBuf,
        /// The files, each with the graph that it belongs to.
        files: Vec<String>,
    },
    /// The package would replace files of the checkpoint.
    #[error("{folder} is the folder of the checkpoint itself, whose config and tokenizer a package would replace; export into another folder", folder = .folder.display())]
    OwnFolder {
        /// The folder.
        folder: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::contract::Purpose;
    use tempfile::TempDir;

    use super::*;

    fn graph(file: &str, data: &[&str], purpose: Purpose) -> ManifestGraph {
        let data = data.iter().map(|&name| name.to_owned()).collect();
        let [file, precision, dialect] = [file, "q4", "contrib"].map(str::to_owned);
        ManifestGraph { file, data, purpose, precision, dialect, minimum_runtime_minor: 30 }
    }

    /// A package of these graphs, in which nothing but their ONNX files is there.
    fn package(graphs: &[ManifestGraph]) -> (TempDir, Result<Existing, ExistingError>) {
        let folder = TempDir::new().unwrap();
        let manifest = Manifest { graphs: graphs.to_vec(), ..Manifest::default() };
        for graph in graphs.iter().filter(|it| is_inside(&it.file)) {
            fs::write(folder.path().join(&graph.file), "").unwrap();
        }
        fs::write(folder.path().join(MANIFEST_NAME), manifest.to_json().unwrap()).unwrap();
        let existing = Existing::open(folder.path());
        (folder, existing)
    }

    fn problem(existing: Result<Existing, ExistingError>, graph: &str, written: &[&str]) -> Option<String> {
        let written: Vec<_> = written.iter().map(|&name| name.to_owned()).collect();
        existing.unwrap().refuse_shared(graph, &written).err().map(|error| error.to_string())
    }

    /// Packages of exporters that did not reserve the names.
    #[test]
    fn files_of_graphs_that_stay_are_not_replaced() {
        let named = graph("lfm2.qnn.onnx", &["lfm2.qnn.onnx_data"], Purpose::General);
        let general = graph("lfm2.onnx", &["lfm2.onnx_data"], Purpose::General);
        let data = ["lfm2.onnx_data", "lfm2.qnn.onnx_data"];
        let pair = ["chunk", "token"].map(|name| {
            let purpose = if name == "chunk" { Purpose::Chunk } else { Purpose::Token };
            graph(&format!("lfm2.qnn-{name}.onnx"), &data, purpose)
        });

        // The pair beside lfm2.onnx comes after lfm2.qnn.onnx, and the other way round.
        let (_folder, existing) = package(std::slice::from_ref(&named));
        let written = ["lfm2.onnx", "lfm2.onnx_data", "lfm2.qnn-token.onnx", "lfm2.qnn.onnx_data"];
        let message = problem(existing, "lfm2.onnx", &written).unwrap();
        assert!(message.contains("lfm2.qnn.onnx_data of lfm2.qnn.onnx"), "{message}");
        let (_folder, existing) = package(&[std::slice::from_ref(&general), &pair[..]].concat());
        let message = problem(existing, "lfm2.qnn.onnx", &["lfm2.qnn.onnx", "lfm2.qnn.onnx_data"]).unwrap();
        assert!(message.contains("lfm2.qnn.onnx_data of lfm2.qnn-token.onnx"), "{message}");

        // What is written anew, and what does not meet.
        let (_folder, existing) = package(&[std::slice::from_ref(&general), &pair[..]].concat());
        assert_eq!(problem(existing, "lfm2.onnx", &written), None);
        let (_folder, existing) = package(&[named, general]);
        assert_eq!(problem(existing, "lfm2.onnx", &["lfm2.onnx", "lfm2.onnx_data", "lfm2.qnn-token.onnx"]), None);
        // Companions of a graph that is gone.
        let (_folder, existing) = package(&pair);
        assert_eq!(problem(existing, "lfm2.onnx", &written), None);
        // A general graph in the place of a companion.
        let (_folder, existing) = package(&[graph("lfm2.cuda.onnx", &["x"], Purpose::General)]);
        assert!(problem(existing, "lfm2.onnx", &["lfm2.cuda.onnx"]).is_some());
    }

    #[test]
    fn names_of_graphs_stay_in_the_folder() {
        for name in ["../thesis.docx", "/thesis.docx", "a/../../thesis.docx", ""] {
            for it in [graph("a.qnn-token.onnx", &[name], Purpose::Token), graph(name, &[], Purpose::Token)] {
                let (_folder, existing) = package(&[it]);
                let Err(error) = existing else { panic!("{name} is accepted") };
                assert!(error.to_string().contains("is no name of a file in the package"), "{error}");
            }
        }
    }
}
