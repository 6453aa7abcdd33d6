//! What we cost the kernel, and no RSS shows: run time of our programs and memory of our maps.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use crate::status::ProgramReport;

/// From the runs of a program, how many of them were timed, and what those took.
pub fn estimate(name: &str, runs: u64, timed: u64, ns: u64) -> ProgramReport {
    let run_ns = u128::from(ns) * u128::from(runs) / u128::from(timed.max(1));
    ProgramReport { name: name.to_owned(), runs, run_ns: run_ns as u64 }
}

/// Kernel memory of a map in bytes, as its descriptor's fdinfo tells. Socket storage is not in it: that belongs to the
/// sockets.
pub fn map_bytes(map: &impl AsFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_were_timed_stand_for_the_others() {
        assert_eq!(estimate("p", 170, 10, 1000).run_ns, 17_000);
        assert_eq!(estimate("p", 16, 0, 0).run_ns, 0);
        assert_eq!(estimate("p", u64::MAX, 1 << 60, 1 << 60).run_ns, u64::MAX);
    }
}
