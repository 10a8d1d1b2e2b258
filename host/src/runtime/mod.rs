//! The ONNX Runtime library and its one environment per process.

mod find;
mod library;
mod log;
mod plugin;
mod raw;

pub use find::LIBRARY_FOLDER;
pub use plugin::Plugin;
pub(crate) use raw::assignment;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

use find::Wanted;

/// ONNX Runtime, loaded. There is at most one per process.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    library: PathBuf,
    version: String,
    minor: u32,
    built_in: Vec<String>,
    /// The libraries of the plugins that are registered, by the names of their providers.
    plugins: Mutex<BTreeMap<&'static str, PathBuf>>,
}

/// What is looked for.
const RUNTIME: Wanted<'static> = Wanted {
    what: "the ONNX Runtime library",
    stem: "onnxruntime",
    flag: "--ort-lib",
    variable: Some("ORT_DYLIB_PATH"),
    folders: &[LIBRARY_FOLDER],
    remedy: "run `make runtime` in the repository, which fetches it",
    by_name: true,
};

/// Loading is serialised, and what was loaded stays until the process ends.
static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads the library: `library` if given (`--ort-lib`), then what `ORT_DYLIB_PATH` names, then a library next
    /// to the program, in the repository's `.runtime` folder, and in the user's cache folder.
    ///
    /// What is found first is used or refused: the search does not go on behind a library that is too old or broken.
    /// A second call returns the same runtime, and fails if it names another library.
    pub fn load(library: Option<&Path>) -> Result<&'static Runtime, RuntimeError> {
        Self::load_build(library, &[LIBRARY_FOLDER])
    }

    /// As [`Runtime::load`], but prefers in each place the first of these builds that is there, by the names of their folders.
    pub(crate) fn load_build(
        library: Option<&Path>,
        builds: &[&'static str],
    ) -> Result<&'static Runtime, RuntimeError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *loaded {
            return match library {
                Some(asked) if !same_file(asked, &runtime.library) => Err(RuntimeError::AlreadyLoaded {
                    what: "ONNX Runtime",
                    asked: asked.to_owned(),
                    loaded: runtime.library.clone(),
                }),
                _ => Ok(runtime),
            };
        }
        let found = find::library(&Wanted { folders: builds, ..RUNTIME }, library, None)?;
        let version = library::check(&found)?;
        let runtime: &'static Runtime = Box::leak(Box::new(start(found, version)?));
        *loaded = Some(runtime);
        Ok(runtime)
    }

    /// Where the library was loaded from.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The library's version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The second number of the version.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// The providers that the library was built with, by ONNX Runtime's names for them.
    pub fn built_in(&self) -> &[String] {
        &self.built_in
    }

    /// Version of the library of a provider, by ONNX Runtime's name for it; none if it is not loaded or does not tell.
    pub(crate) fn provider_version(&self, provider: &str) -> Option<String> {
        let mut devices = self.environment.devices().filter(|device| device.ep().is_ok_and(|name| name == provider));
        devices.find_map(|device| raw::provider_version(&device))
    }

    /// Fails if the library is older than 1.`minor`, which the graph `needed_by` says it needs.
    pub fn require(&self, minor: u32, needed_by: &Path) -> Result<(), RuntimeError> {
        if self.minor >= minor {
            return Ok(());
        }
        let (library, version) = (self.library.clone(), self.version.clone());
        Err(RuntimeError::TooOldForGraph { library, version, minor, needed_by: needed_by.to_owned() })
    }

    /// What sessions are created under.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(a) == canonical(b)
}

