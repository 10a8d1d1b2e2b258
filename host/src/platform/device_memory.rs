//! How much memory of devices this process has.

use std::collections::BTreeMap;
use std::fs;
use std::process::{self, Command};

/// Bytes of memory on graphics processors and accelerators that this process holds at the moment. Nothing where the system does
/// not tell, or where it holds none.
///
/// Linux: what the drivers of the kernel say about the open devices (`drm-resident-vram` and its kin in /proc/self/fdinfo), or
/// else `nvidia-smi`, as NVIDIA's driver says nothing there. Never to be added to what is resident: on devices that share the
/// memory of the host it is counted in both.
pub fn device_memory() -> Option<u64> {
    open_devices().or_else(nvidia)
}

fn open_devices() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fdinfo").ok()?;
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    held(texts).filter(|bytes| *bytes > 0)
}

/// The sum over all clients in the texts of fdinfo files (the kernel's "DRM client usage stats"). A client that is open twice
/// counts once; what is resident is taken where it is told, or else what is allocated.
fn held(texts: impl Iterator<Item = String>) -> Option<u64> {
    let mut clients: BTreeMap<(String, String), BTreeMap<String, u64>> = BTreeMap::new();
    for text in texts {
        let entries: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect();
        let Some(client) = entries.get("drm-client-id") else { continue };
        let device = entries.get("drm-pdev").or_else(|| entries.get("drm-driver")).copied().unwrap_or_default();
        let regions = clients.entry((device.to_owned(), (*client).to_owned())).or_default();
        // From the least exact key to the most exact, so that the last one stays.
        for prefix in ["drm-memory-", "drm-total-", "drm-resident-"] {
            for (key, value) in &entries {
                if let (Some(region), Some(bytes)) = (key.strip_prefix(prefix), bytes(value)) {
                    regions.insert(region.to_owned(), bytes);
                }
            }
        }
    }
    (!clients.is_empty()).then(|| clients.values().flat_map(BTreeMap::values).sum())
}

/// Bytes of `512`, `20 KiB` or `3 MiB`.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let shift = match unit.trim() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What NVIDIA's tool says about this process.
fn nvidia() -> Option<u64> {
    // Without its driver there is nothing to ask for, and no program to be started.
    if !fs::exists("/proc/driver/nvidia/version").unwrap_or(false) {
        return None;
    }
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]);
    let output = command.output().ok().filter(|output| output.status.success())?;
    used_by(process::id(), &String::from_utf8_lossy(&output.stdout))
}

/// The bytes of a process in lines such as `4711, 512`, in mebibytes, one for each device.
fn used_by(process: u32, lines: &str) -> Option<u64> {
    let entries = lines.lines().filter_map(|line| line.split_once(','));
    let own = entries.filter(|(id, _)| id.trim().parse() == Ok(process));
    own.filter_map(|(_, mebibytes)| mebibytes.trim().parse::<u64>().ok()?.checked_mul(1 << 20))
        .reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_count_once_with_what_is_resident() {
        let client = |id: u32, lines: &str| format!("pos:\t0\ndrm-driver:\tamdgpu\ndrm-client-id:\t{id}\n{lines}");
        let first = client(7, "drm-memory-vram:\t900 KiB\ndrm-total-vram:\t800 KiB\ndrm-resident-vram:\t512 KiB\n");
        let second = client(8, "drm-total-gtt:\t3 MiB\ndrm-engine-gfx:\t5 ns\n");
        let texts = [first.clone(), "pos:\t0\n".to_owned(), first, second];
        assert_eq!(held(texts.into_iter()), Some((512 << 10) + (3 << 20)));
        assert_eq!(held(["pos:\t0\n".to_owned()].into_iter()), None);
    }

    #[test]
    fn units_are_those_of_the_kernel() {
        for (text, expected) in
            [("512", Some(512)), ("20 KiB", Some(20 << 10)), ("1 MiB", Some(1 << 20)), ("5 ns", None), ("", None)]
        {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_process_on_two_devices_has_the_memory_of_both() {
        let lines = "12, 100\n7, 5\n 12,  28\nnothing\n13, [N/A]\n";
        assert_eq!(used_by(12, lines), Some(128 << 20));
        assert_eq!(used_by(13, lines), None);
        assert_eq!(used_by(1, lines), None);
    }
}
