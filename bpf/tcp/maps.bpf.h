/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the tcp programs keep: one record per socket, and a slot table for each kind of label set. */
#ifndef SIDECAR_TCP_MAPS_BPF_H
#define SIDECAR_TCP_MAPS_BPF_H

#include "kernel.h"
#include "slots.bpf.h"
#include "tcp.h"
#include <bpf/bpf_helpers.h>

const volatile struct tcp_config config = {};

enum phase {
	PHASE_NONE,
	PHASE_LISTENING, /* also a child cloned from its listener, until it is established */
	PHASE_CONNECTING,
	PHASE_OPENED, /* established, not yet counted in `opened` */
	PHASE_OPEN,
	PHASE_CLOSED,
};

/*
 * One per socket, in the socket. The counters are what was already added to a series: only what came since is ever
 * added. What a pass over idle sockets looks at comes first, so that it takes one cache line. With the kernel's own
 * part the element stays within kmalloc-192.
 */
struct tcp_conn {
	__u64 segs; /* segs_in << 32 | segs_out */
	__u32 phase;
	__u32 srtt_us;
	__u32 series; /* slot + 1; 0: not looked up yet */
	__u32 timing; /* slot + 1 */
	__u64 start_ns;
	__u64 sent; /* in sequence space: see sent_bytes() */
	__u64 received;
	__u32 retrans; /* of a listener: sk_drops */
	__u32 origin;  /* sequence number at which `sent` is 0 */
	__u32 chrono[TCP_CHRONO_MAX];
	__u32 tgid; /* owner; 0: not known */
	__u8 comm[16];
	__u32 before; /* owner before the walk over open files changed it */
	__u32 seen;   /* walk that found the owner still holding the socket */
	__u8 role;
	__u8 pad[7];
};
_Static_assert(sizeof(struct tcp_conn) <= 120, "tcp_conn must fit kmalloc-192 together with the kernel's header of 72");

/*
 * BPF_F_CLONE: a child starts with a copy of its listener's record, and so with its owner, although it is born in a
 * softirq where no process is known.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tcp_conn);
} sockets SEC(".maps");

SLOT_TABLE(series, struct tcp_series_key, struct tcp_series);
SLOT_TABLE(timing, struct tcp_timing_key, struct tcp_timing);
SLOT_TABLE(listener, struct tcp_listener_key, struct tcp_listener);
SLOT_TABLE(failure, struct tcp_failure_key, struct tcp_failure);
SLOT_TABLE(caller, struct tcp_caller_key, struct tcp_caller);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tcp_missed);
} missed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROGRAM_MAX);
	__type(key, __u32); /* enum tcp_program */
	__type(value, struct cost);
} costs SEC(".maps");

/* By net_id(). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct tcp_namespace);
} namespaces SEC(".maps");

#endif
