//! Names and places of a package's files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::recipe::Precision;

/// Where a package goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    folder: PathBuf,
    graph: String,
    data: String,
}

/// Why a path cannot name a package.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--out {path} is neither a file name ending in .onnx nor a folder ending in /", path = .path.display())]
pub struct OutputError {
    path: PathBuf,
}

impl Output {
    /// A path that ends in `.onnx` is the graph, with everything else beside it. A folder gets the layout of the hub:
    /// `onnx/model{suffix}.onnx` and the rest at the top.
    pub fn new(path: &Path, precision: Precision) -> Result<Self, OutputError> {
        let refused = || OutputError { path: path.to_owned() };
        let text = path.to_str().ok_or_else(refused)?;
        if path.is_dir() || text.ends_with(std::path::is_separator) {
            let graph = format!("onnx/model{}.onnx", precision.suffix());
            let data = format!("model{}.onnx_data", precision.suffix());
            return Ok(Self { folder: path.to_owned(), graph, data });
        }
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(refused)?;
        if !name.ends_with(".onnx") || name == ".onnx" {
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

    /// A file beside the ONNX file, relative to the folder.
    pub fn relative(&self, name: &str) -> String {
        match self.graph.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{name}"),
            None => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_data_beside_it() {
        let output = Output::new(Path::new("out/lfm2.onnx"), Precision::Q4).unwrap();
        assert_eq!(output.graph(), Path::new("out/lfm2.onnx"));
        assert_eq!(output.data(), Path::new("out/lfm2.onnx_data"));
        assert_eq!(output.folder(), Path::new("out"));
        assert_eq!(Output::new(Path::new("lfm2.onnx"), Precision::Q4).unwrap().folder(), Path::new("."));
    }

    #[test]
    fn a_folder_has_the_layout_of_the_hub() {
        let output = Output::new(Path::new("out/"), Precision::Q8).unwrap();
        assert_eq!(output.graph(), Path::new("out/onnx/model_quantized.onnx"));
        assert_eq!(output.data(), Path::new("out/onnx/model_quantized.onnx_data"));
        assert_eq!(output.relative("x"), "onnx/x");
    }

    #[test]
    fn other_names_are_refused() {
        for path in ["out", "out/model", ".onnx", "model.onnx.bak"] {
            Output::new(Path::new(path), Precision::Q4).unwrap_err();
        }
    }
}
