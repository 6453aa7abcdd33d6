//! The families of this collector: what each means, and how slots become samples. Pure.

use std::hash::{Hash, Hasher};

use super::skel::types::{hist, tcp_caller, tcp_failure, tcp_listener, tcp_missed, tcp_series, tcp_timing};
use crate::collectors::labels::{self as names, OTHER};
use crate::events::Kind;
use crate::histogram::Histogram;
use crate::snapshot::{Descriptor, Family, Labels, labels};

static SENT: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_bytes_sent_total",
    "bytes",
    "Payload bytes sent, each once however often it was transmitted.",
);
static RECEIVED: Descriptor =
    Descriptor::counter("tcp", "sidecar_connection_bytes_received_total", "bytes", "Payload bytes received in order.");
static SEGS_OUT: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_packets_sent_total",
    "",
    "TCP segments sent, with and without payload (tcp_sock.segs_out).",
);
static SEGS_IN: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_packets_received_total",
    "",
    "TCP segments received, with and without payload (tcp_sock.segs_in).",
);
static RETRANS: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_retransmits_total",
    "",
    "TCP segments sent again, SYN and SYN-ACK included; sums to RetransSegs of /proc/net/snmp.",
);
static SPURIOUS: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_spurious_retransmits_total",
    "",
    "Segments that the peer says it received twice, as when sending them again was needless (DSACK: tcp_sock.dsack_dups).",
);
static DURATION: Descriptor = Descriptor::gauge(
    "tcp",
    "sidecar_connection_duration_seconds",
    "seconds",
    "Age of the oldest open connection; one from before the daemon counts from the daemon's start.",
);
static ACTIVE: Descriptor = Descriptor::gauge("tcp", "sidecar_active_connections", "", "Connections open now.");
static OPENED: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connections_opened_total",
    "",
    "Connections that were established; those from before the daemon are not among them.",
);
static CLOSED: Descriptor =
    Descriptor::counter("tcp", "sidecar_connections_closed_total", "", "Established connections that ended.");
static LIMITED: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connection_limited_seconds_total",
    "seconds",
    "Time with data to send, by what held it back: the network (busy), the receiver's window, or the sender's buffer.",
);
static SETUP: Descriptor = Descriptor::histogram(
    "tcp",
    "sidecar_connection_setup_seconds",
    "Time from SYN to ESTABLISHED of connections opened here.",
);
static RTT: Descriptor = Descriptor::histogram(
    "tcp",
    "sidecar_connection_rtt_seconds",
    "Smoothed round-trip time: one sample of each connection at each collection, and one when it closes.",
);
static FAILURES: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connect_failures_total",
    "",
    "Connects that failed after the SYN was due, by reason.",
);
static BACKLOG: Descriptor = Descriptor::gauge(
    "tcp",
    "sidecar_listen_backlog",
    "",
    "Connections that wait to be accepted (sk_ack_backlog of the listening sockets).",
);
static OVERFLOWS: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_listen_overflows_total",
    "",
    "Connection requests dropped by listening sockets (sk_drops), as when the accept queue is full; sums to ListenDrops of /proc/net/netstat.",
);
static CONNECTS: Descriptor = Descriptor::gauge(
    "tcp",
    "tcp_connects_by_pid",
    "",
    "Connects begun by each live process since the daemon or the process started.",
);
static UNTRACKED: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_connections_untracked_total",
    "",
    "Connections that ended before anything was known of them: older than the daemon and held by no process.",
);

static EVENTS: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_events_total",
    "",
    "Events of connections, counted by the kernel while the connection log or a stream wanted them.",
);
static EVENTS_LOST: Descriptor = Descriptor::counter(
    "tcp",
    "sidecar_events_lost_total",
    "",
    "Events that found no room: once if that was in the kernel, else for each log or stream that was too slow.",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Descriptor] = &[
    &SENT,
    &RECEIVED,
    &SEGS_OUT,
    &SEGS_IN,
    &RETRANS,
    &SPURIOUS,
    &DURATION,
    &ACTIVE,
    &OPENED,
    &CLOSED,
    &LIMITED,
    &SETUP,
    &RTT,
    &FAILURES,
    &BACKLOG,
    &OVERFLOWS,
    &CONNECTS,
    &UNTRACKED,
    &EVENTS,
    &EVENTS_LOST,
];

