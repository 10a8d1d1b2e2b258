//! Where the library may lie.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::RuntimeError;
use crate::platform;

/// Folder that `make runtime` fills, in the repository.
const REPOSITORY_FOLDER: &str = ".runtime";

/// What the repository is told by.
const REPOSITORY_FILES: [&str; 2] = ["Cargo.toml", "host/runtime/fetch.py"];

/// Folder of the library in the repository's and the user's folder.
const LIBRARY_FOLDER: &str = "onnxruntime";

/// This project's folder in the user's cache folder.
const CACHE_FOLDER: &str = "lfm2";

/// The library to load. `named` is the value of `--ort-lib`.
pub(super) fn library(named: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    let variable = env::var_os("ORT_DYLIB_PATH");
    let places = Places {
        flag: named.map(Path::to_owned),
        variable: variable.filter(|value: &OsString| !value.is_empty()).map(PathBuf::from),
        program: platform::program_folder(),
        current: env::current_dir().ok(),
        cache: platform::cache_folder(),
    };
    places.library()
}

/// Everything that the search depends on.
#[derive(Clone, Default)]
struct Places {
    /// Value of `--ort-lib`.
    flag: Option<PathBuf>,
    /// Value of `ORT_DYLIB_PATH`.
    variable: Option<PathBuf>,
    /// Folder of the program.
    program: Option<PathBuf>,
    /// The current folder.
    current: Option<PathBuf>,
    /// The user's cache folder.
    cache: Option<PathBuf>,
}

impl Places {
    fn library(&self) -> Result<PathBuf, RuntimeError> {
        for (named_by, path) in [("--ort-lib", &self.flag), ("ORT_DYLIB_PATH", &self.variable)] {
            if let Some(path) = path {
                let missing = || RuntimeError::NamedButMissing { named_by, path: path.clone() };
                return named(path).ok_or_else(missing);
            }
        }
        let mut looked =
            vec!["as --ort-lib names it: not given".to_owned(), "as ORT_DYLIB_PATH names it: not set".to_owned()];
        let folders = [
            ("next to the program", self.program.clone()),
            ("in the user's cache folder", self.cache.as_ref().map(|it| it.join(CACHE_FOLDER).join(LIBRARY_FOLDER))),
        ];
        let [program, cache] = folders.map(|(place, folder)| match folder {
            Some(folder) => (format!("{place}: {}", folder.display()), in_folder(&folder)),
            None => (format!("{place}: this system has none"), None),
        });
        for (place, found) in [program, self.in_repository(), cache] {
            match found {
                Some(library) => return Ok(library),
                None => looked.push(place),
            }
        }
        Err(RuntimeError::NotFound { places: looked })
    }

    /// The repository, if the program or the current folder lies in it. Any other folder above them may be writable by others,
    /// as that for temporary files is: nothing is loaded from there.
    fn in_repository(&self) -> (String, Option<PathBuf>) {
        let starts: Vec<&PathBuf> = [&self.program, &self.current].into_iter().flatten().collect();
        let wanted = Path::new(REPOSITORY_FOLDER).join(LIBRARY_FOLDER);
        let folders = starts.iter().flat_map(|start| start.ancestors());
        let folders = folders.filter(|folder| is_repository(folder)).map(|folder| folder.join(&wanted));
        let mut folders = folders;
        let found = folders.find_map(|folder| in_folder(&folder));
        let starts: Vec<_> = starts.iter().map(|start| start.display().to_string()).collect();
        (
            format!("in the repository: {} in {}, and in the folders above", wanted.display(), starts.join(" and ")),
            found,
        )
    }
}

/// Whether `folder` is the root of this project's repository.
fn is_repository(folder: &Path) -> bool {
    REPOSITORY_FILES.iter().all(|name| folder.join(name).is_file())
}

