//! Graphs compiled ahead of time: what lies in their folder, and whether it may be loaded.
//!
//! A compiler of an NPU takes seconds to minutes and much memory, and what it makes depends on the graph, the weights, the chip, and
//! the versions of runtime and provider. All of that is recorded with it and compared before it is loaded, because a provider would
//! run contexts of another model without a complaint.
//!
//! Two graphs can share their weights in one binary, which takes little more than half of the place. On x86 loading such a binary ends the
//! process, so that it is refused there, and nobody here has seen one load.

mod compile;

use std::fs;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{ManifestFile, Purpose};
use serde::{Deserialize, Serialize};

pub use compile::{CompileError, Compiling, remove_partial};

use crate::package::{FileRole, Package, Pair, UsedFile, hash_problem, path_in, size_problem};
use crate::provider::{Provider, SessionOptions, SharedContext, soc};
use crate::runtime::Runtime;
use crate::session::{Session, SessionError};

/// The one provider that is compiled for.
pub const PROVIDER: &str = "qnn";

/// Name of the description. Names in it are relative to its folder.
pub const DESCRIPTION: &str = "lfm2.compiled.json";

/// Version of the description.
const VERSION: u32 = 1;

/// What was compiled, from what and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    version: u32,
    /// Whether the graphs have their weights in one binary.
    #[serde(default)]
    pub weights_shared: bool,
    /// The provider.
    pub provider: String,
    /// Name of the chip.
    pub soc: String,
    /// Its number, as the option `soc_model` takes it.
    pub soc_model: u32,
    /// Generation of its NPU.
    pub htp_arch: u32,
    /// Version of ONNX Runtime.
    pub runtime: String,
    /// Version of the provider's library, as far as it tells.
    pub provider_version: Option<String>,
    /// What the provider's compiler says of itself and the chip in the files; providers compare it on devices when they load them.
    pub compatibility: Option<String>,
    /// The graphs.
    pub graphs: Vec<CompiledGraph>,
    /// Every file beside this description.
    pub files: Vec<ManifestFile>,
}

/// One graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledGraph {
    /// What it is for.
    pub purpose: Purpose,
    /// The ONNX file around what was compiled.
    pub file: String,
    /// SHA-256 of the graph that it was compiled from and of its weights, as in the manifest of the package.
    pub sources: Vec<String>,
}

/// A folder with compiled graphs that may be loaded.
#[derive(Clone, Debug)]
pub struct Compiled {
    folder: PathBuf,
    description: Description,
}

impl Compiled {
    /// Opens `folder`, or the folder below it for the chip that `options` name, or for the only one that there is.
    ///
    /// # Errors
    /// If there is none, or it was made from other graphs than those of `pair`, for another chip, or by another version of the
    /// runtime or the provider. All reasons are told.
    pub fn open(
        folder: &Path,
        pair: &Pair,
        runtime: &Runtime,
        provider: &dyn Provider,
        options: &SessionOptions,
    ) -> Result<Self, CompiledError> {
        let wanted = wanted_soc(options)?;
        let compiled = Self::read(folder, wanted)?;
        // Only a loaded library tells its version.
        let devices = provider.devices(runtime, options).map_err(SessionError::from)?;
        let found = Found {
            is_simulated: !devices.iter().any(|device| device.kind == "NPU" && !device.simulated),
            runtime: runtime.version(),
            minor: runtime.minor(),
            provider: provider.name(),
            provider_version: runtime.provider_version(provider.runtime_name()),
            soc: wanted,
            htp_arch: options.provider.iter().find(|(key, _)| key == "htp_arch").map(|(_, value)| value.clone()),
        };
        let mut problems = compiled.description.host_problems(&found);
        problems.extend(compiled.description.graph_problems(pair));
        problems.extend(compiled.files(size_problem));
        if problems.is_empty() {
            return Ok(compiled);
        }
        Err(CompiledError::Stale { folder: compiled.folder, provider: provider.name(), problems })
    }

    /// What lies in `folder` or below it, which may be for something else than there is to run it.
    fn read(folder: &Path, wanted: Option<soc::Soc>) -> Result<Self, CompiledError> {
        let folder = below(folder, wanted)?;
        let path = folder.join(DESCRIPTION);
        let text =
            fs::read_to_string(&path).map_err(|source| CompiledError::Unreadable { path: path.clone(), source })?;
        Ok(Self { description: described(&path, &text)?, folder })
    }

    /// Compares every file with its SHA-256.
    pub fn verify(&self) -> Result<(), CompiledError> {
        let problems: Vec<_> = self.files(hash_problem).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(CompiledError::Stale { folder: self.folder.clone(), provider: PROVIDER, problems })
    }

