//! Whether a file is a usable ONNX Runtime, asked before `ort` loads it: `ort` panics where this returns an error, and
//! with some old versions the process ends.
#![allow(unsafe_code, reason = "a library written in C++ is loaded and asked for its version")]

use std::error::Error;
use std::ffi::CStr;
use std::mem;
use std::path::Path;

use libloading::{Library, Symbol};
use ort::sys::OrtApiBase;

use super::RuntimeError;

/// The version of a library.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// As the library says it, such as `1.32.0`.
    pub(super) text: String,
    /// The second number.
    pub(super) minor: u32,
}

/// Loads the library at `path` and returns its version if `ort` can use it.
pub(super) fn check(path: &Path) -> Result<Version, RuntimeError> {
    let broken = |reason: String| RuntimeError::Broken { library: path.to_owned(), reason };
    // SAFETY: loading runs the initialisers of the library. The user chose the file, or put it where libraries are looked for.
    let library = unsafe { Library::new(path) }.map_err(|error| {
        // What the system said is behind that it said something.
        let said = error.source().map(|said| format!(": {said}")).unwrap_or_default();
        broken(format!("{error}{said}"))
    })?;
    let version = ask(&library).map_err(broken)?;
    // Unloading ONNX Runtime is not safe: its threads and registered handlers would outlive its code.
    mem::forget(library);
    accept(path, version)
}

/// Refuses versions that `ort` cannot use.
fn accept(path: &Path, version: String) -> Result<Version, RuntimeError> {
    let library = path.to_owned();
    match minor(&version) {
        None => Err(RuntimeError::Broken { library, reason: format!("its version is {version:?}, not 1.x") }),
        Some(minor) if minor < ort::MINOR_VERSION => Err(RuntimeError::TooOld { library, version }),
        Some(minor) => Ok(Version { text: version, minor }),
    }
}

/// The library's own version string. The error says what is missing.
fn ask(library: &Library) -> Result<String, String> {
    // SAFETY: every ONNX Runtime exports this function with this type; no other library is expected to have the name.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") };
    let base: Symbol<_> = base.map_err(|_| "it has no function OrtGetApiBase".to_owned())?;
    // SAFETY: the function takes nothing and returns null or a pointer to a structure that is never freed.
    let base = unsafe { base().as_ref() }.ok_or("OrtGetApiBase returned nothing")?;
    // SAFETY: the structure begins with the two functions of `OrtApiBase` since the first version of ONNX Runtime.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err("it does not tell its version".to_owned());
    }
    // SAFETY: the function returns a string that ends with a zero byte and is never freed.
    let version = unsafe { CStr::from_ptr(version) };
    Ok(version.to_string_lossy().into_owned())
}

/// The second number of a version 1.x.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in
            [("1.32.0", Some(32)), ("1.24", Some(24)), ("1.30.0-rc1", Some(30)), ("1.31rc", Some(31))]
        {
            assert_eq!(minor(text), expected, "{text}");
        }
        for text in ["", "1", "1.", "2.0.0", "nonsense", "1.x"] {
            assert_eq!(minor(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_too_old_is_named_with_its_version() {
        let judge = |version: &str| accept(Path::new("lib/runtime"), version.to_owned());
        assert_eq!(judge("1.32.0").unwrap(), Version { text: "1.32.0".into(), minor: 32 });
        for version in ["1.22.1", "1.9.0", "2.0.0", "unknown"] {
            let message = judge(version).unwrap_err().to_string();
            assert!(
                message.contains(version) && message.contains("lib/runtime") && message.contains("--ort-lib"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_is_no_runtime_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(crate::platform::library_file("onnxruntime"));
        for content in ["", "not a library at all"] {
            std::fs::write(&path, content).unwrap();
            let message = check(&path).unwrap_err().to_string();
            assert!(message.contains(&*path.to_string_lossy()) && message.contains("make runtime"), "{message}");
        }
    }
}
