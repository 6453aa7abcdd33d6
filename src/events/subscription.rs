//! Between the reader and those who listen. What waits is shared by all, and bounded for each: one that is slow loses
//! events of its own, and holds up nobody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::{Event, Kind, Shared};

type Wants = Box<dyn Fn(&Event) -> bool + Send>;

/// Events in a row.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// How many were lost since the previous delivery, before these or among them.
    pub lost: u64,
    /// In order; also those that the listener does not want.
    pub events: Arc<[Event]>,
}

/// The end of those who listen. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    waiting: Arc<AtomicUsize>,
}

/// The reader's end.
pub struct Listener {
    deliveries: mpsc::UnboundedSender<Delivery>,
    waiting: Arc<AtomicUsize>,
    room: usize,
    wants: Wants,
    /// The last number that it was offered.
    seen: Option<u64>,
    /// Lost and not told yet.
    lost: u64,
}

/// Both ends, with room for so many events.
pub fn pair(shared: Arc<Shared>, room: usize, wants: Wants) -> (Listener, Subscription) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let listener = Listener { deliveries: sender, waiting: Arc::clone(&waiting), room, wants, seen: None, lost: 0 };
    (listener, Subscription { shared, deliveries: receiver, waiting })
}

impl Listener {
    /// Whether somebody is at the other end.
    pub fn listens(&self) -> bool {
        !self.deliveries.is_closed()
    }

    /// Delivers events if there is room; else those that it wants are added to `lost`, by kind.
    pub fn offer(&mut self, events: &Arc<[Event]>, lost: &[AtomicU64; Kind::ALL.len()]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        self.notice_gap(first.sequence, last.sequence, events.len());
        let wanted = || events.iter().filter(|event| (self.wants)(event));
        if wanted().next().is_none() {
            return;
        }
        if self.waiting.load(Ordering::Relaxed) + events.len() > self.room {
            for event in wanted() {
                lost[event.kind as usize].fetch_add(1, Ordering::Relaxed);
            }
            self.lost += wanted().count() as u64;
            return;
        }
        self.waiting.fetch_add(events.len(), Ordering::Relaxed);
        let delivery = Delivery { lost: std::mem::take(&mut self.lost), events: Arc::clone(events) };
        // It fails if nobody listens any more; the next look at the listeners finds that.
        let _ = self.deliveries.send(delivery);
    }

    /// What the kernel had no room for takes numbers as well. Those before its time are no loss of this listener.
    fn notice_gap(&mut self, first: u64, last: u64, events: usize) {
        let seen = self.seen.replace(last).unwrap_or(first - 1);
        self.lost += last - seen - events as u64;
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("room", &self.room).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Name of the node; empty if nobody told.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Notes that one of the events delivered here came to nothing after all.
    pub fn lose(&self, kind: Kind) {
        self.shared.lost[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The next events; `None` at the end.
    pub async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.recv().await;
        self.taken(delivery)
    }

    /// The same for a thread that has nothing else to do.
    pub fn next_blocking(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.blocking_recv();
        self.taken(delivery)
    }

    /// The next events if there are any now.
    pub fn next_if_any(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.try_recv().ok();
        self.taken(delivery)
    }

    fn taken(&self, delivery: Option<Delivery>) -> Option<Delivery> {
        if let Some(delivery) = &delivery {
            self.waiting.fetch_sub(delivery.events.len(), Ordering::Relaxed);
        }
        delivery
    }
}
