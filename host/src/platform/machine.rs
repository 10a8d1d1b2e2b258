//! What a machine is, as far as its system tells.

use std::{env, fs, thread};

use serde::{Deserialize, Serialize};

/// What a measurement was made on. What the system does not tell is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu_info: Option<String>,
    /// Physical cores.
    pub cpu_cores: usize,
    /// Hardware threads that this process may use.
    pub cpu_threads: usize,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Operating system, with its version where known.
    pub os: String,
    /// Version of the kernel.
    pub kernel: Option<String>,
    /// Architecture that the program was built for.
    pub arch: String,
    /// How the system chooses the frequency of the first core.
    pub governor: Option<String>,
    /// `mains` or `battery`.
    pub power_source: Option<String>,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        Self {
            cpu_info: cpu_name(),
            cpu_cores: num_cpus::get_physical(),
            cpu_threads: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory("MemTotal:"),
            os: os_name().unwrap_or_else(|| env::consts::OS.to_owned()),
            kernel: kernel(),
            arch: env::consts::ARCH.to_owned(),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            power_source: power_source(),
        }
    }
}

/// Bytes of memory that a program can still take without the system having to swap, where known.
pub fn available_memory() -> Option<u64> {
    memory("MemAvailable:")
}

/// Bytes of the largest cache of the first core, where known.
pub fn largest_cache() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| fs::read_to_string(cache.ok()?.path().join("size")).ok());
    sizes.filter_map(|size| cache_size(size.trim())).max()
}

/// Bytes of `512K` or `32M`.
fn cache_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        _ => return text.parse().ok(),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The whole of a small file, if it is there and holds something.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Bytes of an entry of /proc/meminfo.
fn memory(entry: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix(entry))?;
    number.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

fn cpu_name() -> Option<String> {
    if cfg!(windows) {
        return env::var("PROCESSOR_IDENTIFIER").ok();
    }
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    cpu_name_in(&text).or_else(|| line("/sys/firmware/devicetree/base/model").map(|name| name.replace('\0', "")))
}

/// The name of the first processor; kernels for ARM tell the chip under `Hardware`, if at all.
fn cpu_name_in(cpuinfo: &str) -> Option<String> {
    let entries = || cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let value = |name: &str| entries().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
    value("model name").or_else(|| value("Hardware")).filter(|name| !name.is_empty())
}

fn os_name() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

#[cfg(unix)]
fn kernel() -> Option<String> {
    nix::sys::utsname::uname().ok()?.release().to_str().map(str::to_owned)
}

#[cfg(not(unix))]
fn kernel() -> Option<String> {
    None
}

/// Where the power comes from: a supply of the mains that is online wins over a battery that is being emptied.
fn power_source() -> Option<String> {
    let supplies: Vec<_> =
        fs::read_dir("/sys/class/power_supply").ok()?.flatten().map(|supply| supply.path()).collect();
    let any = |file: &str, value: &str| {
        supplies.iter().any(|supply| fs::read_to_string(supply.join(file)).is_ok_and(|text| text.trim() == value))
    };
    if any("online", "1") {
        Some("mains".to_owned())
    } else if any("status", "Discharging") {
        Some("battery".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processors() {
        let x86 =
            "processor\t: 0\nvendor_id\t: X\nmodel name\t: Some CPU @ 3.00GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(cpu_name_in(x86).as_deref(), Some("Some CPU @ 3.00GHz"));
        assert_eq!(cpu_name_in("processor : 0\nHardware : Chip 9\n").as_deref(), Some("Chip 9"));
        assert_eq!(cpu_name_in("processor : 0\nmodel name :\n"), None);
    }

    #[test]
    fn sizes_of_caches() {
        for (text, size) in
            [("512K", Some(512 << 10)), ("32M", Some(32 << 20)), ("64", Some(64)), ("", None), ("K", None)]
        {
            assert_eq!(cache_size(text), size, "{text:?}");
        }
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::here();
        assert!(machine.cpu_threads >= 1 && machine.cpu_cores >= 1 && !machine.os.is_empty(), "{machine:?}");
        if cfg!(target_os = "linux") {
            let (total, free) = (machine.memory_bytes.unwrap(), available_memory().unwrap());
            assert!(0 < free && free < total, "{free} of {total}");
            assert!(machine.kernel.is_some());
        }
    }
}
