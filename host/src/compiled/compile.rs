//! Making them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lfm2_graphs::contract::{ManifestFile, Purpose};

use super::{CompiledGraph, DESCRIPTION, Description, PROVIDER, VERSION, sources};
use crate::package::{Package, PackageError, Pair, metadata_of, sha256};
use crate::platform;
use crate::provider::{Fallback, Provider, SessionOptions, Setup, SharedContext, soc};
use crate::runtime::Runtime;
use crate::session::{self, SessionError};

/// How ONNX Runtime's keys for what providers say of themselves in compiled files begin.
const COMPATIBILITY: &str = "ep_compatibility_info";

/// How often it is tried to remove a folder.
const ATTEMPTS: usize = 8;

/// Held while folders are made, get their names or are put away, so that whoever ends the program does not do so in the middle of it.
static FOLDERS: Mutex<()> = Mutex::new(());

fn folders() -> MutexGuard<'static, ()> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be compiled, and with what.
#[derive(Clone)]
pub struct Compiling<'a> {
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// The graphs.
    pub pair: &'a Pair,
    /// The provider whose compiler it is.
    pub provider: &'static dyn Provider,
    /// Its library and options. The chip is added to them.
    pub options: SessionOptions,
    /// Whether the graphs are to have their weights in one binary (`--share-weights`). Devices alone load such a binary: the simulator
    /// ends the process.
    pub share_weights: bool,
}

impl Compiling<'_> {
    /// Compiles both graphs for `soc` into `out`/`soc.name`, and makes sure that all of each runs on the provider. What
    /// was there is replaced when all is done. `progress` is told which graph comes next, and may stop the work: then there is
    /// nothing.
    ///
    /// # Errors
    /// If no manifest lists the graphs, so that nothing would tell stale results; if the compiler or the provider refuses a graph;
    /// if nothing can be written.
    pub fn compile(
        &self,
        soc: soc::Soc,
        out: &Path,
        progress: &mut dyn FnMut(&Package) -> bool,
    ) -> Result<Option<PathBuf>, CompileError> {
        let Self { runtime, pair, provider, options, share_weights } = self;
        if provider.name() != PROVIDER {
            return Err(CompileError::Provider { provider: provider.name() });
        }
        provider.devices(runtime, options).map_err(SessionError::from)?;
        if runtime.provider_version(provider.runtime_name()).is_none() {
            return Err(CompileError::NoVersion { provider: provider.name() });
        }
        let mut options = SessionOptions { fallback: Some(Fallback::Refused), ..options.clone() };
        for (key, value) in [("soc_model", soc.model), ("htp_arch", soc.generation)] {
            options.provider.retain(|(known, _)| known != key);
            options.provider.push((key.to_owned(), value.to_string()));
        }
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| CompileError::Unwritable { path, source }
        };
        fs::create_dir_all(out).map_err(unwritable(out))?;
        remove_abandoned(out, soc.name).map_err(unwritable(out))?;
        let folder = out.join(soc.name);
        refuse_foreign(&folder)?;
        let partial = Partial::create(out, soc.name).map_err(unwritable(out))?;
        let (mut graphs, mut compatibility) = (Vec::new(), None);
        // Those that share are compiled together.
        let mut kept = Vec::new();
        for package in [&pair.chunk, &pair.token] {
            let sources = sources(package);
            if sources.is_empty() {
                return Err(CompileError::NotListed { graph: package.graph().to_owned() });
            }
            if !progress(package) {
                return Ok(None);
            }
            let name = package.graph().file_name().unwrap_or_default().to_string_lossy().into_owned();
            let setup = Setup { runtime, options: &options, fingerprint: None };
            let file = partial.0.join(&name);
            if *share_weights {
                if file.to_str().is_none() {
                    return Err(CompileError::Name { path: file });
                }
                let is_last = package.contract().purpose == Purpose::Token;
                let shared = Some(SharedContext { is_last, written: Some(file.clone()) });
                let options = SessionOptions { shared, ..options.clone() };
                // What the compiler leaves out is refused here: what it writes cannot be loaded to see.
                kept.push(session::load(package.graph(), *provider, &Setup { options: &options, ..setup })?);
            } else {
                session::compile(package.graph(), *provider, &setup, &file)?;
                // What the compiler left out would be part of the file as it was.
                session::load(&file, *provider, &setup)?;
            }
            compatibility = metadata_of(&file, &format!("{COMPATIBILITY}.{}", provider.runtime_name()))?;
            graphs.push(CompiledGraph { purpose: package.contract().purpose, file: name, sources });
        }
        drop(kept);
        let description = Description {
            version: VERSION,
            weights_shared: *share_weights,
            provider: provider.name().to_owned(),
            soc: soc.name.to_owned(),
            soc_model: soc.model,
            htp_arch: soc.generation,
            runtime: runtime.version().to_owned(),
            provider_version: runtime.provider_version(provider.runtime_name()),
            compatibility,
            graphs,
            files: files_in(&partial.0).map_err(unwritable(&partial.0))?,
        };
        let path = partial.0.join(DESCRIPTION);
        let text = serde_json::to_string_pretty(&description).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text)).map_err(unwritable(&path))?;
        partial.replace(&folder).map_err(unwritable(&folder))?;
        Ok(Some(folder))
    }
}

