//! The manifest of a package: every file with its size and hash, and the graphs among them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{ContractError, Purpose, Target};

/// Name of the manifest. It lies beside the tokenizer, and names in it are relative to its folder, with `/` between parts.
pub const MANIFEST_NAME: &str = "lfm2.manifest.json";

/// Version of this structure. A host refuses manifests of a version that it does not know.
pub const MANIFEST_VERSION: u32 = 2;

/// Name of the companion for prompts of the graph `graph`: `x.prefill.onnx` beside `x.onnx`.
///
/// Other runtimes look for names of their own, among which there is no such one.
pub fn prefill_name(graph: &str) -> String {
    format!("{}{PREFILL_ENDING}", graph.strip_suffix(".onnx").unwrap_or(graph))
}

/// The names of all graphs that may lie beside the general graph `graph`, written and removed together with it, with what each is
/// for: the one for prompts, and those of other targets.
pub fn companion_names(graph: &str) -> Vec<(Purpose, String)> {
    let of = |target: Target| {
        let purposes = [Purpose::General, Purpose::Chunk, Purpose::Token, Purpose::Calibrate].into_iter();
        purposes.filter_map(move |purpose| Some((purpose, target.graph_name(graph, purpose)?)))
    };
    let targets = Target::ALL.into_iter().filter(|target| *target != Target::Cpu).flat_map(of);
    [(Purpose::Prefill, prefill_name(graph))].into_iter().chain(targets).collect()
}

/// Name of the general graph beside which the graph `graph` was written, if it is a companion: by its name, and by purpose and dialect of its
/// contract.
pub fn general_name(graph: &str, purpose: Purpose, dialect: &str) -> Option<String> {
    // The names for a graph without a name are the endings.
    let mut endings = companion_names("").into_iter().filter(|(known, _)| *known == purpose);
    let stem = endings.find_map(|(_, ending)| graph.strip_suffix(&ending))?;
    is_made_as_companion(purpose, dialect).then(|| format!("{stem}.onnx"))
}

/// Whether no general graph may be called `graph`, because files of another one's companions would have the same names: the graphs
/// of [`companion_names`], and `x.qnn.onnx`, whose weights would lie where those of the pair beside `x.onnx` lie.
pub fn is_reserved_name(graph: &str) -> bool {
    let others = Target::ALL.into_iter().filter(|target| *target != Target::Cpu);
    // The names for a graph without a name are the endings.
    let mut endings = companion_names("").into_iter().map(|(_, ending)| ending);
    endings.any(|ending| graph.ends_with(&ending))
        || others.map(|target| format!(".{target}.onnx")).any(|ending| graph.ends_with(&ending))
}

/// Name of the dialect that graphs for GPUs alone are written with.
pub(crate) const GPU_DIALECT: &str = "contrib-gpu";

/// How the names of companions for prompts end.
const PREFILL_ENDING: &str = ".prefill.onnx";

/// What a package consists of. Several precisions of one model may share a folder, and with it a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`] at the time of writing.
    pub version: u32,
    /// What tells the checkpoint from others: all graphs of a package are made from one.
    pub model: String,
    /// The graphs, by name.
    pub graphs: Vec<ManifestGraph>,
    /// Every file of the package but the manifest, by name.
    pub files: Vec<ManifestFile>,
}

/// A graph of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestGraph {
    /// The ONNX file.
    pub file: String,
    /// The files with its weights.
    pub data: Vec<String>,
    /// As in the contract of the graph.
    pub purpose: Purpose,
    /// As in the contract of the graph.
    pub precision: String,
    /// As in the contract of the graph.
    pub dialect: String,
    /// As in the contract of the graph; here, it can be read before a runtime is loaded.
    pub minimum_runtime_minor: u32,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path relative to the manifest.
    pub name: String,
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { version: MANIFEST_VERSION, model: String::new(), graphs: Vec::new(), files: Vec::new() }
    }
}

impl Manifest {
    /// The JSON form, one line for each fact, so that two packages can be compared by eye.
    pub fn to_json(&self) -> Result<String, ContractError> {
        serde_json::to_string_pretty(self).map_err(|source| ContractError::Json { source })
    }

    /// Reads the JSON form. The error says what is wrong and what to do.
    pub fn from_json(text: &str) -> Result<Self, ContractError> {
        super::versioned(text, MANIFEST_VERSION)
    }

    /// Adds a graph and the files written with it, replacing what has the same names.
    pub fn merge(&mut self, graph: ManifestGraph, files: Vec<ManifestFile>) {
        self.graphs.retain(|known| known.file != graph.file);
        self.graphs.push(graph);
        self.graphs.sort_by(|a, b| a.file.cmp(&b.file));
        self.files.retain(|known| files.iter().all(|file| file.name != known.name));
        self.files.extend(files);
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Forgets the files of which `is_there` says no, and the graphs among them.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.graphs.retain(|graph| is_there(&graph.file));
        self.files.retain(|file| is_there(&file.name));
    }

