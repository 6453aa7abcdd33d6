//! Lists of live connections: passes that rank them, then one that fills a row for each of the largest.

use std::cmp::Reverse;
use std::time::SystemTime;

use libbpf_rs::{MapCore, MapFlags};

use super::probe::Tcp;
use super::ranking::{CANDIDATES, Ranking};
use super::rows;
use super::skel::TcpSkel;
use super::skel::types::{tcp_candidate, tcp_ranking, tcp_row, tcp_wish};
use crate::bpf::plain::{Plain, from_bytes};
use crate::bpf::{array, own};
use crate::collectors::{CollectError, Found};
use crate::connections::Query;
use crate::connections::query::Filter;
use crate::status::MapReport;

// SAFETY: generated from C structs of integers without padding.
unsafe impl Plain for tcp_candidate {}
// SAFETY: as above.
unsafe impl Plain for tcp_row {}

/// The maps that are there for lists alone.
pub fn maps(skel: &TcpSkel<'_>) -> [MapReport; 3] {
    let maps = &skel.maps;
    // They are empty between two lists.
    let report = |name: &str, bytes| MapReport { name: name.to_owned(), entries: Some(0), bytes, full: None };
    [
        report("candidates", own::map_bytes(&maps.candidates).unwrap_or(0)),
        report("rows", own::map_bytes(&maps.rows).unwrap_or(0)),
        report("wish_cgroups", own::map_bytes(&maps.wish_cgroups).unwrap_or(0)),
    ]
}

impl Tcp<'_> {
    /// The largest of the connections that match.
    pub(super) fn list(&mut self, now_ns: u64, query: &Query) -> Result<Found, CollectError> {
        // Whoever asks wants to know who holds what, also of what was passed on since the last walk.
        if self.pacer.affords(now_ns) {
            self.walk(now_ns).map_err(CollectError::during("looking for the owners of sockets"))?;
        }
        let cgroups = self.cgroups_of(&query.filter);
        let outcome = self.want(&cgroups, true).and_then(|()| self.list_wanted(now_ns, query));
        self.want(&cgroups, false)?;
        outcome
    }

    fn list_wanted(&mut self, now_ns: u64, query: &Query) -> Result<Found, CollectError> {
        let wish = rows::wish(query, now_ns, self.tick_ns);
        // Some may close before their rows are filled: a few more take their places.
        let spare = query.limit / 8 + 16;
        let mut ranking = Ranking::new(query.limit + spare, self.data().pass_sockets);
        let met = loop {
            let Some(pass) = ranking.next_pass() else {
                return Err(CollectError::during("ranking connections")("more came all the time than were looked at"));
            };
            let bits = pass.floor.map_or(0, |_| super::skel::types::tcp_asked::ASKED_FLOOR.0);
            let floor = pass.floor.unwrap_or_default();
            let met = self.list_pass(tcp_wish { asked: wish.asked | bits, floor, stride: pass.stride, ..wish })?;
            let stored = met.stored.min(CANDIDATES) as usize;
            let found = array::first(&self.skel.maps.candidates, stored);
            if ranking.take(&met, found.map_err(CollectError::during("mapping the candidates"))?) {
                break met;
            }
        };
        let mut rows = Vec::new();
        let best = ranking.best();
        let filled = self.fill(&best, wish);
        for candidate in &best {
            let row = self.take_row(candidate).map_err(CollectError::during("reading the rows"))?;
            rows.extend(row.and_then(|row| Some((rows::key(&row, query), rows::connection(&row, &self.identity)?))));
        }
        filled?;
        // By what the rows say, which is a moment younger than the ranking.
        rows.sort_by_key(|(key, _)| Reverse(*key));
        rows.truncate(query.limit);
        let connections = rows.into_iter().map(|(_, connection)| connection).collect();
        Ok(Found { taken_at: SystemTime::now(), live: met.live, total: met.total, connections })
    }

    fn fill(&mut self, best: &[tcp_candidate], wish: tcp_wish) -> Result<(), CollectError> {
        let rows = &self.skel.maps.rows;
        for candidate in best {
            rows.update(&candidate.socket.to_ne_bytes(), tcp_row::default().as_bytes(), MapFlags::ANY)
                .map_err(CollectError::during("making rows"))?;
        }
        self.list_pass(tcp_wish { fill: 1, ..wish }).map(drop)
    }

    /// Takes it out of the map.
    fn take_row(&self, candidate: &tcp_candidate) -> libbpf_rs::Result<Option<tcp_row>> {
        let (rows, key) = (&self.skel.maps.rows, candidate.socket.to_ne_bytes());
        let row = rows.lookup(&key, MapFlags::ANY)?;
        if row.is_some() {
            rows.delete(&key)?;
        }
        Ok(row.map(|bytes| from_bytes(&bytes)))
    }

    fn list_pass(&mut self, wish: tcp_wish) -> Result<tcp_ranking, CollectError> {
        let others = self.other_namespaces();
        let data = self.data_mut();
        data.wish = wish;
        data.ranking = tcp_ranking::default();
        let Some(list) = &mut self.traversals.list else {
            return Err(CollectError::during("listing connections")(self.attachment.plan.missing()));
        };
        list.run_in(others).map_err(CollectError::during("reading the sockets"))?;
        Ok(self.data().ranking)
    }

    /// The cgroups whose workloads a filter admits; none if it does not matter.
    fn cgroups_of(&self, filter: &Filter) -> Vec<u64> {
        if !rows::of_workloads(filter) {
            return Vec::new();
        }
        let known = self.identity.known().into_iter();
        let wanted =
            known.filter(|(_, _, workload)| workload.as_ref().is_some_and(|workload| rows::admits(filter, workload)));
        wanted.map(|(cgroup, _, _)| cgroup).collect()
    }

    /// Tells the program which cgroups are wanted, or takes that back.
    fn want(&self, cgroups: &[u64], wanted: bool) -> Result<(), CollectError> {
        let map = &self.skel.maps.wish_cgroups;
        for cgroup in cgroups {
            let key = cgroup.to_ne_bytes();
            let outcome = if wanted { map.update(&key, &[1], MapFlags::ANY) } else { map.delete(&key) };
            outcome.map_err(CollectError::during("choosing cgroups"))?;
        }
        Ok(())
    }
}
