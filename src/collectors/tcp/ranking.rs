//! The largest of many connections, from passes that store only some of them. Pure.
//!
//! A pass stores [`CANDIDATES`] at most, which may be fewer than there are. So it stores one in so many, evenly over
//! all; the smallest of the largest among these is a floor that nothing below has to be looked at again, and the next
//! pass stores only what exceeds it. A few passes come to all that is left.

use std::cmp::Reverse;

use super::skel::types::{tcp_candidate, tcp_ranking};

/// Room for what a pass stores: `CANDIDATES` of `bpf/tcp/rows.h`.
pub const CANDIDATES: u64 = 32_768;

/// Passes may go on for as long as connections come faster than they are looked at, and that must end.
const MAX_PASSES: u32 = 16;

/// What is known after some passes.
#[derive(Debug)]
pub struct Ranking {
    wanted: usize,
    best: Vec<tcp_candidate>,
    /// How many there are above the floor, by estimate.
    left: u64,
    /// Of the last pass.
    stride: u32,
    passes: u32,
}

/// What a pass is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Store only what exceeds this.
    pub floor: Option<u64>,
    /// Store one in so many.
    pub stride: u32,
}

impl Ranking {
    /// The largest `wanted`, of about so many.
    pub fn new(wanted: usize, expected: u64) -> Ranking {
        Ranking { wanted, best: Vec::new(), left: expected, stride: 1, passes: 0 }
    }

    /// The next pass; `None` if there have been too many.
    pub fn next_pass(&mut self) -> Option<Pass> {
        self.passes += 1;
        self.stride = self.left.div_ceil(CANDIDATES).clamp(1, u32::MAX.into()) as u32;
        (self.passes <= MAX_PASSES).then(|| Pass { floor: self.floor(), stride: self.stride })
    }

    /// Takes what a pass has found. Whether that was all.
    pub fn take(&mut self, met: &tcp_ranking, mut found: Vec<tcp_candidate>) -> bool {
        // A socket that was met before counts as it is now: the later comes first, and the sort keeps that.
        found.append(&mut self.best);
        found.sort_by_key(|candidate| candidate.socket);
        found.dedup_by_key(|candidate| candidate.socket);
        if found.len() > self.wanted {
            found.select_nth_unstable_by_key(self.wanted - 1, |candidate| Reverse(candidate.key));
            found.truncate(self.wanted);
            found.shrink_to_fit();
        }
        self.best = found;
        // Of those that were stored evenly over all, `wanted` at most exceed the new floor. Where there was no room for
        // all that were due, only the first ones are known.
        let even = met.stored * u64::from(self.stride) >= met.above && met.stored > 0;
        let exceed = if even { (self.wanted as u64 * met.above).div_ceil(met.stored) } else { met.above };
        self.left = exceed.min(met.above);
        met.stored == met.above
    }

    /// The largest, in no order.
    pub fn best(self) -> Vec<tcp_candidate> {
        self.best
    }

    /// Once there are as many as are wanted, the smallest of them.
    fn floor(&self) -> Option<u64> {
        (self.best.len() == self.wanted).then(|| self.best.iter().map(|candidate| candidate.key).min())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program, over keys in the order in which it meets them.
    fn pass(keys: &[u64], Pass { floor, stride }: Pass) -> (tcp_ranking, Vec<tcp_candidate>) {
        let mut met = tcp_ranking::default();
        let mut found = Vec::new();
        for (socket, &key) in keys.iter().enumerate().filter(|(_, key)| floor.is_none_or(|floor| **key > floor)) {
            met.above += 1;
            if (met.above - 1).is_multiple_of(stride.into()) && met.stored < CANDIDATES {
                met.stored += 1;
                found.push(tcp_candidate { socket: socket as u64 + 1, key });
            }
        }
        (met, found)
    }

    /// The largest by passes, how many these were, and the largest by sorting.
    #[track_caller]
    fn largest(keys: &[u64], wanted: usize, expected: u64) -> u32 {
        let mut ranking = Ranking::new(wanted, expected);
        loop {
            let next = ranking.next_pass().expect("it comes to an end");
            let (met, found) = pass(keys, next);
            if ranking.take(&met, found) {
                break;
            }
        }
        let passes = ranking.passes;
        let mut best: Vec<_> = ranking.best().iter().map(|candidate| candidate.key).collect();
        best.sort_unstable_by_key(|&key| Reverse(key));
        let mut sorted = keys.to_vec();
        sorted.sort_unstable_by_key(|&key| Reverse(key));
        sorted.truncate(wanted);
        assert!(best == sorted, "{wanted} of {}", keys.len());
        passes
    }

    #[test]
    fn few_take_one_pass() {
        for wanted in [1, 7, 100, 1000] {
            assert_eq!(largest(&[5, 1, 5, 0, 9, 5, 5], wanted, 7), 1);
            assert_eq!(largest(&[], wanted, 0), 1);
        }
    }

    #[test]
    fn many_take_a_few_in_whatever_order_they_come() {
        let count = 150_000;
        let rising: Vec<u64> = (0..count).collect();
        let falling: Vec<u64> = rising.iter().rev().copied().collect();
        let mixed: Vec<u64> = rising.iter().map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).collect();
        for keys in [&rising, &falling, &mixed] {
            assert_eq!(largest(keys, 66, count), 2);
            assert!(largest(keys, 11_266, count) <= 6);
            // As after a start, when nobody has counted them.
            assert!(largest(keys, 66, 0) <= 8);
        }
    }

    #[test]
    fn any_number_of_equals_is_settled_by_the_floor() {
        let mut keys = vec![0; 100_000];
        assert_eq!(largest(&keys, 100, 100_000), 2);
        keys.extend([3, 4, 5]);
        assert_eq!(largest(&keys, 100, 100_000), 2);
        assert_eq!(largest(&vec![7; 100_000], 11_266, 0), 2);
    }
}
