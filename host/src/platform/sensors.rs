//! How warm and how fast the processor is at the moment, where the system tells.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A place whose temperature the system knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThermalZone {
    /// Its number among the zones.
    pub zone: usize,
    /// What it is, in the words of its driver: `x86_pkg_temp`, `cpu-thermal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its temperature.
    pub celsius: f64,
}

/// The temperatures of all zones, by number. Nothing where the system has no zones, which is so on virtual machines, and on
/// everything but Linux and Android.
pub fn thermal_zones() -> Option<Vec<ThermalZone>> {
    zones_in(Path::new("/sys/class/thermal"))
}

/// The frequency of every core in hertz, by number of the core. Nothing where the system does not tell.
pub fn core_frequencies() -> Option<Vec<u64>> {
    frequencies_in(Path::new("/sys/devices/system/cpu"))
        .or_else(|| frequencies_from(&fs::read_to_string("/proc/cpuinfo").ok()?))
}

/// The zones in a folder with the layout of Linux's /sys/class/thermal: `type`, and `temp` in thousandths of a degree.
fn zones_in(folder: &Path) -> Option<Vec<ThermalZone>> {
    let mut zones: Vec<_> = numbered(folder, "thermal_zone")
        .filter_map(|(zone, path)| {
            let kind = fs::read_to_string(path.join("type")).ok()?.trim().to_owned();
            // Zones that are switched off refuse to be read.
            let temperature: i64 = fs::read_to_string(path.join("temp")).ok()?.trim().parse().ok()?;
            Some(ThermalZone { zone, kind, celsius: temperature as f64 / 1000.0 })
        })
        .collect();
    zones.sort_unstable_by_key(|zone| zone.zone);
    Some(zones).filter(|zones| !zones.is_empty())
}

/// The frequencies in a folder with the layout of Linux's /sys/devices/system/cpu, which has kilohertz.
fn frequencies_in(folder: &Path) -> Option<Vec<u64>> {
    let mut found: Vec<_> = numbered(folder, "cpu")
        .filter_map(|(core, path)| {
            let kilohertz = fs::read_to_string(path.join("cpufreq/scaling_cur_freq")).ok()?;
            Some((core, kilohertz.trim().parse::<u64>().ok()?.checked_mul(1000)?))
        })
        .collect();
    found.sort_unstable();
    Some(found.into_iter().map(|(_, hertz)| hertz).collect()).filter(|found: &Vec<u64>| !found.is_empty())
}

/// The frequencies in the text of /proc/cpuinfo, which has megahertz on x86.
fn frequencies_from(cpuinfo: &str) -> Option<Vec<u64>> {
    let entries = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let values = entries.filter(|(name, _)| name.trim() == "cpu MHz");
    let hertz: Vec<u64> =
        values.filter_map(|(_, value)| Some((value.trim().parse::<f64>().ok()? * 1e6).round() as u64)).collect();
    Some(hertz).filter(|hertz| !hertz.is_empty())
}

/// The entries of a folder that are called `name` and a number.
fn numbered(folder: &Path, name: &'static str) -> impl Iterator<Item = (usize, std::path::PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let number = entry.file_name().to_str()?.strip_prefix(name)?.parse().ok()?;
        Some((number, entry.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn zones_are_read_in_order_and_broken_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (zone, kind, temperature) in
            [(10, "gpu-thermal", "51500\n"), (2, "cpu-thermal", "-1250"), (3, "battery", "no")]
        {
            write(folder.path(), &format!("thermal_zone{zone}/type"), &format!("{kind}\n"));
            write(folder.path(), &format!("thermal_zone{zone}/temp"), temperature);
        }
        write(folder.path(), "cooling_device0/type", "fan");
        let found = zones_in(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|zone| (zone.zone, zone.kind.as_str(), zone.celsius)).collect();
        assert_eq!(found, [(2, "cpu-thermal", -1.25), (10, "gpu-thermal", 51.5)]);
        assert_eq!(zones_in(&folder.path().join("nowhere")), None);
    }

    #[test]
    fn frequencies_are_those_of_the_cores_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (core, kilohertz) in [(11, "1800000"), (0, "3600000\n")] {
            write(folder.path(), &format!("cpu{core}/cpufreq/scaling_cur_freq"), kilohertz);
        }
        write(folder.path(), "cpufreq/policy0/scaling_cur_freq", "1");
        assert_eq!(frequencies_in(folder.path()), Some(vec![3_600_000_000, 1_800_000_000]));
        assert_eq!(frequencies_in(&folder.path().join("cpu0")), None);
        let cpuinfo = "processor\t: 0\ncpu MHz\t\t: 1999.998\n\nprocessor\t: 1\ncpu MHz\t\t: 2400.000\n";
        assert_eq!(frequencies_from(cpuinfo), Some(vec![1_999_998_000, 2_400_000_000]));
        assert_eq!(frequencies_from("processor : 0\n"), None);
    }
}
