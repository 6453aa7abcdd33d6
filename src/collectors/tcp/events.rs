//! From records in the ring to events. Decoding is pure.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::decode::reason;
use super::skel::types::{tcp_event, tcp_event_counts};
use crate::bpf::plain::{Plain, from_bytes};
use crate::bpf::ring::Ring;
use crate::collectors::labels::{comm, role};
use crate::events::{End, Ending, Event, Fate, Kind, PerKind, Source, Tap, Traffic};
use crate::kernel::monotonic_ns;

/// 65 536 events: about a second of all that two cores can produce.
pub const RING_BYTES: u32 = 8 << 20;

// SAFETY: generated from a C struct of integers without padding.
unsafe impl Plain for tcp_event {}

// SAFETY: as above.
unsafe impl Plain for tcp_event_counts {}

/// Where the programs look for a ring, and what they have counted.
#[derive(Debug)]
pub struct Rings {
    slot: MapHandle,
    counts: MapHandle,
}

impl Rings {
    /// From the maps `events` and `event_counts`.
    pub fn new(slot: MapHandle, counts: MapHandle) -> Rings {
        Rings { slot, counts }
    }
}

impl Source for Rings {
    fn open(&self) -> io::Result<Box<dyn Tap>> {
        let records = Arc::<Mutex<Vec<tcp_event>>>::default();
        let taken = Arc::clone(&records);
        let take = move |record: &[u8]| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(from_bytes(record));
            0
        };
        let slot = MapHandle::try_from(&self.slot).map_err(system)?;
        let ring = Ring::open(slot, RING_BYTES, take).map_err(system)?;
        Ok(Box::new(Reading { ring, clock: WallClock::default(), records }))
    }

    fn lost(&self) -> PerKind {
        counts(&self.counts).lost
    }
}

/// What the programs have counted.
pub fn counts(map: &impl MapCore) -> tcp_event_counts {
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
    value.map(|bytes| from_bytes(&bytes)).unwrap_or_default()
}

/// How many events there were, and how many of them were lost. The programs count what they tell; where that includes what
/// is not watched, it counts what was found to be watched, and what nobody could look at.
pub fn totals(counts: &tcp_event_counts, fate: &Fate, by_workload: bool) -> [(Kind, u64, u64); Kind::ALL.len()] {
    Kind::ALL.map(|kind| {
        let index = kind as usize;
        let produced = if by_workload { fate.told[index] + counts.lost[index] } else { counts.produced[index] };
        (kind, produced, counts.lost[index] + fate.lost[index])
    })
}

struct Reading {
    ring: Ring,
    clock: WallClock,
    /// Between the ring's callback and those who read.
    records: Arc<Mutex<Vec<tcp_event>>>,
}

impl Tap for Reading {
    fn read(&mut self, most: usize, events: &mut Vec<Event>) -> io::Result<()> {
        self.ring.read(most).map_err(system)?;
        let boot_ns = self.clock.boot_ns();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        events.extend(records.drain(..).filter_map(|record| decode(&record, boot_ns)));
        Ok(())
    }

    fn wait(&mut self, longest: Duration) {
        self.ring.wait(longest);
    }

    fn close(&mut self) -> io::Result<()> {
        self.ring.close().map_err(system)
    }
}

fn system(error: libbpf_rs::Error) -> io::Error {
    io::Error::other(error)
}

/// When CLOCK_MONOTONIC began, in nanoseconds since the Unix epoch.
#[derive(Debug, Default)]
struct WallClock {
    boot_ns: u64,
}

impl WallClock {
    /// Below this the wall clock was not set: the two were read at different moments. Times of events that follow each
    /// other then differ by what passed between them.
    const STEADY_NS: u64 = 1_000_000;

    fn boot_ns(&mut self) -> u64 {
        let before = monotonic_ns();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let after = monotonic_ns();
        let now = (wall.as_nanos() as u64).saturating_sub(before);
        if now.abs_diff(self.boot_ns) > Self::STEADY_NS + (after - before) {
            self.boot_ns = now;
        }
        self.boot_ns
    }
}

/// `boot_ns` is what to add to CLOCK_MONOTONIC. `None`: of no kind that we know.
fn decode(record: &tcp_event, boot_ns: u64) -> Option<Event> {
    let kind = *Kind::ALL.get(usize::from(record.r#type))?;
    let traffic = || Traffic {
        bytes_sent: record.sent,
        bytes_received: record.received,
        packets_sent: record.segs_out,
        packets_received: record.segs_in,
        rtt_us: Some(record.srtt_us).filter(|&us| us != 0),
    };
    let ending = || Ending {
        reason: reason(record.reason),
        duration: Some(record.duration_ns).filter(|&ns| ns != 0).map(Duration::from_nanos),
        retransmits: record.retrans,
        traffic: (kind == Kind::Close).then(traffic),
    };
    Some(Event {
        sequence: 0,
        unix_ns: boot_ns + record.time_ns,
        kind,
        src: end(record.src_ip, record.src_port),
        dst: end(record.dst_ip, record.dst_port),
        role: role(record.role),
        pid: Some(record.pid).filter(|&pid| pid != 0),
        process: comm(&record.comm).into(),
        cgroup: record.cgroup,
        workload: None,
        netns: record.netns,
        ending: matches!(kind, Kind::Close | Kind::ConnectFailed).then(ending),
    })
}

fn end(ip: [u8; 16], port: u16) -> End {
    let known = |ip: &IpAddr| !ip.is_unspecified();
    End { ip: Some(Ipv6Addr::from(ip).to_canonical()).filter(known), port: Some(port).filter(|&port| port != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind) -> tcp_event {
        tcp_event {
            r#type: kind as u8,
            time_ns: 7,
            src_ip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 5],
            dst_ip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            src_port: 40000,
            dst_port: 443,
            comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            pid: 12,
            role: 1,
            reason: 1,
            duration_ns: 1_500_000_000,
            sent: 3,
            srtt_us: 20,
            ..Default::default()
        }
    }

    #[test]
    fn what_an_event_has_depends_on_its_kind() {
        let connect = decode(&record(Kind::Connect), 1000).unwrap();
        assert_eq!((connect.unix_ns, connect.kind, connect.ending), (1007, Kind::Connect, None));
        assert_eq!((&*connect.process, connect.pid, connect.role), ("curl", Some(12), "client"));
        assert_eq!(connect.src, End { ip: Some([10, 0, 0, 5].into()), port: Some(40000) });
        assert_eq!(connect.dst, End { ip: Some(Ipv6Addr::LOCALHOST.into()), port: Some(443) });

        let close = decode(&record(Kind::Close), 0).unwrap().ending.unwrap();
        assert_eq!(close.duration, Some(Duration::from_millis(1500)));
        assert_eq!(close.traffic.map(|traffic| (traffic.bytes_sent, traffic.rtt_us)), Some((3, Some(20))));

        let failed = decode(&record(Kind::ConnectFailed), 0).unwrap().ending.unwrap();
        assert_eq!((failed.reason, failed.traffic), ("refused", None));
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let unknown = tcp_event { r#type: Kind::Close as u8, ..Default::default() };
        let event = decode(&unknown, 0).unwrap();
        assert_eq!((event.pid, event.src), (None, End { ip: None, port: None }));
        let ending = event.ending.unwrap();
        assert_eq!((ending.duration, ending.traffic.unwrap().rtt_us), (None, None));
        assert_eq!(decode(&tcp_event { r#type: 4, ..Default::default() }, 0), None);
    }
}