/// What the user named: a file, a folder with the library, or a bare file name that the system's loader finds.
fn named(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return in_folder(path);
    }
    let bare = path.components().count() == 1 && path.file_name() == Some(path.as_os_str());
    // A bare name that is a file here means this file; the loader would not look here.
    if path.is_file() { path.canonicalize().ok() } else { bare.then(|| path.to_owned()) }
}

/// The library in `folder`: the name without a version if there is one, otherwise the newest version.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(platform::library_name());
    if plain.is_file() {
        return Some(plain);
    }
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let is_library =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(platform::is_library_name);
    entries.filter(is_library).filter(|path| path.is_file()).min_by_key(|path| Reverse(version(path)))
}

/// The numbers in a file name.
fn version(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name of the library with a version.
    fn versioned(version: &str) -> String {
        let name = platform::library_name();
        match name.strip_suffix(".dylib") {
            Some(stem) => format!("{stem}.{version}.dylib"),
            None if cfg!(windows) => name,
            None => format!("{name}.{version}"),
        }
    }

    fn put(folder: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn places_are_searched_in_order() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let name = versioned("1.32.0");
        let mut places = Places {
            program: Some(root.join("repository/target/release")),
            current: Some(root.join("work/deep")),
            cache: Some(root.join("cache")),
            ..Places::default()
        };
        let message = places.library().unwrap_err().to_string();
        for part in ["--ort-lib", "ORT_DYLIB_PATH", "target", "deep", "cache", ".runtime", "make runtime"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }

        // From the last place to the first: each one hides those behind it.
        let found = |places: &Places| places.library().unwrap();
        let cached = put(&root.join("cache/lfm2/onnxruntime"), &name);
        assert_eq!(found(&places), cached);
        let above_current = put(&root.join("work/.runtime/onnxruntime"), &name);
        assert_eq!(found(&places), cached, "a folder above that is no repository is passed over");
        let make_repository = |folder: &str| {
            put(&root.join(folder), "Cargo.toml");
            put(&root.join(folder).join("host/runtime"), "fetch.py");
        };
        put(&root.join("work"), "Cargo.toml");
        assert_eq!(found(&places), cached);
        make_repository("work");
        assert_eq!(found(&places), above_current);
        make_repository("repository");
        let in_repository = put(&root.join("repository/.runtime/onnxruntime"), &name);
        assert_eq!(found(&places), in_repository);
        let beside = put(&root.join("repository/target/release"), &name);
        assert_eq!(found(&places), beside);
        places.variable = Some(put(&root.join("variable"), "renamed.so"));
        assert_eq!(found(&places), root.join("variable/renamed.so"));
        places.flag = Some(root.join("cache/lfm2/onnxruntime"));
        assert_eq!(found(&places), cached, "a folder may be named, too");
    }

    #[test]
    fn what_is_named_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let beside = put(root.path(), &platform::library_name());
        let program = Some(root.path().to_owned());
        let missing = Some(root.path().join("no.so"));
        let flag = Places { flag: missing.clone(), program: program.clone(), ..Places::default() };
        let variable = Places { variable: missing, program: program.clone(), ..Places::default() };
        for (places, part) in [(flag, "--ort-lib"), (variable, "ORT_DYLIB_PATH")] {
            let message = places.library().unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("no.so"), "{message}");
        }
        assert_eq!(Places { program, ..Places::default() }.library().unwrap(), beside);
        let bare = Places { flag: Some("libonnxruntime.so.1".into()), ..Places::default() };
        assert_eq!(bare.library().unwrap(), Path::new("libonnxruntime.so.1"), "left to the system's loader");
    }

    #[test]
    #[cfg(not(windows))]
    fn the_newest_of_several_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for version in ["1.9.0", "1.32.0", "1.31.1"] {
            put(root.path(), &versioned(version));
        }
        put(root.path(), "libonnxruntime_providers_shared.so");
        assert_eq!(in_folder(root.path()).unwrap(), root.path().join(versioned("1.32.0")));
    }
}