/// Creates the environment. From here on `ort` may be used.
fn start(library: PathBuf, version: library::Version) -> Result<Runtime, RuntimeError> {
    let broken = |reason: String| RuntimeError::Broken { library: library.clone(), reason };
    let environment = ort::init_from(&library)
        .map_err(|error| broken(error.to_string()))?
        .with_name("lfm2")
        .with_telemetry(false)
        .with_logger(Arc::new(log::forward))
        .build()
        .map_err(|error| broken(error.to_string()))?;
    // Otherwise ONNX Runtime would format every message for nobody to read.
    environment.set_log_level(log::level());
    tracing::debug!(library = %library.display(), version = version.text, "loaded ONNX Runtime");
    let built_in = raw::built_in().map_err(|error| broken(error.to_string()))?;
    let plugins = Mutex::default();
    Ok(Runtime { environment, library, version: version.text, minor: version.minor, built_in, plugins })
}

/// Why there is no usable ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// None of the places has a library.
    #[error(
        "{what} ({file}) was not found. Looked for it\n{places}\nTo fix it, {remedy}.",
        places = places.iter().map(|place| format!("  - {place}")).collect::<Vec<_>>().join("\n"),
    )]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its usual file name.
        file: String,
        /// The places looked at, in order.
        places: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// A place that the user named has no library.
    #[error("{named_by} names {path}, where {what} is not; correct it, or leave it out and {remedy}", path = path.display())]
    NamedButMissing {
        /// What was looked for.
        what: &'static str,
        /// The flag or variable.
        named_by: &'static str,
        /// Its value.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A plugin that ONNX Runtime does not take.
    #[error("ONNX Runtime {version} cannot use {library}: {reason}", library = library.display())]
    Plugin {
        /// The file.
        library: PathBuf,
        /// Version of ONNX Runtime.
        version: String,
        /// What it said.
        reason: String,
    },
    /// Not a library that can be used.
    #[error("{library} cannot be used as ONNX Runtime: {reason}; run `make runtime` to fetch one that works, or name another with --ort-lib", library = library.display())]
    Broken {
        /// The file.
        library: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A version older than this program needs.
    #[error(
        "{library} is ONNX Runtime {version}, and 1.{minimum} or newer is needed; run `make runtime` to fetch one, or name another with --ort-lib",
        library = library.display(),
        minimum = ort::MINOR_VERSION
    )]
    TooOld {
        /// The file.
        library: PathBuf,
        /// Its version.
        version: String,
    },
    /// A version older than a graph needs.
    #[error(
        "{library} is ONNX Runtime {version}, and {needed_by} needs 1.{minor} or newer; run `make runtime` to fetch one, or name another with --ort-lib",
        library = library.display(),
        needed_by = needed_by.display()
    )]
    TooOldForGraph {
        /// The file.
        library: PathBuf,
        /// Its version.
        version: String,
        /// Lowest minor version that the graph runs with.
        minor: u32,
        /// The graph.
        needed_by: PathBuf,
    },
    /// A process can load one library only.
    #[error("{asked} was asked for, but {loaded} is loaded already, and a process can load {what} once only", asked = asked.display(), loaded = loaded.display())]
    AlreadyLoaded {
        /// What can be loaded once.
        what: &'static str,
        /// The file asked for.
        asked: PathBuf,
        /// The file loaded.
        loaded: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_runtime_per_process() {
        let runtime = Runtime::load(None).unwrap();
        assert!(runtime.minor() >= ort::MINOR_VERSION && runtime.version().starts_with("1."));
        assert!(runtime.built_in().iter().any(|name| name == "CPUExecutionProvider"), "{:?}", runtime.built_in());
        assert!(std::ptr::eq(runtime, Runtime::load(Some(runtime.library())).unwrap()));
        let error = Runtime::load(Some(Path::new("elsewhere/libonnxruntime.so"))).unwrap_err();
        assert!(matches!(error, RuntimeError::AlreadyLoaded { .. }), "{error}");

        runtime.require(runtime.minor(), Path::new("x.onnx")).unwrap();
        let message = runtime.require(999, Path::new("x.onnx")).unwrap_err().to_string();
        assert!(
            message.contains(runtime.version()) && message.contains("1.999") && message.contains("x.onnx"),
            "{message}"
        );
    }
}
