//! Names and places of a package's files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Purpose, Target, is_reserved_name, prefill_name};

use crate::recipe::{CALIBRATE_SUFFIX, Recipe};

/// Where a package goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    folder: PathBuf,
    graph: String,
    data: String,
}

/// Why a path cannot name a package.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--out {path} is neither a file name ending in .onnx nor a folder ending in /; names such as x.prefill.onnx, x.qnn-token.onnx and x.qnn.onnx are those of companions of x.onnx", path = .path.display())]
pub struct OutputError {
    path: PathBuf,
}

impl Output {
    /// A path that ends in `.onnx` is the graph, with everything else beside it. A folder gets the layout of the hub:
    /// `onnx/model{suffix}.onnx` and the rest at the top.
    pub fn new(path: &Path, recipe: &Recipe) -> Result<Self, OutputError> {
        Self::with_suffix(path, &recipe.suffix())
    }

    /// As [`Output::new`], for a graph for calibration: in the layout of the hub it has a name that no runtime looks for.
    pub fn for_calibration(path: &Path) -> Result<Self, OutputError> {
        Self::with_suffix(path, CALIBRATE_SUFFIX)
    }

    fn with_suffix(path: &Path, suffix: &str) -> Result<Self, OutputError> {
        let refused = || OutputError { path: path.to_owned() };
        let text = path.to_str().ok_or_else(refused)?;
        if path.is_dir() || text.ends_with(std::path::is_separator) {
            let graph = format!("onnx/model{suffix}.onnx");
            let data = format!("model{suffix}.onnx_data");
            return Ok(Self { folder: path.to_owned(), graph, data });
        }
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(refused)?;
        if !name.ends_with(".onnx") || name == ".onnx" || is_reserved_name(name) {
            return Err(refused());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.to_owned(), graph: name.to_owned(), data: format!("{name}_data") })
    }

    /// The folder of tokenizer, metadata and manifest.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The ONNX file.
    pub fn graph(&self) -> PathBuf {
        self.folder.join(&self.graph)
    }

    /// The ONNX file relative to the folder, with `/` between parts.
    pub fn graph_name(&self) -> &str {
        &self.graph
    }

    /// The file of the weights.
    pub fn data(&self) -> PathBuf {
        self.folder.join(self.relative(&self.data))
    }

    /// The file of the weights relative to the ONNX file.
    pub fn data_name(&self) -> &str {
        &self.data
    }

    /// The ONNX file of the companion for prompts, relative to the folder.
    pub fn prefill_name(&self) -> String {
        prefill_name(&self.graph)
    }

    /// The file of the weights that only the companion has, relative to the ONNX files.
    pub fn prefill_data_name(&self) -> String {
        format!("{}_data", base(&self.prefill_name()))
    }

    /// The ONNX file of a target's graph for `purpose`, relative to the folder.
    pub fn target_name(&self, target: Target, purpose: Purpose) -> Option<String> {
        target.graph_name(&self.graph, purpose)
    }

    /// The file of the weights that only the graphs of a target have, relative to the ONNX files.
    pub fn target_data_name(&self, target: Target) -> String {
        let graph = base(&self.graph);
        format!("{}.{target}.onnx_data", graph.strip_suffix(".onnx").unwrap_or(graph))
    }

    /// A file beside the ONNX file, relative to the folder.
    pub fn relative(&self, name: &str) -> String {
        match self.graph.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{name}"),
            None => name.to_owned(),
        }
    }
}

/// The last part of a name.
pub(super) fn base(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, base)| base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Precision;

    fn named(path: &str, precision: Precision) -> Result<Output, OutputError> {
        Output::new(Path::new(path), &precision.recipe().unwrap())
    }

    #[test]
    fn a_file_has_its_data_beside_it() {
        let output = named("out/lfm2.onnx", Precision::Q4).unwrap();
        assert_eq!(output.graph(), Path::new("out/lfm2.onnx"));
        assert_eq!(output.data(), Path::new("out/lfm2.onnx_data"));
        assert_eq!(output.folder(), Path::new("out"));
        assert_eq!(named("lfm2.onnx", Precision::Q4).unwrap().folder(), Path::new("."));
    }

    #[test]
    fn a_folder_has_the_layout_of_the_hub() {
        let output = named("out/", Precision::Q8).unwrap();
        assert_eq!(output.graph(), Path::new("out/onnx/model_quantized.onnx"));
        assert_eq!(output.data(), Path::new("out/onnx/model_quantized.onnx_data"));
        assert_eq!(output.relative("x"), "onnx/x");
        assert_eq!(output.prefill_name(), "onnx/model_quantized.prefill.onnx");
        assert_eq!(output.prefill_data_name(), "model_quantized.prefill.onnx_data");
        assert_eq!(output.target_data_name(Target::Coreml), "model_quantized.coreml.onnx_data");
        let output = Output::for_calibration(Path::new("out/")).unwrap();
        assert_eq!(output.graph(), Path::new("out/onnx/model_calibrate.onnx"));
    }

    #[test]
    fn other_names_are_refused() {
        for path in ["out", "out/model", ".onnx", "model.onnx.bak", "model.prefill.onnx", "model.qnn-chunk.onnx"] {
            named(path, Precision::Q4).unwrap_err();
        }
        // Its weights would lie where those of the companions of model.onnx lie.
        for target in Target::ALL {
            let name = format!("out/model.{target}.onnx");
            assert_eq!(named(&name, Precision::Q4).is_err(), target != Target::Cpu, "{name}");
        }
    }
}
