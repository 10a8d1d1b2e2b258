//! The files that a graph is loaded from, for records of what ran.

use std::path::Path;

use lfm2_graphs::contract::{Inputs, ManifestFile};
use serde::{Deserialize, Serialize};

use super::Package;

/// A file that was loaded, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedFile {
    /// Its name, with the folder of what it belongs to: `lfm2-350m/onnx/model_q4.onnx`. Where that folder lies is left out, so that records
    /// of several machines can be compared.
    pub name: String,
    /// What it holds.
    pub role: FileRole,
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileRole {
    /// A graph.
    Graph,
    /// Weights, tables, or what a compiler has made of them.
    Data,
}

impl UsedFile {
    /// The file that a manifest in `folder` lists.
    pub(crate) fn listed(folder: &Path, role: FileRole, file: &ManifestFile) -> Self {
        let folder = folder.file_name().map(|name| format!("{}/", name.to_string_lossy())).unwrap_or_default();
        Self { name: format!("{folder}{}", file.name), role, size: file.size, sha256: file.sha256.clone() }
    }

    /// All of these files, each once: graphs first, otherwise in the order in which they first came.
    pub fn distinct(files: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut distinct: Vec<Self> = Vec::new();
        for file in files {
            if !distinct.contains(&file) {
                distinct.push(file);
            }
        }
        // Stable, so that the order within a role stays.
        distinct.sort_by_key(|file| file.role);
        distinct
    }
}

impl Package {
    /// The graph, its weights, and the files with the token table if the host reads its rows for the graph, each once. Nothing if no
    /// manifest lists all of them.
    pub fn used_files(&self) -> Option<Vec<UsedFile>> {
        let (manifest, name) = self.listed()?;
        let graph = manifest.graphs.iter().find(|graph| graph.file == name)?;
        let data = graph.data.iter().map(|name| self.used(FileRole::Data, name));
        let files: Option<Vec<_>> = [self.used(FileRole::Graph, &name)].into_iter().chain(data).collect();
        Some(UsedFile::distinct(files?.into_iter().chain(self.table_files()?)))
    }

    /// The files with the token table, if the host reads its rows for the graph. Nothing if no manifest lists all of them.
    pub(crate) fn table_files(&self) -> Option<Vec<UsedFile>> {
        if !matches!(self.contract.inputs, Inputs::Rows(_)) {
            return Some(Vec::new());
        }
        let (_, graph) = self.listed()?;
        let folder = graph.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        let table = &self.contract.table;
        let locations = [Some(&table.values), table.scales.as_ref(), table.zero_points.as_ref()];
        let files = locations.into_iter().flatten().map(|location| format!("{folder}{}", location.file));
        files.map(|name| self.used(FileRole::Data, &name)).collect()
    }

    /// The file that the manifest calls `name`.
    fn used(&self, role: FileRole, name: &str) -> Option<UsedFile> {
        let file = self.manifest.as_ref()?.files.iter().find(|file| file.name == name)?;
        Some(UsedFile::listed(&self.folder, role, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_once_and_graphs_first() {
        let file = |name: &str, role, sha256: &str| UsedFile {
            name: name.to_owned(),
            role,
            size: 1,
            sha256: sha256.to_owned(),
        };
        let (a, b) = (file("p/a.onnx", FileRole::Graph, "1"), file("p/b.onnx", FileRole::Graph, "2"));
        let data = file("p/a.onnx_data", FileRole::Data, "3");
        let other = file("p/a.onnx_data", FileRole::Data, "4");
        let all = [a.clone(), data.clone(), b.clone(), data.clone(), other.clone()];
        assert_eq!(UsedFile::distinct(all), [a, b, data, other]);
    }
}