/// The families that the slots of each table feed.
pub const OF_SERIES: &[&Descriptor] =
    &[&SENT, &RECEIVED, &SEGS_OUT, &SEGS_IN, &RETRANS, &SPURIOUS, &DURATION, &ACTIVE, &OPENED, &CLOSED, &LIMITED];
pub const OF_TIMING: &[&Descriptor] = &[&SETUP, &RTT];
pub const OF_FAILURE: &[&Descriptor] = &[&FAILURES];
pub const OF_LISTENER: &[&Descriptor] = &[&BACKLOG, &OVERFLOWS];
pub const OF_CALLER: &[&Descriptor] = &[&CONNECTS];

/// The values of `by`, in the order of `tcp_series.chrono`.
const LIMITED_BY: [&str; 3] = ["busy", "receiver", "send_buffer"];

/// Everything that one collection finds.
pub struct Families {
    sent: Family,
    received: Family,
    segs_out: Family,
    segs_in: Family,
    retrans: Family,
    spurious: Family,
    duration: Family,
    active: Family,
    opened: Family,
    closed: Family,
    limited: Family,
    setup: Family,
    rtt: Family,
    failures: Family,
    backlog: Family,
    overflows: Family,
    connects: Family,
    untracked: Family,
    events: Family,
    events_lost: Family,
}

/// What a connection series is called, in this family and in that with one more label.
#[derive(Debug, Clone)]
pub struct SeriesLabels {
    plain: Labels,
    /// `None`: folded into `other`, so that this family keeps to the budget too.
    limited: Option<[Labels; 3]>,
}

impl SeriesLabels {
    /// `limited` gives one label set for each value of `by`.
    pub fn new(plain: Labels, limited: bool) -> SeriesLabels {
        let each = || LIMITED_BY.map(|by| names::with(&plain, "by", by));
        SeriesLabels { limited: limited.then(each), plain }
    }

    /// Whether its time is counted in `other`.
    pub fn is_folded(&self) -> bool {
        self.limited.is_none()
    }

    /// What of the time of such a series is counted in `other`.
    pub fn folded_jiffies(&self, s: &tcp_series) -> u64 {
        if self.is_folded() { s.chrono.iter().sum() } else { 0 }
    }
}

impl PartialEq for SeriesLabels {
    fn eq(&self, other: &Self) -> bool {
        self.plain == other.plain
    }
}

impl Eq for SeriesLabels {}

impl Hash for SeriesLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.hash(state);
    }
}

/// Whether the series of this slot has samples of its own where each series has three.
pub fn limited_fits(slot: u32, max_series: u32) -> bool {
    slot != 0 && slot <= max_series / LIMITED_BY.len() as u32
}

/// When and with what units the pass was made.
#[derive(Debug, Clone, Copy)]
pub struct PassContext {
    /// Its number: values of an earlier pass are about connections that are no more.
    pub number: u64,
    /// CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// Length of a jiffy.
    pub tick_ns: u64,
}

impl PassContext {
    fn jiffies(&self, jiffies: u64) -> f64 {
        (jiffies as f64) * (self.tick_ns as f64) / 1e9
    }
}

impl Families {
    pub fn new() -> Families {
        Families {
            sent: Family::new(&SENT),
            received: Family::new(&RECEIVED),
            segs_out: Family::new(&SEGS_OUT),
            segs_in: Family::new(&SEGS_IN),
            retrans: Family::new(&RETRANS),
            spurious: Family::new(&SPURIOUS),
            duration: Family::new(&DURATION),
            active: Family::new(&ACTIVE),
            opened: Family::new(&OPENED),
            closed: Family::new(&CLOSED),
            limited: Family::new(&LIMITED),
            setup: Family::new(&SETUP),
            rtt: Family::new(&RTT),
            failures: Family::new(&FAILURES),
            backlog: Family::new(&BACKLOG),
            overflows: Family::new(&OVERFLOWS),
            connects: Family::new(&CONNECTS),
            untracked: Family::new(&UNTRACKED),
            events: Family::new(&EVENTS),
            events_lost: Family::new(&EVENTS_LOST),
        }
    }

