//! One thread collects, many readers share what it found. A request within `freshness` of the last collection gets
//! that one's snapshot; requests that arrive while one runs share the next. Lists of connections are made for each reader
//! on the same thread, one at a time: a collection waits for one of them at most.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

use crate::connections::{ListError, Listing, Query};
use crate::snapshot::Snapshot;

/// How long a reader waits for a collection before it is told that none comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Readers that may wait for a list at the same time.
const LISTS_DUE: usize = 16;

/// What the thread runs. It lives on that thread alone, so it may hold what cannot be shared.
pub trait Source {
    /// Collects now.
    fn collect(&mut self) -> Snapshot;

    /// Lists live connections now.
    ///
    /// # Errors
    /// If it cannot.
    fn connections(&mut self, query: &Query) -> Result<Listing, ListError>;

    /// Called at each interval, after a collection: the time for expiry and other housekeeping.
    fn tick(&mut self) {}
}

/// Why there is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SampleError {
    /// The daemon is stopping.
    #[error("the collection thread has ended")]
    Stopped,
    /// A collection hangs or takes too long.
    #[error("no collection came through within {} s", PATIENCE.as_secs())]
    Late,
}

/// Why there is no list of connections.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionsError {
    /// Nothing comes of the thread.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// It says why.
    #[error(transparent)]
    List(#[from] ListError),
    /// Others are waiting for lists already.
    #[error("{LISTS_DUE} others are waiting for lists of connections")]
    Busy,
}

/// Times that the sampler keeps.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A snapshot younger than this is given again.
    pub freshness: Duration,
    /// Time between ticks.
    pub interval: Duration,
}

#[derive(Debug)]
enum Request {
    Snapshot(oneshot::Sender<Arc<Snapshot>>),
    Connections(Box<Query>, oneshot::Sender<Result<Listing, ListError>>),
}

/// Where readers get snapshots. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Sampler {
    requests: mpsc::Sender<Request>,
    lists: Arc<Lists>,
}

/// Who may have a list.
#[derive(Debug)]
struct Lists {
    /// Those who wait for one.
    waiting: Semaphore,
    /// The one for whom it is made.
    turn: Semaphore,
}

impl Sampler {
    /// Starts the thread. `start` runs on it, makes the source, and hands it to the function that it is given, which
    /// returns when the sampler is no longer wanted. An error before that is returned here.
    ///
    /// # Errors
    /// What `start` returned, or [`SampleError::Stopped`] as `E` if it panicked.
    pub fn spawn<E, F>(pace: Pace, start: F) -> Result<(Sampler, thread::JoinHandle<()>), E>
    where
        E: Send + From<SampleError> + 'static,
        F: FnOnce(&mut dyn FnMut(&mut dyn Source)) -> Result<(), E> + Send + 'static,
    {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (started, outcome) = mpsc::channel::<Result<(), E>>();
        let thread = thread::Builder::new()
            .name("collector".into())
            .spawn(move || {
                let ready = started.clone();
                let end = start(&mut |source| {
                    // The reader below may only have gone if the process is ending.
                    let _ = ready.send(Ok(()));
                    serve(source, pace, &inbox);
                });
                let _ = started.send(end);
            })
            .map_err(|_| E::from(SampleError::Stopped))?;
        match outcome.recv() {
            Ok(Ok(())) => {
                let lists = Lists { waiting: Semaphore::new(LISTS_DUE), turn: Semaphore::new(1) };
                Ok((Sampler { requests, lists: Arc::new(lists) }, thread))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(E::from(SampleError::Stopped)),
        }
    }

    /// A snapshot no older than the freshness.
    ///
    /// # Errors
    /// If the thread has ended, or is stuck.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, SampleError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Snapshot(reply)).map_err(|_| SampleError::Stopped)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| SampleError::Stopped),
            Err(_) => Err(SampleError::Late),
        }
    }

    /// A list of the connections that are live now.
    ///
    /// # Errors
    /// If none can be had, or too many are waiting for one.
    pub async fn connections(&self, query: Query) -> Result<Listing, ConnectionsError> {
        let _waiting = self.lists.waiting.try_acquire().map_err(|_| ConnectionsError::Busy)?;
        let listing = async {
            let _turn = self.lists.turn.acquire().await.expect("the semaphore is never closed");
            let (reply, answer) = oneshot::channel();
            let request = Request::Connections(Box::new(query), reply);
            self.requests.send(request).map_err(|_| SampleError::Stopped)?;
            Ok(answer.await.map_err(|_| SampleError::Stopped)??)
        };
        tokio::time::timeout(PATIENCE, listing).await.unwrap_or(Err(SampleError::Late.into()))
    }
}

