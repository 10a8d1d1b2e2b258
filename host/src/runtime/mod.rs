//! The ONNX Runtime library and its one environment per process.

mod find;
mod library;
mod log;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;

use crate::platform;

/// ONNX Runtime, loaded. There is at most one per process.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    library: PathBuf,
    version: String,
    minor: u32,
}

/// Loading is serialised, and what was loaded stays until the process ends.
static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);

impl Runtime {
    /// Finds and loads the library: `library` if given (`--ort-lib`), then what `ORT_DYLIB_PATH` names, then a library next
    /// to the program, in the repository's `.runtime` folder, and in the user's cache folder.
    ///
    /// What is found first is used or refused: the search does not go on behind a library that is too old or broken.
    /// A second call returns the same runtime, and fails if it names another library.
    pub fn load(library: Option<&Path>) -> Result<&'static Runtime, RuntimeError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *loaded {
            return match library {
                Some(asked) if !same_file(asked, &runtime.library) => {
                    Err(RuntimeError::AlreadyLoaded { asked: asked.to_owned(), loaded: runtime.library.clone() })
                }
                _ => Ok(runtime),
            };
        }
        let found = find::library(library)?;
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
    Ok(Runtime { environment, library, version: version.text, minor: version.minor })
}

/// Why there is no usable ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// None of the places has a library.
    #[error(
        "the ONNX Runtime library ({name}) was not found. Looked for it\n{places}\nTo fix it, run `make runtime` in the repository, which fetches it.",
        name = platform::library_name(),
        places = places.iter().map(|place| format!("  - {place}")).collect::<Vec<_>>().join("\n"),
    )]
    NotFound {
        /// The places looked at, in order.
        places: Vec<String>,
    },
    /// A place that the user named has no library.
    #[error("{named_by} names {path}, where there is no ONNX Runtime library; correct it, or leave it out and run `make runtime`", path = path.display())]
    NamedButMissing {
        /// The flag or variable.
        named_by: &'static str,
        /// Its value.
        path: PathBuf,
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
    #[error("{asked} was asked for, but {loaded} is loaded already, and a process can load one ONNX Runtime only", asked = asked.display(), loaded = loaded.display())]
    AlreadyLoaded {
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
