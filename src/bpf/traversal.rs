//! Iterator programs: the daemon runs them from beginning to end, and knows what that costs.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use libbpf_rs::{Iter, Link};
use nix::time::{ClockId, clock_gettime};

use crate::status::ProgramReport;

/// An iterator, and what its runs have cost. It runs on the caller's thread, whose CPU clock tells, for the whole of a
/// traversal and the kernel's part of it too.
#[derive(Debug)]
pub struct Traversal {
    link: Link,
    runs: u64,
    cost: Duration,
}

impl Traversal {
    /// Of an attached iterator.
    pub fn new(link: Link) -> Traversal {
        Traversal { link, runs: 0, cost: Duration::ZERO }
    }

    /// Runs it over all objects there are; tells the CPU time that it took.
    ///
    /// # Errors
    /// If the kernel ends it early.
    pub fn run(&mut self) -> io::Result<Duration> {
        let before = cpu_time();
        exhaust(&self.link)?;
        let cost = cpu_time().saturating_sub(before);
        self.cost += cost;
        self.runs += 1;
        Ok(cost)
    }

    /// A run is one over all objects.
    pub fn report(&self, name: &str) -> ProgramReport {
        let run_ns = self.cost.as_nanos() as u64;
        ProgramReport { name: name.to_owned(), asked: true, runs: self.runs, run_ns, missed: None }
    }
}

/// The programs write nothing, so there is nothing to read; the kernel pauses after a million objects.
fn exhaust(link: &Link) -> io::Result<()> {
    let mut iter = Iter::new(link).map_err(io::Error::other)?;
    loop {
        match iter.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => (),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
            Err(error) => return Err(error),
        }
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
