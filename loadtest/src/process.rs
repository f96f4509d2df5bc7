//! What a process has used, from /proc: CPU time of its threads and resident memory.

use std::fs;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).expect("Linux");
        assert!(usage.resident_kib > 0 && usage.resident_peak_kib >= usage.resident_kib / 2);
    }
}
