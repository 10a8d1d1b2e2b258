//! Where libraries may lie: ONNX Runtime's own, and those of plugins.

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

/// Folder of ONNX Runtime in the repository's and the user's folder.
pub const LIBRARY_FOLDER: &str = "onnxruntime";

/// This project's folder in the user's cache folder.
const CACHE_FOLDER: &str = "lfm2";

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// What it is called in messages.
    pub(super) what: &'static str,
    /// Its file, without what the system puts before and behind it.
    pub(super) stem: &'static str,
    /// The flag that names it.
    pub(super) flag: &'static str,
    /// The variable that names it.
    pub(super) variable: Option<&'static str>,
    /// Folders in the repository's and the user's folder, best first.
    pub(super) folders: &'a [&'static str],
    /// What to do if there is none.
    pub(super) remedy: &'static str,
    /// Whether the system's loader may look for a bare name.
    pub(super) by_name: bool,
}

/// The library to load. `named` is the value of its flag, and `beside` the library that it may lie beside.
pub(super) fn library(
    wanted: &Wanted<'_>,
    named: Option<&Path>,
    beside: Option<&Path>,
) -> Result<PathBuf, RuntimeError> {
    let variable = wanted.variable.and_then(env::var_os);
    let places = Places {
        flag: named.map(Path::to_owned),
        variable: variable.filter(|value: &OsString| !value.is_empty()).map(PathBuf::from),
        runtime: beside.and_then(Path::parent).map(Path::to_owned),
        program: platform::program_folder(),
        current: env::current_dir().ok(),
        cache: platform::cache_folder(),
    };
    places.library(wanted)
}

/// Everything that the search depends on.
#[derive(Clone, Default)]
struct Places {
    /// Value of the flag.
    flag: Option<PathBuf>,
    /// Value of the variable.
    variable: Option<PathBuf>,
    /// Folder of the ONNX Runtime that is loaded.
    runtime: Option<PathBuf>,
    /// Folder of the program.
    program: Option<PathBuf>,
    /// The current folder.
    current: Option<PathBuf>,
    /// The user's cache folder.
    cache: Option<PathBuf>,
}

impl Places {
    fn library(&self, wanted: &Wanted<'_>) -> Result<PathBuf, RuntimeError> {
        let mut looked = Vec::new();
        let variable = wanted.variable.map(|name| (name, &self.variable, "not set"));
        for (named_by, path, absent) in [Some((wanted.flag, &self.flag, "not given")), variable].into_iter().flatten() {
            match path {
                Some(path) => {
                    let missing = || RuntimeError::NamedButMissing {
                        what: wanted.what,
                        named_by,
                        path: path.clone(),
                        remedy: wanted.remedy,
                    };
                    return named(path, wanted).ok_or_else(missing);
                }
                None => looked.push(format!("as {named_by} names it: {absent}")),
            }
        }
        let within = |folder: &PathBuf| wanted.folders.iter().map(|name| folder.join(name)).collect::<Vec<_>>();
        let own_and_within = |folder: &PathBuf| [vec![folder.clone()], within(folder)].concat();
        let beside = self.runtime.as_ref().map(|folder| {
            // Fetched libraries lie in folders of their own, one beside the other.
            [vec![folder.clone()], folder.parent().map(|it| within(&it.to_owned())).unwrap_or_default()].concat()
        });
        let beside = beside.map(|folders| ("beside ONNX Runtime", Some(folders)));
        let program = ("next to the program", self.program.as_ref().map(own_and_within));
        let cache = ("in the user's cache folder", self.cache.as_ref().map(|it| within(&it.join(CACHE_FOLDER))));
        let look = |(place, folders): (&str, Option<Vec<PathBuf>>)| {
            let Some(folders) = folders else { return (format!("{place}: this system has none"), None) };
            let found = folders.iter().find_map(|folder| in_folder(folder, wanted.stem));
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            (format!("{place}: {}", folders.join(", ")), found)
        };
        let places = beside.map(look).into_iter().chain([look(program), self.in_repository(wanted), look(cache)]);
        for (place, found) in places {
            match found {
                Some(library) => return Ok(library),
                None => looked.push(place),
            }
        }
        Err(RuntimeError::NotFound {
            what: wanted.what,
            file: platform::library_file(wanted.stem),
            places: looked,
            remedy: wanted.remedy,
        })
    }

    /// The repository, if the program or the current folder lies in it. Any other folder above them may be writable by others,
    /// as that for temporary files is: nothing is loaded from there.
    fn in_repository(&self, wanted: &Wanted<'_>) -> (String, Option<PathBuf>) {
        let starts: Vec<&PathBuf> = [&self.program, &self.current].into_iter().flatten().collect();
        let within: Vec<_> = wanted.folders.iter().map(|name| Path::new(REPOSITORY_FOLDER).join(name)).collect();
        let repositories = starts.iter().flat_map(|start| start.ancestors()).filter(|folder| is_repository(folder));
        let mut folders = repositories.flat_map(|repository| within.iter().map(|folder| repository.join(folder)));
        let found = folders.find_map(|folder| in_folder(&folder, wanted.stem));
        let shown = |paths: Vec<String>| paths.join(" and ");
        let starts = shown(starts.iter().map(|start| start.display().to_string()).collect());
        let within = shown(within.iter().map(|folder| folder.display().to_string()).collect());
        (format!("in the repository: {within} in {starts}, and in the folders above"), found)
    }
}

