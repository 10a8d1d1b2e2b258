//! Writing files: streamed, hashed while they are written, and visible under their names only when all are whole.

mod bytes;
mod data;
mod file;
mod ordered;
mod platform;
mod producer;
mod staging;

pub use data::{write_data, write_graph};
pub use file::{HashedFile, Written};
pub use producer::Producer;
pub use staging::Staging;

use std::io;
use std::path::PathBuf;

use lfm2_graphs::ir::DType;

use crate::checkpoint::CheckpointError;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file system refused.
    #[error("{path} cannot be written: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A weight could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight holds NaN or infinity.
    #[error("the tensor `{tensor}` holds {value} in row {row}: the checkpoint is damaged, or its training diverged")]
    NotFinite {
        /// The tensor in the checkpoint.
        tensor: String,
        /// First dimension of the place.
        row: usize,
        /// What lies there.
        value: f32,
    },
    /// A weight does not fit into the chosen number format.
    #[error(
        "the tensor `{tensor}` holds {value} in row {row}, which {dtype} cannot represent; choose a precision with float32 activations, and for NVIDIA's GPUs --cuda-activations bf16"
    )]
    Overflow {
        /// The tensor in the checkpoint.
        tensor: String,
        /// First dimension of the place.
        row: usize,
        /// What lies there.
        value: f32,
        /// The number format.
        dtype: DType,
    },
    /// The values of a block are too large for its scale.
    #[error(
        "the tensor `{tensor}` holds values in row {row} whose scale float16 cannot represent; choose a precision with float32 activations, whose scales are float32"
    )]
    ScaleOverflow {
        /// The tensor in the checkpoint.
        tensor: String,
        /// First dimension of the place.
        row: usize,
    },
    /// Somebody else is writing.
    #[error("another export is writing into this folder: {path} is locked; wait for it to end", path = .path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// Stopped on request.
    #[error("interrupted; nothing was changed")]
    Interrupted,
}
