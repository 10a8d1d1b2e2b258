//! Plugins: libraries with providers, which ONNX Runtime loads when told to.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::find::{self, Wanted};
use super::{Runtime, RuntimeError, same_file};

/// A library with a provider.
#[derive(Debug)]
pub struct Plugin {
    /// ONNX Runtime's name for the provider.
    pub runtime_name: &'static str,
    /// What the library is called in messages.
    pub what: &'static str,
    /// Its file, without what the system puts before and behind it.
    pub library: &'static str,
    /// Name of the folder that it is fetched into.
    pub folder: &'static str,
    /// What to do where it is missing.
    pub remedy: &'static str,
}

impl Runtime {
    /// Where the library of `plugin` is: what `named` names if given (`--ep-lib`); then beside ONNX Runtime, next to the program, in
    /// the repository's `.runtime` folder, and in the user's cache folder. Loads nothing.
    pub fn find_plugin(&self, plugin: &Plugin, named: Option<&Path>) -> Result<PathBuf, RuntimeError> {
        let wanted = Wanted {
            what: plugin.what,
            stem: plugin.library,
            flag: "--ep-lib",
            variable: None,
            folders: &[plugin.folder],
            remedy: plugin.remedy,
            by_name: false,
        };
        find::library(&wanted, named, Some(self.library()))
    }

    /// Finds `plugin` and lets ONNX Runtime load it. A second call does nothing, and fails if it names another library.
    pub(crate) fn register(&self, plugin: &Plugin, named: Option<&Path>) -> Result<(), RuntimeError> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = plugins.get(plugin.runtime_name) {
            return match named.map(|_| self.find_plugin(plugin, named)).transpose()? {
                Some(asked) if !same_file(&asked, loaded) => {
                    Err(RuntimeError::AlreadyLoaded { what: plugin.what, asked, loaded: loaded.clone() })
                }
                _ => Ok(()),
            };
        }
        let library = self.find_plugin(plugin, named)?;
        // A relative path would be looked for beside ONNX Runtime.
        let library = std::path::absolute(&library).unwrap_or(library);
        self.environment.register_ep_library(plugin.runtime_name, &library).map_err(|error| RuntimeError::Plugin {
            library: library.clone(),
            version: self.version.clone(),
            reason: error.to_string(),
        })?;
        tracing::info!(library = %library.display(), "{} is loaded", plugin.what);
        plugins.insert(plugin.runtime_name, library);
        Ok(())
    }
}
