//! The index of a sharded checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use super::CheckpointError;
use super::entries::Entries;

/// The index of a 24B model has 350 kilobytes.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// Reads the index file: which shard holds which tensor.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Entries<String>,
    }
    let unusable = |reason: String| CheckpointError::Index { path: path.to_owned(), reason };
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };

    let length = path.metadata().map_err(io)?.len();
    if length > MAX_INDEX_BYTES {
        return Err(unusable(format!("it has {length} bytes, at most {MAX_INDEX_BYTES} are allowed")));
    }
    let text = fs::read(path).map_err(io)?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let duplicates = weight_map.duplicates();
    if !duplicates.is_empty() {
        return Err(unusable(format!("these tensors are listed more than once: {}", duplicates.join(", "))));
    }
    if weight_map.0.is_empty() {
        return Err(unusable("it lists no tensors".to_owned()));
    }
    Ok(weight_map.0.into_iter().collect())
}

/// The names of the shards in `map`, each once. Names that lead out of the folder go to `problems` instead.
pub(super) fn shards(map: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Vec<String> {
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