    /// Whether the graph `it` is a companion of the graph `graph`: by its name and by what it is for.
    pub fn is_companion(it: &ManifestGraph, graph: &str) -> bool {
        is_made_as_companion(it.purpose, &it.dialect)
            && companion_names(graph).iter().any(|(purpose, name)| *name == it.file && *purpose == it.purpose)
    }

    /// Whether the graph `it` is a companion of some graph, which may be there or not.
    pub fn is_companion_of_any(it: &ManifestGraph) -> bool {
        general_name(&it.file, it.purpose, &it.dialect).is_some()
    }

    /// Forgets the companions of the graph `graph`, with the files that only they need. Returns the names of those files, which are
    /// all among those that the manifest listed.
    pub fn drop_companions(&mut self, graph: &str) -> Vec<String> {
        self.drop_graphs(|it| Self::is_companion(it, graph))
    }

    fn drop_graphs(&mut self, dropped: impl Fn(&ManifestGraph) -> bool) -> Vec<String> {
        let mut files: Vec<String> = Vec::new();
        for dropped in self.graphs.extract_if(.., |it| dropped(it)) {
            // The graphs of one target share a data file.
            files.extend(dropped.data.into_iter().chain([dropped.file]));
        }
        files.sort();
        files.dedup();
        files.retain(|name| self.graphs.iter().all(|it| it.file != *name && !it.data.contains(name)));
        files.retain(|name| self.files.iter().any(|file| file.name == *name));
        self.files.retain(|file| !files.contains(&file.name));
        files
    }

    /// Forgets the companions of graphs that are not there any more, with the files that only they need. Returns the names of those
    /// files, which are all among those that the manifest listed.
    pub fn drop_orphans(&mut self) -> Vec<String> {
        let generals: Vec<_> = self.graphs.iter().map(|it| it.file.clone()).collect();
        let is_orphan = |it: &ManifestGraph| {
            Self::is_companion_of_any(it) && !generals.iter().any(|general| Self::is_companion(it, general))
        };
        self.drop_graphs(is_orphan)
    }

    /// The files that a graph needs: its own and those that belong to no graph in particular.
    pub fn files_of(&self, graph: &str) -> impl Iterator<Item = &ManifestFile> {
        let (own, others): (Vec<_>, Vec<_>) = self.graphs.iter().partition(|it| it.file == graph);
        let names = |graphs: &[&ManifestGraph]| -> HashSet<String> {
            graphs.iter().flat_map(|it| it.data.iter().chain([&it.file])).cloned().collect()
        };
        let (own, others) = (names(&own), names(&others));
        self.files.iter().filter(move |file| own.contains(&file.name) || !others.contains(&file.name))
    }
}

