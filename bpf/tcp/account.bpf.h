/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Accounting: bring what a socket's own counters gained since last time to its series. One routine serves the close of
 * a socket and the pass over live ones, which may run at the same moment on two CPUs. Each counter goes through a word
 * in tcp_conn that says what was reported; whoever swaps the word adds the difference, so nothing is lost or doubled.
 */
#ifndef SIDECAR_TCP_ACCOUNT_BPF_H
#define SIDECAR_TCP_ACCOUNT_BPF_H

#include "atomic.bpf.h"
#include "compat.bpf.h"
#include "ends.bpf.h"
#include "hist.bpf.h"
#include "maps.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

/* When a socket is looked at. */
enum moment {
	IN_PASSING,        /* somebody may be working on it */
	IN_PASSING_LOCKED, /* nobody is */
	AT_ITS_END,        /* nobody will again; a pass may look at it at the same time */
};

static __always_inline struct tcp_missed *my_missed(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&missed, &zero);
}

/*
 * NULL also where not everything is counted: there is nothing to hold against the kernel's counters then. Userspace may
 * have to know the namespaces all the same, to pass over their sockets.
 */
static __always_inline struct tcp_namespace *namespace_of(struct sock *sk)
{
	struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	__u64 id = net_id(net);
	struct tcp_namespace new = { .inum = BPF_CORE_READ(net, ns.inum) };
	struct tcp_namespace *ns;
	struct tcp_missed *mine;

	if (!watches_all() && !config.enters)
		return NULL;
	ns = bpf_map_lookup_elem(&namespaces, &id);
	if (ns)
		return ns;
	bpf_map_update_elem(&namespaces, &id, &new, BPF_NOEXIST);
	ns = bpf_map_lookup_elem(&namespaces, &id);
	if (!ns) {
		mine = my_missed();
		if (mine)
			add(&mine->namespaces, 1);
	}
	return ns;
}

static __always_inline bool is_open(__u32 phase)
{
	return phase == PHASE_OPENED || phase == PHASE_OPEN;
}

static __always_inline void who_of(struct who *who, const struct tcp_conn *conn)
{
	who_of_conn(who, conn);
	if (config.label_pid)
		who->pid = conn->tgid;
}

/* Both ends of a connection are named from the side that opened it. */
static __always_inline void ends_of(struct tcp_series_key *key, struct sock_common *sk, __u16 local_port)
{
	destination(key->dst_ip, &key->dst_port, sk, key->role, local_port);
	if (config.label_src_ip) {
		if (key->role == ROLE_SERVER)
			remote_ip(key->src_ip, sk);
		else
			local_ip(key->src_ip, sk);
	}
	if (config.label_src_port)
		key->src_port = key->role == ROLE_SERVER ? bpf_ntohs(sk->skc_dport) : local_port;
}

static __always_inline struct tcp_series *series_of(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct sock *sk = (struct sock *)tp;
	__u32 slot = conn->series;

	if (!slot) {
		struct tcp_series_key key = { .role = conn->role };

		who_of(&key.who, conn);
		ends_of(&key, &sk->__sk_common, bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport));
		slot = SLOT_FIND(series, &key, now) + 1;
		/* Each pass keeps the slots of open connections in use; those of others may be given to somebody else.
		 */
		if (conn->phase != PHASE_CONNECTING)
			conn->series = slot;
	}
	slot--;
	return bpf_map_lookup_elem(&series, &slot);
}

static __always_inline struct tcp_timing *timing_of(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct sock *sk = (struct sock *)tp;
	__u32 slot = conn->timing;

	if (!slot) {
		struct tcp_timing_key key = { .role = conn->role };

		who_of(&key.who, conn);
		key.dst_port = bpf_ntohs(conn->role == ROLE_SERVER ? tp->inet_conn.icsk_inet.inet_sport :
								     sk->__sk_common.skc_dport);
		slot = SLOT_FIND(timing, &key, now) + 1;
		conn->timing = slot;
	}
	slot--;
	return bpf_map_lookup_elem(&timing, &slot);
}

/* Has our FIN been given its sequence number, or is it about to? */
static __always_inline bool fin_queued(__u8 state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING || state == TCP_LAST_ACK;
}

/*
 * Payload bytes sent, each once, by their sequence numbers: retransmissions and transmissions that failed on this
 * host do not count, which bytes_sent - bytes_retrans would not keep apart. snd_nxt gives the exact low 32 bits in one
 * read; bytes_acked, never more than a window behind, gives the high ones.
 *
 * A FIN changes the state, then write_seq, then snd_nxt; what is read the other way round has it in none of them, or
 * its byte is left out, if a moment too early. So it is when the socket is closed, where nothing tells any more whether
 * there was one: all that is to be counted has been by then.
 */
