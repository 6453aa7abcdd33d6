//! Iterator programs: the daemon runs them from beginning to end, and knows what that costs.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::thread;
use std::time::Duration;

use libbpf_rs::Link;
use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};

use crate::status::ProgramReport;

/// An iterator, and what its runs have cost. It runs on the caller's thread, whose CPU clock tells, for the whole of a
/// traversal and the kernel's part of it too.
#[derive(Debug)]
pub struct Traversal {
    program: &'static str,
    link: Link,
    runs: u64,
    cost: Duration,
}

impl Traversal {
    /// Of an attached iterator, by the name of its program.
    pub fn new(program: &'static str, link: Link) -> Traversal {
        Traversal { program, link, runs: 0, cost: Duration::ZERO }
    }

    /// Runs it over all objects there are; tells the CPU time that it took.
    ///
    /// # Errors
    /// If the kernel ends it early.
    pub fn run(&mut self) -> io::Result<Duration> {
        self.run_in(Vec::new())
    }

    /// The same, of an iterator that meets only what is in the network namespace of the thread that begins it: in ours,
    /// and in others. One that cannot be entered is left out.
    ///
    /// # Errors
    /// If the kernel ends it early.
    pub fn run_in(&mut self, others: Vec<File>) -> io::Result<Duration> {
        let link = self.link.as_fd();
        let mut cost = exhaust(link)?;
        if !others.is_empty() {
            // A thread of its own need not come back.
            cost += thread::scope(|scope| {
                let visit = move || others.into_iter().map(|other| exhaust_within(link, other)).sum();
                let visitor = thread::Builder::new().name("namespaces".to_owned()).spawn_scoped(scope, visit)?;
                visitor.join().unwrap_or_else(|_| Err(Error::other("the thread that visits namespaces panicked")))
            })?;
        }
        self.cost += cost;
        self.runs += 1;
        Ok(cost)
    }

    /// A run is one over all objects.
    pub fn report(&self) -> ProgramReport {
        let run_ns = self.cost.as_nanos() as u64;
        ProgramReport { name: self.program.to_owned(), asked: true, runs: self.runs, run_ns, missed: None }
    }
}

fn exhaust_within(link: BorrowedFd<'_>, namespace: File) -> io::Result<Duration> {
    match setns(namespace, CloneFlags::CLONE_NEWNET) {
        Ok(()) => exhaust(link),
        Err(_) => Ok(Duration::ZERO),
    }
}

/// The programs write nothing, so there is nothing to read; the kernel pauses after a million objects.
fn exhaust(link: BorrowedFd<'_>) -> io::Result<Duration> {
    let before = cpu_time();
    // SAFETY: it takes a descriptor and makes one, which nobody else has.
    let mut iter = match unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) } {
        failure if failure < 0 => return Err(Error::from_raw_os_error(-failure)),
        descriptor => unsafe { File::from_raw_fd(descriptor) },
    };
    loop {
        match iter.read(&mut [0; 64]) {
            Ok(0) => return Ok(cpu_time().saturating_sub(before)),
            Ok(_) => (),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
            Err(error) => return Err(error),
        }
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
