/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Events: what happened to a connection, one record each, for the connection log and for streams. Totals never come
 * from here, as a ring may be full. It exists as long as somebody reads; without it an event costs one look into an
 * array.
 */
#ifndef SIDECAR_TCP_EVENTS_BPF_H
#define SIDECAR_TCP_EVENTS_BPF_H

#include "atomic.bpf.h"
#include "ends.bpf.h"
#include "event.h"
#include "sockets.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The reader is woken when so much is there; it looks by itself every now and then. */
#define EVENTS_WAKE_BYTES (2 << 20)

/* Any ring fits, whatever its size; libbpf makes this one, which is never used, a page. */
struct events_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct events_ring);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tcp_event_counts);
} event_counts SEC(".maps");

/* A wakeup for each event would cost more than everything else about it. */
static __always_inline __u64 wakeup(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= EVENTS_WAKE_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void describe(struct tcp_event *event, struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct sock *sk = (struct sock *)tp;
	struct sock_common *common = &sk->__sk_common;
	bool server = conn->role == ROLE_SERVER;
	__u16 here = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport), there = bpf_ntohs(common->skc_dport);

	event->time_ns = now;
	event->cgroup = conn->cgroup;
	local_ip(server ? event->dst_ip : event->src_ip, common);
	remote_ip(server ? event->src_ip : event->dst_ip, common);
	event->src_port = server ? there : here;
	event->dst_port = server ? here : there;
	event->netns = BPF_CORE_READ(common, skc_net.net, ns.inum);
	__builtin_memcpy(event->comm, conn->comm, sizeof(event->comm));
	event->pid = conn->tgid;
	event->role = conn->role;
}

/* What was just accounted; sequence numbers of a client begin with its SYN. */
static __always_inline void describe_end(struct tcp_event *event, struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	event->duration_ns = conn->adopted || !conn->start_ns ? 0 : now - conn->start_ns;
	event->sent = conn->sent - (conn->role == ROLE_CLIENT && conn->sent);
	event->received = conn->received;
	event->segs_out = tp->segs_out;
	event->segs_in = tp->segs_in;
	event->retrans = tp->total_retrans;
	event->srtt_us = tp->srtt_us >> 3;
}

/* A function of its own, so that those for whom nobody reads are spared its length. */
static __noinline int write_event(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now, __u8 type, __u8 reason)
{
	__u32 zero = 0;
	void *ring = bpf_map_lookup_elem(&events, &zero);
	struct tcp_event_counts *total = bpf_map_lookup_elem(&event_counts, &zero);
	struct tcp_event *event;
	__u32 index = type;

	barrier_var(index); /* the compiler knows its bounds, and the verifier does not */
	if (!ring || !total || index >= EVENT_TYPES)
		return 0;
	add(&total->produced[index], 1);
	event = bpf_ringbuf_reserve(ring, sizeof(*event), 0);
	if (!event) {
		add(&total->lost[index], 1);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->type = type;
	event->reason = reason;
	describe(event, tp, conn, now);
	if (type == EVENT_CLOSE || type == EVENT_CONNECT_FAILED)
		describe_end(event, tp, conn, now);
	bpf_ringbuf_submit(event, wakeup(ring));
	return 0;
}

static __always_inline void tell(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now, __u8 type, __u8 reason)
{
	__u32 zero = 0;

	if (bpf_map_lookup_elem(&events, &zero) && counts(conn))
		write_event(tp, conn, now, type, reason);
}

#endif
