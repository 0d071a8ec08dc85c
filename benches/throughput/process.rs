//! What processes use, from `/proc`: CPU time and resident memory.

use std::fs;
use std::time::Duration;

/// The kernel counts CPU time in hundredths of a second towards user space, whatever its own tick.
const TICK: Duration = Duration::from_millis(10);

struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for.
    children: u64,
}

fn stat(pid: &str) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        own: number(11)? + number(12)?,
        children: number(13)? + number(14)?,
    })
}

fn time(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// CPU time of a process so far.
pub fn cpu(pid: u32) -> Duration {
    stat(&pid.to_string()).map_or(Duration::ZERO, |stat| time(stat.own))
}

/// CPU time of the children of this process that have ended and were waited for.
pub fn ended_children_cpu() -> Duration {
    stat("self").map_or(Duration::ZERO, |stat| time(stat.children))
}

/// CPU time of a server that starts a process for each session: itself, its children, and those that have ended.
pub fn server_cpu(pid: u32) -> Duration {
    let ended = || stat(&pid.to_string()).map(|server| (server.own, server.children));
    loop {
        let Some((own, before)) = ended() else { return Duration::ZERO };
        let running = children(pid);
        // A child that ended in between would be missed or counted twice.
        if ended().is_none_or(|(_, after)| after == before) {
            return time(own + before + running);
        }
    }
}

/// Ticks of the children of a process that have not been waited for.
fn children(pid: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))?;
            stat(name).filter(|stat| stat.parent == pid)
        })
        .map(|stat| stat.own)
        .sum()
}

/// The most memory that a process had resident so far, in bytes; 0 if it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The machine in a few words.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{model}, {cores} cores, {} GiB, Linux {}, load average at the start {}",
        memory.unwrap_or(0_u64) >> 20,
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("?"),
    )
}
