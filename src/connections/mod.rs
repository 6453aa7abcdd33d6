//! A list of live connections: plain data between whoever asks, who states a [`Query`], the collector that answers it,
//! and the encoders, which only walk what was found.

pub mod field;
pub mod query;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use crate::identity::Workload;
pub use field::{Field, Fields};
pub use query::{Query, QueryError};

/// Sides of a connection, as `enum role` of `bpf/include/ends.h` numbers them.
pub const ROLES: [&str; 3] = ["unknown", "client", "server"];

/// TCP states by number, as in include/net/tcp_states.h.
pub const STATES: [&str; 12] = [
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// States of congestion control by number, as `enum tcp_ca_state` of include/uapi/linux/tcp.h.
pub const CONGESTION_STATES: [&str; 5] = ["open", "disorder", "cwr", "recovery", "loss"];

/// The answer to a query.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Name of this node, from the configuration; may be empty.
    pub node: Arc<str>,
    /// When the sockets were read.
    pub taken_at: SystemTime,
    /// Connections that are established or closing, on the whole machine.
    pub live: u64,
    /// Of these, those that match the query, whether listed or not.
    pub total: u64,
    /// The largest of these, in order.
    pub connections: Vec<Connection>,
}

/// One connection, as its socket knows it. Text that is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Name of the process that it belongs to.
    pub comm: String,
    /// Its id, in the first pid namespace.
    pub pid: Option<u32>,
    /// Who works in the cgroup of that process; `None` for what belongs to the host.
    pub workload: Option<Arc<Workload>>,
    /// Which side this is, among [`ROLES`].
    pub role: &'static str,
    /// Among [`STATES`].
    pub state: &'static str,
    /// Network namespace: the inode of `/proc/<pid>/ns/net`.
    pub netns: u32,
    /// The side that opened the connection.
    pub src: End,
    /// The side that listens.
    pub dst: End,
    /// Name of the congestion control.
    pub congestion_control: String,
    /// Among [`CONGESTION_STATES`].
    pub congestion_state: &'static str,
    /// Its numbers.
    pub fields: Fields,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its address; IPv4 ones are mapped.
    pub ip: Ipv6Addr,
    /// Its port.
    pub port: u16,
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListError {
    /// The module that would know does not run, or is paused.
    #[error("connections are not known, as {module} is not running: {reason}")]
    NotRunning {
        /// Its name.
        module: &'static str,
        /// Why not.
        reason: String,
    },
    /// It went wrong this time.
    #[error("connections could not be listed: {0}")]
    Failed(String),
}
