/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lists of live connections, in two kinds of passes over the sockets. Ranking passes find out which are the largest and
 * store no more of each than two words; the last pass fills a row for each socket that userspace has chosen. Nothing is
 * written to the iterator's file, so that no pass starts over, and however many connections there are, the maps here
 * are all the memory that it takes.
 */
#ifndef SIDECAR_TCP_ROWS_BPF_H
#define SIDECAR_TCP_ROWS_BPF_H

#include "account.bpf.h"
#include "compat.bpf.h"
#include "ends.bpf.h"
#include "maps.bpf.h"
#include "rows.h"
#include <bpf/bpf_core_read.h>

struct tcp_wish wish;
struct tcp_ranking ranking;

/* Userspace maps it to read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CANDIDATES);
	__type(key, __u32);
	__type(value, struct tcp_candidate);
} candidates SEC(".maps");

/* By tcp_candidate.socket. Userspace puts in those that it has chosen, and takes them out again. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ROWS);
	__type(key, __u64);
	__type(value, struct tcp_row);
} rows SEC(".maps");

/* As tcp_conn.cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u8);
} wish_cgroups SEC(".maps");

static __always_inline __u64 jiffies_ns(__u64 jiffies)
{
	return jiffies * wish.tick_ns;
}

/* Time since a moment in jiffies. */
static __always_inline __u64 since(__u32 then)
{
	__s32 ago = (__u32)bpf_jiffies64() - then;

	return ago > 0 ? jiffies_ns(ago) : 0;
}

/* As in tcp_get_info_chrono_stats(), of one kind alone. */
static __always_inline __u64 chrono_ns(struct tcp_sock *tp, __u32 kind)
{
	__u64 total = tp->chrono_stat[kind];

	return jiffies_ns(total) + (tcp_chrono(tp) == kind + 1 ? since(tp->chrono_start) : 0);
}

/* As tcp_compute_delivery_rate(): bytes a second. */
static __always_inline __u64 delivery_rate(struct tcp_sock *tp)
{
	__u64 delivered = tp->rate_delivered, interval_us = tp->rate_interval_us;

	return delivered && interval_us ? delivered * tp->mss_cache * 1000000 / interval_us : FIELD_UNKNOWN;
}

/* How far a sequence number is ahead of another. */
static __always_inline __u64 ahead(__u32 of, __u32 number)
{
	__s32 bytes = number - of;

	return bytes > 0 ? bytes : 0;
}

/* Payload sent over the whole life of the socket, each byte once. */
static __always_inline __u64 payload_sent(struct tcp_sock *tp, struct tcp_conn *conn)
{
	__u64 sent;

	if (conn->role == ROLE_UNKNOWN) /* whether there was a SYN before it is not known */
		return tp->bytes_sent - tp->bytes_retrans;
	sent = sent_bytes(tp, conn->origin);
	return sent - (sent && conn->role == ROLE_CLIENT);
}

/* bytes_acked counts our SYN, if there was one, and our FIN. */
static __always_inline __u64 payload_acked(struct tcp_sock *tp, struct tcp_conn *conn)
{
	__u64 acked = tp->bytes_acked - (conn->role == ROLE_CLIENT), sent = payload_sent(tp, conn);

	return acked < sent ? acked : sent;
}

/* Of what is queued, what is payload: the last byte may be a FIN. As tcp_inq(). */
static __always_inline __u64 payload_queued(__u64 bytes, bool fin)
{
	return bytes && fin ? bytes - 1 : bytes;
}

static __always_inline __u64 known_unless(bool unknown, __u64 value)
{
	return unknown ? FIELD_UNKNOWN : value;
}

