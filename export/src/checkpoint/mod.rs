//! Reading a checkpoint: safetensors files, validated when opened and read by position.
//!
//! Nothing is mapped: the pages of a mapped file count as resident memory, and exporting has to stay small. Rows are
//! read into bounded buffers, one for each thread that reads at the same time, that are kept between calls.

mod error;
mod header;
mod index;
mod platform;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::bf16;
use half::f16;
use half::slice::HalfFloatSliceExt;

pub use error::CheckpointError;

use crate::problems::Problems;

/// Name of the file that holds all tensors of a checkpoint that is not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Name of the file that says which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Bytes read at once, a multiple of every element size.
const SCRATCH_BYTES: usize = 1 << 20;

/// An opened checkpoint. All offsets have been checked against the files.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<OpenFile>,
    tensors: BTreeMap<String, Located>,
    /// Buffers that no reader uses at the moment.
    scratch: Mutex<Vec<Vec<u8>>>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`: `model.safetensors`, or else `model.safetensors.index.json` and its
    /// shards.
    ///
    /// # Errors
    /// If the files are missing, cannot be read, contradict each other or themselves, or hold tensors of a type other
    /// than bf16, f16 and f32. All problems are reported at once.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let mut problems = Problems::default();
        let mut names = Vec::new();
        for name in [SINGLE_FILE, INDEX_FILE] {
            if is_there(&folder.join(name))? {
                names.push(name);
            }
        }
        let checkpoint = match first_file(&names) {
            None => return Err(CheckpointError::NotFound { folder: folder.to_owned() }),
            Some(SINGLE_FILE) => Self::from_files(folder, &[SINGLE_FILE.to_owned()], &mut problems)?,
            Some(index) => {
                let map = index::read(&folder.join(index))?;
                let shards = index::shards(&map, &mut problems);
                let checkpoint = Self::from_files(folder, &shards, &mut problems)?;
                if problems.is_empty() {
                    checkpoint.compare(&map, &mut problems);
                }
                checkpoint
            }
        };
        if problems.is_empty() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Invalid { folder: folder.to_owned(), problems: problems.into_list() })
        }
    }

    /// Names and descriptions of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), &entry.info))
    }

    /// The description of the tensor called `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// Reads `rows` rows of the tensor `name`, beginning with row `start`, as float32 into `out`.
    ///
    /// `out` is cleared and then holds `rows * columns` values, row after row; see [`TensorInfo::rows`] for what a row is.
    ///
    /// # Errors
    /// If there is no such tensor, if it has fewer than `start + rows` rows, or if the file cannot be read any more.
    pub fn read_rows(&self, name: &str, start: usize, rows: usize, out: &mut Vec<f32>) -> Result<(), CheckpointError> {
        out.clear();
        let entry = self.tensors.get(name).ok_or_else(|| CheckpointError::UnknownTensor { name: name.to_owned() })?;
        let TensorInfo { dtype, .. } = entry.info;
        let available = entry.info.rows();
        if start.checked_add(rows).is_none_or(|end| end > available) {
            return Err(CheckpointError::RowsOutOfRange { name: name.to_owned(), start, rows, available });
        }
        let columns = entry.info.columns();
        out.reserve(rows * columns);

        let file = &self.files[entry.file];
        // Where addresses have 32 bits, files may still be larger.
        let mut position = entry.offset + start as u64 * columns as u64 * dtype.bytes() as u64;
        let mut remaining = rows * columns * dtype.bytes();
        self.with_scratch(|scratch| {
            while remaining > 0 {
                let bytes = &mut scratch[..remaining.min(SCRATCH_BYTES)];
                platform::read_exact_at(&file.handle, bytes, position)
                    .map_err(|source| file.unreadable(name, source))?;
                dtype.decode(bytes, out);
                position += bytes.len() as u64;
                remaining -= bytes.len();
            }
            Ok(())
        })
    }

    /// Reads the columns `start..start + count` of all rows of the tensor `name` as float32 into `out`.
    ///
    /// `out` is cleared and then holds `rows * count` values, row after row; see [`TensorInfo::rows`] for what a row is.
    ///
    /// # Errors
    /// If there is no such tensor, if it has fewer than `start + count` columns, or if the file cannot be read any more.
    pub fn read_columns(
        &self,
        name: &str,
        start: usize,
        count: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), CheckpointError> {
        out.clear();
        let entry = self.tensors.get(name).ok_or_else(|| CheckpointError::UnknownTensor { name: name.to_owned() })?;
        let TensorInfo { dtype, .. } = entry.info;
        let (rows, available) = (entry.info.rows(), entry.info.columns());
        if start.checked_add(count).is_none_or(|end| end > available) {
            return Err(CheckpointError::ColumnsOutOfRange { name: name.to_owned(), start, count, available });
        }
        out.reserve(rows * count);
        let file = &self.files[entry.file];
        let piece = count * dtype.bytes();
        // As many rows as fit are decoded at once; of rows that do not fit, one part after another.
        let rows_at_once = (SCRATCH_BYTES / piece.max(1)).max(1);
        self.with_scratch(|scratch| {
            for first in (0..rows).step_by(rows_at_once) {
                let mut filled = 0;
                for row in first..rows.min(first + rows_at_once) {
                    let begin = entry.offset + (row as u64 * available as u64 + start as u64) * dtype.bytes() as u64;
                    for done in (0..piece).step_by(SCRATCH_BYTES) {
                        let length = (piece - done).min(SCRATCH_BYTES);
                        let bytes = &mut scratch[filled..filled + length];
                        platform::read_exact_at(&file.handle, bytes, begin + done as u64)
                            .map_err(|source| file.unreadable(name, source))?;
                        if rows_at_once == 1 {
                            dtype.decode(bytes, out);
                        } else {
                            filled += length;
                        }
                    }
                }
                dtype.decode(&scratch[..filled], out);
            }
            Ok(())
        })
    }

    /// Lends a buffer of [`SCRATCH_BYTES`] to `read`.
    fn with_scratch<T>(&self, read: impl FnOnce(&mut [u8]) -> T) -> T {
        // A panic of another reader leaves nothing half done here.
        let lent = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = lent.unwrap_or_else(|| vec![0; SCRATCH_BYTES]);
        let result = read(&mut scratch);
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }

    /// Opens the files called `names` in `folder`, adding what is wrong with their contents to `problems`.
    fn from_files(folder: &Path, names: &[String], problems: &mut Problems) -> Result<Self, CheckpointError> {
        let mut files: Vec<OpenFile> = Vec::new();
        let mut tensors: BTreeMap<String, Located> = BTreeMap::new();
        for name in names {
            let path = folder.join(name);
            if !is_there(&path)? {
                problems.add(format!("{name} is missing: the checkpoint is not complete, download it again"));
                continue;
            }
            let handle = File::open(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
            for tensor in header::read(&handle, name, problems)
                .map_err(|source| CheckpointError::Io { path: path.clone(), source })?
            {
                let entry = Located { file: files.len(), offset: tensor.offset, info: tensor.info };
                match tensors.get(&tensor.name) {
                    Some(first) if first.file == entry.file => {} // Reported with the header.
                    Some(first) => problems.add(format!(
                        "tensor {} is in {} and in {name}",
                        tensor.name,
                        files[first.file].path.file_name().unwrap_or_default().display()
                    )),
                    None => {
                        tensors.insert(tensor.name, entry);
                    }
                }
            }
            files.push(OpenFile { path, handle });
        }
        Ok(Self { files, tensors, scratch: Mutex::new(Vec::new()) })
    }

    /// Adds every difference between the index and the shards to `problems`.
    fn compare(&self, map: &BTreeMap<String, String>, problems: &mut Problems) {
        let found_in = |entry: &Located| self.files[entry.file].path.file_name().and_then(|name| name.to_str());
        for (name, shard) in map {
            let found = self.tensors.get(name).and_then(found_in);
            if found != Some(shard.as_str()) {
                problems.add(format!("tensor {name} is not in {shard}, where the index says that it is"));
            }
        }
        for (name, entry) in &self.tensors {
            if !map.contains_key(name) {
                problems
                    .add(format!("tensor {name} is in {} but not in the index", found_in(entry).unwrap_or_default()));
            }
        }
    }
}

