//! How slots are added up whose connections are called the same. Pure.

use super::skel::types::{hist, tcp_caller, tcp_failure, tcp_listener, tcp_series, tcp_timing};
use crate::bpf::slots::Sum;

impl Sum for tcp_series {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.segs_out += other.segs_out;
        self.segs_in += other.segs_in;
        self.retrans += other.retrans;
        self.spurious += other.spurious;
        self.opened += other.opened;
        self.closed += other.closed;
        self.chrono.iter_mut().zip(other.chrono).for_each(|(sum, more)| *sum += more);
        if other.pass > self.pass {
            (self.pass, self.open, self.oldest_ns) = (other.pass, other.open, other.oldest_ns);
        } else if other.pass == self.pass {
            self.open += other.open;
            self.oldest_ns = self.oldest_ns.min(other.oldest_ns);
        }
    }
}

impl Sum for tcp_timing {
    fn add(&mut self, other: &Self) {
        add(&mut self.setup, &other.setup);
        add(&mut self.rtt, &other.rtt);
    }
}

impl Sum for tcp_failure {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
    }
}

impl Sum for tcp_listener {
    fn add(&mut self, other: &Self) {
        self.overflows += other.overflows;
        if other.pass > self.pass {
            (self.pass, self.backlog) = (other.pass, other.backlog);
        } else if other.pass == self.pass {
            self.backlog += other.backlog;
        }
    }
}

impl Sum for tcp_caller {
    fn add(&mut self, other: &Self) {
        self.connects += other.connects;
    }
}

fn add(sum: &mut hist, other: &hist) {
    sum.sum += other.sum;
    sum.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_those_of_the_latest_pass() {
        let series = |pass, open, oldest_ns| tcp_series { pass, open, oldest_ns, sent: 1, ..Default::default() };
        let sum = |mut a: tcp_series, b: tcp_series| {
            a.add(&b);
            (a.sent, a.open, a.oldest_ns)
        };
        assert_eq!(sum(series(7, 2, 50), series(7, 1, 40)), (2, 3, 40));
        assert_eq!(sum(series(7, 2, 50), series(3, 1, 40)), (2, 2, 50));
        assert_eq!(sum(series(3, 2, 50), series(7, 1, 60)), (2, 1, 60));
    }
}