static __always_inline __u64 sent_bytes(struct tcp_sock *tp, __u32 origin)
{
	struct sock *sk = (struct sock *)tp;
	__u64 acked = tp->bytes_acked;
	__u32 next = *(volatile __u32 *)&tp->snd_nxt;
	__u64 sent = acked + (__s32)(next - origin - (__u32)acked);
	__u8 state;

	fence_reads();
	state = *(volatile __u8 *)&sk->__sk_common.skc_state;
	if ((fin_queued(state) || state == TCP_CLOSE) && next == *(volatile __u32 *)&tp->write_seq)
		sent -= sent > 0;
	return sent;
}

/*
 * Payload bytes received in order. bytes_received counts the FIN a moment before SOCK_DONE says so; while somebody
 * works on the socket the last byte might be that FIN, and is left for the next time.
 */
static __always_inline __u64 received_bytes(struct tcp_sock *tp, enum moment moment)
{
	struct sock *sk = (struct sock *)tp;
	__u64 received = *(volatile __u64 *)&tp->bytes_received;
	bool busy;

	fence_reads();
	busy = moment == IN_PASSING && sock_busy(sk);
	if (*(volatile unsigned long *)&sk->__sk_common.skc_flags & (1UL << SOCK_DONE) || busy)
		received -= received > 0;
	return received;
}

/*
 * Before 5.12 plain reads and writes do: a socket is closed, and its tracepoint hit, after it was taken out of the hash
 * table (tcp_set_state()), under the lock of its bucket, which a pass over that table holds while we look at the
 * socket; or, where such a pass has the lock of the socket instead, under that one. So of those two one has ended
 * before the other begins.
 */
static __always_inline __u64 swap64(__u64 *word, __u64 new)
{
	__u64 before;

	if (has_fetch())
		return __sync_lock_test_and_set(word, new);
	before = *(volatile __u64 *)word;
	*(volatile __u64 *)word = new;
	return before;
}

static __always_inline __u32 swap32(__u32 *word, __u32 new)
{
	__u32 before;

	if (has_fetch())
		return __sync_lock_test_and_set(word, new);
	before = *(volatile __u32 *)word;
	*(volatile __u32 *)word = new;
	return before;
}

/*
 * Passes look at a record while it is written: whoever finds the phase finds what was written before. (Where there is
 * no exchange, the compiler alone is kept from another order, which is all that x86 needs.)
 */
static __always_inline void enter(struct tcp_conn *conn, __u32 phase)
{
	barrier();
	swap32(&conn->phase, phase);
}

/* False if the word is not what it was before. */
static __always_inline bool replace64(__u64 *word, __u64 before, __u64 new)
{
	if (has_fetch())
		return __sync_val_compare_and_swap(word, before, new) == before;
	*(volatile __u64 *)word = new;
	return true;
}

static __always_inline bool replace32(__u32 *word, __u32 before, __u32 new)
{
	if (has_fetch())
		return __sync_val_compare_and_swap(word, before, new) == before;
	*(volatile __u32 *)word = new;
	return true;
}

/* Swap a reported word for its new value; what to add, or 0 if it went backwards or somebody else was first. */
static __always_inline __u64 gain64(__u64 *reported, __u64 current, bool final)
{
	__u64 before = *(volatile __u64 *)reported;

	if (final)
		before = swap64(reported, current);
	if ((__s64)(current - before) <= 0)
		return 0;
	if (!final && !replace64(reported, before, current))
		return 0;
	return current - before;
}

static __always_inline __u32 gain32(__u32 *reported, __u32 current, bool final)
{
	__u32 before = *(volatile __u32 *)reported;

	if (final)
		before = swap32(reported, current);
	if ((__s32)(current - before) <= 0)
		return 0;
	if (!final && !replace32(reported, before, current))
		return 0;
	return current - before;
}

/* segs_in and segs_out wrap at 2^32 one by one; they share a word so that an idle socket costs one comparison. */
static __always_inline __u64 segs_word(struct tcp_sock *tp)
{
	return (__u64)tp->segs_in << 32 | tp->segs_out;
}

/* What a socket counts. */
struct counters {
	__u64 segs; /* segs_word() */
	__u64 sent;
	__u64 received;
	__u32 retrans;
	__u32 dsacks;
	__u32 srtt_us;
	__u32 chrono[TCP_CHRONO_MAX];
};

