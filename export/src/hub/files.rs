//! Which files of a model are needed.

use std::fs;
use std::io;
use std::path::Path;

use super::HubError;
use crate::config::CONFIG_FILE;

/// Files without which there is nothing to export.
pub(super) const ALWAYS_NEEDED: [&str; 3] = [CONFIG_FILE, "tokenizer.json", "tokenizer_config.json"];

/// Small files that are fetched if the model has them. The config is fetched before them.
pub(super) const SMALL: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// The weights, in an error about their absence.
pub(super) const WEIGHTS: &str = "model.safetensors (or model.safetensors.index.json)";

/// The names of the files in a folder of the cache; links whose target is gone do not count.
pub(super) fn present(folder: &Path) -> Result<Vec<String>, HubError> {
    let failed = |source: io::Error| HubError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    Ok(names)
}
