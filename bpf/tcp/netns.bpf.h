/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Passes over the kernel's own table of sockets, in one network namespace after another: for kernels that keep no
 * records in sockets, and for those in which it is not safe to pass over such records.
 */
#ifndef SIDECAR_TCP_NETNS_BPF_H
#define SIDECAR_TCP_NETNS_BPF_H

static __always_inline void pass_tcp(struct tcp_sock *tp, struct tcp_conn *conn)
{
	if (adopting)
		adopt(tp, conn);
	else
		pass_one(tp, conn, iter_tcp_locks() ? IN_PASSING_LOCKED : IN_PASSING);
}

/* One that is closed has been taken out of the table, so none is met at its end. */
SEC("iter/tcp")
int tcp_pass_netns(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp = common ? bpf_skc_to_tcp_sock(common) : NULL;
	struct tcp_conn *conn = tp ? conn_of((struct sock *)tp) : NULL;

	if (conn)
		pass_tcp(tp, conn);
	return 0;
}

SEC("iter/tcp")
int tcp_list_netns(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tp = common ? bpf_skc_to_tcp_sock(common) : NULL;
	struct tcp_conn *conn = tp ? conn_of((struct sock *)tp) : NULL;

	if (conn)
		list_one((struct sock *)tp, conn);
	return 0;
}

#endif
