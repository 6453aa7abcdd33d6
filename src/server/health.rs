//! Whether the daemon is healthy: the modules of the last snapshot, and whether the sampler answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::exposition::HealthReport;
use crate::sampler::{SampleError, Sampler};
use crate::snapshot::Snapshot;
use crate::status::{Health, health};

/// Kubelet gives a probe one second unless told otherwise: say what is known before it gives up.
const ANSWER: Duration = Duration::from_millis(800);

/// A collection that takes this long will not come back; a restart may help.
const STUCK: Duration = Duration::from_secs(60);

/// Asks the sampler on behalf of probes.
#[derive(Debug)]
pub(super) struct Probe {
    sampler: Sampler,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Arc<Snapshot>>,
    /// When the first probe asked that got no answer.
    silent_since: Option<Instant>,
}

impl Probe {
    pub(super) fn new(sampler: Sampler) -> Probe {
        Probe { sampler, seen: Mutex::default() }
    }

    pub(super) async fn report(&self) -> HealthReport {
        let asked = Instant::now();
        let answer = tokio::time::timeout(ANSWER, self.sampler.snapshot()).await;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, alive) = match answer {
            Ok(Ok(snapshot)) => {
                let status = health(&snapshot.modules);
                *seen = Seen { last: Some(snapshot), silent_since: None };
                (status, true)
            }
            Ok(Err(SampleError::Stopped)) => (Health::Unhealthy, false),
            Ok(Err(SampleError::Late)) | Err(_) => {
                let since = *seen.silent_since.get_or_insert(asked);
                (Health::Unhealthy, since.elapsed() < STUCK)
            }
        };
        HealthReport {
            status,
            ready: status != Health::Unhealthy,
            alive,
            timestamp: SystemTime::now(),
            snapshot: seen.last.clone(),
        }
    }
}
