// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * TCP connections, from the counters that the kernel keeps in every socket. Programs run when a connection changes
 * its state, when a SYN-ACK is sent again, when a reset is sent, and when the daemon asks; none runs when data is sent
 * or received.
 */
#include "account.bpf.h"
#include "by_address.bpf.h"
#include "compat.bpf.h"
#include "cost.bpf.h"
#include "events.bpf.h"
#include "maps.bpf.h"
#include "rows.bpf.h"
#include "who.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* Set by userspace before each pass. */
__u64 pass_number;
__u64 pass_now_ns;
__u32 walk_number; /* of the walk over open files, from 1 */

/* Connections whose owner is only inferred from their listener, or not known at all, since the daemon started. */
__u64 owners_due;

/* Sockets that the last pass met. */
__u64 pass_sockets;

static __always_inline bool is_tcp(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP;
}

/* What was found under the old owner stays there; what comes now goes to the new one. */
static __always_inline void set_owner(struct tcp_conn *conn, struct task_struct *task)
{
	conn->tgid = task_read(task, tgid);
	process_comm(conn->comm, task);
	conn->cgroup = cgroup_number(task_cgroup(task));
	conn->watched = watches_process(task);
	conn->series = 0;
	conn->timing = 0;
}

static __always_inline void own_by_current(struct tcp_conn *conn)
{
	set_owner(conn, distrusted(current_task()));
}

static __always_inline struct tcp_conn *conn_create(struct sock *sk)
{
	struct tcp_missed *mine;
	struct tcp_conn *conn;

	if (has_fetch())
		conn = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	else
		conn = conn_create_by_address(sk);

	if (!conn) {
		mine = my_missed();
		if (mine)
			add(&mine->no_memory, 1);
	}
	return conn;
}

/* The record starts anew: a socket may be connected, disconnected and connected again. */
static __always_inline void conn_reset(struct tcp_conn *conn, __u8 role, __u64 now)
{
	conn->segs = 0;
	conn->srtt_us = 0;
	conn->series = 0;
	conn->timing = 0;
	conn->start_ns = now;
	conn->sent = 0;
	conn->received = 0;
	conn->retrans = 0;
	conn->origin = 0;
	conn->dsacks = 0;
	conn->resent = 0;
	for (int i = 0; i < TCP_CHRONO_MAX; i++)
		conn->chrono[i] = 0;
	conn->before = 0;
	conn->seen = 0;
	conn->role = role;
	conn->adopted = 0;
}

/* Without a record nothing of a socket is counted, nor asked any more. */
static __always_inline void pass_over(struct sock *sk)
{
	if (has_fetch())
		bpf_sk_storage_delete(&sockets, sk);
	else
		conn_delete_by_address(sk);
}

/* CLOSE -> SYN_SENT, in connect(). The socket may have been connected before. */
static __always_inline void on_connect(struct sock *sk, __u64 now)
{
	struct tcp_caller *caller_slot;
	struct tcp_namespace *ns;
	struct tcp_conn *conn;
	struct who key = {};
	__u32 slot;

	if (!watches_port(bpf_ntohs(sk->__sk_common.skc_dport)) || !watches_current()) {
		pass_over(sk);
		return;
	}
	ns = namespace_of(sk);
	conn = conn_create(sk);
	if (ns)
		add(&ns->connects, 1);
	lives_here(ns, sk);
	if (!conn)
		return;
	conn_reset(conn, ROLE_CLIENT, now);
	own_by_current(conn);
	enter(conn, PHASE_CONNECTING);

	who_of_conn(&key, conn);
	key.pid = conn->tgid;
	slot = SLOT_FIND(caller, &key, now);
	caller_slot = bpf_map_lookup_elem(&caller, &slot);
	if (caller_slot)
		add(&caller_slot->connects, 1);
}

/*
 * CLOSE -> LISTEN, in listen(). Another process may accept than the one that listens: that one need not be watched. A
 * socket that was not bound has no port yet.
 */
