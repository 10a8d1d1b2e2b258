//! What differs between systems. Nothing else in this crate asks which system it runs on.

mod device_memory;
mod machine;
mod memory;
mod process;
mod sensors;

pub use device_memory::device_memory;
pub use machine::{Machine, available_memory, largest_cache};
pub use memory::{peak_memory, reset_peak_memory};
pub use process::{ended, keep_from_interrupts};
pub use sensors::{ThermalZone, core_frequencies, thermal_zones};

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

/// Starts this program once more with huge pages for its memory, where that is to be asked for and can only be asked for before
/// the start: Linux with glibc. A decode step reads all weights, and with small pages the processor looks up ten thousands of
/// addresses meanwhile. Does nothing if the variable `GLIBC_TUNABLES` is set, to whatever; what is set can switch this off.
///
/// Only for programs: it ends what this process has done so far.
pub fn prefer_huge_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;

        /// The setting of glibc that asks the system for huge pages.
        const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

        let policy = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let mut arguments = env::args_os();
        let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) else { return };
        if are_huge_pages_on_request(&policy) && env::var_os(HUGE_PAGES.0).is_none() {
            let mut command = std::process::Command::new(program);
            let error = command.arg0(name).args(arguments).env(HUGE_PAGES.0, HUGE_PAGES.1).exec();
            tracing::debug!(%error, "the program goes on with small pages");
        }
    }
}

/// Whether the system gives huge pages to those who ask, by its own account. The chosen policy is the one in brackets.
#[cfg(any(test, all(target_os = "linux", target_env = "gnu")))]
fn are_huge_pages_on_request(policy: &str) -> bool {
    policy.contains("[madvise]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_asked_for_only_where_that_helps() {
        assert!(are_huge_pages_on_request("always [madvise] never\n"));
        for policy in ["[always] madvise never", "always madvise [never]", ""] {
            assert!(!are_huge_pages_on_request(policy), "{policy}");
        }
    }

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