/// What is known about a tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type in the file.
    pub dtype: Dtype,
}

impl TensorInfo {
    /// Number of rows: the first dimension. A scalar has one.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Values per row: the product of all dimensions but the first. The rows of a vector have one value.
    pub fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}

/// Element types that a checkpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single precision number.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Appends the little-endian numbers in `bytes`, whose length is a multiple of the element size, to `out`.
    fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))),
            Self::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32())),
            Self::F16 => {
                // The conversion of whole slices uses the processor's instruction for it.
                let mut halves = [f16::ZERO; 256];
                let mut floats = [0.0; 256];
                for chunk in bytes.as_chunks().0.chunks(halves.len()) {
                    for (half, &bytes) in halves.iter_mut().zip(chunk) {
                        *half = f16::from_le_bytes(bytes);
                    }
                    halves[..chunk.len()].convert_to_f32_slice(&mut floats[..chunk.len()]);
                    out.extend_from_slice(&floats[..chunk.len()]);
                }
            }
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        })
    }
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    handle: File,
}

impl OpenFile {
    fn unreadable(&self, name: &str, source: std::io::Error) -> CheckpointError {
        CheckpointError::Read { path: self.path.clone(), name: name.to_owned(), source }
    }
}

#[derive(Debug)]
struct Located {
    /// Position in [`Checkpoint::files`].
    file: usize,
    /// First byte in that file.
    offset: u64,
    info: TensorInfo,
}

/// The file to start from to get all weights, if any of `names` is one. A single file needs no index, and as in
/// transformers an index beside it is not looked at.
pub(crate) fn first_file(names: &[impl AsRef<str>]) -> Option<&'static str> {
    [SINGLE_FILE, INDEX_FILE].into_iter().find(|wanted| names.iter().any(|name| name.as_ref() == *wanted))
}

/// The names of the shards that an index file names, for fetching them.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut problems = Problems::default();
    let names = index::shards(&index::read(index)?, &mut problems);
    if problems.is_empty() {
        return Ok(names);
    }
    let folder = index.parent().unwrap_or(Path::new("")).to_owned();
    Err(CheckpointError::Invalid { folder, problems: problems.into_list() })
}

/// Whether `path` is a file. Other things of that name are refused: opening a pipe would wait for ever.
fn is_there(path: &Path) -> Result<bool, CheckpointError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(CheckpointError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CheckpointError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