fn serve(source: &mut dyn Source, pace: Pace, inbox: &mpsc::Receiver<Request>) {
    let mut last: Option<(Instant, Arc<Snapshot>)> = None;
    let mut next_tick = Instant::now() + pace.interval;
    loop {
        let first = match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (mut waiting, mut lists) = (Vec::new(), Vec::new());
        // Before the collection: who asks later wants to know what was true later.
        for request in first.into_iter().chain(inbox.try_iter()) {
            match request {
                Request::Snapshot(reply) => waiting.push(reply),
                Request::Connections(query, reply) => lists.push((query, reply)),
            }
        }
        if !waiting.is_empty() || Instant::now() >= next_tick {
            // A tick wants to see what is still in use, and half its interval is recent enough for that.
            let age = if waiting.is_empty() { pace.interval / 2 } else { pace.freshness };
            let fresh = last.as_ref().filter(|(taken, _)| taken.elapsed() < age);
            let snapshot = match fresh {
                Some((_, snapshot)) => Arc::clone(snapshot),
                None => {
                    // The source guards its collectors one by one; this is for itself.
                    let Ok(snapshot) = catch_unwind(AssertUnwindSafe(|| source.collect())) else { return };
                    let snapshot = Arc::new(snapshot);
                    last = Some((Instant::now(), Arc::clone(&snapshot)));
                    snapshot
                }
            };
            // A reader that gave up has dropped its end.
            for reply in waiting {
                let _ = reply.send(Arc::clone(&snapshot));
            }
        }
        // Of several, all but one have been given up.
        for (query, reply) in lists.into_iter().filter(|(_, reply)| !reply.is_closed()) {
            let Ok(listing) = catch_unwind(AssertUnwindSafe(|| source.connections(&query))) else { return };
            let _ = reply.send(listing);
        }
        if Instant::now() >= next_tick {
            if catch_unwind(AssertUnwindSafe(|| source.tick())).is_err() {
                return;
            }
            next_tick = Instant::now() + pace.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Numbers its snapshots; each takes a while, and one may go wrong.
    struct Slow {
        taken: u64,
        panics_at: u64,
    }

    impl Source for Slow {
        fn collect(&mut self) -> Snapshot {
            self.taken += 1;
            assert!(self.taken < self.panics_at, "as the test wants it");
            thread::sleep(Duration::from_millis(50));
            Snapshot {
                sequence: self.taken,
                taken_at: SystemTime::UNIX_EPOCH,
                uptime: Duration::ZERO,
                node: "".into(),
                modules: vec![],
                helpers: vec![],
                families: vec![],
                bounds: [].into(),
            }
        }

        fn connections(&mut self, query: &Query) -> Result<Listing, ListError> {
            thread::sleep(Duration::from_millis(50));
            let taken_at = SystemTime::UNIX_EPOCH;
            Ok(Listing { node: "".into(), taken_at, live: 0, total: query.limit as u64, connections: vec![] })
        }
    }

    fn start(freshness: Duration, panics_at: u64) -> Sampler {
        let pace = Pace { freshness, interval: Duration::from_secs(3600) };
        let started = Sampler::spawn::<SampleError, _>(pace, move |serve| {
            serve(&mut Slow { taken: 0, panics_at });
            Ok(())
        });
        started.unwrap().0
    }

    #[tokio::test]
    async fn readers_at_the_same_time_share_a_collection() {
        let sampler = start(Duration::ZERO, u64::MAX);
        let (first, second, third) = tokio::join!(
            sampler.snapshot(),
            async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sampler.snapshot().await
            },
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sampler.snapshot().await
            },
        );
        // Those that come while one runs get the next: it began after they asked.
        assert_eq!([first, second, third].map(|snapshot| snapshot.unwrap().sequence), [1, 2, 2]);
    }

    #[tokio::test]
    async fn a_fresh_snapshot_is_given_again() {
        let sampler = start(Duration::from_secs(3600), u64::MAX);
        let (first, again) = (sampler.snapshot().await.unwrap(), sampler.snapshot().await.unwrap());
        assert!(Arc::ptr_eq(&first, &again));
    }

    #[tokio::test]
    async fn a_source_that_panics_ends_it_for_everybody() {
        let sampler = start(Duration::ZERO, 2);
        assert_eq!(sampler.snapshot().await.unwrap().sequence, 1);
        assert_eq!(sampler.snapshot().await.unwrap_err(), SampleError::Stopped);
        assert_eq!(sampler.snapshot().await.unwrap_err(), SampleError::Stopped);
    }

    #[tokio::test]
    async fn lists_are_made_one_at_a_time_and_a_collection_waits_for_one_of_them() {
        let sampler = start(Duration::ZERO, u64::MAX);
        let list = |limit| sampler.connections(Query { limit, ..Query::default() });
        let begun = Instant::now();
        let lists = async { tokio::join!(list(1), list(2), list(3), list(4)) };
        let snapshot = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            sampler.snapshot().await.unwrap();
            begun.elapsed()
        };
        let (lists, waited) = tokio::join!(lists, snapshot);
        assert!(begun.elapsed() >= Duration::from_millis(250), "four lists and a collection");
        assert!(waited < Duration::from_millis(190), "a list and a collection, not {waited:?}");
        let lists = <[_; 4]>::from(lists).map(|list| list.unwrap().total);
        assert_eq!(lists, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn only_so_many_wait_for_lists() {
        let sampler = start(Duration::ZERO, u64::MAX);
        let waiting: Vec<_> = (0..LISTS_DUE)
            .map(|_| {
                let sampler = sampler.clone();
                tokio::spawn(async move { sampler.connections(Query::default()).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(sampler.connections(Query::default()).await.unwrap_err(), ConnectionsError::Busy);
        // Who goes makes room, and nobody works for them any more.
        let begun = Instant::now();
        waiting.iter().for_each(|task| task.abort());
        for task in waiting {
            let _ = task.await;
        }
        assert!(sampler.connections(Query::default()).await.is_ok());
        assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_prevents_the_start_is_told() {
        let pace = Pace { freshness: Duration::ZERO, interval: Duration::from_secs(1) };
        let refused = Sampler::spawn::<SampleError, _>(pace, |_| Err(SampleError::Late));
        assert_eq!(refused.unwrap_err(), SampleError::Late);
    }
}