    /// What was compiled.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Loads what the graph of `package` was compiled to.
    pub fn session(
        &self,
        runtime: &Runtime,
        package: &Package,
        provider: &dyn Provider,
        options: &SessionOptions,
    ) -> Result<Session, CompiledError> {
        let purpose = package.contract().purpose;
        let graph = self.description.graphs.iter().find(|graph| graph.purpose == purpose);
        let file = graph.and_then(|graph| path_in(&self.folder, &graph.file));
        let file = file.ok_or_else(|| CompiledError::Stale {
            folder: self.folder.clone(),
            provider: PROVIDER,
            problems: vec![format!("there is no graph for the purpose {purpose:?}").to_lowercase()],
        })?;
        let mut options = options.clone();
        if !options.provider.iter().any(|(key, _)| key == "soc_model") {
            options.provider.push(("soc_model".to_owned(), self.description.soc_model.to_string()));
        }
        if self.description.weights_shared {
            options.shared = Some(SharedContext { is_last: purpose == Purpose::Token, written: None });
        }
        Ok(Session::of(runtime, package, &file, self.used_files(package), provider, &options)?)
    }

    /// What is loaded instead of the graph of `package`: everything in the folder, as the binaries of the graphs do not tell whose they are, and
    /// the token table of the package, which is not compiled.
    fn used_files(&self, package: &Package) -> Option<Vec<UsedFile>> {
        let is_graph = |name: &str| self.description.graphs.iter().any(|graph| graph.file == name);
        let compiled = self.description.files.iter().map(|file| {
            let role = if is_graph(&file.name) { FileRole::Graph } else { FileRole::Data };
            UsedFile::listed(&self.folder, role, file)
        });
        Some(UsedFile::distinct(compiled.chain(package.table_files()?)))
    }

    /// What `problem` says about the files.
    fn files(&self, problem: fn(&Path, &ManifestFile) -> Option<String>) -> impl Iterator<Item = String> {
        self.description.files.iter().filter_map(move |file| match path_in(&self.folder, &file.name) {
            Some(path) => problem(&path, file),
            None => Some(format!("{} is no name of a file in the folder", file.name)),
        })
    }
}

/// What there is to run it.
struct Found<'a> {
    /// Whether there is no NPU but a simulated one.
    is_simulated: bool,
    runtime: &'a str,
    minor: u32,
    provider: &'a str,
    provider_version: Option<String>,
    soc: Option<soc::Soc>,
    /// The generation of NPUs that was asked for, as it was typed.
    htp_arch: Option<String>,
}

impl Description {
    /// Why it may not be loaded by what there is to run it, if it may not.
    fn host_problems(&self, found: &Found<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        if self.weights_shared && found.is_simulated {
            problems.push(
                "its graphs share their weights, which the chip alone loads: the simulator would end the process (leave out --share-weights)"
                    .to_owned(),
            );
        }
        if self.provider != found.provider {
            problems.push(format!("it is for --ep {}", self.provider));
        }
        let minor = self.runtime.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        if minor.is_none_or(|minor| minor > found.minor) {
            problems.push(format!("it was made by ONNX Runtime {}, and this is {}", self.runtime, found.runtime));
        }
        // Two versions that are not known may be two versions.
        if self.provider_version.is_none() || self.provider_version != found.provider_version {
            let told = |version: &Option<String>| version.clone().unwrap_or_else(|| "of an unknown version".to_owned());
            let [made, this] = [&self.provider_version, &found.provider_version].map(told);
            problems.push(format!("it was made by the provider {made}, and this is {this}"));
        }
        if let Some(soc) = found.soc.filter(|soc| soc.model != self.soc_model) {
            problems.push(format!("it is for {} ({}), and soc_model is {}", self.soc, self.soc_model, soc.model));
        }
        if let Some(other) = found.htp_arch.as_ref().filter(|asked| **asked != self.htp_arch.to_string()) {
            problems.push(format!("it is for NPUs of the generation {}, and htp_arch is {other}", self.htp_arch));
        }
        problems
    }

    /// What tells its graphs from those of `pair`.
    fn graph_problems(&self, pair: &Pair) -> Vec<String> {
        let mut problems = Vec::new();
        for package in [&pair.chunk, &pair.token] {
            let purpose = package.contract().purpose;
            let name = package.graph().file_name().unwrap_or_default().to_string_lossy();
            match self.graphs.iter().find(|graph| graph.purpose == purpose) {
                None => problems.push(format!("it has no {name}")),
                Some(graph) if graph.sources != sources(package) => {
                    problems.push(format!("{name} or its weights are others than those that it was made from"));
                }
                Some(_) => {}
            }
        }
        problems
    }
}

