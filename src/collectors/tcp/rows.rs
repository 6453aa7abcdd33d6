//! From a query to the wire, and from rows of the wire to connections. Pure.

use std::net::Ipv6Addr;

use super::skel::types::{tcp_asked, tcp_ends, tcp_row, tcp_wish};
use crate::collectors::labels::{comm, role};
use crate::connections::query::Filter;
use crate::connections::{CONGESTION_STATES, Connection, End, Field, Fields, Query, STATES};
use crate::identity::{Identity, Workload};

const _: () = assert!(size_of::<tcp_row>() == 96 + 8 * Field::ALL.len());

/// What a query asks of the program.
pub fn wish(query: &Query, now_ns: u64, tick_ns: u64) -> tcp_wish {
    let Filter { comm, pid, role, state, src_ip, src_port, dst_ip, dst_port, .. } = &query.filter;
    let asked = [
        (tcp_asked::ASKED_COMM, comm.is_some()),
        (tcp_asked::ASKED_PID, pid.is_some()),
        (tcp_asked::ASKED_CGROUP, of_workloads(&query.filter)),
        (tcp_asked::ASKED_ROLE, role.is_some()),
        (tcp_asked::ASKED_STATE, state.is_some()),
        (tcp_asked::ASKED_SRC_IP, src_ip.is_some()),
        (tcp_asked::ASKED_SRC_PORT, src_port.is_some()),
        (tcp_asked::ASKED_DST_IP, dst_ip.is_some()),
        (tcp_asked::ASKED_DST_PORT, dst_port.is_some()),
    ];
    let ip = |ip: &Option<Ipv6Addr>| ip.map_or([0; 16], |ip| ip.octets());
    tcp_wish {
        now_ns,
        tick_ns,
        asked: asked.iter().filter(|(_, set)| *set).fold(0, |bits, (bit, _)| bits | bit.0),
        sort: query.sort.index() as u32,
        stride: 1,
        comm: comm.unwrap_or_default(),
        pid: pid.unwrap_or_default(),
        role: role.unwrap_or_default(),
        state: state.unwrap_or_default(),
        ends: tcp_ends {
            src_ip: ip(src_ip),
            dst_ip: ip(dst_ip),
            src_port: src_port.unwrap_or_default(),
            dst_port: dst_port.unwrap_or_default(),
            netns: 0,
        },
        ..tcp_wish::default()
    }
}

/// Whether it matters who works in the cgroup.
pub fn of_workloads(filter: &Filter) -> bool {
    filter.container.is_some() || filter.pod.is_some() || filter.namespace.is_some()
}

/// Whether this is one of those workloads.
pub fn admits(filter: &Filter, workload: &Workload) -> bool {
    let fits = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    fits(&filter.container, &workload.container)
        && fits(&filter.pod, &workload.pod)
        && fits(&filter.namespace, &workload.namespace)
}

/// What a row is sorted by, as the program ranks it: what is not known comes last. A connection from before the daemon
/// has the age that it is known to have at least, which is more than that of all others.
pub fn key(row: &tcp_row, query: &Query) -> u64 {
    let value = row.fields[query.sort.index()];
    if value == Fields::UNKNOWN { 0 } else { value }
}

/// A row; `None` if the program has not filled it, as the connection is no more.
pub fn connection(row: &tcp_row, identity: &Identity) -> Option<Connection> {
    if row.state == 0 {
        return None;
    }
    let name = |names: &[&'static str], number: u8| names.get(usize::from(number)).copied().unwrap_or_default();
    let end = |ip: [u8; 16], port| End { ip: ip.into(), port };
    let congestion = row.congestion.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut fields = Fields(row.fields);
    if row.adopted != 0 {
        fields.0[Field::DURATION.index()] = Fields::UNKNOWN;
    }
    Some(Connection {
        comm: comm(&row.who.comm),
        pid: Some(row.who.pid).filter(|&pid| pid != 0),
        workload: identity.workload(row.who.cgroup),
        role: role(row.role),
        state: name(&STATES, row.state),
        netns: row.ends.netns,
        src: end(row.ends.src_ip, row.ends.src_port),
        dst: end(row.ends.dst_ip, row.ends.dst_port),
        congestion_control: String::from_utf8_lossy(congestion).into_owned(),
        congestion_state: name(&CONGESTION_STATES, row.ca_state),
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_counts() {
        let asked = |parameters: &[(&str, &str)]| wish(&Query::parse(parameters.iter().copied()).unwrap(), 5, 4).asked;
        assert_eq!(asked(&[]), 0);
        assert_eq!(asked(&[("pod", "web-0")]), tcp_asked::ASKED_CGROUP.0);
        assert_eq!(asked(&[("pid", "7"), ("src_port", "8")]), tcp_asked::ASKED_PID.0 | tcp_asked::ASKED_SRC_PORT.0);
    }

    #[test]
    fn a_workload_has_to_fit_all_names() {
        let web = Workload { container: "web".into(), pod: "web-0".into(), namespace: "shop".into(), ..<_>::default() };
        let admits =
            |parameters: &[(&str, &str)]| admits(&Query::parse(parameters.iter().copied()).unwrap().filter, &web);
        assert!(admits(&[("container", "web")]) && admits(&[("pod", "web-0"), ("namespace", "shop")]));
        assert!(!admits(&[("container", "web"), ("namespace", "bank")]) && !admits(&[("pod", "web")]));
    }

    #[test]
    fn what_is_not_known_of_a_row_comes_last_or_is_left_out() {
        let query = |sort| Query { sort: Field::named(sort).unwrap(), ..Query::default() };
        let mut row = tcp_row { state: 1, adopted: 1, ..Default::default() };
        row.fields[Field::DURATION.index()] = 7;
        row.fields[Field::named("ssthresh").unwrap().index()] = Fields::UNKNOWN;
        assert_eq!((key(&row, &query("ssthresh")), key(&row, &query("duration_seconds"))), (0, 7));
        let found = connection(&row, &Identity::default()).unwrap();
        assert_eq!((found.fields.get(Field::DURATION), found.state), (None, "established"));
        assert_eq!(connection(&tcp_row::default(), &Identity::default()), None);
    }
}
