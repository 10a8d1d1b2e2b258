//! What the cross-crate tests share.

pub mod compare;
pub mod dequantized;
pub mod dialogues;
pub mod graphs;
pub mod models;
pub mod packages;
pub mod plugins;
pub mod programs;
pub mod reference;
pub mod repository;
pub mod weights;

use std::path::{Path, PathBuf};

/// The folder of the committed checkpoints.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The folder of what the scripts of tests/reference have computed.
pub fn reference_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/data")
}