/* One number of a connection: the only place that says where each comes from. */
static __always_inline __u64 field_of(struct tcp_sock *tp, struct tcp_conn *conn, __u32 field)
{
	struct inet_connection_sock *icsk = &tp->inet_conn;
	struct sock *sk = (struct sock *)tp;
	unsigned long rate;

	switch (field) {
	case FIELD_DURATION:
		return wish.now_ns > conn->start_ns ? wish.now_ns - conn->start_ns : 0;
	case FIELD_BYTES_SENT:
		return payload_sent(tp, conn);
	case FIELD_BYTES_RECEIVED:
		return received_bytes(tp, AT_ITS_END);
	case FIELD_BYTES_ACKED:
		return payload_acked(tp, conn);
	case FIELD_BYTES_RETRANSMITTED:
		return tp->bytes_retrans;
	case FIELD_PACKETS_SENT:
		return tp->segs_out;
	case FIELD_PACKETS_RECEIVED:
		return tp->segs_in;
	case FIELD_DATA_PACKETS_SENT:
		return tp->data_segs_out;
	case FIELD_DATA_PACKETS_RECEIVED:
		return tp->data_segs_in;
	case FIELD_RETRANSMITS:
		return tp->total_retrans;
	case FIELD_SPURIOUS_RETRANSMITS:
		return tp->dsack_dups;
	case FIELD_DELIVERED:
		return tp->delivered;
	case FIELD_DELIVERED_CE:
		return tp->delivered_ce;
	case FIELD_OUT_OF_ORDER:
		return tp->rcv_ooopack;
	case FIELD_RTT:
		return known_unless(!tp->srtt_us, tp->srtt_us >> 3);
	case FIELD_RTT_VARIATION:
		return known_unless(!tp->srtt_us, tp->mdev_us >> 2);
	case FIELD_MIN_RTT:
		return known_unless(tp->rtt_min.s[0].v == ~0U, tp->rtt_min.s[0].v);
	case FIELD_RECEIVE_RTT:
		return known_unless(!tp->rcv_rtt_est.rtt_us, tp->rcv_rtt_est.rtt_us >> 3);
	case FIELD_RTO:
		return jiffies_ns(icsk->icsk_rto) / 1000;
	case FIELD_BACKOFF:
		return icsk->icsk_backoff;
	case FIELD_CWND:
		return tp->snd_cwnd;
	case FIELD_SSTHRESH:
		return known_unless(tp->snd_ssthresh >= TCP_INFINITE_SSTHRESH, tp->snd_ssthresh);
	case FIELD_MSS:
		return tp->mss_cache;
	case FIELD_ADVERTISED_MSS:
		return tp->advmss;
	case FIELD_RECEIVE_MSS:
		return icsk->icsk_ack.rcv_mss;
	case FIELD_PATH_MTU:
		return icsk->icsk_pmtu_cookie;
	case FIELD_UNACKED:
		return tp->packets_out;
	case FIELD_SACKED:
		return tp->sacked_out;
	case FIELD_LOST:
		return tp->lost_out;
	case FIELD_RETRANSMITTING:
		return tp->retrans_out;
	case FIELD_REORDERING:
		return tp->reordering;
	case FIELD_REORDERINGS:
		return tp->reord_seen;
	case FIELD_SEND_QUEUE:
		return payload_queued(ahead(tp->snd_una, tp->write_seq), fin_queued(sk->__sk_common.skc_state));
	case FIELD_UNSENT:
		return payload_queued(ahead(tp->snd_nxt, tp->write_seq), fin_queued(sk->__sk_common.skc_state));
	case FIELD_RECEIVE_QUEUE:
		return payload_queued(ahead(tp->copied_seq, tp->rcv_nxt),
				      sk->__sk_common.skc_flags & (1UL << SOCK_DONE));
	case FIELD_SEND_WINDOW:
		return tp->snd_wnd;
	case FIELD_RECEIVE_WINDOW:
		return tp->rcv_wnd;
	case FIELD_PACING_RATE:
		rate = sk->sk_pacing_rate;
		return known_unless(rate == ~0UL, rate);
	case FIELD_DELIVERY_RATE:
		return delivery_rate(tp);
	case FIELD_BUSY:
		return chrono_ns(tp, 0);
	case FIELD_RECEIVER_LIMITED:
		return chrono_ns(tp, 1);
	case FIELD_SEND_BUFFER_LIMITED:
		return chrono_ns(tp, 2);
	case FIELD_SINCE_SENT:
		return since(tp->lsndtime);
	case FIELD_SINCE_RECEIVED:
		return since(icsk->icsk_ack.lrcvtime);
	case FIELD_SINCE_ACKED:
		return since(tp->rcv_tstamp);
	default:
		return FIELD_UNKNOWN;
	}
}

static __always_inline void name_ends(struct tcp_ends *ends, struct tcp_sock *tp, __u8 role)
{
	struct sock_common *sk = &((struct sock *)tp)->__sk_common;
	__u16 local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);

	destination(ends->dst_ip, &ends->dst_port, sk, role, local_port);
	if (role == ROLE_SERVER) {
		remote_ip(ends->src_ip, sk);
		ends->src_port = bpf_ntohs(sk->skc_dport);
	} else {
		local_ip(ends->src_ip, sk);
		ends->src_port = local_port;
	}
}

