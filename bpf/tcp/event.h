/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of the events: one record in the ring for each thing that happened to a connection. */
#ifndef SIDECAR_TCP_EVENT_H
#define SIDECAR_TCP_EVENT_H

#include "ends.h"
#include "types.h"

enum tcp_event_type {
	EVENT_CONNECT,        /* connect() came through */
	EVENT_ACCEPT,         /* a listener's child is established, accepted or not */
	EVENT_CLOSE,          /* an established connection has ended */
	EVENT_CONNECT_FAILED, /* connect() did not come through */
	EVENT_TYPES,
};

/* What is about its end is 0 before. Counters are the kernel's for the whole connection, older than the daemon or not.
 */
struct tcp_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup;  /* see cgroup.h */
	__u8 src_ip[16];
	__u8 dst_ip[16];
	__u16 src_port; /* 0: this host had none to give */
	__u16 dst_port;
	__u32 netns; /* inode number */
	__u8 comm[16];
	__u32 pid;   /* 0: the owner is not known */
	__u8 type;   /* enum tcp_event_type */
	__u8 role;   /* enum role */
	__u8 reason; /* enum tcp_reason */
	__u8 pad;
	__u64 duration_ns; /* since it was established, or since the SYN if it never was; 0: older than the daemon */
	__u64 sent, received;
	__u32 segs_out, segs_in; /* tcp_sock.segs_out, segs_in */
	__u32 retrans;           /* tcp_sock.total_retrans */
	__u32 srtt_us;           /* tcp_sock.srtt_us / 8; 0: none measured */
};

/* How many there were since the start while somebody read them, and how many of them found no room in the ring. */
struct tcp_event_counts {
	__u64 produced[EVENT_TYPES];
	__u64 lost[EVENT_TYPES];
};

_Static_assert(sizeof(struct tcp_event) == 120, "tcp_event");

#endif
