/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every difference between kernels that a program has to know, one block each. */
#ifndef SIDECAR_COMPAT_BPF_H
#define SIDECAR_COMPAT_BPF_H

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

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

/*
 * Name of the function that an address lies in, without that of its module; it does not depend on kptr_restrict. False
 * if the kernel does not tell. bpf_snprintf() came with 5.13 (commit 7b15523a989b, "bpf: Add a bpf_snprintf helper").
 */
static __always_inline bool symbol_name(char *name, const __u32 size, __u64 address)
{
	static const char format[] = "%ps";
	bool module = false;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_snprintf))
		return false;
	/* Where there is no name, it writes the address. */
	if (bpf_snprintf(name, size, format, &address, sizeof(address)) < 0 || name[0] == '0')
		return false;
	/* A module's comes after it, in brackets. */
	for (__u32 i = 0; i < size; i++) {
		module = module || name[i] == ' ';
		if (module)
			name[i] = 0;
	}
	return true;
}

/*
 * Whether skb->sk is a socket, or nothing. Before 6.9 (commit 18685451fc4e, "inet: inet_defrag: prevent sk release
 * while still in use") a fragment that waits for the others has an offset in the same place, which is no address.
 */
static __always_inline bool skb_has_socket(struct sk_buff *skb)
{
	__s64 word = 0;

	if (!bpf_core_field_exists(struct sk_buff, ip_defrag_offset))
		return true;
	return !bpf_probe_read_kernel(&word, sizeof(word), &skb->sk) && word < 0;
}

#endif
