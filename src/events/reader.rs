//! The one thread that reads. It is there as long as somebody listens.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use tracing::error;

use super::names::Names;
use super::subscription::Listener;
use super::{Event, Offer, Shared, Source, State, Tap, Watches};

/// Events that are read, numbered and delivered together.
const BATCH: usize = 1024;

/// It is woken when the ring is filling, and looks by itself this often.
const PAUSE: Duration = Duration::from_millis(100);

/// Events that wait for a name. The oldest go without when there are more.
const MOST_WAITING: usize = 1 << 14;

pub struct Reader {
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    watches: Arc<Watches>,
    tap: Box<dyn Tap>,
    names: Names,
    waiting: VecDeque<Event>,
    batch: Vec<Event>,
}

impl Reader {
    pub fn new(shared: Arc<Shared>, offer: Offer, tap: Box<dyn Tap>) -> Reader {
        let Offer { source, identity, watches } = offer;
        let (waiting, batch) = (VecDeque::new(), Vec::with_capacity(BATCH));
        Reader { shared, source, watches, tap, names: Names::new(identity), waiting, batch }
    }

    pub fn run(mut self) {
        if let Err(error) = self.read_while_heard() {
            error!(error = %format!("{:#}", anyhow::Error::new(error)), "events cannot be read any more");
            let mut state = self.shared.state();
            state.listeners.clear();
            state.reading = false;
        }
    }

    fn read_while_heard(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut state = shared.state();
            let read = self.read(&mut state)?;
            state.listeners.retain(Listener::listens);
            if state.ended || state.listeners.is_empty() {
                // Whoever wants to listen meanwhile waits, and finds everything as it was before.
                return self.finish(state);
            }
            drop(state);
            if read < BATCH {
                self.tap.wait(PAUSE);
            }
        }
    }

    /// The ring ends here: what it still holds is delivered.
    fn finish(&mut self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        self.tap.close()?;
        while self.read(&mut state)? > 0 {}
        self.deliver(&mut state, true);
        state.reading = false;
        if state.ended {
            state.listeners.clear();
        }
        Ok(())
    }

    /// Reads a batch, and delivers what need not wait. Events are lost while the ring is full, so that what it holds then is
    /// read after the loss is known: their numbers come after those of the lost ones, and the last number is that of all
    /// events.
    fn read(&mut self, state: &mut State) -> io::Result<usize> {
        let missed = self.source.lost().iter().sum();
        state.sequence += missed - state.missed;
        state.missed = missed;
        self.tap.read(BATCH, &mut self.batch)?;
        let read = self.batch.len();
        self.waiting.extend(self.batch.drain(..));
        self.deliver(state, false);
        Ok(read)
    }

    /// Numbers and delivers what has a name, or will not wait for one any longer.
    fn deliver(&mut self, state: &mut State, all: bool) {
        let now = Instant::now();
        let ready = |waiting: &VecDeque<Event>, names: &mut Names| {
            let event = waiting.front()?;
            let hurry = all || waiting.len() > MOST_WAITING;
            names.settled(event.cgroup, now).or_else(|| hurry.then(|| names.so_far(event.cgroup)))
        };
        let mut events = Vec::new();
        while let Some(workload) = ready(&self.waiting, &mut self.names)
            && let Some(event) = self.waiting.pop_front()
        {
            if !(self.watches)(workload.as_deref()) {
                continue;
            }
            self.shared.told[event.kind as usize].fetch_add(1, Ordering::Relaxed);
            state.sequence += 1;
            events.push(Event { sequence: state.sequence, workload, ..event });
            if events.len() == BATCH {
                offer(state, &self.shared, std::mem::take(&mut events));
            }
        }
        offer(state, &self.shared, events);
    }
}

fn offer(state: &mut State, shared: &Shared, events: Vec<Event>) {
    if !events.is_empty() {
        let events = events.into();
        state.listeners.iter_mut().for_each(|listener| listener.offer(&events, &shared.lost));
    }
}
