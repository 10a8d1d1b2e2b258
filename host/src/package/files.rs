//! The files of a package against its manifest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use lfm2_graphs::contract::{Manifest, ManifestFile};
use sha2::{Digest, Sha256};

use super::PackageError;

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

/// Fails if files that belong to `graph` are missing or have another size than the manifest says, and names all of them.
pub(super) fn check_sizes(folder: &Path, manifest: &Manifest, graph: &str) -> Result<(), PackageError> {
    check(folder, manifest, graph, size_problem)
}

/// As [`check_sizes`], and compares the SHA-256 of the files that have the right size.
pub(super) fn check_hashes(folder: &Path, manifest: &Manifest, graph: &str) -> Result<(), PackageError> {
    check(folder, manifest, graph, |path, file| size_problem(path, file).or_else(|| hash_problem(path, file)))
}

/// How the manifest in `folder` would name the file at `path`.
pub(super) fn name_in(folder: &Path, path: &Path) -> Option<String> {
    let name = path.strip_prefix(folder).ok()?;
    let parts: Option<Vec<_>> = name.components().map(|part| part.as_os_str().to_str()).collect();
    Some(parts?.join("/"))
}

fn check(
    folder: &Path,
    manifest: &Manifest,
    graph: &str,
    problem: impl Fn(&Path, &ManifestFile) -> Option<String>,
) -> Result<(), PackageError> {
    let problem_of = |file: &ManifestFile| match path_in(folder, &file.name) {
        Some(path) => problem(&path, file),
        None => Some(format!("{} is no name of a file in the package", file.name)),
    };
    let problems: Vec<_> = manifest.files_of(graph).filter_map(problem_of).collect();
    if problems.is_empty() { Ok(()) } else { Err(PackageError::Files { folder: folder.to_owned(), problems }) }
}

/// Where the file that the manifest calls `name` lies; none if that is outside of `folder`.
pub(crate) fn path_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let inside = !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| folder.join(name))
}

/// What is wrong with a file, judging by its size.
pub(crate) fn size_problem(path: &Path, file: &ManifestFile) -> Option<String> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Some(format!("{} is not a file", file.name)),
        Ok(metadata) if metadata.len() != file.size => {
            Some(format!("{} has {} bytes instead of {}", file.name, metadata.len(), file.size))
        }
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("{} is missing", file.name)),
        Err(error) => Some(format!("{} cannot be read: {error}", file.name)),
    }
}

/// What is wrong with a file, judging by its SHA-256.
pub(crate) fn hash_problem(path: &Path, file: &ManifestFile) -> Option<String> {
    match sha256(path) {
        Ok(found) if found.eq_ignore_ascii_case(&file.sha256) => None,
        Ok(found) => Some(format!("{} has the SHA-256 {found} instead of {}", file.name, file.sha256)),
        Err(error) => Some(format!("{} cannot be read: {error}", file.name)),
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hexadecimal(hash)),
            length => hash.update(&block[..length]),
        }
    }
}

/// The SHA-256 of these bytes, in hexadecimal.
pub(super) fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
