//! Which graph of a folder is meant.

use std::fs;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, PRECISIONS, Purpose, preference};

use super::{PackageError, contract_of, files, manifest_in};

/// Folder of the ONNX files in the layout of the hub.
pub(super) const HUB_FOLDER: &str = "onnx";

/// Whether the exporter has a recipe of its own with this name.
pub(super) fn is_preset(precision: &str) -> bool {
    PRECISIONS.contains(&precision)
}

/// Dialects in the order of preference: the one with the fast kernels of the processor first.
const DIALECTS: [&str; 2] = ["contrib", "portable"];

/// The preferred graph of `folder` and its contract.
pub(super) fn from_folder(folder: &Path) -> Result<(PathBuf, Contract), PackageError> {
    let mut candidates = match listed(folder)? {
        candidates if candidates.is_empty() => found(folder)?,
        candidates => candidates,
    };
    candidates.sort_by_key(Candidate::rank);
    let Some(first) = candidates.first() else {
        let (folder, files) = (folder.to_owned(), for_calibration(folder)?);
        if files.is_empty() {
            return Err(PackageError::NoGraph { folder });
        }
        return Err(PackageError::OnlyCalibration { folder, files });
    };
    let equal: Vec<_> = candidates.iter().filter(|other| other.rank() == first.rank()).map(Candidate::name).collect();
    if equal.len() > 1 {
        return Err(PackageError::Ambiguous {
            folder: folder.to_owned(),
            precision: first.precision.clone(),
            files: equal,
        });
    }
    let path = first.path.clone();
    let contract = contract_of(&path)?;
    Ok((path, contract))
}

/// A graph that may be meant.
struct Candidate {
    path: PathBuf,
    precision: String,
    dialect: String,
}

impl Candidate {
    /// Lower is better; what this version does not know comes last.
    fn rank(&self) -> (usize, usize) {
        // A dialect that is not known cannot be run here, so it comes behind every precision of the others.
        let dialect = DIALECTS.iter().position(|known| *known == self.dialect).unwrap_or(DIALECTS.len());
        let behind = if dialect == DIALECTS.len() { PRECISIONS.len() + 1 } else { 0 };
        (behind + preference(&self.precision), dialect)
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The graphs of the manifest that are there. Somebody may have fetched one precision of several.
fn listed(folder: &Path) -> Result<Vec<Candidate>, PackageError> {
    let Some(manifest) = manifest_in(folder)? else { return Ok(Vec::new()) };
    let general = manifest.graphs.into_iter().filter(|graph| graph.purpose == Purpose::General);
    let candidates = general.filter_map(|graph| {
        let path = files::path_in(folder, &graph.file)?;
        path.is_file().then_some(Candidate { path, precision: graph.precision, dialect: graph.dialect })
    });
    Ok(candidates.collect())
}

/// The ONNX files in `folder` and in its folder `onnx`, described by their contracts. Files without one are passed over if others
/// have one.
fn found(folder: &Path) -> Result<Vec<Candidate>, PackageError> {
    let mut paths = onnx_files(folder)?;
    let below = folder.join(HUB_FOLDER);
    if below.is_dir() {
        paths.extend(onnx_files(&below)?);
    }
    let (mut candidates, mut first_error) = (Vec::new(), None);
    for path in paths {
        match contract_of(&path) {
            // Companions of other graphs, and graphs for measuring, are never meant by the name of a folder.
            Ok(contract) if contract.purpose != Purpose::General => {}
            Ok(contract) => {
                candidates.push(Candidate { path, precision: contract.precision, dialect: contract.dialect })
            }
            Err(error) => {
                tracing::warn!("passed over: {error}");
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if candidates.is_empty() => Err(error),
        _ => Ok(candidates),
    }
}

/// The graphs for `lfm2-host calibrate` in `folder` and in its folder `onnx`, relative to it.
fn for_calibration(folder: &Path) -> Result<Vec<String>, PackageError> {
    let mut paths = onnx_files(folder)?;
    let below = folder.join(HUB_FOLDER);
    if below.is_dir() {
        paths.extend(onnx_files(&below)?);
    }
    let takes_statistics =
        |contract: Contract| contract.purpose == Purpose::Calibrate && contract.outputs.ranges.is_none();
    let found = paths.iter().filter(|path| contract_of(path).is_ok_and(takes_statistics));
    Ok(found.map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string()).collect())
}

fn onnx_files(folder: &Path) -> Result<Vec<PathBuf>, PackageError> {
    let unreadable = |source| PackageError::Unreadable { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
