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

use crate::package::is_tensor_at;

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

/// Whether a file is a graph with its weights in it, and none of weights alone.
fn is_graph(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "onnx")
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
        // A tool that has written the graph anew has put its weights elsewhere, and kept the description.
        if is_graph(&path) && !is_tensor_at(&opened, *offset, *length).map_err(unreadable)? {
            return Err(EmbeddingError::Moved { path, name: name.clone() });
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
    /// A graph that carries the table, but not where it did.
    #[error("{path} does not have {name} where its description says: something has written the file anew; fetch or export the package again", path = path.display())]
    Moved {
        /// The ONNX file.
        path: PathBuf,
        /// Name of the initializer.
        name: String,
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Bytes before the table, which belong to other weights.
    const BEFORE: usize = 3;

    fn location(name: &str, offset: usize, length: usize) -> Location {
        Location { name: name.to_owned(), file: "x.data".to_owned(), offset: offset as u64, length: length as u64 }
    }

    fn table(format: TableFormat, columns: usize, bytes: usize) -> Table {
        let values = location("table", BEFORE, bytes);
        Table { rows: 2, columns, format, values, scales: None, zero_points: None, precision: None }
    }

    fn folder(bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.data"), [&[0xff; BEFORE], bytes].concat()).unwrap();
        folder
    }

    #[test]
    fn plain_rows_are_read_by_their_position() {
        let values = [1.0_f32, -2.5, 0.25, 7.0];
        let wide: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let narrow: Vec<u8> = values.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect();
        for (dtype, bytes) in [(DType::Float32, wide), (DType::Float16, narrow)] {
            let folder = folder(&bytes);
            let mut embedding =
                Embedding::open(folder.path(), &table(TableFormat::Dense { dtype }, 2, bytes.len())).unwrap();
            assert_eq!(embedding.row(1).unwrap(), &values[2..]);
            assert_eq!(embedding.row(0).unwrap(), &values[..2]);
        }
    }

    #[test]
    fn blocks_are_unpacked_with_scales_and_zero_points() {
        // Two rows of two blocks of 16 numbers, 4 bits each.
        let packed = [[0x21; 16], [0x43; 16]].concat();
        let scales: Vec<u8> = [1.0, 10.0, 2.0, 20.0].iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect();
        let bytes = [&packed[..], &scales, &[0x10, 0x32]].concat();
        let folder = folder(&bytes);
        let format = TableFormat::Blocks { bits: 4, block_size: 16, scales: DType::Float16 };
        let mut described = table(format, 32, 32);
        assert!(matches!(Embedding::open(folder.path(), &described), Err(EmbeddingError::Format { .. })));
        described.scales = Some(location("scales", BEFORE + 32, 8));
        let mut symmetric = Embedding::open(folder.path(), &described).unwrap();
        assert_eq!(symmetric.row(0).unwrap()[..2], [-7.0, -6.0]);
        assert_eq!(symmetric.row(1).unwrap()[16..18], [-100.0, -80.0]);
        described.zero_points = Some(location("zeros", BEFORE + 40, 2));
        let mut zeros = Embedding::open(folder.path(), &described).unwrap();
        let row = zeros.row(1).unwrap();
        assert_eq!((&row[..2], &row[16..18]), (&[2.0, 4.0][..], &[0.0, 20.0][..]));
        assert_eq!(zeros.row(0).unwrap()[16..18], [0.0, 10.0]);
    }

    #[test]
    fn a_graph_that_was_written_anew_is_told() {
        let values = [1.0_f32, -2.5, 0.25, 7.0];
        let folder = tempfile::tempdir().unwrap();
        // What an ONNX file has in front of the bytes of a tensor.
        let file: Vec<u8> = [0x4a, 16].into_iter().chain(values.iter().flat_map(|it| it.to_le_bytes())).collect();
        fs::write(folder.path().join("x.onnx"), &file).unwrap();
        let at = |offset| {
            let mut described = table(TableFormat::Dense { dtype: DType::Float32 }, 2, 16);
            described.values = Location { file: "x.onnx".to_owned(), offset, ..described.values };
            described
        };
        assert_eq!(Embedding::open(folder.path(), &at(2)).unwrap().row(1).unwrap(), &values[2..]);
        for moved in [[0x4a, 15], [0x42, 16]] {
            fs::write(folder.path().join("x.onnx"), [&moved, &file[2..]].concat()).unwrap();
            let message = Embedding::open(folder.path(), &at(2)).err().unwrap().to_string();
            assert!(message.contains("x.onnx does not have table where"), "{message}");
        }
        fs::write(folder.path().join("x.onnx"), &file[2..]).unwrap();
        let message = Embedding::open(folder.path(), &at(0)).err().unwrap().to_string();
        assert!(message.contains("x.onnx does not have table where"), "{message}");
    }

    #[test]
    fn what_is_not_there_is_told_with_the_file() {
        let folder = folder(&[0; 16]);
        let dense = TableFormat::Dense { dtype: DType::Float32 };
        let message = |table: &Table| Embedding::open(folder.path(), table).err().unwrap().to_string();
        let mut described = table(dense, 2, 16);
        Embedding::open(folder.path(), &described).unwrap();
        described.values.offset += 1;
        assert!(message(&described).contains("x.data does not hold table as described, 2 rows of 8 bytes"));
        described.values.file = "y.data".to_owned();
        assert!(message(&described).contains("y.data cannot be read"));
        for outside in ["", "../x.data", "/x.data"] {
            described.values.file = outside.to_owned();
            assert!(message(&described).contains("does not say in which file"), "{outside}");
        }
        assert!(message(&table(TableFormat::Dense { dtype: DType::Int64 }, 2, 16)).contains("number format"));
        let huge = Table { rows: usize::MAX, ..table(dense, 2, 16) };
        assert!(message(&huge).contains("x.data does not hold"));
        let blocks = TableFormat::Blocks { bits: 4, block_size: 0, scales: DType::Float32 };
        assert!(message(&table(blocks, 2, 16)).contains("number format"));
    }
}