/* comm and addresses are two words each. */
static __always_inline bool same_words(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool ends_wished(struct tcp_sock *tp, __u8 role)
{
	struct tcp_ends ends = {};

	if (!(wish.asked & (ASKED_SRC_IP | ASKED_SRC_PORT | ASKED_DST_IP | ASKED_DST_PORT)))
		return true;
	name_ends(&ends, tp, role);
	if (wish.asked & ASKED_SRC_PORT && ends.src_port != wish.ends.src_port)
		return false;
	if (wish.asked & ASKED_DST_PORT && ends.dst_port != wish.ends.dst_port)
		return false;
	if (wish.asked & ASKED_SRC_IP && !same_words(ends.src_ip, wish.ends.src_ip))
		return false;
	return !(wish.asked & ASKED_DST_IP) || same_words(ends.dst_ip, wish.ends.dst_ip);
}

static __always_inline bool wished(struct tcp_sock *tp, struct tcp_conn *conn)
{
	struct sock *sk = (struct sock *)tp;
	__u64 cgroup = conn->cgroup;

	if (wish.asked & ASKED_PID && conn->tgid != wish.pid)
		return false;
	if (wish.asked & ASKED_COMM && !same_words(conn->comm, wish.comm))
		return false;
	if (wish.asked & ASKED_ROLE && conn->role != wish.role)
		return false;
	if (wish.asked & ASKED_STATE && sk->__sk_common.skc_state != wish.state)
		return false;
	if (wish.asked & ASKED_CGROUP && !bpf_map_lookup_elem(&wish_cgroups, &cgroup))
		return false;
	return ends_wished(tp, conn->role);
}

static __always_inline void rank(struct sock *sk, struct tcp_sock *tp, struct tcp_conn *conn)
{
	struct tcp_candidate *candidate;
	__u64 key;
	__u32 slot;

	ranking.total++;
	key = field_of(tp, conn, wish.sort);
	if (key == FIELD_UNKNOWN)
		key = 0;
	if (wish.asked & ASKED_FLOOR && key <= wish.floor)
		return;
	if (ranking.above++ % wish.stride)
		return;
	slot = ranking.stored;
	candidate = bpf_map_lookup_elem(&candidates, &slot);
	if (!candidate)
		return;
	candidate->socket = (__u64)sk;
	candidate->key = key;
	ranking.stored++;
}

static __always_inline void fill(struct tcp_row *row, struct sock *sk, struct tcp_sock *tp, struct tcp_conn *conn)
{
	__u64 start_ns = *(volatile __u64 *)&conn->start_ns;

	who_of_conn(&row->who, conn);
	row->who.pid = conn->tgid;
	name_ends(&row->ends, tp, conn->role);
	row->ends.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	BPF_CORE_READ_STR_INTO(&row->congestion, tp, inet_conn.icsk_ca_ops, name);
	row->role = conn->role;
	row->ca_state = BPF_CORE_READ_BITFIELD(&tp->inet_conn, icsk_ca_state);
	row->adopted = conn->adopted;
#pragma unroll
	for (__u32 field = 0; field < FIELD_MAX; field++)
		row->fields[field] = field_of(tp, conn, field);
	row->state = sk->__sk_common.skc_state;
	if (!goes_on(conn, start_ns))
		row->state = 0; /* as if it had not been met */
}

static __always_inline void list_one(struct sock *sk, struct tcp_conn *conn)
{
	struct tcp_row *row = NULL;
	struct tcp_sock *tp;
	__u64 socket;

	if (!counts(conn) || !shows_workload(conn->cgroup) || !is_open(conn->phase))
		return;
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		return;
	ranking.live++;
	if (wish.fill) {
		socket = (__u64)sk;
		row = bpf_map_lookup_elem(&rows, &socket);
		if (!row)
			return;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	/* A socket that was chosen may have changed since, or be another connection in the same place. */
	if (!tp || !wished(tp, conn))
		return;
	if (row)
		fill(row, sk, tp, conn);
	else
		rank(sk, tp, conn);
}

SEC("iter/bpf_sk_storage_map")
int tcp_list(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct tcp_conn *conn = ctx->value;
	struct sock *sk = ctx->sk;

	if (sk && conn)
		list_one(sk, conn);
	return 0;
}

/* For the generated Rust types alone. */
enum tcp_field wire_field;
enum tcp_asked wire_asked;

#endif
