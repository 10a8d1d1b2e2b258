//! Why a checkpoint cannot be used.

use std::io;
use std::path::PathBuf;

use crate::problems::lines;

/// Why a checkpoint cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder has no weights.
    #[error(
        "{folder} has neither model.safetensors nor model.safetensors.index.json; \
         checkpoints in other formats (.bin, .gguf) have to be saved as safetensors first",
        folder = folder.display()
    )]
    NotFound {
        /// Where the weights were looked for.
        folder: PathBuf,
    },
    /// Something that is not a file has the name of one.
    #[error("{path} is not a file", path = path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index is not what an index looks like.
    #[error("{path} is not an index of shards: {reason}", path = path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files contradict themselves or each other, or hold what cannot be exported.
    #[error("the checkpoint in {folder} cannot be used:{list}", folder = folder.display(), list = lines(problems))]
    Invalid {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// One sentence per problem.
        problems: Vec<String>,
    },
    /// No tensor has this name.
    #[error("the checkpoint has no tensor {name}")]
    UnknownTensor {
        /// The name that was asked for.
        name: String,
    },
    /// The tensor has fewer rows than were asked for.
    #[error("rows {start} to {start}+{rows} of tensor {name} were asked for, it has {available}")]
    RowsOutOfRange {
        /// The tensor.
        name: String,
        /// First row that was asked for.
        start: usize,
        /// Number of rows that were asked for.
        rows: usize,
        /// Number of rows that there are.
        available: usize,
    },
    /// The tensor has fewer columns than were asked for.
    #[error("columns {start} to {start}+{count} of tensor {name} were asked for, it has {available}")]
    ColumnsOutOfRange {
        /// The tensor.
        name: String,
        /// First column that was asked for.
        start: usize,
        /// Number of columns that were asked for.
        count: usize,
        /// Number of columns that there are.
        available: usize,
    },
    /// A file that was good when it was opened cannot be read any more.
    #[error("cannot read tensor {name} from {path}: {source}; did the file change?", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}
