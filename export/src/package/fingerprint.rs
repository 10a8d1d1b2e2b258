//! What tells one checkpoint from another without reading all of it.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Files that give tokens their meaning.
const TOKENIZER: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// SHA-256, in hexadecimal, over name, shape, type and first and last row of every tensor, and over the tokenizer.
///
/// Training changes every matrix, so that two fine-tunes of one model differ in some row; equal ones are the same for a package.
pub(super) fn fingerprint(source: &Path, checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    let mut row = Vec::new();
    for (name, tensor) in checkpoint.tensors() {
        hash.update(format!("{name} {:?} {}\n", tensor.shape, tensor.dtype));
        let last = tensor.rows().saturating_sub(1);
        for start in [0, last] {
            checkpoint.read_rows(name, start, tensor.rows().min(1), &mut row)?;
            row.iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
    }
    for name in TOKENIZER {
        // Whether a file is missing that must be there is for the sidecars to say.
        hash.update(fs::read(source.join(name)).unwrap_or_default());
        hash.update([0]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
