//! What the kernel's delay accounting says of a task: netlink family TASKSTATS, `include/uapi/linux/taskstats.h`.

use std::fs;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;

/// Delays are accounted for tasks that are made while this lives.
pub struct Accounting {
    before: Option<String>,
}

const SWITCH: &str = "/proc/sys/kernel/task_delayacct";

impl Accounting {
    pub fn on() -> Accounting {
        // Before 5.14 there is no switch, and it is always on.
        let before = fs::read_to_string(SWITCH).ok();
        if before.is_some() {
            fs::write(SWITCH, "1").expect("root may switch it on");
        }
        Accounting { before }
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(SWITCH, before);
        }
    }
}

/// How often a task reclaimed memory, and for how many nanoseconds.
pub fn reclaim_of(task: Pid) -> (u64, u64) {
    const GET_FAMILY: u8 = 3;
    const FAMILY_NAME: u16 = 2;
    const FAMILY_ID: u16 = 1;
    const CONTROL: u16 = 0x10;
    let reply = ask(CONTROL, GET_FAMILY, FAMILY_NAME, b"TASKSTATS\0");
    let family = u16::from_ne_bytes(attribute(&reply, FAMILY_ID)[..2].try_into().expect("two bytes"));

    const GET: u8 = 1;
    const PID: u16 = 1;
    const AGGREGATE_OF_PID: u16 = 4;
    const STATS: u16 = 3;
    let reply = ask(family, GET, PID, &(task.as_raw() as u32).to_ne_bytes());
    let stats = attribute(attribute(&reply, AGGREGATE_OF_PID), STATS);
    let word = |offset: usize| u64::from_ne_bytes(stats[offset..offset + 8].try_into().expect("eight bytes"));
    // freepages_count and freepages_delay_total
    (word(312), word(320))
}

/// The attributes of the answer to a question with one attribute.
fn ask(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    const REQUEST: u16 = 1;
    const HEADERS: usize = 16 + 4; // struct nlmsghdr, struct genlmsghdr
    let padded = value.len().next_multiple_of(4);
    let mut message = Vec::new();
    message.extend(((HEADERS + 4 + padded) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([command, 1, 0, 0]);
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(HEADERS + 4 + padded, 0);

    let (domain, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
    let socket = socket(domain, SockType::Raw, flags, SockProtocol::NetlinkGeneric).expect("a socket");
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("the kernel listens");
    let mut reply = vec![0; 8192];
    let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty()).expect("the kernel answers");
    let error = u16::from_ne_bytes([reply[4], reply[5]]) == 2;
    assert!(!error, "the kernel refuses: {:?}", &reply[16..20]);
    reply[HEADERS..length].to_vec()
}

fn attribute(mut attributes: &[u8], wanted: u16) -> &[u8] {
    loop {
        let number = |at: usize| u16::from_ne_bytes([attributes[at], attributes[at + 1]]);
        let (length, kind) = (usize::from(number(0)), number(2));
        if kind == wanted {
            return &attributes[4..length];
        }
        attributes = &attributes[length.next_multiple_of(4)..];
    }
}
