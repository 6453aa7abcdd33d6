/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What only kernels before 5.12 need, where records are kept by the address of the socket: the end of a record, and a
 * walk over open files that can only look at sockets, so that the pass after it takes over what was found.
 */
#ifndef SIDECAR_TCP_OLD_BPF_H
#define SIDECAR_TCP_OLD_BPF_H

/* Set by userspace: this pass only takes over what the walk has found. */
bool adopting;

/* Sockets that the walk has found, and that are still to be taken over. */
__u64 found;

COST(tcp_gone);

/* Whatever becomes of a TCP socket, this is its end. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_gone, struct sock *sk)
{
	__u64 begin = cost_begin(&tcp_gone_cost);

	conn_delete_by_address(sk);
	cost_end(&tcp_gone_cost, begin);
	return 0;
}

static __always_inline bool is_found(struct tcp_conn *conn, __u8 state)
{
	return conn->phase == PHASE_NONE || missed_opening(conn, state);
}

static __always_inline void adopt(struct tcp_sock *tp, struct tcp_conn *conn)
{
	struct sock *sk = (struct sock *)tp;

	if (!is_found(conn, sk->__sk_common.skc_state))
		return;
	if (watches_ports_of(sk, tp))
		take_over(sk, tp, conn);
	else
		pass_over(sk);
}

/* The TCP socket that a file is; NULL if it is something else. bpf_sock_from_file() came with 5.11. */
static __always_inline struct sock *tcp_from_file(struct file *file)
{
	struct socket *socket = file->private_data;
	struct sock *sk;

	if (file->f_inode->i_sb->s_magic != SOCKFS_MAGIC || !socket)
		return NULL;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return NULL;
	return sk;
}

/* Which side opened the connection is known when it is taken over. */
static __always_inline bool may_watch(struct sock *sk, struct task_struct *task)
{
	if (watches_by_process() && !watches(task))
		return false;
	return watches_port(bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport))) ||
	       watches_port(bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)));
}

/* As tcp_walk(), but sockets can only be looked at here; those without a record get one that tells their owner. */
SEC("iter/task_file")
int tcp_walk_old(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct tcp_namespace *ns;
	struct tcp_conn *conn;
	struct sock *sk;
	__u8 state;

	if (!file || !task)
		return 0;
	sk = tcp_from_file(file);
	if (!sk)
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_CLOSE)
		return 0;
	conn = conn_of(sk);
	if (!conn && may_watch(sk, task))
		conn = conn_create(sk);
	if (!conn)
		return 0;
	if (is_found(conn, state))
		found++;
	held_by(conn, task);

	/* A process may hold a socket of a namespace that it does not live in. */
	if (task->nsproxy && task->nsproxy->net_ns == BPF_CORE_READ(sk, __sk_common.skc_net.net)) {
		ns = namespace_of(sk);
		if (ns)
			ns->pid = task->tgid;
	}
	return 0;
}

#endif
