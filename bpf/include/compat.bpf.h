/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every difference between kernels that a program has to know, one block each. */
#ifndef SIDECAR_COMPAT_BPF_H
#define SIDECAR_COMPAT_BPF_H

#include "kernel.h"
#include <bpf/bpf_core_read.h>

/*
 * Is somebody working on the socket right now? The word of the spinlock exists on SMP kernels without PREEMPT_RT
 * whose architecture uses queued spinlocks; elsewhere only the owner flag tells.
 */
static __always_inline bool sock_busy(struct sock *sk)
{
	if (sk->sk_lock.owned)
		return true;
	if (bpf_core_field_exists(struct qspinlock, val) && bpf_core_field_exists(struct spinlock, rlock))
		return sk->sk_lock.slock.rlock.raw_lock.val.counter;
	return false;
}

/*
 * What tells a network namespace from all others, those before and after it included. Before 5.12 (commit 3d368ab87cf6,
 * "net: initialize net->net_cookie at netns setup") there is the inode number alone, which is used again.
 */
static __always_inline __u64 net_id(struct net *net)
{
	return bpf_core_field_exists(struct net, net_cookie) ? net->net_cookie : net->ns.inum;
}

/* Kernels without CONFIG_IPV6 have no such fields, and no such sockets. */
static __always_inline bool has_ipv6(void)
{
	return bpf_core_field_exists(struct sock_common, skc_v6_daddr);
}

/* u8 chrono_type:2 became a plain byte in 6.9 (commit d5fed5addb2b, "tcp: reorganize tcp_sock fast path variables"). */
static __always_inline __u32 tcp_chrono(struct tcp_sock *tp)
{
	return BPF_CORE_READ_BITFIELD(tp, chrono_type);
}

#endif