/* Time per tcp_sock.chrono_stat, with the running one up to now, as in tcp_get_info_chrono_stats(). */
static __always_inline void read_chrono(struct counters *counters, struct tcp_sock *tp, struct tcp_conn *conn,
					enum moment moment)
{
	__u32 now = bpf_jiffies64();
	__u32 type = tcp_chrono(tp);
	__u32 running = now - tp->chrono_start;
	/* Type, start and sum change together, under the lock: as long as somebody may hold it, nothing is new. */
	bool known = moment != IN_PASSING || !sock_busy((struct sock *)tp);

	for (int i = 0; i < TCP_CHRONO_MAX; i++)
		counters->chrono[i] = known ? tp->chrono_stat[i] + (type == i + 1 ? running : 0) : conn->chrono[i];
}

static __always_inline void read_counters(struct counters *counters, struct tcp_sock *tp, struct tcp_conn *conn,
					  enum moment moment)
{
	counters->segs = segs_word(tp);
	counters->sent = sent_bytes(tp, conn->origin);
	counters->received = received_bytes(tp, moment);
	counters->retrans = tp->total_retrans;
	counters->dsacks = tp->dsack_dups;
	counters->srtt_us = tp->srtt_us;
	read_chrono(counters, tp, conn, moment);
}

/*
 * A pass over records keeps them, but not their sockets from being freed and becoming other connections in the same
 * place (SLAB_TYPESAFE_BY_RCU). What it has read of a socket is of this connection if that goes on even now: it ends in
 * its record before it ends in the kernel.
 */
static __always_inline bool goes_on(struct tcp_conn *conn, __u64 start_ns)
{
	__u32 phase;

	fence_reads();
	phase = *(volatile __u32 *)&conn->phase;
	return (phase == PHASE_CONNECTING || is_open(phase)) && *(volatile __u64 *)&conn->start_ns == start_ns;
}

static __always_inline void account_segs(struct tcp_series *s, struct tcp_conn *conn, __u64 current, bool final)
{
	__u64 before = *(volatile __u64 *)&conn->segs;
	__u32 in, out;

	if (final)
		before = swap64(&conn->segs, current);
	in = (current >> 32) - (before >> 32);
	out = (__u32)current - (__u32)before;
	if ((__s32)in < 0 || (__s32)out < 0)
		return;
	if (!final && !replace64(&conn->segs, before, current))
		return;
	add(&s->segs_in, in);
	add(&s->segs_out, out);
}

/* The series; NULL if the connection has ended meanwhile, which has counted all of it. */
static __always_inline struct tcp_series *account(struct tcp_sock *tp, struct tcp_conn *conn, enum moment moment,
						  __u64 now)
{
	__u64 start_ns = *(volatile __u64 *)&conn->start_ns;
	__u32 phase = *(volatile __u32 *)&conn->phase;
	bool final = moment == AT_ITS_END;
	struct counters current = {};
	struct tcp_namespace *ns;
	struct tcp_series *s;
	__u32 retrans;

	fence_reads();
	s = series_of(tp, conn, now);
	read_counters(&current, tp, conn, moment);
	if (!s || (!final && !goes_on(conn, start_ns)))
		return NULL;
	retrans = gain32(&conn->retrans, current.retrans, final);
	if (retrans) {
		add(&s->retrans, retrans);
		ns = namespace_of((struct sock *)tp);
		if (ns)
			add(&ns->retrans, retrans);
	}
	account_segs(s, conn, current.segs, final);
	add(&s->spurious, gain32(&conn->dsacks, current.dsacks, final));
	conn->srtt_us = current.srtt_us;
	if (phase == PHASE_CONNECTING)
		return s;
	if (phase == PHASE_OPENED && replace32(&conn->phase, PHASE_OPENED, PHASE_OPEN))
		add(&s->opened, 1);
	add(&s->sent, gain64(&conn->sent, current.sent, final));
	add(&s->received, gain64(&conn->received, current.received, final));
	for (int i = 0; i < TCP_CHRONO_MAX; i++)
		add(&s->chrono[i], gain32(&conn->chrono[i], current.chrono[i], final));
	return s;
}

static __always_inline void sample_rtt(struct tcp_sock *tp, struct tcp_conn *conn, __u32 srtt_us, __u64 now)
{
	struct tcp_timing *t;

	if (!srtt_us && !conn->timing) /* the kernel has not measured one yet */
		return;
	t = timing_of(tp, conn, now);
	if (!t)
		return;
	t->head.last_ns = now;
	if (srtt_us)
		hist_add(&t->rtt, srtt_us >> 3);
}

#endif
