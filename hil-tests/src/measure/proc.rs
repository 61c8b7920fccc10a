//! What the kernel says of a process.

use std::fs;

use anyhow::Context;

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, with what it shares.
    pub resident: u64,
    /// Resident, what is shared counted in parts.
    pub proportional: u64,
    /// Most ever resident.
    pub most: u64,
}

impl Memory {
    /// Of a running process.
    ///
    /// # Errors
    /// If it is gone.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            resident: field(&status, "VmRSS:")?,
            proportional: field(&rollup, "Pss:")?,
            most: field(&status, "VmHWM:")?,
        })
    }

    /// Resident, in MiB.
    #[must_use]
    pub fn mib(&self) -> f64 {
        self.resident as f64 / 1024.0
    }

    /// For a table: "9.1 (8.0)".
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:.1} ({:.1})", self.mib(), self.proportional as f64 / 1024.0)
    }
}

/// Bytes that a process made the disk write, in pages that were dirtied.
///
/// # Errors
/// If it is gone.
pub fn written(pid: u32) -> anyhow::Result<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/io"))?, "write_bytes:")
}

/// Processor time of a process so far, in clock ticks (100 a second).
///
/// # Errors
/// If it is gone.
pub fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; behind its bracket fields 14 and 15 of proc(5) are user and system time.
    let behind = stat.rsplit_once(')').context("a name in brackets")?.1;
    let times = behind.split_whitespace().skip(11).take(2);
    Ok(times.filter_map(|text| text.parse::<u64>().ok()).sum())
}

fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    value
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("no {name} in what the kernel says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        let memory = Memory::of(pid).unwrap();
        assert!(memory.resident > 100 && memory.most >= memory.resident, "{memory:?}");
        assert!(memory.proportional <= memory.resident);
        written(pid).unwrap();
        ticks(pid).unwrap();
        assert!(field("VmRSS: 12 kB", "VmHWM:").is_err());
    }
}
