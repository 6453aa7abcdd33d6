//! Keeps what our programs cost within bounds: decides which modules to pause, and when to let them go on. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// A module that was paused again and again waits at most so many windows.
const LONGEST_REST: u32 = 16;

/// What costs less than this part of the budget is no relief when it stops, and is passed over if it can be.
const RELIEF: u64 = 4;

/// Bounds on the programs that run when something happens. Those that run when somebody asks are the reader's to pace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Percent of one CPU; 0 for no bound.
    pub percent: f64,
    /// The time over which it is measured.
    pub window: Duration,
}

/// What is to be done with a module, by its index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// Detach its programs.
    Pause {
        /// Which.
        module: usize,
        /// What all programs together took, in percent of one CPU.
        percent: f64,
        /// For how long.
        rest: Duration,
    },
    /// Attach them again.
    Resume {
        /// Which.
        module: usize,
    },
}

/// The present state of a module that runs.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Its index.
    pub module: usize,
    /// Lower ones are paused first.
    pub rank: u8,
    /// Run time of its programs since they were loaded.
    pub run_ns: u64,
}

/// Remembers what the modules have cost.
#[derive(Debug)]
pub struct Governor {
    budget: Budget,
    modules: Vec<Account>,
}

#[derive(Debug, Default, Clone)]
struct Account {
    /// When, and run time until then; the first is at least as old as the window, if there is one so old.
    history: VecDeque<(u64, u64)>,
    /// When it may go on.
    paused_until: Option<u64>,
    /// How long it waits the next time, in windows.
    rest: u32,
}

impl Governor {
    /// For so many modules.
    pub fn new(budget: Budget, modules: usize) -> Governor {
        Governor { budget, modules: vec![Account::default(); modules] }
    }

    /// What to do now. Time is CLOCK_MONOTONIC.
    pub fn decide(&mut self, now_ns: u64, loads: &[Load]) -> Vec<Order> {
        if self.budget.percent == 0.0 {
            return Vec::new();
        }
        let window_ns = self.budget.window.as_nanos() as u64;
        let budget_ns = (window_ns as f64 * self.budget.percent / 100.0) as u64;
        let mut orders = Vec::new();
        let mut running = Vec::new();
        for &load in loads {
            let account = &mut self.modules[load.module];
            match account.paused_until {
                Some(until) if now_ns < until => continue,
                Some(_) => {
                    account.begin(now_ns, load.run_ns);
                    orders.push(Order::Resume { module: load.module });
                }
                None => account.record(now_ns, load.run_ns, window_ns),
            }
            running.push((load, account.spent()));
        }
        let mut spent: u64 = running.iter().map(|(_, spent)| spent).sum();
        running.sort_by_key(|(load, _)| load.rank);
        // First those whose pause is a relief; the others only if that is not enough.
        let (dear, cheap): (Vec<_>, Vec<_>) = running.into_iter().partition(|(_, own)| *own >= budget_ns / RELIEF);
        for (load, own) in dear.into_iter().chain(cheap) {
            if spent <= budget_ns || own == 0 {
                break;
            }
            let account = &mut self.modules[load.module];
            let rest = self.budget.window * account.rest.max(1);
            account.pause(now_ns + rest.as_nanos() as u64);
            let percent = spent as f64 * 100.0 / window_ns as f64;
            orders.push(Order::Pause { module: load.module, percent, rest });
            spent -= own;
        }
        orders
    }
}

impl Governor {
    /// A module could not go on: it rests for another window.
    pub fn postpone(&mut self, module: usize, now_ns: u64) {
        self.modules[module].paused_until = Some(now_ns + self.budget.window.as_nanos() as u64);
    }
}

impl Account {
    fn record(&mut self, now_ns: u64, run_ns: u64, window_ns: u64) {
        self.history.push_back((now_ns, run_ns));
        while self.history.get(1).is_some_and(|(time, _)| now_ns.saturating_sub(*time) >= window_ns) {
            self.history.pop_front();
            // It has gone on for a whole window.
            self.rest = 1;
        }
    }

    /// From here on only what comes counts.
    fn begin(&mut self, now_ns: u64, run_ns: u64) {
        self.paused_until = None;
        self.history = VecDeque::from([(now_ns, run_ns)]);
    }

    fn pause(&mut self, until_ns: u64) {
        self.paused_until = Some(until_ns);
        self.rest = (self.rest.max(1) * 2).min(LONGEST_REST);
    }

