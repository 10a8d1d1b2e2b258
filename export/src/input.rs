//! Reading files that anybody may have written.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a config, an index of shards, and other small JSON. Real ones have at most a few hundred kilobytes.
pub(crate) const SMALL: u64 = 16 << 20;

/// Most bytes of a tokenizer. Real ones have at most some ten megabytes.
pub(crate) const TOKENIZER: u64 = 256 << 20;

/// Most bytes of an ONNX file, which protobuf limits.
pub(crate) const GRAPH: u64 = 2 << 30;

/// The bytes of the file at `path`, of which there may be `limit`.
///
/// # Errors
/// If it is not a file (opening a pipe would wait for ever, a device may never end), is larger, or cannot be read.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_file(path)?;
    let mut bytes = Vec::new();
    // What lies behind the limit is not read, whatever size the file system gave.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

/// The file at `path`, opened, and its size, which may be `limit`, for those who do not need all of it.
///
/// # Errors
/// As those of [`read_file`].
pub(crate) fn sized_file(path: &Path, limit: u64) -> io::Result<(File, u64)> {
    let file = open_file(path)?;
    let size = file.metadata()?.len();
    if size > limit { Err(too_large(limit)) } else { Ok((file, size)) }
}

fn open_file(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file"));
    }
    File::open(path)
}

fn too_large(limit: u64) -> io::Error {
    let reason = format!("it is larger than the {limit} bytes that such a file may have");
    io::Error::new(io::ErrorKind::FileTooLarge, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_file(&path, 10).unwrap(), [7; 10]);
        assert_eq!(read_file(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(sized_file(&path, 10).unwrap().1, 10);
        assert_eq!(sized_file(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_file(&folder.path().join("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_not_a_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut others = vec![folder.path().to_owned()];
        if cfg!(unix) {
            others.push("/dev/zero".into());
            let pipe = folder.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            others.push(pipe);
        }
        for path in others {
            assert_eq!(read_file(&path, 9).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
            assert_eq!(sized_file(&path, 9).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
    }
}
