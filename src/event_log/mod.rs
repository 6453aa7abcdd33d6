//! The connection log: events as lines of JSON, to stdout or a file. It has a thread of its own, so that an output that
//! stalls holds up nothing else; what cannot be written is counted as lost.

mod file;

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::events::{Delivery, Events, Kind, ListenError, Subscription};
use crate::exposition::event::line;
use crate::size;
use file::Output;

/// Events that may wait while the output stalls: about a second of all that two cores can produce, in 10 MiB.
const ROOM: usize = 1 << 16;

/// Lines that are written together.
const BLOCK: usize = 64 << 10;

/// While events are lost for want of speed, that is said so often.
const REMINDER: Duration = Duration::from_secs(10);

/// What `output` says to mean no file.
const STDOUT: &str = "stdout";

/// Section `events` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether there is a log.
    pub enabled: bool,
    /// `stdout`, or the path of a file.
    pub output: String,
    /// A file that would become larger is renamed, and a new one begun; 0: never.
    #[serde(with = "size")]
    pub max_size: u64,
    /// Renamed files that are kept.
    pub max_files: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { enabled: false, output: STDOUT.to_owned(), max_size: 100 << 20, max_files: 5 }
    }
}

impl Config {
    /// The smallest size of a file.
    pub const SMALLEST: u64 = 1 << 20;

    /// The most files.
    pub const MOST_FILES: u32 = 1000;
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum StartError {
    /// The file cannot be written.
    #[error("events.output: cannot open {path}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to write.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused a thread.
    #[error("cannot start the thread of the connection log")]
    Thread(#[from] io::Error),
}

/// Starts it; it ends with the events.
///
/// # Errors
/// If the output cannot be opened, or there are no events.
pub fn start(config: &Config, events: &Events) -> Result<JoinHandle<()>, StartError> {
    let path = || config.output.clone();
    let output = match config.output.as_str() {
        STDOUT => Output::stdout(),
        _ => Output::open(config),
    };
    let output = output.map_err(|source| StartError::Open { path: path(), source })?;
    let subscription = events.listen(ROOM, |_| true)?;
    let log = Log { subscription, output, lines: Vec::with_capacity(BLOCK), ends: Vec::new(), tally: Tally::default() };
    Ok(thread::Builder::new().name("event-log".into()).spawn(move || log.run())?)
}

struct Log {
    subscription: Subscription,
    output: Output,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    /// Which events they are, and where each line ends.
    ends: Vec<(Kind, usize)>,
    tally: Tally,
}

/// What is told about the log itself.
#[derive(Debug, Default)]
struct Tally {
    written: u64,
    /// For whatever reason.
    lost: u64,
    /// For want of speed, and not told yet.
    late: u64,
    reminded: Option<Instant>,
    /// Since the output fails; `None`: it works.
    unwritten: Option<u64>,
}

impl Log {
    fn run(mut self) {
        while let Some(delivery) = self.subscription.next_blocking() {
            self.add(&delivery);
            while let Some(delivery) = self.subscription.next_if_any() {
                self.add(&delivery);
            }
            self.write();
        }
        self.tally.remind(true);
        info!(written = self.tally.written, lost = self.tally.lost, "the connection log ends");
    }

    fn add(&mut self, delivery: &Delivery) {
        self.tally.late += delivery.lost;
        self.tally.lost += delivery.lost;
        self.tally.remind(false);
        for event in &*delivery.events {
            line(self.subscription.node(), event, &mut self.lines).expect("memory takes everything");
            self.ends.push((event.kind, self.lines.len()));
            if self.lines.len() >= BLOCK {
                self.write();
            }
        }
    }

    fn write(&mut self) {
        let (whole, failure) = match self.output.write(&self.lines) {
            Ok(()) => (self.lines.len(), None),
            Err(failed) => (failed.whole, Some(failed.error)),
        };
        let written = self.ends.partition_point(|&(_, end)| end <= whole);
        self.ends[written..].iter().for_each(|&(kind, _)| self.subscription.lose(kind));
        self.tally.wrote(written as u64, (self.ends.len() - written) as u64, failure);
        self.ends.clear();
        self.lines.clear();
    }
}

impl Tally {
    /// Each failure is told once, when it begins, and how much it cost when it ends.
    fn wrote(&mut self, written: u64, lost: u64, failure: Option<io::Error>) {
        self.written += written;
        self.lost += lost;
        match (failure, &mut self.unwritten) {
            (Some(_), Some(unwritten)) => *unwritten += lost,
            (Some(error), none) => {
                error!(%error, "the connection log cannot be written; events are lost");
                *none = Some(lost);
            }
            (None, Some(unwritten)) => {
                warn!(lost = *unwritten, "the connection log can be written again");
                self.unwritten = None;
            }
            (None, None) => (),
        }
    }

    fn remind(&mut self, now: bool) {
        let due = now || self.reminded.is_none_or(|reminded| reminded.elapsed() >= REMINDER);
        if due && self.late > 0 {
            warn!(lost = self.late, "events came faster than the connection log could take them");
            self.late = 0;
            self.reminded = Some(Instant::now());
        }
    }
}