    fn spent(&self) -> u64 {
        match (self.history.front(), self.history.back()) {
            (Some((_, first)), Some((_, last))) => last.saturating_sub(*first),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const WINDOW: Duration = Duration::from_secs(60);

    fn governor() -> Governor {
        Governor::new(Budget { percent: 1.0, window: WINDOW }, 3)
    }

    /// Ranks fall with the index; run times in milliseconds.
    fn loads(run_ms: [u64; 3]) -> Vec<Load> {
        let load = |(module, ms): (usize, u64)| Load { module, rank: 30 - module as u8, run_ns: ms * 1_000_000 };
        run_ms.into_iter().enumerate().map(load).collect()
    }

    fn paused(orders: &[Order]) -> Vec<usize> {
        orders
            .iter()
            .filter_map(|order| if let Order::Pause { module, .. } = order { Some(*module) } else { None })
            .collect()
    }

    #[test]
    fn within_the_budget_nothing_happens() {
        let mut governor = governor();
        for second in 0..300 {
            assert_eq!(governor.decide(second * SECOND, &loads([second * 3, second * 3, second * 3])), []);
        }
    }

    #[test]
    fn the_lowest_rank_is_paused_first_and_only_as_many_as_it_takes() {
        let mut governor = governor();
        governor.decide(0, &loads([0, 0, 0]));
        let orders = governor.decide(10 * SECOND, &loads([400, 300, 500]));
        let rest = WINDOW;
        assert_eq!(
            orders,
            [Order::Pause { module: 2, percent: 2.0, rest }, Order::Pause { module: 1, percent: 700.0 / 600.0, rest }]
        );
    }

    #[test]
    fn what_costs_next_to_nothing_is_passed_over() {
        let mut governor = governor();
        governor.decide(0, &loads([0, 0, 0]));
        assert_eq!(paused(&governor.decide(10 * SECOND, &loads([5000, 0, 100]))), [0]);
    }

    #[test]
    fn what_was_spent_before_the_window_is_forgiven() {
        let mut governor = governor();
        for second in 0..600 {
            let orders = governor.decide(second * SECOND, &loads([second * 9, 0, 0]));
            assert_eq!(orders, [], "{second}");
        }
    }

    #[test]
    fn a_paused_module_comes_back_and_waits_longer_each_time() {
        let mut governor = governor();
        let (mut run_ms, mut now, mut rests) = (0, 0, Vec::new());
        governor.decide(now, &loads([0, 0, 0]));
        for _ in 0..6 {
            now += 10 * SECOND;
            run_ms += 1000;
            let Some(Order::Pause { module: 0, rest, .. }) = governor.decide(now, &loads([run_ms, 0, 0])).pop() else {
                panic!("it is too dear")
            };
            assert_eq!(governor.decide(now + rest.as_nanos() as u64 - 1, &loads([run_ms, 0, 0])), []);
            now += rest.as_nanos() as u64;
            assert_eq!(governor.decide(now, &loads([run_ms, 0, 0])), [Order::Resume { module: 0 }]);
            rests.push(rest.as_secs() / 60);
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 16]);
    }

    #[test]
    fn what_cannot_go_on_rests_for_another_window() {
        let mut governor = governor();
        governor.decide(0, &loads([0, 0, 0]));
        governor.decide(SECOND, &loads([1000, 0, 0]));
        assert_eq!(governor.decide(61 * SECOND, &loads([1000, 0, 0])), [Order::Resume { module: 0 }]);
        governor.postpone(0, 61 * SECOND);
        assert_eq!(governor.decide(120 * SECOND, &loads([1000, 0, 0])), []);
        assert_eq!(governor.decide(121 * SECOND, &loads([1000, 0, 0])), [Order::Resume { module: 0 }]);
    }

    #[test]
    fn after_a_quiet_window_it_waits_no_longer_than_at_first() {
        let mut governor = governor();
        governor.decide(0, &loads([0, 0, 0]));
        assert_eq!(paused(&governor.decide(SECOND, &loads([1000, 0, 0]))), [0]);
        for second in 61..200 {
            governor.decide(second * SECOND, &loads([1000, 0, 0]));
        }
        let orders = governor.decide(200 * SECOND, &loads([2000, 0, 0]));
        assert!(matches!(orders[..], [Order::Pause { module: 0, rest: WINDOW, .. }]), "{orders:?}");
    }

    #[test]
    fn without_a_bound_nothing_is_paused() {
        let mut governor = Governor::new(Budget { percent: 0.0, window: WINDOW }, 3);
        governor.decide(0, &loads([0, 0, 0]));
        assert_eq!(governor.decide(SECOND, &loads([90_000, 0, 0])), []);
    }
}
