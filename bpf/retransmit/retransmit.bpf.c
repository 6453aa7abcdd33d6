// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Why segments are sent again, and resets. Programs run when that happens, and at no other time. */
#include "retransmit.h"
#include "compat.bpf.h"
#include "cost.bpf.h"
#include "ends.bpf.h"
#include "slots.bpf.h"
#include "sockets.bpf.h"
#include <bpf/bpf_tracing.h>

SLOT_TABLE(segments, struct retransmit_key, struct retransmit_segments);
SLOT_TABLE(timeouts, struct retransmit_key, struct retransmit_timeouts);
SLOT_TABLE(resets, struct retransmit_reset_key, struct retransmit_resets);

COST(retransmit_skb);
COST(retransmit_skb_old);
COST(retransmit_synack);
COST(retransmit_reset_sent);
COST(retransmit_reset_sent_old);
COST(retransmit_reset_received);

static __always_inline struct tcp_conn *record_of(const struct sock *sk)
{
	struct tcp_conn *conn = conn_of(sk);

	return conn && conn->phase != PHASE_NONE ? conn : NULL;
}

/* Without a record, of a socket or of nobody's: only if no process is asked for, and by the port that it is about. */
static __always_inline bool is_counted(const struct tcp_conn *conn, __u16 port)
{
	return conn ? counts(conn) : !watches_by_process() && watches_port(port);
}

static __always_inline void count_segments(const struct retransmit_key *key, __u64 n, __u64 now)
{
	__u32 slot = SLOT_FIND(segments, key, now);
	struct retransmit_segments *s = bpf_map_lookup_elem(&segments, &slot);

	if (s)
		add(&s->count, n);
}

/*
 * The timer's handler clears icsk_pending before it retransmits, and sets it again afterwards; whoever else retransmits
 * finds a timer pending. icsk_rto is still the one that has run out: it is doubled later.
 */
static __always_inline bool timer_ran_out(struct inet_connection_sock *icsk)
{
	return !icsk->icsk_pending && BPF_CORE_READ_BITFIELD(icsk, icsk_ca_state) == TCP_CA_LOSS;
}

static __always_inline void count_timeout(struct retransmit_key key, __u32 rto, __u64 now)
{
	struct retransmit_timeouts *t;
	__u32 slot;

	key.kind = 0;
	key.state = 0;
	slot = SLOT_FIND(timeouts, &key, now);
	t = bpf_map_lookup_elem(&timeouts, &slot);
	if (t)
		add(&t->waited, rto);
}

/*
 * tcp_xmit_retransmit_queue() sends only what is marked as lost, and counts it as TCPFastRetrans outside of Loss; a
 * loss probe takes the last segment, lost or not.
 */
static __always_inline __u8 kind_of(struct inet_connection_sock *icsk, __u8 state, __u8 sacked)
{
	if (state == TCP_SYN_SENT)
		return KIND_SYN;
	if (state == TCP_SYN_RECV) /* both sides opened at once */
		return KIND_SYNACK;
	if (BPF_CORE_READ_BITFIELD(icsk, icsk_ca_state) == TCP_CA_LOSS)
		return KIND_TIMEOUT;
	if (sacked & TCPCB_LOST)
		return KIND_FAST;
	return icsk->icsk_pending == ICSK_TIME_LOSS_PROBE ? KIND_LOSS_PROBE : KIND_OTHER;
}

/* What the socket has counted since it was last asked. */
static __always_inline __u32 newly_counted(struct tcp_sock *tp, struct tcp_conn *conn)
{
	__u32 total = tp->total_retrans;
	__u32 gained = total - conn->resent;

	conn->resent = total;
	return gained;
}

/*
 * The kernel counts a segment before it hands it down, also if that fails then, but not if it fails earlier: the
 * socket's own count tells. What it has gained beyond this segment was never shown to us. A socket without a record is
 * older than the daemon and held by no process; one that still listens, by its record, is not established.
 */
static __always_inline void on_retransmit(const struct sock *sk, const struct sk_buff *skb, bool failed)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	struct tcp_skb_cb *cb = (void *)skb->cb;
	struct inet_connection_sock *icsk;
	struct retransmit_key key = {};
	struct tcp_conn *conn;
	__u32 segs, gained;
	__u64 now;

	if (!tp)
		return;
	conn = record_of(sk);
	if (!is_counted(conn, 0))
		return;
	segs = BPF_CORE_READ(cb, tcp_gso_segs);
	if (conn && conn->phase != PHASE_LISTENING)
		gained = newly_counted(tp, conn);
	else
		gained = failed ? 0 : segs;
	if ((__s32)gained <= 0)
		return;
	if (segs > gained)
		segs = gained;

	now = bpf_ktime_get_ns();
	icsk = &tp->inet_conn;
	if (conn) {
		who_of_conn(&key.who, conn);
		key.role = conn->role;
	}
	destination(key.dst_ip, &key.dst_port, &icsk->icsk_inet.sk.__sk_common, key.role,
		    bpf_ntohs(icsk->icsk_inet.inet_sport));
	if (timer_ran_out(icsk))
		count_timeout(key, icsk->icsk_rto, now);
	key.state = sk->__sk_common.skc_state;
	key.kind = kind_of(icsk, key.state, BPF_CORE_READ(cb, sacked));
	count_segments(&key, segs, now);
	if (gained > segs) {
		key.kind = KIND_OTHER;
		count_segments(&key, gained - segs, now);
	}
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(retransmit_skb, const struct sock *sk, const struct sk_buff *skb, int err)
{
	__u64 begin = cost_begin(&retransmit_skb_cost);

	on_retransmit(sk, skb, err);
	cost_end(&retransmit_skb_cost, begin);
	return 0;
}