    /// `folded` takes the jiffies of a series that has no samples of its own in `limited_seconds`.
    pub fn series(&mut self, names: &SeriesLabels, s: &tcp_series, pass: PassContext, folded: &mut u64) {
        let open = if s.pass == pass.number { s.open } else { 0 };
        let labels = || Labels::clone(&names.plain);
        self.sent.integer(labels(), s.sent);
        self.received.integer(labels(), s.received);
        self.segs_out.integer(labels(), s.segs_out);
        self.segs_in.integer(labels(), s.segs_in);
        self.retrans.integer(labels(), s.retrans);
        self.spurious.integer(labels(), s.spurious);
        self.opened.integer(labels(), s.opened);
        self.closed.integer(labels(), s.closed);
        self.active.integer(labels(), open.into());
        if open > 0 {
            self.duration.number(labels(), pass.now_ns.saturating_sub(s.oldest_ns) as f64 / 1e9);
        }
        match &names.limited {
            Some(each) => {
                for (labels, jiffies) in each.iter().zip(s.chrono) {
                    self.limited.number(Labels::clone(labels), pass.jiffies(jiffies));
                }
            }
            None => *folded += names.folded_jiffies(s),
        }
    }

    /// What was folded by [`Families::series`], if there ever was anything. `like` gives the names of the labels.
    pub fn limited_other(&mut self, like: &Labels, jiffies: u64, pass: PassContext) {
        let labels = like.iter().map(|(name, _)| *name).chain(["by"]).map(|name| (name, OTHER.into())).collect();
        self.limited.number(labels, pass.jiffies(jiffies));
    }

    pub fn timing(&mut self, labels: &Labels, t: &tcp_timing) {
        for (family, recorded) in [(&mut self.setup, &t.setup), (&mut self.rtt, &t.rtt)] {
            let histogram = histogram(recorded);
            if histogram.count() > 0 {
                family.histogram(Labels::clone(labels), histogram);
            }
        }
    }

    pub fn failure(&mut self, labels: &Labels, f: &tcp_failure) {
        self.failures.integer(Labels::clone(labels), f.count);
    }

    pub fn listener(&mut self, labels: &Labels, l: &tcp_listener, pass: PassContext) {
        if l.pass == pass.number {
            self.backlog.integer(Labels::clone(labels), l.backlog);
        }
        self.overflows.integer(Labels::clone(labels), l.overflows);
    }

    pub fn caller(&mut self, labels: &Labels, c: &tcp_caller) {
        self.connects.integer(Labels::clone(labels), c.connects);
    }

    pub fn missed(&mut self, missed: &tcp_missed) {
        self.untracked.integer(labels([]), missed.untracked);
    }

    /// How many there were of each kind, and how many of them were lost.
    pub fn events(&mut self, totals: &[(Kind, u64, u64)]) {
        for (kind, produced, lost) in totals {
            let labels = || labels([("type", kind.as_str())]);
            self.events.integer(labels(), *produced);
            self.events_lost.integer(labels(), *lost);
        }
    }

    /// In the order of [`ALL`].
    pub fn finish(self) -> Vec<Family> {
        vec![
            self.sent,
            self.received,
            self.segs_out,
            self.segs_in,
            self.retrans,
            self.spurious,
            self.duration,
            self.active,
            self.opened,
            self.closed,
            self.limited,
            self.setup,
            self.rtt,
            self.failures,
            self.backlog,
            self.overflows,
            self.connects,
            self.untracked,
            self.events,
            self.events_lost,
        ]
    }
}

fn histogram(recorded: &hist) -> Histogram {
    Histogram::new(&recorded.counts, recorded.sum)
}
