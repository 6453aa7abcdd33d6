//! When to walk over all open files for the owners of sockets. Pure.

use std::time::Duration;

/// A walk may cost this share of one CPU: 0.2 %.
const SHARE: u32 = 500;

/// Paces the walks: one costs about a microsecond for each open file of the machine, whatever little there is to learn.
#[derive(Debug, Default)]
pub struct Pacer {
    /// `owners_due` as of the last walk.
    known: u64,
    next_ns: u64,
}

impl Pacer {
    /// Whether a walk is worth it and affordable. `due` counts the sockets ever that began without a sure owner.
    pub fn wants(&self, due: u64, now_ns: u64) -> bool {
        due != self.known && self.affords(now_ns)
    }

    /// Whether a walk is affordable.
    pub fn affords(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns
    }

    /// Notes a walk that began when `due` stood as given.
    pub fn walked(&mut self, due: u64, now_ns: u64, cost: Duration) {
        self.known = due;
        self.next_ns = now_ns + (cost * SHARE).as_nanos() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_waits_for_news_and_for_its_share() {
        let mut pacer = Pacer::default();
        assert!(!pacer.wants(0, 0));
        assert!(pacer.wants(1, 0));
        pacer.walked(1, 0, Duration::from_millis(2));
        assert!(!pacer.wants(1, 10_000_000_000));
        assert!(!pacer.wants(2, 999_999_999));
        assert!(pacer.wants(2, 1_000_000_000));
    }
}