/*
 * Only what could be sent is shown, before 6.17 (commit ad892e912b84, "tcp: trace retransmit failures in
 * tcp_retransmit_skb").
 */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(retransmit_skb_old, const struct sock *sk, const struct sk_buff *skb)
{
	__u64 begin = cost_begin(&retransmit_skb_old_cost);

	on_retransmit(sk, skb, false);
	cost_end(&retransmit_skb_old_cost, begin);
	return 0;
}

/* The socket is the listener, or with TCP fast open the child. */
static __always_inline void on_synack(const struct sock *sk, const struct request_sock *req)
{
	struct sock_common *ends = (void *)&req->__req_common;
	struct retransmit_key key = { .role = ROLE_SERVER, .kind = KIND_SYNACK, .state = TCP_SYN_RECV };
	struct tcp_conn *conn = record_of(sk);

	if (!is_counted(conn, ends->skc_num) || !watches_port(ends->skc_num))
		return;
	if (conn)
		who_of_conn(&key.who, conn);
	destination(key.dst_ip, &key.dst_port, ends, ROLE_SERVER, ends->skc_num);
	count_segments(&key, 1, bpf_ktime_get_ns());
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(retransmit_synack, const struct sock *sk, const struct request_sock *req)
{
	__u64 begin = cost_begin(&retransmit_synack_cost);

	on_synack(sk, req);
	cost_end(&retransmit_synack_cost, begin);
	return 0;
}

/* The port that a segment wanted to open a connection to; 0 if it did not. */
static __always_inline __u16 wanted_port(const struct sk_buff *skb)
{
	__u8 header[14]; /* struct tcphdr, as far as the flags */

	if (bpf_probe_read_kernel(header, sizeof(header), skb->head + skb->transport_header))
		return 0;
	return (header[13] & (TCPHDR_SYN | TCPHDR_ACK)) == TCPHDR_SYN ? header[2] << 8 | header[3] : 0;
}

/* The side that listens, by the record of the socket; 0: not known. */
static __always_inline __u16 listening_port(struct tcp_sock *tp, const struct tcp_conn *conn)
{
	struct inet_sock *inet = &tp->inet_conn.icsk_inet;

	if (conn->role == ROLE_CLIENT)
		return bpf_ntohs(inet->sk.__sk_common.skc_dport);
	/* A child is the listener's until it is established; `phase` is over when an open one is reset. */
	if (conn->role == ROLE_SERVER || conn->phase == PHASE_LISTENING)
		return bpf_ntohs(inet->inet_sport);
	return 0;
}

/* Whose reset it is; NULL if that is not known. */
static __always_inline struct tcp_conn *reset_of(struct retransmit_reset_key *key, const struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk); /* not of TIME_WAIT, nor of a request */
	struct tcp_conn *conn = tp ? record_of(sk) : NULL;

	if (!conn)
		return NULL;
	who_of_conn(&key->who, conn);
	key->dst_port = listening_port(tp, conn);
	return conn;
}

static __always_inline void count_reset(const struct retransmit_reset_key *key, const struct tcp_conn *conn)
{
	struct retransmit_resets *r;
	__u32 slot;

	if (!is_counted(conn, key->dst_port))
		return;
	slot = SLOT_FIND(resets, key, bpf_ktime_get_ns());
	r = bpf_map_lookup_elem(&resets, &slot);
	if (r)
		add(&r->count, 1);
}

/*
 * Without a socket it answers a segment that belongs to none; without a segment the application wanted it. Kernels that
 * take both pointers for valid drop these checks, which does no harm: no socket has no record, and nothing can be read
 * of no segment.
 */
static __always_inline void on_reset_sent(const struct sock *sk, const struct sk_buff *skb, __u32 reason)
{
	struct retransmit_reset_key key = { .reason = reason };
	struct tcp_conn *conn = sk ? reset_of(&key, sk) : NULL;

	if (!conn && skb)
		key.dst_port = wanted_port(skb);
	count_reset(&key, conn);
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(retransmit_reset_sent, const struct sock *sk, const struct sk_buff *skb, __u32 reason)
{
	__u64 begin = cost_begin(&retransmit_reset_sent_cost);

	on_reset_sent(sk, skb, reason);
	cost_end(&retransmit_reset_sent_cost, begin);
	return 0;
}

/*
 * Without a reason, and of full sockets alone, before 6.10 (commits b533fb9cf4f7, "rstreason: make it work in trace
 * world", and 19822a980e19, "trace: tcp: fully support trace_tcp_send_reset").
 */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(retransmit_reset_sent_old, const struct sock *sk, const struct sk_buff *skb)
{
	__u64 begin = cost_begin(&retransmit_reset_sent_old_cost);

	on_reset_sent(sk, skb, RESET_WITHOUT_REASON);
	cost_end(&retransmit_reset_sent_old_cost, begin);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(retransmit_reset_received, struct sock *sk)
{
	struct retransmit_reset_key key = { .reason = RESET_WITHOUT_REASON, .received = 1 };
	__u64 begin = cost_begin(&retransmit_reset_received_cost);

	count_reset(&key, reset_of(&key, sk));
	cost_end(&retransmit_reset_received_cost, begin);
	return 0;
}

/* For the generated Rust types alone. */
enum role wire_role;
enum retransmit_kind wire_kind;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
