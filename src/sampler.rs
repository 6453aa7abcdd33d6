//! One thread collects, many readers share what it found. A request within `freshness` of the last collection gets
//! that one's snapshot; requests that arrive while one runs share the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::snapshot::Snapshot;

/// How long a reader waits for a collection before it is told that none comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the thread runs. It lives on that thread alone, so it may hold what cannot be shared.
pub trait Source {
    /// Collects now.
    fn collect(&mut self) -> Snapshot;

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

/// Times that the sampler keeps.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A snapshot younger than this is given again.
    pub freshness: Duration,
    /// Time between ticks.
    pub interval: Duration,
}

type Request = oneshot::Sender<Arc<Snapshot>>;

/// Where readers get snapshots. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Sampler {
    requests: mpsc::Sender<Request>,
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
            Ok(Ok(())) => Ok((Sampler { requests }, thread)),
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
        self.requests.send(reply).map_err(|_| SampleError::Stopped)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| SampleError::Stopped),
            Err(_) => Err(SampleError::Late),
        }
    }
}

fn serve(source: &mut dyn Source, pace: Pace, inbox: &mpsc::Receiver<Request>) {
    let mut last: Option<(Instant, Arc<Snapshot>)> = None;
    let mut next_tick = Instant::now() + pace.interval;
    loop {
        let mut waiting = match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(request) => vec![request],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Before the collection: who asks later wants to know what was true later.
        waiting.extend(inbox.try_iter());
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
                families: vec![],
                bounds: [].into(),
            }
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

    #[test]
    fn what_prevents_the_start_is_told() {
        let pace = Pace { freshness: Duration::ZERO, interval: Duration::from_secs(1) };
        let refused = Sampler::spawn::<SampleError, _>(pace, |_| Err(SampleError::Late));
        assert_eq!(refused.unwrap_err(), SampleError::Late);
    }
}
