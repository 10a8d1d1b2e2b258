//! The files of a package besides graph and weights: config, tokenizer, chat template, and what other runtimes read.

mod genai;
mod model;
mod template;
mod tokenizer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, ContractError};
use serde_json::{Map, Value};

use crate::config::ModelConfig;
use crate::input::{SMALL, TOKENIZER, read_file};
use crate::problems::lines;

/// What the sidecars are made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Folder of the checkpoint.
    pub source: &'a Path,
    /// Folder that the sidecars go to. A package of the same model that is there already keeps its other graphs.
    pub destination: &'a Path,
    /// The checkpoint's config.
    pub model: &'a ModelConfig,
    /// The graph's contract, with its precision.
    pub contract: &'a Contract,
    /// The graph's file, relative to the destination, with `/` between parts.
    pub graph: &'a str,
}

/// A file to write into the destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// File name.
    pub name: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sidecar {
    /// The contents of a tokenizer would bury every message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sidecar({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// Makes all sidecars of a package; nothing is written.
///
/// - `config.json`: the checkpoint's, always with `layer_types` and `architectures`, which transformers.js needs, and with
///   `transformers.js_config` naming every graph of the package.
/// - `generation_config.json`: the checkpoint's, always with the token ids that end an answer.
/// - `tokenizer.json`, `tokenizer_config.json` with the chat template in it, `special_tokens_map.json` and
///   `chat_template.jinja` as far as the checkpoint has them.
/// - `genai_config.json`, with which onnxruntime-genai runs the best graph of the package, if one is for running.
///
/// # Errors
/// If files are missing or damaged (all are reported at once), or if the destination has a package of another model.
pub fn prepare(request: &Request<'_>) -> Result<Vec<Sidecar>, SidecarError> {
    let mut problems = Problems::default();
    let config = model::config(request, &mut problems)?;
    let (generation, ends) = model::generation(request, &mut problems);
    let mut sidecars = vec![config, generation];
    sidecars.extend(tokenizer::files(request.source, &mut problems));
    sidecars.extend(genai::config(request, &ends, &mut problems)?);
    problems.finish(request.source)?;
    Ok(sidecars)
}

/// Why the sidecars cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// Files of the checkpoint are missing or damaged.
    #[error("the checkpoint in {folder} lacks what a package needs:{list}", folder = folder.display(), list = lines(problems))]
    Checkpoint {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// One sentence per problem.
        problems: Vec<String>,
    },
    /// The destination has a package of another model, with which the sidecars cannot be shared.
    #[error("{path} describes another model; remove the package that is there, or export into another folder", path = path.display())]
    OtherModel {
        /// The config that is there.
        path: PathBuf,
    },
    /// A file of the package that is already there cannot be read.
    #[error("{path} is there but cannot be read ({reason}); remove it, or export into another folder", path = path.display())]
    Existing {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The contract is not that of a graph which other runtimes can run.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The contract has states that genai_config.json cannot express.
    #[error("the states of the graph do not follow one pattern of names: {names}", names = names.join(", "))]
    Names {
        /// The patterns that were found.
        names: Vec<String>,
    },
}

/// Collects what is wrong with the checkpoint.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    fn finish(self, folder: &Path) -> Result<(), SidecarError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(SidecarError::Checkpoint { folder: folder.to_owned(), problems: self.0 })
    }

    /// The bytes of a file of the checkpoint, if it is there.
    fn read(&mut self, folder: &Path, name: &str) -> Option<Vec<u8>> {
        match read_file(&folder.join(name), TOKENIZER) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.add(format!("{name} cannot be read: {error}"));
                None
            }
        }
    }

    /// A JSON object among the files of the checkpoint, if it is there and not damaged.
    fn object(&mut self, folder: &Path, name: &str) -> Option<Map<String, Value>> {
        let bytes = self.read(folder, name)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.add(format!("{name} is not a JSON object: {error}; download it again")))
            .ok()
    }
}

/// A JSON object in the destination, if it is there.
fn existing(path: &Path) -> Result<Option<Map<String, Value>>, SidecarError> {
    let refused = |reason: String| SidecarError::Existing { path: path.to_owned(), reason };
    match read_file(path, SMALL) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| refused(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// A sidecar of JSON, indented as the hub's files are.
fn json(name: &str, contents: &Value) -> Sidecar {
    Sidecar { name: name.to_owned(), bytes: format!("{contents:#}\n").into_bytes() }
}

#[cfg(test)]
mod tests;
