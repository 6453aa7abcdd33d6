//! What happened to connections, one by one and in order: for the connection log and for streams. Totals never come from
//! here, because events can be lost; where they are, it is counted, and shows in their sequence numbers.
//!
//! ```text
//! kernel --ring--> Tap --reader: one thread, while somebody listens--> Subscription --> log, streams
//!                           numbers, names
//! ```
//!
//! Nobody listens: no ring, no thread, and the programs tell nothing.

mod names;
mod reader;
mod subscription;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::identity::{Identity, Workload};
use reader::Reader;
use subscription::Listener;
pub use subscription::{Delivery, Subscription};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `connect` came through.
    Connect,
    /// A connection to a listening socket was established.
    Accept,
    /// An established connection ended.
    Close,
    /// `connect` did not come through.
    ConnectFailed,
}

impl Kind {
    /// All of them, each at the place of its number.
    pub const ALL: [Kind; 4] = [Kind::Connect, Kind::Accept, Kind::Close, Kind::ConnectFailed];

    /// As logs and labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connect => "CONNECT",
            Kind::Accept => "ACCEPT",
            Kind::Close => "CLOSE",
            Kind::ConnectFailed => "CONNECT_FAILED",
        }
    }
}

/// A number for each kind.
pub type PerKind = [u64; Kind::ALL.len()];

/// One event. What is not known is `None` or empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts all events, the lost ones too: what is missing in a row of them was lost.
    pub sequence: u64,
    /// When it happened, in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// The side that opened the connection.
    pub src: End,
    /// The side that listens.
    pub dst: End,
    /// Which of them it is told of: `client`, `server` or `unknown`. Where both are on this host, each has events.
    pub role: &'static str,
    /// The process that owns the socket.
    pub pid: Option<u32>,
    /// Its name.
    pub process: Box<str>,
    /// Its cgroup.
    pub cgroup: u64,
    /// Who that is.
    pub workload: Option<Arc<Workload>>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// What is known of an end, of the connection or of the attempt.
    pub ending: Option<Ending>,
}

/// An address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// `None`: this host had not chosen one yet. IPv4 as such, also where a dual-stack socket carries it.
    pub ip: Option<IpAddr>,
    /// `None`: as above.
    pub port: Option<u16>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: &'static str,
    /// Since it was established, or since the SYN if it never was. `None`: older than the daemon.
    pub duration: Option<Duration>,
    /// Segments sent again.
    pub retransmits: u32,
    /// What went over it; `None` if it was never established.
    pub traffic: Option<Traffic>,
}

/// What went over a connection in its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Payload, each byte once.
    pub bytes_sent: u64,
    /// Payload received in order.
    pub bytes_received: u64,
    /// Segments; the kernel counts them modulo 2^32.
    pub packets_sent: u32,
    /// As above.
    pub packets_received: u32,
    /// Smoothed round trip time in microseconds, if one was measured.
    pub rtt_us: Option<u32>,
}

/// What can be tapped: offered by the collector whose programs make events.
pub trait Source: fmt::Debug + Send + Sync {
    /// Has the programs tell from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn open(&self) -> io::Result<Box<dyn Tap>>;

    /// How many events the ring had no room for, ever.
    fn lost(&self) -> PerKind;
}

/// A source in use.
pub trait Tap: Send {
    /// Takes at most so many events, oldest first, and adds them to those given. Sequence numbers and workloads are left
    /// to the reader.
    ///
    /// # Errors
    /// If there will be none any more.
    fn read(&mut self, most: usize, events: &mut Vec<Event>) -> io::Result<()>;

    /// Sleeps until there is much to read, or for that time.
    fn wait(&mut self, longest: Duration);

    /// Has the programs tell nothing any more. What they have told can still be read.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn close(&mut self) -> io::Result<()>;
}

/// Whether a workload is watched, as far as it is known; `None`: nobody in particular.
pub type Watches = dyn Fn(Option<&Workload>) -> bool + Send + Sync;

/// What there is to listen to.
#[derive(Clone)]
pub struct Offer {
    /// Where events come from.
    pub source: Arc<dyn Source>,
    /// Who knows whose they are.
    pub identity: Identity,
    /// Whose are told.
    pub watches: Arc<Watches>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What became of events after the kernel had told them, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fate {
    /// Listeners were too slow for them; summed over the listeners.
    pub lost: PerKind,
    /// They were of a workload that is watched, and got a number.
    pub told: PerKind,
}

/// Why nobody can listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// No collector has offered any.
    #[error("there are no events: the tcp module does not run")]
    NoSource,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Ended,
    /// As many as may are listening.
    #[error("{MOST_LISTENERS} are listening already")]
    TooMany,
    /// The system refused something.
    #[error("cannot have events told")]
    System(#[from] io::Error),
}

/// Each may keep events in memory when it is slow.
const MOST_LISTENERS: usize = 16;

/// Where events are offered and listened to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    node: Box<str>,
    state: Mutex<State>,
    lost: [AtomicU64; Kind::ALL.len()],
    told: [AtomicU64; Kind::ALL.len()],
    /// Whether anybody ever listened.
    heard: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    listeners: Vec<Listener>,
    /// The thread is there.
    reading: bool,
    /// Nobody may listen any more.
    ended: bool,
    /// The last number given.
    sequence: u64,
    /// What the source had lost when that was.
    missed: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// Of a node of that name.
    pub fn new(node: &str) -> Events {
        Events { shared: Arc::new(Shared { node: node.into(), ..Shared::default() }) }
    }

    /// Says what there is to listen to.
    pub fn offer(&self, offer: Offer) {
        self.shared.state().offer = Some(offer);
    }

    /// Listens from now on: whatever happens after this has returned is delivered, or counted as lost. `room` is how many
    /// events may wait for this listener; `wants` says which it is to be told.
    ///
    /// The first one makes the kernel do something that takes some milliseconds.
    ///
    /// # Errors
    /// If there is nothing to listen to.
    pub fn listen(
        &self,
        room: usize,
        wants: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Result<Subscription, ListenError> {
        let mut state = self.shared.state();
        if state.ended {
            return Err(ListenError::Ended);
        }
        state.listeners.retain(Listener::listens);
        if state.listeners.len() >= MOST_LISTENERS {
            return Err(ListenError::TooMany);
        }
        let offer = state.offer.clone().ok_or(ListenError::NoSource)?;
        if !state.reading {
            let tap = offer.source.open()?;
            let reader = Reader::new(Arc::clone(&self.shared), offer, tap);
            thread::Builder::new().name("events".into()).spawn(move || reader.run())?;
            state.reading = true;
            self.shared.heard.store(true, Ordering::Relaxed);
        }
        let (listener, subscription) = subscription::pair(Arc::clone(&self.shared), room, Box::new(wants));
        state.listeners.push(listener);
        Ok(subscription)
    }

    /// What became of events; `None` if nobody ever listened. What the kernel had no room for is not in it.
    pub fn fate(&self) -> Option<Fate> {
        let load = |counts: &[AtomicU64; Kind::ALL.len()]| counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let fate = || Fate { lost: load(&self.shared.lost), told: load(&self.shared.told) };
        self.shared.heard.load(Ordering::Relaxed).then(fate)
    }

    /// Ends it: readers are given what there is, and then told that there is no more.
    pub fn end(&self) {
        let mut state = self.shared.state();
        state.ended = true;
        if !state.reading {
            state.listeners.clear();
        }
    }
}