static __always_inline void on_listen(struct sock *sk, __u64 now)
{
	__u16 port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	struct tcp_conn *conn;

	if (port && !watches_port(port)) {
		pass_over(sk);
		return;
	}
	conn = conn_create(sk);
	if (!conn)
		return;
	conn_reset(conn, ROLE_UNKNOWN, now);
	lives_here(namespace_of(sk), sk);
	conn->retrans = sk->sk_drops.counter;
	own_by_current(conn);
	enter(conn, PHASE_LISTENING);
}

/* SYN_SENT -> ESTABLISHED: a softirq, no process to be seen. The record is there unless connect() came before us. */
static __always_inline void on_connected(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct tcp_timing *t;

	/* The SYN has been acknowledged and counted: it lies at `origin`, payload starts after it. */
	conn->origin = tp->snd_una - (__u32)tp->bytes_acked;
	conn->sent = 1;
	if (conn->start_ns && counts(conn)) { /* 0: its SYN is older than we are */
		t = timing_of(tp, conn, now);
		if (t)
			hist_add(&t->setup, (now - conn->start_ns) / 1000);
	}
	conn->start_ns = now; /* from here on, where its age is counted from */
	conn->adopted = 0;
	enter(conn, PHASE_OPENED);
	tell(tp, conn, now, EVENT_CONNECT, 0);
}

/* SYN_RECV -> ESTABLISHED: a softirq; owner and cgroup are the listener's until a walk or the close tells better. */
static __always_inline void on_accepted(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct tcp_namespace *ns = namespace_of((struct sock *)tp);

	conn_reset(conn, ROLE_SERVER, now);
	conn->origin = tp->snd_una - (__u32)tp->bytes_acked;
	if (config.synack_hook)
		conn->retrans = tp->total_retrans; /* SYN-ACKs sent again: counted when it happened */
	conn->resent = tp->total_retrans;
	enter(conn, PHASE_OPENED);
	if (ns)
		add(&ns->accepts, 1);
	__sync_fetch_and_add(&owners_due, 1);
	tell(tp, conn, now, EVENT_ACCEPT, 0);
}

/* Without a record its listener is older than we are, or of another port than is watched. */
static __always_inline void on_established_here(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct sock *sk = (struct sock *)tp;

	if (!watches_port(bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport))) {
		if (conn)
			pass_over(sk);
		return;
	}
	if (!conn) {
		conn = conn_create(sk);
		if (!conn)
			return;
		conn->watched = !watches_by_process();
	}
	on_accepted(tp, conn, now);
}

static __always_inline void on_listen_end(struct tcp_sock *tp, struct tcp_conn *conn, __u64 now)
{
	struct sock *sk = (struct sock *)tp;
	struct tcp_listener_key key = {};
	struct tcp_listener *l;
	__u32 slot, lost;

	lost = gain32(&conn->retrans, sk->sk_drops.counter, true);
	conn->phase = PHASE_CLOSED;
	key.port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	if (!lost || !counts(conn) || !watches_port(key.port))
		return;
	who_of(&key.who, conn);
	slot = SLOT_FIND(listener, &key, now);
	l = bpf_map_lookup_elem(&listener, &slot);
	if (l)
		add(&l->overflows, lost);
}

/* ICMP errors reach sk_err by icmp_err_convert[] in net/ipv4/icmp.c and icmpv6_err_convert() in net/ipv6/icmp.c. */
static __always_inline __u8 reason_of(struct sock *sk)
{
	switch (sk->sk_err) {
	case 0:
		return sk->sk_shutdown == SHUTDOWN_MASK ? REASON_ABORTED : REASON_LOCAL;
	case ECONNREFUSED:
		return REASON_REFUSED;
	case ETIMEDOUT:
		return REASON_TIMEOUT;
	case ECONNRESET:
		return REASON_RESET;
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENONET:
	case ENOPROTOOPT:
	case EACCES:
		return REASON_UNREACHABLE;
	default:
		return REASON_OTHER;
	}
}