/// Removes what this process has half compiled into `out`, when it is about to end meanwhile. As long as what is returned is held, nothing more is
/// begun there, and nothing is replaced.
pub fn remove_partial(out: &Path) -> MutexGuard<'static, ()> {
    let folders = folders();
    let entries = || fs::read_dir(out).into_iter().flatten().flatten();
    let is_own = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(&own_ending());
    // The compiler goes on, and may write a file into a folder that is being removed.
    for _ in 0..ATTEMPTS {
        let Some(own) = entries().find(is_own) else { return folders };
        if let Err(error) = fs::remove_dir_all(own.path()) {
            tracing::debug!("{} cannot be removed yet: {error}", own.path().display());
        }
    }
    if let Some(own) = entries().find(is_own) {
        tracing::warn!("{} is left half done; the next compilation removes it", own.path().display());
    }
    folders
}

/// How the names of folders end that are not finished.
const PARTIAL: &str = "partial";

/// How the names of folders end in whose place others are put.
const REPLACED: &str = "replaced";

/// How the names of folders end that this process has not finished.
fn own_ending() -> String {
    format!(".{}.{PARTIAL}", std::process::id())
}

/// Removes what processes that were killed have left half done for the chip `soc`, and gives what one of them was about to replace its name
/// back.
pub(super) fn remove_abandoned(out: &Path, soc: &str) -> io::Result<()> {
    let _folders = folders();
    let folder = out.join(soc);
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = name.strip_prefix(&format!(".{soc}.")).and_then(|rest| rest.rsplit_once('.'));
        let Some((process, ending @ (PARTIAL | REPLACED))) = rest else { continue };
        if process.parse().ok().is_none_or(platform::is_running) {
            continue;
        }
        if ending == REPLACED && !folder.exists() {
            tracing::info!("{} was about to be replaced and is there again", folder.display());
            fs::rename(&path, &folder)?;
        } else {
            tracing::info!("{} was left half done and is removed", path.display());
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Refuses to replace a folder that this program has not made, before minutes are spent on what could not get its name.
pub(super) fn refuse_foreign(folder: &Path) -> Result<(), CompileError> {
    let unwritable = |source| CompileError::Unwritable { path: folder.to_owned(), source };
    let is_empty = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        entries => entries.map_err(unwritable)?.next().is_none(),
    };
    if is_empty || folder.join(DESCRIPTION).is_file() {
        return Ok(());
    }
    Err(CompileError::Foreign { folder: folder.to_owned() })
}

/// Every file in `folder`, by name.
fn files_in(folder: &Path) -> io::Result<Vec<ManifestFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, size) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
        files.push(ManifestFile { name, size, sha256: sha256(&entry.path())? });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// A folder under a name of its own until it is whole; removed if it never is.
pub(super) struct Partial(pub(super) PathBuf);

impl Partial {
    /// An empty folder in `out` for the chip `soc`.
    pub(super) fn create(out: &Path, soc: &str) -> io::Result<Self> {
        let _folders = folders();
        let path = out.join(format!(".{soc}{}", own_ending()));
        match fs::create_dir(&path) {
            // Containers give their processes the same numbers again and again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&path)?;
                fs::create_dir(&path)?;
            }
            created => created?,
        }
        Ok(Self(path))
    }

    /// Gives the folder its name, in the place of what this program has left there: the name always leads to something whole, but for the moment
    /// between two renamings.
    pub(super) fn replace(self, folder: &Path) -> io::Result<()> {
        let _folders = folders();
        if !folder.join(DESCRIPTION).is_file() {
            return fs::rename(&self.0, folder);
        }
        let replaced = self.0.with_extension(REPLACED);
        if replaced.exists() {
            fs::remove_dir_all(&replaced)?;
        }
        fs::rename(folder, &replaced)?;
        if let Err(error) = fs::rename(&self.0, folder) {
            fs::rename(&replaced, folder)?;
            return Err(error);
        }
        if let Err(error) = fs::remove_dir_all(&replaced) {
            tracing::warn!("{} cannot be removed: {error}", replaced.display());
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a renaming there is nothing left to remove.
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

/// Why graphs cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A provider without such a compiler.
    #[error("--ep {provider} compiles nothing ahead of time; --ep {PROVIDER} does")]
    Provider {
        /// The provider.
        provider: &'static str,
    },
    /// Nothing would tell whether another one reads what was compiled.
    #[error(
        "the library of --ep {provider} does not tell its version, so that what it compiles could never be loaded; take another one with --ep-lib"
    )]
    NoVersion {
        /// The provider.
        provider: &'static str,
    },
    /// Nothing would tell from what the result was made.
    #[error("there is no manifest that lists {graph}, so that nothing would tell when it has changed; keep it in the folder that it was exported to", graph = graph.display())]
    NotListed {
        /// The ONNX file.
        graph: PathBuf,
    },
    /// A folder with something else in the place of the result.
    #[error("{folder} holds something else than what `lfm2-host compile` makes; name another folder with --out", folder = folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder that cannot be written.
    #[error("{path} cannot be written: {source}", path = path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The compiler takes paths as text.
    #[error("{path} is not UTF-8, and --share-weights takes no such path; give another --out", path = path.display())]
    Name {
        /// The file that was to be written.
        path: PathBuf,
    },
    /// What was compiled cannot be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The compiler or the provider refused.
    #[error(transparent)]
    Session(#[from] SessionError),
}
