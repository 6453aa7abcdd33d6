/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records of sockets before Linux 5.12: made, handed from a listener to its child, and removed, by what elsewhere the
 * kernel does with the socket itself.
 */
#ifndef SIDECAR_TCP_BY_ADDRESS_BPF_H
#define SIDECAR_TCP_BY_ADDRESS_BPF_H

#include "account.bpf.h"
#include "sockets.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* What a record begins as. */
const struct tcp_conn no_conn = {};

static __always_inline struct tcp_conn *conn_create_by_address(struct sock *sk)
{
	__u64 address = (__u64)sk;

	bpf_map_update_elem(&sockets_by_address, &address, &no_conn, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sockets_by_address, &address);
}

static __always_inline void conn_delete_by_address(struct sock *sk)
{
	__u64 address = (__u64)sk;

	bpf_map_delete_elem(&sockets_by_address, &address);
}

/*
 * LISTEN -> SYN_RECV: a child, which inet_csk_clone_lock() has just copied from its listener and not yet made its own.
 * So the head of an empty list in it still points to itself in the listener.
 */
static __always_inline struct sock *listener_of(struct sock *child)
{
	struct list_head *head = BPF_CORE_READ((struct tcp_sock *)child, tsorted_sent_queue.next);

	return (void *)head - bpf_core_field_offset(struct tcp_sock, tsorted_sent_queue);
}

/* Whatever lay at this address before is no concern of the child's. */
static __always_inline void on_child(struct sock *sk)
{
	struct tcp_conn *conn = conn_of(listener_of(sk));
	__u64 address = (__u64)sk;
	struct tcp_missed *mine;

	if (!conn) {
		conn_delete_by_address(sk);
		return;
	}
	if (!bpf_map_update_elem(&sockets_by_address, &address, conn, BPF_ANY))
		return;
	mine = my_missed();
	if (mine)
		add(&mine->no_memory, 1);
}

/* Passes go through the namespaces in which somebody is known to live; a connect or listen tells of one at once. */
static __always_inline void lives_here(struct tcp_namespace *ns, struct sock *sk)
{
	struct task_struct *task;

	if (!config.enters || !ns || ns->pid)
		return;
	task = current_task();
	if (task_read(task, nsproxy, net_ns) == BPF_CORE_READ(sk, __sk_common.skc_net.net))
		ns->pid = task_read(task, pid);
}

#endif
