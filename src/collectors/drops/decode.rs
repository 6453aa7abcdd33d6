//! From the wire to labels. Pure: nothing here touches the kernel.

use super::skel::types::{drops_key, drops_name, drops_protocol};
use crate::collectors::labels::{OTHER, finish, who};
use crate::identity::Identity;
use crate::snapshot::Labels;

/// Labels of a series, in the order in which they are shown.
pub fn series(slot: u32, key: &drops_key, identity: &Identity, reason: String, location: String) -> Labels {
    let dst_port = if key.dst_port == 0 { String::new() } else { key.dst_port.to_string() };
    let mut pairs = vec![("reason", reason), ("protocol", protocol(key)), ("location", location)];
    pairs.extend(who(identity, &key.who.comm, key.who.cgroup));
    pairs.push(("dst_port", dst_port));
    finish(slot, pairs)
}

/// The name of a function, which ends at its zero, or before the name of its module, as in `nft_do_chain [nf_tables]`.
pub fn function(name: &drops_name) -> String {
    let function = name.text.split(|&byte| byte == 0 || byte == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(function).into_owned()
}

/// Few are worth a name; of IP the others are shown by number, as in /etc/protocols.
fn protocol(key: &drops_key) -> String {
    let numbered = |family: &str| match key.transport {
        TRANSPORT_UNKNOWN => family.to_owned(),
        number => format!("{family}:{number}"),
    };
    match drops_protocol(key.protocol.into()) {
        drops_protocol::PROTOCOL_UNKNOWN => String::new(),
        drops_protocol::PROTOCOL_ARP => "arp".to_owned(),
        drops_protocol::PROTOCOL_TCP => "tcp".to_owned(),
        drops_protocol::PROTOCOL_UDP => "udp".to_owned(),
        drops_protocol::PROTOCOL_IPV4 if key.transport == ICMP => "icmp".to_owned(),
        drops_protocol::PROTOCOL_IPV4 => numbered("ipv4"),
        drops_protocol::PROTOCOL_IPV6 if key.transport == ICMP6 => "icmp6".to_owned(),
        drops_protocol::PROTOCOL_IPV6 => numbered("ipv6"),
        drops_protocol::PROTOCOL_UNIX => "unix".to_owned(),
        drops_protocol::PROTOCOL_NETLINK => "netlink".to_owned(),
        _ => OTHER.to_owned(),
    }
}

/// Numbers of transport protocols; the last as in `drops.h`.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TRANSPORT_UNKNOWN: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(protocol: drops_protocol, transport: u8) -> drops_key {
        drops_key { protocol: protocol.0 as u8, transport, ..Default::default() }
    }

    #[test]
    fn protocols_are_few() {
        let name = |family, transport| protocol(&key(family, transport));
        assert_eq!(name(drops_protocol::PROTOCOL_TCP, 0), "tcp");
        assert_eq!(name(drops_protocol::PROTOCOL_UDP, 0), "udp");
        assert_eq!(name(drops_protocol::PROTOCOL_IPV4, 1), "icmp");
        assert_eq!(name(drops_protocol::PROTOCOL_IPV6, 58), "icmp6");
        assert_eq!(name(drops_protocol::PROTOCOL_IPV4, 132), "ipv4:132");
        assert_eq!(name(drops_protocol::PROTOCOL_IPV6, TRANSPORT_UNKNOWN), "ipv6");
        assert_eq!(name(drops_protocol::PROTOCOL_ARP, 0), "arp");
        assert_eq!(name(drops_protocol::PROTOCOL_OTHER, 0), "other");
        assert_eq!(name(drops_protocol::PROTOCOL_UNKNOWN, 0), "");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let key = key(drops_protocol::PROTOCOL_UDP, 0);
        let labels = series(1, &key, &Identity::default(), "no_socket".into(), String::new());
        assert_eq!(*labels, [("reason", "no_socket".into()), ("protocol", "udp".into())]);
    }

    #[test]
    fn a_function_ends_at_its_zero() {
        let name = |text: &[u8]| {
            let mut name = drops_name { text: [0; 64] };
            name.text[..text.len()].copy_from_slice(text);
            function(&name)
        };
        assert_eq!(name(b"nf_hook_slow\0left over"), "nf_hook_slow");
        assert_eq!(name(b"nft_do_chain [nf_tables]"), "nft_do_chain");
        assert_eq!(name(&[b'x'; 64]), "x".repeat(64));
    }
}