/*
 * Why an established connection ended. Without an error it is the state before that tells who sent the first FIN; an
 * end from any other state is a reset of our own, as by close() with data unread.
 */
static __always_inline __u8 end_of(struct sock *sk, __u8 state)
{
	switch (sk->sk_err) {
	case 0:
		break;
	case EPIPE: /* a reset after the peer's FIN: see tcp_reset() */
		return REASON_RESET;
	case ECONNABORTED: /* tcp_abort(), for `ss -K` */
		return REASON_ABORTED;
	default:
		return reason_of(sk);
	}
	if (state == TCP_LAST_ACK)
		return REASON_PEER_FIN;
	return state == TCP_FIN_WAIT2 || state == TCP_CLOSING ? REASON_FIN : REASON_ABORTED;
}

static __always_inline void on_connect_failed(struct sock *sk, struct tcp_conn *conn, __u64 now)
{
	struct tcp_failure_key key = {};
	struct tcp_failure *f;
	__u32 slot;

	who_of(&key.who, conn);
	remote_ip(key.dst_ip, &sk->__sk_common);
	key.dst_port = bpf_ntohs(sk->__sk_common.skc_dport);
	key.reason = reason_of(sk);
	slot = SLOT_FIND(failure, &key, now);
	f = bpf_map_lookup_elem(&failure, &slot);
	if (f)
		add(&f->count, 1);
}

static __always_inline void count_end(struct tcp_sock *tp, struct tcp_conn *conn, __u8 state, __u64 now)
{
	bool open = is_open(conn->phase);
	struct sock *sk = (struct sock *)tp;
	struct tcp_series *s;

	if (!open && conn->phase != PHASE_CONNECTING)
		return;
	if (!open)
		on_connect_failed(sk, conn, now);
	if (open || tp->total_retrans) {
		s = account(tp, conn, AT_ITS_END, now);
		if (s && open)
			add(&s->closed, 1);
	}
	if (open)
		sample_rtt(tp, conn, tp->srtt_us, now);
	tell(tp, conn, now, open ? EVENT_CLOSE : EVENT_CONNECT_FAILED, open ? end_of(sk, state) : reason_of(sk));
}

static __always_inline void on_closed(struct tcp_sock *tp, struct tcp_conn *conn, __u8 state, __u64 now)
{
	__u32 phase = conn->phase;

	if (counts(conn))
		count_end(tp, conn, state, now);
	conn->phase = is_open(phase) ? PHASE_ENDED : PHASE_CLOSED;
	conn->series = 0;
	conn->timing = 0;
}

/* In close(), shutdown() or exit of the process that served; a kernel thread only tidies up for it. */
static __always_inline void on_fin(struct sock *sk)
{
	struct task_struct *task = current_task();
	struct tcp_conn *conn = conn_of(sk);

	if (conn && (conn->role == ROLE_SERVER || !conn->tgid) && conn->tgid != task_read(task, tgid) &&
	    !(task_read(task, flags) & PF_KTHREAD))
		own_by_current(conn);
}