/// Whether a graph was written as a companion, as far as its contract tells. The graph for GPUs has the purpose of general graphs,
/// one of which may have got its name from an exporter that had no graphs for GPUs: its dialect tells them apart.
fn is_made_as_companion(purpose: Purpose, dialect: &str) -> bool {
    purpose != Purpose::General || dialect == GPU_DIALECT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(file: &str, data: &str) -> ManifestGraph {
        let [file, data] = [file, data].map(str::to_owned);
        let data = vec![data];
        let [precision, dialect] = ["q4", "contrib"].map(str::to_owned);
        ManifestGraph { file, data, purpose: Purpose::General, precision, dialect, minimum_runtime_minor: 30 }
    }

    fn files(names: &[&str], size: u64) -> Vec<ManifestFile> {
        names.iter().map(|&name| ManifestFile { name: name.into(), size, sha256: String::new() }).collect()
    }

    #[test]
    fn companions_tell_their_general_graph() {
        for (purpose, name) in companion_names("onnx/model_q4.onnx") {
            let dialect = if purpose == Purpose::General { GPU_DIALECT } else { "contrib" };
            assert_eq!(general_name(&name, purpose, dialect).as_deref(), Some("onnx/model_q4.onnx"), "{name}");
        }
        // A general graph that somebody called so, and names that are none of a companion for that.
        assert_eq!(general_name("x.cuda.onnx", Purpose::General, "contrib"), None);
        assert_eq!(general_name("x.onnx", Purpose::General, GPU_DIALECT), None);
        assert_eq!(general_name("x.qnn-chunk.onnx", Purpose::Token, "qnn"), None);
    }

    #[test]
    fn merging_replaces_what_was_written_again() {
        let mut manifest = Manifest::default();
        manifest.merge(graph("b.onnx", "b.data"), files(&["b.onnx", "b.data", "config.json"], 1));
        manifest.merge(graph("a.onnx", "a.data"), files(&["a.onnx", "a.data", "config.json"], 2));
        let sizes: Vec<_> = manifest.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(sizes, [("a.data", 2), ("a.onnx", 2), ("b.data", 1), ("b.onnx", 1), ("config.json", 2)]);
        assert_eq!(Manifest::from_json(&manifest.to_json().unwrap()).unwrap(), manifest);

        let names: Vec<_> = manifest.files_of("b.onnx").map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["b.data", "b.onnx", "config.json"]);
    }

    #[test]
    fn companions_go_with_their_own_files_only() {
        let companion = |name: &str, data: &str, purpose| ManifestGraph {
            data: ["a.onnx_data", data].map(str::to_owned).into(),
            purpose,
            ..graph(name, "")
        };
        let mut manifest = Manifest::default();
        manifest.merge(graph("a.onnx", "a.onnx_data"), files(&["a.onnx", "a.onnx_data"], 1));
        for (name, data, purpose) in [
            ("a.prefill.onnx", "a.prefill.onnx_data", Purpose::Prefill),
            ("a.coreml-chunk.onnx", "a.coreml.onnx_data", Purpose::Chunk),
            ("a.coreml-token.onnx", "a.coreml.onnx_data", Purpose::Token),
        ] {
            manifest.merge(companion(name, data, purpose), files(&[name, data], 1));
        }
        assert_eq!(manifest.drop_companions("b.onnx"), [""; 0]);
        let dropped = [
            "a.coreml-chunk.onnx",
            "a.coreml-token.onnx",
            "a.coreml.onnx_data",
            "a.prefill.onnx",
            "a.prefill.onnx_data",
        ];
        assert_eq!(manifest.drop_companions("a.onnx"), dropped);
        let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!((names, manifest.graphs.len()), (vec!["a.onnx", "a.onnx_data"], 1));

        // A graph of that name that is no companion is none of ours.
        manifest.merge(graph("a.prefill.onnx", "x"), files(&["a.prefill.onnx", "x"], 1));
        assert_eq!(manifest.drop_companions("a.onnx"), [""; 0]);
    }

    #[test]
    fn orphans_are_told_by_purpose_and_name() {
        let gpu = |purpose, name| ManifestGraph { purpose, dialect: GPU_DIALECT.to_owned(), ..graph(name, "z.data") };
        let other = |purpose, name| ManifestGraph { purpose, ..graph(name, "z.data") };
        for (it, is_orphan) in [
            (other(Purpose::Token, "b.onnx"), false),
            (other(Purpose::Token, "c.qnn-token.onnx"), true),
            (other(Purpose::Chunk, "c.qnn-token.onnx"), false),
            (other(Purpose::Prefill, "c.prefill.onnx"), true),
            (gpu(Purpose::General, "c.cuda.onnx"), true),
            // General graphs of exporters that had no companions with these names.
            (other(Purpose::General, "c.prefill.onnx"), false),
            (other(Purpose::General, "c.cuda.onnx"), false),
            (other(Purpose::General, "c.qnn-token.onnx"), false),
        ] {
            let mut manifest = Manifest::default();
            manifest.merge(graph("a.onnx", "a.data"), files(&["a.onnx", "a.data"], 1));
            manifest.merge(it.clone(), files(&[&it.file, "z.data"], 1));
            let expected = if is_orphan { vec![it.file.clone(), "z.data".to_owned()] } else { vec![] };
            assert_eq!(manifest.drop_orphans(), expected, "{it:?}");
            assert_eq!(manifest.graphs.len(), if is_orphan { 1 } else { 2 }, "{it:?}");
        }
    }

    #[test]
    fn only_files_of_the_manifest_are_named_for_removal() {
        let mut manifest = Manifest::default();
        let token = |name, data| ManifestGraph { purpose: Purpose::Token, ..graph(name, data) };
        manifest.merge(graph("a.onnx", "a.data"), files(&["a.onnx", "a.data"], 1));
        manifest.merge(token("a.qnn-token.onnx", "thesis.txt"), files(&["a.qnn-token.onnx"], 1));
        manifest.merge(token("c.qnn-token.onnx", "letter.txt"), files(&["c.qnn-token.onnx"], 1));
        assert_eq!(manifest.drop_companions("a.onnx"), ["a.qnn-token.onnx"]);
        assert_eq!(manifest.drop_orphans(), ["c.qnn-token.onnx"]);
    }

    #[test]
    fn names_of_companions_are_told_from_others() {
        for name in
            ["x.prefill.onnx", "onnx/model_q4.cuda.onnx", "x.qnn-token.onnx", "x.nnapi-chunk.onnx", "x.qnn.onnx"]
        {
            assert!(is_reserved_name(name), "{name}");
        }
        for name in ["x.onnx", "qnn.onnx", "x.cpu.onnx", "x-qnn-token.onnx", "cuda.onnx"] {
            assert!(!is_reserved_name(name), "{name}");
        }
    }

    #[test]
    fn other_versions_are_refused() {
        let error = Manifest::from_json(r#"{"version": 9}"#).unwrap_err();
        assert!(matches!(error, ContractError::Version { found: 9, .. }), "{error}");
    }
}