/// The SHA-256 of a graph and its weights; empty if no manifest lists them.
fn sources(package: &Package) -> Vec<String> {
    package.graph_files().iter().map(|file| file.sha256.clone()).collect()
}

/// Name of the chip that what lies in `folder` is for, which [`Compiled::open`] would open.
///
/// # Errors
/// As for [`Compiled::open`], as far as the description tells.
pub fn chip(folder: &Path, options: &SessionOptions) -> Result<String, CompiledError> {
    Ok(Compiled::read(folder, wanted_soc(options)?)?.description.soc)
}

/// Compares every file of what lies in `folder`, which [`Compiled::open`] would open, with its SHA-256.
///
/// # Errors
/// As for [`Compiled::open`], as far as description and files tell.
pub fn verify(folder: &Path, options: &SessionOptions) -> Result<(), CompiledError> {
    Compiled::read(folder, wanted_soc(options)?)?.verify()
}

/// The chip that the options of a provider name, if they name one.
///
/// # Errors
/// If they name several, or none that is known: what is compiled is for one.
fn wanted_soc(options: &SessionOptions) -> Result<Option<soc::Soc>, CompiledError> {
    let Some((_, value)) = options.provider.iter().find(|(key, _)| key == "soc_model") else { return Ok(None) };
    soc::named(value).map(Some).ok_or_else(|| CompiledError::Chip { value: value.clone() })
}

/// `folder` if it has a description; otherwise the one folder in it that has one and is meant.
fn below(folder: &Path, wanted: Option<soc::Soc>) -> Result<PathBuf, CompiledError> {
    if folder.join(DESCRIPTION).is_file() {
        return Ok(folder.to_owned());
    }
    if let Some(soc) = wanted.filter(|soc| folder.join(soc.name).join(DESCRIPTION).is_file()) {
        return Ok(folder.join(soc.name));
    }
    let there: Vec<_> = soc::ALL.iter().filter(|soc| folder.join(soc.name).join(DESCRIPTION).is_file()).collect();
    match (there[..].first(), there.len(), wanted) {
        (Some(only), 1, None) => Ok(folder.join(only.name)),
        _ => Err(CompiledError::Which {
            folder: folder.to_owned(),
            there: there.iter().map(|soc| soc.name).collect(),
            wanted: wanted.map(|soc| soc.name),
        }),
    }
}

fn described(path: &Path, text: &str) -> Result<Description, CompiledError> {
    let broken = |reason: String| CompiledError::Description { path: path.to_owned(), reason };
    let description: Description = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
    if description.version != VERSION {
        return Err(broken(format!(
            "its version is {}, and this program reads version {VERSION}",
            description.version
        )));
    }
    Ok(description)
}

/// Why compiled graphs cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompiledError {
    /// No folder, or several.
    #[error(
        "--compiled {folder}: {what}",
        folder = folder.display(),
        what = match (there.as_slice(), wanted) {
            ([], _) => "there is nothing that `lfm2-host compile` made".to_owned(),
            (there, Some(wanted)) => format!("there is nothing for {wanted}, only for {}", there.join(", ")),
            (there, None) => format!("say with --ep-option soc_model=.. which is meant of {}", there.join(", ")),
        }
    )]
    Which {
        /// What was named.
        folder: PathBuf,
        /// The chips that there is something for.
        there: Vec<&'static str>,
        /// The chip that was asked for.
        wanted: Option<&'static str>,
    },
    /// A list of chips.
    #[error(
        "--ep-option soc_model={value}: --compiled is for one chip; name that one, or none for the only one that there is"
    )]
    Chip {
        /// What was named.
        value: String,
    },
    /// A file that cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A description of another program, or a damaged one.
    #[error("{path} describes no compiled graphs: {reason}; make them again with `lfm2-host compile`", path = path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Made from something else, or for something else.
    #[error(
        "what is compiled in {folder} cannot be used; make it again with `lfm2-host compile --ep {provider}`:\n{problems}",
        folder = folder.display(),
        problems = problems.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n")
    )]
    Stale {
        /// The folder.
        folder: PathBuf,
        /// The provider.
        provider: &'static str,
        /// One sentence for each reason.
        problems: Vec<String>,
    },
    /// The provider does not take them.
    #[error(transparent)]
    Session(#[from] SessionError),
}

#[cfg(test)]
mod tests;
