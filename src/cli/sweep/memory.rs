//! How much memory a sweep may take, and how much of that the program holds already.

use super::args::MemorySize;
use crate::cli::failure::{Failure, Result};
use crate::cli::output::size;

/// Bytes for all that is not counted one by one.
const ASIDE: usize = 12 << 20;

/// What states and batches may take: what was asked for, less what the process holds already and what results will.
pub(crate) fn memory_for(asked: Option<MemorySize>, results: usize) -> Result<usize> {
    let asked = asked.map_or_else(|| machine_memory() / 4, |MemorySize(bytes)| bytes);
    let held = anonymous_memory() + ASIDE + results;
    asked.checked_sub(held).filter(|left| *left > 0).ok_or_else(|| {
        let (asked, held) = (size(asked as u64), size(held as u64));
        Failure::usage(format!("--memory {asked}: {held} are taken by the program and the results alone"))
    })
}

/// Bytes of anonymous memory that the process holds, where the system says.
fn anonymous_memory() -> usize {
    kibibytes("/proc/self/status", "RssAnon:").unwrap_or(0)
}

/// Bytes of memory: the machine's, or what the process is allowed of it. Where the system does not say, 8 GiB.
fn machine_memory() -> usize {
    let all = kibibytes("/proc/meminfo", "MemTotal:").unwrap_or(8 << 30);
    let allowed = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    allowed.map_or(all, |allowed: usize| all.min(allowed))
}

fn kibibytes(file: &str, field: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}
