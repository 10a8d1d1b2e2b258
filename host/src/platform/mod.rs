//! What differs between systems. Nothing else in this crate asks which system it runs on.

mod device_memory;
mod machine;
mod memory;
mod process;
mod sensors;
mod streams;
mod termination;

pub use device_memory::device_memory;
pub use machine::{Machine, available_memory, largest_cache};
pub use memory::{peak_memory, reset_peak_memory};
pub use process::{end, ended, is_running, keep_from_interrupts, output_within, wait_within};
pub use sensors::{ThermalZone, core_frequencies, thermal_zones};
pub use streams::divert_output;
pub use termination::{leave, on_termination, terminal_as_it_is, terminate};

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;

/// Name of the file of the library `stem` without a version: `libonnxruntime.so`, `libonnxruntime.dylib` or `onnxruntime.dll`.
pub fn library_file(stem: &str) -> String {
    format!("{}{stem}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)
}

/// Whether a file called `name` is the library `stem`, with or without a version in its name. Others whose names begin alike, as
/// those of providers do, are not.
pub fn is_library_file(name: &str, stem: &str) -> bool {
    let versioned = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '.');
    let Some(rest) = name.strip_prefix(&format!("{}{stem}", env::consts::DLL_PREFIX)) else { return false };
    match env::consts::DLL_SUFFIX {
        // Versions come after the ending here, and before it elsewhere.
        ".so" => rest.strip_prefix(".so").is_some_and(versioned),
        suffix => rest.strip_suffix(suffix).is_some_and(versioned),
    }
}

/// The user's folder for files that can be fetched again, if the system has one.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let absolute = |path: &PathBuf| path.is_absolute();
    if cfg!(windows) {
        variable("LOCALAPPDATA").filter(absolute)
    } else if cfg!(any(target_os = "macos", target_os = "ios")) {
        Some(env::home_dir()?.join("Library").join("Caches"))
    } else if cfg!(target_os = "android") {
        // Only the app knows its folders there.
        None
    } else {
        // The XDG base directory specification: relative paths are to be ignored.
        variable("XDG_CACHE_HOME").filter(absolute).or_else(|| Some(env::home_dir()?.join(".cache")))
    }
}

/// The folder of the running program, if the system tells.
pub fn program_folder() -> Option<PathBuf> {
    // A link to the program counts as the program: libraries lie beside the file itself.
    let program = env::current_exe().ok()?;
    program.canonicalize().unwrap_or(program).parent().map(Path::to_path_buf)
}

/// How many threads one run uses unless told otherwise: the physical cores that this process may use. Decoding waits for
/// memory, so that a second thread on a core adds nothing but contention.
pub fn default_threads() -> usize {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_told_from_its_neighbours() {
        let is_library_name = |name: &str| is_library_file(name, "onnxruntime");
        assert!(is_library_name(&library_file("onnxruntime")));
        let versioned = match env::consts::DLL_SUFFIX {
            ".so" => "libonnxruntime.so.1.32.0",
            ".dylib" => "libonnxruntime.1.32.0.dylib",
            _ => "onnxruntime.dll",
        };
        assert!(is_library_name(versioned));
        for other in
            ["libonnxruntime_providers_shared.so", "onnxruntime_providers_shared.dll", "libonnx.so", "stamp.json"]
        {
            assert!(!is_library_name(other), "{other}");
        }
    }

    #[test]
    fn at_least_one_thread() {
        assert!((1..=thread::available_parallelism().unwrap().get()).contains(&default_threads()));
    }
}
