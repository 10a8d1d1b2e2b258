//! What differs between systems when files are written.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes sure that the names in a folder are on disk. Only Unix has a call for that; elsewhere the file system does it by itself.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    tracing::trace!(path = %folder.display(), "names are written by the file system itself");
    Ok(())
}

/// Whether `path` still leads to `file`. Only Unix numbers its files in a way that the standard library shows; elsewhere it is
/// asked whether there is anything.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let held = file.metadata()?;
        Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
    }
    #[cfg(not(unix))]
    Ok(there.is_file() && file.metadata()?.is_file())
}
