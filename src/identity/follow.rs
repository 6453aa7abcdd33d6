//! Asks a runtime whenever there is somebody without a name, and now and then. Each has a task of its own: one that hangs
//! keeps no other waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::runtimes::{AskError, Source};
use super::{Outcome, Shared, lock};

/// When a container comes its runtime is asked, and again after these times as long as nobody has told of it: it may learn
/// of it later than the kernel.
const AGAIN: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// How often it is asked if nothing happens: names change, and it may have been away.
const REFRESH: Duration = Duration::from_secs(30);

/// Most containers that are asked about by their ids at once.
const MOST: usize = 256;

/// Follows one source until there are no `arrivals` to be expected.
pub async fn follow(source: Source, shared: Arc<Shared>, mut arrivals: watch::Receiver<()>) {
    let mut follower = Follower { source, shared, last: None };
    loop {
        arrivals.mark_unchanged();
        for wait in AGAIN {
            sleep(wait).await;
            if !follower.ask().await {
                break;
            }
        }
        tokio::select! {
            arrived = arrivals.changed() => if arrived.is_err() {
                return;
            },
            () = sleep(REFRESH) => (),
        }
    }
}

struct Follower {
    source: Source,
    shared: Arc<Shared>,
    /// Why it did not answer, or nothing if it did; `None` if it was not there.
    last: Option<Result<(), String>>,
}

impl Follower {
    /// Whether it is worth asking again soon.
    async fn ask(&mut self) -> bool {
        let unnamed = self.shared.store().unnamed(MOST, Instant::now());
        let now = match self.source.ask(&unnamed).await {
            Ok(answer) => {
                if self.shared.store_mut().tell(self.source.rank(), answer) {
                    self.shared.changed();
                }
                Some(Ok(()))
            }
            Err(AskError::Absent) => None,
            Err(error) => Some(Err(error.to_string())),
        };
        self.note(now);
        self.last.is_some() && self.shared.store().unnamed(0, Instant::now()).new
    }

    /// Counts, and says what is different from last time.
    fn note(&mut self, now: Option<Result<(), String>>) {
        let kind = self.source.kind;
        if let Some(outcome) = &now {
            let outcome = if outcome.is_ok() { Outcome::Answered } else { Outcome::Failed };
            *lock(&self.shared.lookups).entry((kind, outcome)).or_default() += 1;
        }
        if now == self.last {
            return;
        }
        let (source, path) = (kind.as_str(), self.source.path.display());
        let key = format!("{source} at {path}");
        match &now {
            Some(Err(reason)) => {
                warn!(source, %path, reason, "no names of containers");
                lock(&self.shared.silent).insert(key, reason.clone());
            }
            Some(Ok(())) => {
                info!(source, %path, "names containers");
                lock(&self.shared.silent).remove(&key);
            }
            None => {
                info!(source, %path, "is gone; names that are known stay");
                lock(&self.shared.silent).remove(&key);
            }
        }
        self.last = now;
    }
}
