//! When to walk over all open files for the owners of sockets. Pure.

use std::time::Duration;

/// Walks may take this share of one CPU: 0.2 %.
const SHARE: u64 = 500;

/// CPU time that may be saved up for walks in quick succession.
const SAVINGS: Duration = Duration::from_millis(50);

/// Paces the walks. One costs about a microsecond for each open file of the machine, however little there is to learn:
/// on a small host that is nothing, on a big one walks have to wait.
#[derive(Debug)]
pub struct Pacer {
    /// `owners_due` as of the last walk.
    known: u64,
    /// What may be spent, as of `since_ns`; a dear walk leaves debts.
    credit_ns: i64,
    since_ns: u64,
}

impl Pacer {
    /// Starts with savings.
    pub fn new(now_ns: u64) -> Pacer {
        Pacer { known: 0, credit_ns: SAVINGS.as_nanos() as i64, since_ns: now_ns }
    }

    /// Whether a walk is worth it and affordable. `due` counts the sockets ever that began without a sure owner.
    pub fn wants(&self, due: u64, now_ns: u64) -> bool {
        due != self.known && self.affords(now_ns)
    }

    /// Whether a walk is affordable.
    pub fn affords(&self, now_ns: u64) -> bool {
        self.credit(now_ns) > 0
    }

    /// Notes a walk that began when `due` stood as given.
    pub fn walked(&mut self, due: u64, now_ns: u64, cost: Duration) {
        self.known = due;
        self.credit_ns = self.credit(now_ns) - cost.as_nanos() as i64;
        self.since_ns = now_ns;
    }

    fn credit(&self, now_ns: u64) -> i64 {
        let earned = (now_ns.saturating_sub(self.since_ns) / SHARE) as i64;
        (self.credit_ns + earned).min(SAVINGS.as_nanos() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_walk_waits_for_news() {
        let mut pacer = Pacer::new(0);
        assert!(!pacer.wants(0, 0));
        assert!(pacer.wants(1, 0));
        pacer.walked(1, 0, Duration::from_millis(1));
        assert!(!pacer.wants(1, SECOND));
        assert!(pacer.wants(2, SECOND));
    }

    #[test]
    fn a_dear_walk_is_paid_off_first() {
        let mut pacer = Pacer::new(0);
        pacer.walked(1, 0, Duration::from_millis(70));
        assert!(!pacer.affords(10 * SECOND - 1000));
        assert!(pacer.affords(10 * SECOND + 1000));
    }

    #[test]
    fn savings_are_bounded() {
        let mut pacer = Pacer::new(0);
        pacer.walked(1, 10_000 * SECOND, Duration::from_millis(60));
        assert!(!pacer.affords(10_000 * SECOND));
    }
}
