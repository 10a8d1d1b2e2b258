//! Several files that appear together or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::{HashedFile, WriteError, Written};

/// Files that are being written beside their final names. Those not committed are removed when this is dropped.
#[derive(Debug, Default)]
pub struct Staging {
    files: Vec<(PathBuf, PathBuf)>,
    folders: Vec<PathBuf>,
}

impl Staging {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a file that will be called `path`. Its folder is made if it is not there.
    pub fn create(&mut self, path: &Path) -> Result<HashedFile, WriteError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            self.create_folder(folder)?;
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = HashedFile::create(&partial)?;
        self.files.push((partial, path.to_owned()));
        Ok(file)
    }

    /// Writes a whole file that will be called `path`.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<Written, WriteError> {
        let mut file = self.create(path)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Gives every file its final name, in the order in which they were begun.
    pub fn commit(mut self) -> Result<(), WriteError> {
        for (partial, path) in std::mem::take(&mut self.files) {
            if let Err(source) = fs::rename(&partial, &path) {
                self.files.push((partial, path.clone()));
                return Err(WriteError::Io { path, source });
            }
        }
        self.folders.clear();
        Ok(())
    }

    fn create_folder(&mut self, folder: &Path) -> Result<(), WriteError> {
        let missing: Vec<_> = folder.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
        for new in missing.into_iter().rev() {
            fs::create_dir(new).map_err(|source| WriteError::Io { path: new.to_owned(), source })?;
            self.folders.push(new.to_owned());
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for (partial, _) in &self.files {
            if let Err(error) = fs::remove_file(partial) {
                tracing::warn!(path = %partial.display(), %error, "an unfinished file could not be removed");
            }
        }
        for folder in self.folders.iter().rev() {
            // A folder that someone else has put files into stays.
            if let Err(error) = fs::remove_dir(folder) {
                tracing::debug!(path = %folder.display(), %error, "a new folder stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.txt");
        let mut staging = Staging::new();
        let written = staging.write(&path, b"abc").unwrap();
        assert_eq!(written.size, 3);
        assert_eq!(written.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(!path.exists());
        drop(staging);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left, folders included");

        let mut staging = Staging::new();
        staging.write(&path, b"abc").unwrap();
        staging.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_stays_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let mut staging = Staging::new();
        staging.create(&path).unwrap().write(b"half").unwrap();
        drop(staging);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
