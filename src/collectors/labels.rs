//! Labels of slots, for all collectors. Pure.

use std::net::Ipv6Addr;

use crate::connections::ROLES;
use crate::identity::Identity;
use crate::snapshot::Labels;

/// What every label of the series says that takes what found no room.
pub const OTHER: &str = "other";

/// Names and values in the order in which they are shown.
pub type Pairs = Vec<(&'static str, String)>;

/// Slot 0 takes what found no room, whatever its key says. Labels that are not known are left out.
pub fn finish(slot: u32, pairs: Pairs) -> Labels {
    let value = |text: String| if slot == 0 { OTHER.into() } else { text.into_boxed_str() };
    let known = pairs.into_iter().filter(|(_, text)| slot == 0 || !text.is_empty());
    known.map(|(name, text)| (name, value(text))).collect()
}

/// The same labels with one more.
pub fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let other = labels.iter().all(|(_, value)| value.as_ref() == OTHER);
    let value = if other { OTHER } else { value };
    labels.iter().cloned().chain([(name, value.into())]).collect()
}

/// The labels of a workload: `comm` as `struct who` has it, and who lives in its cgroup.
pub fn who(identity: &Identity, name: &[u8; 16], cgroup: u64) -> Pairs {
    let known = identity.workload(cgroup);
    let known = known.as_deref();
    let text = |text: Option<&Box<str>>| text.map_or_else(String::new, |text| text.to_string());
    vec![
        ("comm", comm(name)),
        ("container", text(known.map(|workload| &workload.container))),
        ("pod", text(known.map(|workload| &workload.pod))),
        ("namespace", text(known.map(|workload| &workload.namespace))),
        ("service", text(known.map(|workload| &workload.service))),
    ]
}

/// Name of a process, as `task_struct.comm` has it. Bytes that are not UTF-8 are shown as `\\xff`, and a text that looks
/// like that has its backslash shown as `\\x5c`; a process called like the series for what found no room has its first
/// letter shown so. Two names never look the same, as two series must not.
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    if &bytes[..end] == OTHER.as_bytes() {
        return "\\x6fther".to_owned();
    }
    let mut name = String::new();
    for chunk in bytes[..end].utf8_chunks() {
        for (at, c) in chunk.valid().char_indices() {
            let looks_escaped = || {
                let hex = chunk.valid().as_bytes().get(at + 2..at + 4);
                chunk.valid()[at..].starts_with("\\x") && hex.is_none_or(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            };
            if c == '\\' && looks_escaped() { name.push_str("\\x5c") } else { name.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02x}")));
    }
    name
}

/// An address; IPv4 in its own notation, also where a dual-stack socket carries it.
pub fn ip(bytes: [u8; 16]) -> String {
    Ipv6Addr::from(bytes).to_canonical().to_string()
}

/// Side of a connection, as `enum role` of `bpf/include/ends.h` numbers them.
pub fn role(number: u8) -> &'static str {
    ROLES.get(usize::from(number)).copied().unwrap_or(ROLES[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_found_no_room_is_other_throughout() {
        let pairs = || vec![("comm", "nginx".to_owned()), ("pid", String::new())];
        assert_eq!(*finish(0, pairs()), [("comm", OTHER.into()), ("pid", OTHER.into())]);
        assert_eq!(*finish(1, pairs()), [("comm", "nginx".into())]);
        assert_eq!(*with(&finish(1, pairs()), "by", "busy"), [("comm", "nginx".into()), ("by", "busy".into())]);
        assert_eq!(with(&finish(0, pairs()), "by", "busy")[2], ("by", OTHER.into()));
    }

    #[test]
    fn a_name_ends_at_its_zero_and_may_be_any_bytes() {
        assert_eq!(comm(b"nginx\0garbage!!!"), "nginx");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
        assert_eq!(comm(b"other\0\0\0\0\0\0\0\0\0\0\0"), "\\x6fther");
        assert_eq!(comm(b"a\\b\0\0\0\0\0\0\0\0\0\0\0\0\0"), "a\\b");
        assert_eq!(comm(b"\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "\\xff");
        assert_eq!(comm(b"\\xff\0\0\0\0\0\0\0\0\0\0\0\0"), "\\x5cxff");
        assert_eq!(comm(b"\\x\xc3\xa9\xc3\0\0\0\0\0\0\0\0\0\0\0"), "\\x\u{e9}\\xc3");
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 5]), "10.0.0.5");
        assert_eq!(ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "::1");
    }
}
