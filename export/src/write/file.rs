//! A file that is hashed while it is written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::WriteError;

/// A file being written from its beginning to its end.
pub struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

/// Facts about a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl HashedFile {
    /// Creates the file, which must not be there.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let file = File::create_new(path).map_err(|source| WriteError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), size: 0 })
    }

    /// Number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    /// Appends zeros up to `size`.
    pub fn pad_to(&mut self, size: u64) -> Result<(), WriteError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.size < size {
            let missing = (size - self.size).min(ZEROS.len() as u64) as usize;
            self.write(&ZEROS[..missing])?;
        }
        Ok(())
    }

    /// Makes sure that everything is on disk.
    pub fn finish(self) -> Result<Written, WriteError> {
        let Self { path, file, hash, size } = self;
        let on_disk = file.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
        on_disk.map_err(|source| WriteError::Io { path, source })?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { size, sha256 })
    }
}
