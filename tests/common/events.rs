//! Events that a test makes up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ebpf_sidecar::events::{End, Event, Events, Kind, Offer, PerKind, Source, Tap};
use ebpf_sidecar::identity::Identity;

/// Makes them.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    told: Arc<Mutex<Vec<Event>>>,
    lost: Arc<AtomicU64>,
    /// Of `lost`, what the reader knows: it reads no event from after a loss before it knows of that.
    known: Arc<AtomicU64>,
}

/// Somebody who makes events, and where to listen to them.
pub fn source() -> (Teller, Events) {
    let (teller, events) = (Teller::default(), Events::new("node-1"));
    let (source, identity) = (Arc::new(teller.clone()), Identity::default());
    events.offer(Offer { source, identity, watches: Arc::new(|_| true) });
    (teller, events)
}

impl Teller {
    pub fn tell(&self, kind: Kind, process: &str, dst_port: u16) {
        let end = |port| End { ip: Some([127, 0, 0, 1].into()), port: Some(port) };
        self.told.lock().unwrap().push(Event {
            sequence: 0,
            unix_ns: 1,
            kind,
            src: end(40_000),
            dst: end(dst_port),
            role: "client",
            pid: Some(1),
            process: process.into(),
            cgroup: 0,
            workload: None,
            netns: 1,
            ending: None,
        });
    }

    /// As if there was no room for so many.
    pub fn lose(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::SeqCst);
    }
}

impl Source for Teller {
    fn open(&self) -> io::Result<Box<dyn Tap>> {
        Ok(Box::new(self.clone()))
    }

    fn lost(&self) -> PerKind {
        self.known.store(self.lost.load(Ordering::SeqCst), Ordering::SeqCst);
        [0, 0, self.known.load(Ordering::SeqCst), 0]
    }
}

impl Tap for Teller {
    fn read(&mut self, most: usize, events: &mut Vec<Event>) -> io::Result<()> {
        let mut told = self.told.lock().unwrap();
        let behind = self.known.load(Ordering::SeqCst) != self.lost.load(Ordering::SeqCst);
        let count = if behind { 0 } else { told.len().min(most) };
        events.extend(told.drain(..count));
        Ok(())
    }

    fn wait(&mut self, _: Duration) {
        std::thread::sleep(Duration::from_millis(1));
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}
