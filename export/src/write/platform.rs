//! What differs between systems when files are written.

use std::io;
use std::path::Path;

/// Makes sure that the names in a folder are on disk. Only Unix has a call for that; elsewhere the file system does it by itself.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    tracing::trace!(path = %folder.display(), "names are written by the file system itself");
    Ok(())
}