static __always_inline void on_state(struct sock *sk, int before, int after)
{
	struct tcp_missed *mine;
	struct tcp_conn *conn;
	struct tcp_sock *tp;
	__u64 now;

	if (!has_fetch() && before == TCP_LISTEN && after == TCP_SYN_RECV)
		on_child(sk);
	/* Four of the ten changes in the life of a connection, both ends counted, tell us nothing. */
	if (after == TCP_SYN_RECV || after == TCP_CLOSE_WAIT || after == TCP_FIN_WAIT2 || after == TCP_CLOSING)
		return;
	if (!is_tcp(sk))
		return;
	if (after == TCP_FIN_WAIT1 || after == TCP_LAST_ACK) {
		on_fin(sk);
		return;
	}
	now = bpf_ktime_get_ns();
	if (before == TCP_CLOSE && after == TCP_SYN_SENT) {
		on_connect(sk, now);
		return;
	}
	if (before == TCP_CLOSE && after == TCP_LISTEN) {
		on_listen(sk, now);
		return;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	if (after == TCP_ESTABLISHED) {
		conn = conn_of(sk);
		if (conn && conn->phase == PHASE_CONNECTING) { /* even from SYN_RECV, when both sides opened at once */
			on_connected(tp, conn, now);
		} else if (before == TCP_SYN_RECV) {
			on_established_here(tp, conn, now);
		}
		return;
	}
	if (after != TCP_CLOSE)
		return;
	conn = conn_of(sk);
	if (!conn) {
		mine = my_missed();
		if (mine && before != TCP_LISTEN && watches_all())
			add(&mine->untracked, 1);
	} else if (before == TCP_LISTEN) {
		on_listen_end(tp, conn, now);
	} else {
		on_closed(tp, conn, before, now);
	}
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int before, int after)
{
	__u64 begin = cost_begin(&tcp_state_cost);

	on_state(sk, before, after);
	cost_end(&tcp_state_cost, begin);
	return 0;
}

/*
 * A SYN-ACK again, for a connection that may never come to be: it belongs to the listener's side. With TCP fast open
 * the socket is the child, which begins to count for itself once it is established.
 */
static __always_inline void on_synack(struct sock *sk, struct request_sock *req)
{
	struct tcp_series_key key = { .role = ROLE_SERVER };
	__u64 now = bpf_ktime_get_ns();
	struct tcp_namespace *ns;
	struct tcp_conn *conn;
	struct tcp_series *s;
	__u32 slot;

	if (!is_tcp(sk))
		return;
	conn = conn_of(sk);
	if (!watches_all() && !(conn && counts(conn) && watches_port(req->__req_common.skc_num)))
		return;
	if (conn)
		who_of(&key.who, conn);
	ends_of(&key, &req->__req_common, req->__req_common.skc_num);
	slot = SLOT_FIND(series, &key, now);
	s = bpf_map_lookup_elem(&series, &slot);
	if (s)
		add(&s->retrans, 1);
	ns = namespace_of(sk);
	if (ns)
		add(&ns->retrans, 1);
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_synack, struct sock *sk, struct request_sock *req)
{
	__u64 begin = cost_begin(&tcp_synack_cost);

	on_synack(sk, req);
	cost_end(&tcp_synack_cost, begin);
	return 0;
}

/*
 * An application that aborts a connection has its socket closed first; then the reset is sent, and then this is hit.
 * Resets that answer a segment are not among the segments of a socket.
 */
static __always_inline void on_reset_sent(struct sock *sk)
{
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL; /* not of TIME_WAIT, nor of a request */
	struct tcp_conn *conn = tp ? conn_of(sk) : NULL;
	struct tcp_series *s;

	if (!conn || conn->phase != PHASE_ENDED || !counts(conn))
		return;
	s = series_of(tp, conn, bpf_ktime_get_ns());
	if (s)
		account_segs(s, conn, segs_word(tp), true);
	conn->series = 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_reset_sent, struct sock *sk)
{
	__u64 begin = cost_begin(&tcp_reset_sent_cost);

	on_reset_sent(sk);
	cost_end(&tcp_reset_sent_cost, begin);
	return 0;
}

static __always_inline void pass_listener(struct tcp_sock *tp, struct tcp_conn *conn)
{
	struct sock *sk = (struct sock *)tp;
	struct tcp_listener_key key = {};
	struct tcp_listener *l;
	__u32 slot;

	if (sk->__sk_common.skc_state != TCP_LISTEN) /* a child that is not established yet */
		return;
	key.port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	if (!watches_port(key.port))
		return;
	who_of(&key.who, conn);
	slot = SLOT_FIND(listener, &key, pass_now_ns);
	l = bpf_map_lookup_elem(&listener, &slot);
	if (!l)
		return;
	if (l->pass != pass_number) {
		l->pass = pass_number;
		l->backlog = 0;
	}
	l->backlog += sk->sk_ack_backlog;
	add(&l->overflows, gain32(&conn->retrans, sk->sk_drops.counter, false));
}

static __always_inline void pass_open(struct tcp_sock *tp, struct tcp_conn *conn, enum moment moment)
{
	__u64 start_ns = *(volatile __u64 *)&conn->start_ns;
	struct tcp_series *s;

	/* Most sockets of a big server are idle: nothing moved, no clock runs, and all we need is at hand. */
	if (conn->phase == PHASE_OPENED || conn->segs != segs_word(tp) || tcp_chrono(tp))
		s = account(tp, conn, moment, pass_now_ns);
	else
		s = series_of(tp, conn, pass_now_ns);
	if (!s)
		return;
	sample_rtt(tp, conn, conn->srtt_us, pass_now_ns);
	if (!goes_on(conn, start_ns))
		return;
	if (s->pass != pass_number) {
		s->pass = pass_number;
		s->open = 0;
		s->oldest_ns = start_ns;
		s->head.last_ns = pass_now_ns;
	}
	s->open++;
	if (start_ns < s->oldest_ns)
		s->oldest_ns = start_ns;
}

static __always_inline void pass_one(struct tcp_sock *tp, struct tcp_conn *conn, enum moment moment)
{
	__u32 phase;

	pass_sockets++;
	if (!counts(conn))
		return;
	phase = conn->phase;
	if (is_open(phase))
		pass_open(tp, conn, moment);
	else if (phase == PHASE_LISTENING)
		pass_listener(tp, conn);
	else if (phase == PHASE_CONNECTING && conn->retrans != tp->total_retrans)
		account(tp, conn, moment, pass_now_ns);
}

/* All sockets of all network namespaces, in one go: nothing is written to the file, so it never starts over. */
SEC("iter/bpf_sk_storage_map")
int tcp_pass(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct tcp_conn *conn = ctx->value;
	struct sock *sk = ctx->sk;
	struct tcp_sock *tp;

	if (!sk || !conn)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		pass_one(tp, conn, IN_PASSING);
	return 0;
}

/*
 * Which side opened a connection that is older than we are? bytes_acked counts the SYN of the side that sent one, and
 * bytes_sent never does: what has its sequence number exceeds the payload by one for a client.
 */
static __always_inline __u8 role_by_syn(struct tcp_sock *tp)
{
	__u64 sequence = sent_bytes(tp, tp->snd_una - (__u32)tp->bytes_acked);
	__u64 payload = tp->bytes_sent - tp->bytes_retrans;

	if (sequence == payload + 1)
		return ROLE_CLIENT;
	return sequence == payload ? ROLE_SERVER : ROLE_UNKNOWN;
}

/* A socket from before our time: what it has counted so far is its baseline, and only what comes now is ours. */
static __always_inline void take_over(struct sock *sk, struct tcp_sock *tp, struct tcp_conn *conn)
{
	__u8 state = sk->__sk_common.skc_state;

	conn_reset(conn, ROLE_UNKNOWN, pass_now_ns);
	conn->adopted = 1;
	if (state == TCP_LISTEN) {
		conn->retrans = sk->sk_drops.counter;
		enter(conn, PHASE_LISTENING);
		return;
	}
	conn->role = state == TCP_SYN_SENT ? ROLE_CLIENT : role_by_syn(tp);
	conn->segs = segs_word(tp);
	conn->retrans = tp->total_retrans;
	conn->resent = tp->total_retrans;
	conn->dsacks = tp->dsack_dups;
	for (int i = 0; i < TCP_CHRONO_MAX; i++)
		conn->chrono[i] = tp->chrono_stat[i];
	conn->received = received_bytes(tp, IN_PASSING_LOCKED); /* if it is not: never less than was there */
	conn->origin = tp->snd_una - (__u32)tp->bytes_acked;
	conn->sent = sent_bytes(tp, conn->origin);
	conn->srtt_us = tp->srtt_us;
	if (state == TCP_SYN_SENT) {
		conn->start_ns = 0;
		enter(conn, PHASE_CONNECTING);
	} else {
		enter(conn, PHASE_OPEN);
	}
	/* It may have closed while we looked, and tcp_state have found no record. */
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		enter(conn, PHASE_CLOSED);
}

/*
 * It went on while we were paused: a connect that came through, or a child of a listener that was accepted. The record
 * is told of a state before the socket has it, so that what was read of the socket first does not go on before the
 * record.
 */
static __always_inline bool missed_opening(struct tcp_conn *conn, __u8 state)
{
	__u32 phase;

	fence_reads();
	phase = *(volatile __u32 *)&conn->phase;
	if (phase != PHASE_CONNECTING && phase != PHASE_LISTENING)
		return false;
	return state != TCP_SYN_SENT && state != TCP_SYN_RECV && state != TCP_LISTEN;
}

/* Whether it has the port of a side that listens. */
static __always_inline bool watches_ports_of(struct sock *sk, struct tcp_sock *tp)
{
	__u16 here = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	__u16 there = bpf_ntohs(sk->__sk_common.skc_dport);
	__u8 state = sk->__sk_common.skc_state;
	__u8 role = state == TCP_LISTEN ? ROLE_SERVER : ROLE_CLIENT;

	if (!target.ports)
		return true;
	if (state != TCP_LISTEN && state != TCP_SYN_SENT)
		role = role_by_syn(tp);
	return (role != ROLE_CLIENT && watches_port(here)) || (role != ROLE_SERVER && watches_port(there));
}

/* Whether a socket that has no record gets one, for the sake of a process that holds it. */
static __always_inline bool watches_held(struct sock *sk, struct tcp_sock *tp, struct task_struct *task)
{
	return (!watches_by_process() || watches(task)) && watches_ports_of(sk, tp);
}

/* The owner stays as long as it holds the socket; of other holders the first one met takes its place. */
static __always_inline void held_by(struct tcp_conn *conn, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	__u8 comm[16] __attribute__((aligned(8)));

	if (conn->seen != walk_number) {
		if (conn->tgid != tgid) {
			conn->before = conn->tgid;
			set_owner(conn, task);
		}
	} else if (conn->before == tgid) {
		conn->before = 0;
		set_owner(conn, task);
	}
	conn->seen = walk_number;
	/* It may have taken another name (exec, prctl) since, or have been moved. */
	if (conn->tgid == tgid) {
		process_comm(comm, task);
		if (!same_comm(comm, conn->comm) || conn->cgroup != cgroup_number(task_cgroup(task)) ||
		    conn->watched != watches_process(task))
			set_owner(conn, task);
	}
}

/* Who holds which socket: every open file of every process. The one way to the owners of sockets older than we are. */
SEC("iter/task_file")
int tcp_walk(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct tcp_conn *conn;
	struct socket *socket;
	struct tcp_sock *tp;
	struct sock *sk;
	struct tcp_namespace *ns;
	__u8 state;

	if (!file || !task)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || !is_tcp(sk))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	state = *(volatile __u8 *)&sk->__sk_common.skc_state;
	if (!tp || state == TCP_CLOSE)
		return 0;
	conn = conn_of(sk);
	if (!conn && watches_held(sk, tp, task))
		conn = conn_create(sk);
	if (!conn)
		return 0;
	if (conn->phase == PHASE_NONE || missed_opening(conn, state))
		take_over(sk, tp, conn);
	held_by(conn, distrusted(task));

	/* A process may hold a socket of a namespace that it does not live in. */
	if (task->nsproxy && task->nsproxy->net_ns == sk->__sk_common.skc_net.net) {
		ns = namespace_of(sk);
		if (ns)
			ns->pid = task->tgid;
	}
	return 0;
}

#include "old.bpf.h"
#include "netns.bpf.h"

/* For the generated Rust types alone. */
enum role wire_role;
enum tcp_reason wire_reason;
enum tcp_event_type wire_event_type;
struct tcp_event wire_event;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
