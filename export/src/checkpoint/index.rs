//! The index of a sharded checkpoint.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::CheckpointError;
use crate::entries::Entries;
use crate::input::{SMALL, read_file};
use crate::problems::{Problems, lines};

/// Reads the index file: which shard holds which tensor.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Entries<String>,
    }
    let unusable = |reason: String| CheckpointError::Index { path: path.to_owned(), reason };
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };

    let text = read_file(path, SMALL).map_err(io)?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let mut problems = Problems::default();
    problems.extend(weight_map.duplicates().into_iter().map(|name| format!("{name} is listed more than once")));
    if !problems.is_empty() {
        return Err(unusable(lines(&problems.into_list())));
    }
    if weight_map.0.is_empty() {
        return Err(unusable("it lists no tensors".to_owned()));
    }
    Ok(weight_map.0.into_iter().collect())
}

/// The names of the shards in `map`, each once. Names that lead out of the folder go to `problems` instead.
pub(super) fn shards(map: &BTreeMap<String, String>, problems: &mut Problems) -> Vec<String> {
    let mut names: Vec<&String> = map.values().collect();
    names.sort_unstable();
    names.dedup();
    let (plain, escaping): (Vec<&String>, Vec<&String>) = names.into_iter().partition(|name| is_plain(name));
    problems.extend(escaping.iter().map(|name| {
        format!("the index names the shard {name:?}, which is not a plain file name; it may be malicious")
    }));
    plain.into_iter().cloned().collect()
}

/// Whether `name` is a file name on every system: no separators, drives, streams or parent folders.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', ':', '\0'])
}
