//! How much memory this process has used.

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::fs;

/// The largest number of bytes that this process had resident at once, or nothing where the system does not tell.
///
/// On Linux and Android it counts from the start of the program or from [`reset_peak_memory`], elsewhere from the start.
pub fn peak_memory() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(bytes) = high_water() {
        return Some(bytes);
    }
    resource_usage()
}

/// Makes [`peak_memory`] count from now on, and tells whether the system can do that.
pub fn reset_peak_memory() -> bool {
    // proc_pid_clear_refs(5): 5 resets the high water mark of the resident set.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return fs::write("/proc/self/clear_refs", "5").is_ok();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    false
}

/// The high water mark, which unlike that of getrusage begins anew with the program and leaves out what its parent used.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn high_water() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(unix)]
fn resource_usage() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};

    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let largest = u64::try_from(usage.max_rss()).ok()?;
    // Kibibytes everywhere but on Apple's systems.
    Some(if cfg!(target_vendor = "apple") { largest } else { largest << 10 })
}

#[cfg(not(unix))]
fn resource_usage() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_used_is_seen() {
        let before = peak_memory().unwrap();
        let used = vec![1_u8; 64 << 20];
        let after = peak_memory().unwrap();
        assert!(after >= 64 * MIB && after >= before, "{before} {after}");
        assert_eq!(used.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 64 * MIB);
        assert!(resource_usage().unwrap() >= 64 * MIB);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_can_be_left_behind() {
        drop(vec![1_u8; 512 << 20]);
        let high = peak_memory().unwrap();
        assert!(reset_peak_memory());
        let low = peak_memory().unwrap();
        // Other tests use memory meanwhile, but not that much.
        assert!(low + 256 * MIB < high, "{low} {high}");
    }
}
