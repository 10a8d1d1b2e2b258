//! Rows of the token table, read from the file where they are needed.
//!
//! NPUs do not look rows up in packed tables, so that the host does it. The table is the largest weight of a small model, and a run
//! needs a few kilobytes of it: each row is read by its position and unpacked, and the system's cache of files keeps what comes
//! often.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use lfm2_graphs::contract::{DType, Location, Table, TableFormat};
use lfm2_graphs::format::{Blocks, unpack_row};

/// The table of a graph, opened.
pub(super) struct Embedding {
    values: Part,
    scales: Option<Part>,
    zero_points: Option<Part>,
    format: TableFormat,
    /// The scales of the last row.
    scale_numbers: Vec<f32>,
    /// The last row.
    row: Vec<f32>,
}

impl Embedding {
    /// Opens the table of a graph in the folder `folder`, and checks that its files are long enough.
    pub(super) fn open(folder: &Path, table: &Table) -> Result<Self, EmbeddingError> {
        let Table { rows, columns, format, .. } = table;
        let part = |location: &Location, bytes| Part::open(folder, location, *rows, bytes);
        let missing = |name: &str| EmbeddingError::Format { name: name.to_owned() };
        let (mut scales, mut zero_points) = (None, None);
        let bytes = match *format {
            TableFormat::Dense { dtype: dtype @ (DType::Float32 | DType::Float16) } => columns * dtype.size(),
            TableFormat::Blocks { bits: bits @ (4 | 8), block_size, scales: dtype }
                if block_size > 0
                    && columns.is_multiple_of(block_size)
                    && matches!(dtype, DType::Float32 | DType::Float16) =>
            {
                let location = table.scales.as_ref().ok_or_else(|| missing(&table.values.name))?;
                scales = Some(part(location, columns / block_size * dtype.size())?);
                let blocks = Blocks { bits, block_size, zero_points: true, scales: dtype };
                zero_points =
                    table.zero_points.as_ref().map(|it| part(it, blocks.zero_point_bytes(*columns))).transpose()?;
                columns * bits / 8
            }
            _ => return Err(missing(&table.values.name)),
        };
        let blocks = match *format {
            TableFormat::Blocks { block_size, .. } => columns / block_size,
            TableFormat::Dense { .. } => 0,
        };
        Ok(Self {
            values: part(&table.values, bytes)?,
            scales,
            zero_points,
            format: *format,
            scale_numbers: vec![0.0; blocks],
            row: vec![0.0; *columns],
        })
    }

    /// The row of the token `id`.
    pub(super) fn row(&mut self, id: u32) -> Result<&[f32], EmbeddingError> {
        let Self { values, scales, zero_points, format, scale_numbers, row } = self;
        let bytes = values.row(id)?;
        match (*format, scales) {
            (TableFormat::Blocks { bits, block_size, scales: dtype }, Some(scales)) => {
                widen(scales.row(id)?, dtype, scale_numbers);
                let blocks = Blocks { bits, block_size, zero_points: zero_points.is_some(), scales: dtype };
                let zero_points = zero_points.as_mut().map(|it| it.row(id)).transpose()?.unwrap_or_default();
                unpack_row(blocks, bytes, scale_numbers, zero_points, row);
            }
            (TableFormat::Dense { dtype }, _) => widen(bytes, dtype, row),
            (TableFormat::Blocks { .. }, None) => {
                return Err(EmbeddingError::Format { name: values.path.display().to_string() });
            }
        }
        Ok(row)
    }
}

/// Numbers of float16 or float32, low bytes first, as float32.
fn widen(bytes: &[u8], dtype: DType, out: &mut [f32]) {
    if dtype == DType::Float16 {
        for (bytes, out) in bytes.chunks_exact(2).zip(out) {
            *out = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        }
    } else {
        for (bytes, out) in bytes.chunks_exact(4).zip(out) {
            *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
}

/// One initializer of the table.
struct Part {
    file: File,
    path: PathBuf,
    /// First byte.
    offset: u64,
    /// The last row.
    bytes: Vec<u8>,
}

impl Part {
    /// Opens an initializer of `rows` rows of `bytes` bytes each.
    fn open(folder: &Path, location: &Location, rows: usize, bytes: usize) -> Result<Self, EmbeddingError> {
        let Location { name, file, offset, length } = location;
        let path = crate::package::path_in(folder, file);
        let path = path.ok_or_else(|| EmbeddingError::Nowhere { name: name.clone() })?;
        let unreadable = |source| EmbeddingError::Unreadable { path: path.clone(), source };
        let opened = File::open(&path).map_err(unreadable)?;
        let found = opened.metadata().map_err(unreadable)?.len();
        let needed = (rows as u64).checked_mul(bytes as u64);
        let end = needed.filter(|needed| needed == length).and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > found) {
            return Err(EmbeddingError::Length { path, name: name.clone(), rows, bytes });
        }
        Ok(Self { file: opened, path, offset: *offset, bytes: vec![0; bytes] })
    }

    fn row(&mut self, id: u32) -> Result<&[u8], EmbeddingError> {
        let start = self.offset + u64::from(id) * self.bytes.len() as u64;
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.read_exact(&mut self.bytes));
        read.map_err(|source| EmbeddingError::Unreadable { path: self.path.clone(), source })?;
        Ok(&self.bytes)
    }
}

/// Why a row of the token table cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// The graph's description has no file for it.
    #[error(
        "the description of the graph does not say in which file of the package {name} lies; export the model again"
    )]
    Nowhere {
        /// Name of the initializer.
        name: String,
    },
    /// A number format that the host cannot unpack.
    #[error(
        "the rows of {name} are in a number format that this program does not know; export the model again, or use the matching host"
    )]
    Format {
        /// Name of the initializer.
        name: String,
    },
    /// A file that cannot be read.
    #[error("the token table in {path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is too short, or another one than was described.
    #[error("{path} does not hold {name} as described, {rows} rows of {bytes} bytes; fetch or export the package again", path = path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Name of the initializer.
        name: String,
        /// Rows of the table.
        rows: usize,
        /// Bytes of a row.
        bytes: usize,
    },
}
