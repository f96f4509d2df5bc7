//! What a process has used, from /proc: CPU time of its threads and resident memory.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Clock ticks a second in /proc/PID/stat: USER_HZ, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time of all its threads, in seconds, to a hundredth.
    pub cpu_seconds: f64,
    /// Resident memory now.
    pub resident_kib: u64,
    /// The most it was.
    pub resident_peak_kib: u64,
}

/// Of the process with this id; `None` where there is none, or no /proc.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu_seconds: cpu_seconds(&stat)?,
        resident_kib: kib(&status, "VmRSS:")?,
        resident_peak_kib: kib(&status, "VmHWM:")?,
    })
}

/// The fields after the name, which may itself hold spaces and brackets: state is the third, utime the fourteenth.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Lets this thread run only there. Children that are started afterwards are held to it too.
pub fn pin(cpus: impl IntoIterator<Item = usize>) -> Result<(), crate::Error> {
    let mut set = CpuSet::new();
    cpus.into_iter().for_each(|cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that this thread may run on.
pub fn cpus() -> Result<Vec<usize>, crate::Error> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Raises the number of files that may be open to what the system allows.
pub fn raise_file_limit() -> Result<(), crate::Error> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// How long this thread was ready to run and did not get a core, in seconds, until now.
#[must_use]
pub fn waited_seconds() -> Option<f64> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = schedstat.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// Datagrams that the UDP sockets on these local ports dropped because nobody read them in time.
#[must_use]
pub fn socket_drops(is_ours: impl Fn(u16) -> bool) -> u64 {
    let mut drops = 0;
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let table = fs::read_to_string(table).unwrap_or_default();
        drops += table
            .lines()
            .skip(1)
            .filter_map(|row| drops_of(row, &is_ours))
            .sum::<u64>();
    }
    drops
}

/// "sl local_address rem_address ... drops": the port is the second word's end, in hexadecimal.
fn drops_of(row: &str, is_ours: &impl Fn(u16) -> bool) -> Option<u64> {
    let local = row.split_ascii_whitespace().nth(1)?;
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    is_ours(port).then(|| row.split_ascii_whitespace().last()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn drops_are_read_off_the_end_of_a_row() {
        let row = " 1054: 0100007F:0BB8 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0 17";
        assert_eq!(drops_of(row, &|port| port == 3_000), Some(17));
        assert_eq!(drops_of(row, &|port| port == 3_001), None);
        assert_eq!(drops_of("", &|_| true), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).expect("Linux");
        assert!(usage.resident_kib > 0 && usage.resident_peak_kib >= usage.resident_kib / 2);
    }
}
