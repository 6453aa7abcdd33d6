/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is kept of every TCP socket, in the socket. */
#ifndef SIDECAR_SOCKETS_BPF_H
#define SIDECAR_SOCKETS_BPF_H

#include "compat.bpf.h"
#include "ends.h"
#include "kernel.h"
#include "target.bpf.h"
#include "who.h"
#include <bpf/bpf_helpers.h>

enum phase {
	PHASE_NONE,
	PHASE_LISTENING, /* also a child cloned from its listener, until it is established */
	PHASE_CONNECTING,
	PHASE_OPENED, /* established, not yet counted in `opened` */
	PHASE_OPEN,
	PHASE_CLOSED, /* without having been open, as far as we know */
	PHASE_ENDED,  /* closed; what it did is counted, but for a reset that may follow */
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
	__u32 tgid;   /* owner; 0: not known */
	__u32 dsacks; /* tcp_sock.dsack_dups */
	__u32 resent; /* tcp_sock.total_retrans as the retransmit programs have counted it */
	__u8 comm[16];
	__u64 cgroup; /* of the owner; see cgroup.h */
	__u32 before; /* owner before the walk over open files changed it */
	__u32 seen;   /* walk that found the owner still holding the socket */
	__u8 role;
	__u8 watched; /* its owner is; without one, nobody in particular is watched */
	__u8 adopted; /* start_ns is when we first saw it, not when it began */
	__u8 pad[5];
};
_Static_assert(sizeof(struct tcp_conn) <= 120, "tcp_conn must fit kmalloc-192 together with the kernel's header of 72");

/* Whom a socket belongs to, but for the process id. */
static __always_inline void who_of_conn(struct who *who, const struct tcp_conn *conn)
{
	__builtin_memcpy(who->comm, conn->comm, sizeof(who->comm));
	who->cgroup = conn->cgroup;
}

/*
 * Whether what the socket does is counted now. If not, nothing is, and no counter is marked as reported: should a
 * watched process turn out to be the owner, all that the connection did is counted.
 */
static __always_inline bool counts(const struct tcp_conn *conn)
{
	return watches_all() || (conn->watched && watches_workload(conn->cgroup));
}

/*
 * Only the tcp programs write to it, but for `resent`, which is the retransmit module's; those of other modules look up
 * whom a socket belongs to, in the same map, which is empty where the tcp module does not run.
 *
 * BPF_F_CLONE: a child starts with a copy of its listener's record, and so with its owner, although it is born in a
 * softirq where no process is known.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tcp_conn);
} sockets SEC(".maps");

/*
 * The same before 5.12, by the address of the socket. The tcp programs do what the kernel does elsewhere: a child gets
 * a copy of its listener's, and a record goes with its socket. Of these two maps one is made.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct tcp_conn);
} sockets_by_address SEC(".maps");

/* NULL if nothing is known of the socket. */
static __always_inline struct tcp_conn *conn_of(const struct sock *sk)
{
	__u64 address = (__u64)sk;

	if (has_fetch())
		return bpf_sk_storage_get(&sockets, (void *)sk, 0, 0);
	return bpf_map_lookup_elem(&sockets_by_address, &address);
}

#endif