/// Whether `folder` is the root of this project's repository.
fn is_repository(folder: &Path) -> bool {
    REPOSITORY_FILES.iter().all(|name| folder.join(name).is_file())
}

/// What the user named: a file, a folder with the library, or a bare file name that the system's loader finds.
fn named(path: &Path, wanted: &Wanted<'_>) -> Option<PathBuf> {
    if path.is_dir() {
        return in_folder(&path.canonicalize().ok()?, wanted.stem);
    }
    let bare = path.components().count() == 1 && path.file_name() == Some(path.as_os_str());
    // A bare name that is a file here means this file; the loader would not look here.
    if path.is_file() { path.canonicalize().ok() } else { (bare && wanted.by_name).then(|| path.to_owned()) }
}

/// The library in `folder`: the name without a version if there is one, otherwise the newest version.
fn in_folder(folder: &Path, stem: &str) -> Option<PathBuf> {
    let plain = folder.join(platform::library_file(stem));
    if plain.is_file() {
        return Some(plain);
    }
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let is_library = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| platform::is_library_file(name, stem))
    };
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

    const RUNTIME: Wanted<'_> = super::super::RUNTIME;

    /// Name of the library with a version.
    fn versioned(version: &str) -> String {
        let name = platform::library_file("onnxruntime");
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
        let message = places.library(&RUNTIME).unwrap_err().to_string();
        for part in ["--ort-lib", "ORT_DYLIB_PATH", "target", "deep", "cache", ".runtime", "make runtime"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }

        // From the last place to the first: each one hides those behind it.
        let found = |places: &Places| places.library(&RUNTIME).unwrap();
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
        let beside = put(root.path(), &platform::library_file("onnxruntime"));
        let program = Some(root.path().to_owned());
        let missing = Some(root.path().join("no.so"));
        let flag = Places { flag: missing.clone(), program: program.clone(), ..Places::default() };
        let variable = Places { variable: missing, program: program.clone(), ..Places::default() };
        for (places, part) in [(flag, "--ort-lib"), (variable, "ORT_DYLIB_PATH")] {
            let message = places.library(&RUNTIME).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("no.so"), "{message}");
        }
        assert_eq!(Places { program, ..Places::default() }.library(&RUNTIME).unwrap(), beside);
        let bare = Places { flag: Some("libonnxruntime.so.1".into()), ..Places::default() };
        assert_eq!(bare.library(&RUNTIME).unwrap(), Path::new("libonnxruntime.so.1"), "left to the system's loader");
    }

    #[test]
    #[cfg(not(windows))]
    fn the_newest_of_several_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for version in ["1.9.0", "1.32.0", "1.31.1"] {
            put(root.path(), &versioned(version));
        }
        put(root.path(), "libonnxruntime_providers_shared.so");
        assert_eq!(in_folder(root.path(), "onnxruntime").unwrap(), root.path().join(versioned("1.32.0")));
    }

    #[test]
    fn the_first_of_several_builds_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let cache = Some(root.path().to_owned());
        let places = Places { cache, ..Places::default() };
        let wanted = Wanted { folders: &["onnxruntime-cuda", "onnxruntime"], ..RUNTIME };
        let usual = put(&root.path().join("lfm2/onnxruntime"), &versioned("1.32.0"));
        assert_eq!(places.library(&wanted).unwrap(), usual);
        let better = put(&root.path().join("lfm2/onnxruntime-cuda"), &versioned("1.31.1"));
        assert_eq!(places.library(&wanted).unwrap(), better);
        assert_eq!(places.library(&RUNTIME).unwrap(), usual);
    }

    #[test]
    fn plugins_lie_beside_the_runtime_too() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let wanted = Wanted {
            what: "the plugin",
            stem: "onnxruntime_providers_npu",
            flag: "--ep-lib",
            variable: None,
            folders: &["onnxruntime-npu"],
            remedy: "make it",
            by_name: false,
        };
        let file = platform::library_file(wanted.stem);
        let mut places = Places {
            runtime: Some(root.join("fetched/onnxruntime")),
            program: Some(root.join("program")),
            ..Places::default()
        };
        let message = places.library(&wanted).unwrap_err().to_string();
        for part in
            ["the plugin", &file, "--ep-lib", "make it", "fetched", "onnxruntime-npu", "next to the program", "cache"]
        {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        assert!(!message.contains("ORT_DYLIB_PATH"), "{message}");
        let within = put(&root.join("program/onnxruntime-npu"), &file);
        assert_eq!(places.library(&wanted).unwrap(), within);
        let sibling = put(&root.join("fetched/onnxruntime-npu"), &file);
        assert_eq!(places.library(&wanted).unwrap(), sibling);
        let beside = put(&root.join("fetched/onnxruntime"), &file);
        assert_eq!(places.library(&wanted).unwrap(), beside);

        places.flag = Some("libnpu.so".into());
        let message = places.library(&wanted).unwrap_err().to_string();
        assert!(message.contains("--ep-lib names libnpu.so"), "no loader looks for it: {message}");
    }
}
