/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every difference between kernels that a program has to know, one block each. */
#ifndef SIDECAR_COMPAT_BPF_H
#define SIDECAR_COMPAT_BPF_H

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * Before 5.12 BPF knows no atomic operation with a result (commit 5ffa25502b5a, "bpf: Add instructions for
 * atomic_[cmp]xchg"), and before 5.11 tracing programs neither storage in sockets (commit 8e4597c627fb, "bpf: Allow
 * using bpf_sk_storage in FENTRY/FEXIT/RAW_TP") nor typed tasks (commit 3ca1032ab7ab, "bpf: Implement
 * get_current_task_btf and RET_PTR_TO_BTF_ID"). On arm64 they are not compiled to machine code before 5.18 (commit
 * 1902472b4fa9, "bpf, arm64: Support more atomic operations"), and kernels that run nothing else refuse them. One line
 * is drawn, at a helper that came with the same version; LINUX_WITH_FETCH of the daemon is the same, and it takes those
 * operations out of what it loads on older kernels, as their verifiers refuse them even where nothing gets to. What is
 * said of 5.12 elsewhere is meant of this line.
 */
static __always_inline bool has_fetch(void)
{
#ifdef __TARGET_ARCH_arm64
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_copy_from_user_task);
#else
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_check_mtu);
#endif
}

/* The daemon puts something else in the place of these calls before a program is loaded: src/bpf/instructions.rs. */
static void *(*const distrust)(const void *pointer, __u32 type) = (void *)0x0bad0602;

/*
 * The same pointer, of which the verifier is to be no more sure than of any that was read somewhere. Of each pointer
 * that is read through one that it trusts it wonders whether to trust it, too, and since 6.3 (commit 57539b1c0ac2,
 * "bpf: Enable annotating trusted nested pointers") looks for the answer among the names of all types of the kernel, up
 * to four times: that took a sixth of a start. Where programs may call bpf_rdonly_cast(), it is that, which is nothing
 * when it runs, and elsewhere nothing at all.
 */
#define distrusted(pointer) ((__typeof__(pointer))distrust(pointer, bpf_core_type_id_kernel(__typeof__(*(pointer)))))

/* The current task; before 5.12 no more than its address, which task_read() follows. */
static __always_inline struct task_struct *current_task(void)
{
	return has_fetch() ? bpf_get_current_task_btf() : (struct task_struct *)bpf_get_current_task();
}

/* As BPF_CORE_READ(), from a task on. Where the verifier knows its type that is plain loads, which cost less. */
#define task_read(task, ...) (has_fetch() ? ___arrow(task, __VA_ARGS__) : BPF_CORE_READ(task, __VA_ARGS__))

/* bpf_task_pt_regs() came with 5.15 (commit dd6e10fbd9fb, "bpf: Add bpf_task_pt_regs() helper"). */
static __always_inline bool has_task_regs(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs);
}

/*
 * The registers with which the current task entered the kernel. They lie at the very end of its stack, whose size is
 * known where it is mapped (CONFIG_VMAP_STACK): of x86, where a page has 4 KiB. Elsewhere the verifier refuses.
 */
static __always_inline void *current_regs(void)
{
	struct task_struct *task = current_task();

	if (has_task_regs() || !bpf_core_field_exists(struct pt_regs___x86, orig_ax) ||
	    !bpf_core_field_exists(struct task_struct, stack_vm_area))
		return (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	return BPF_CORE_READ(task, stack) + ((__u64)BPF_CORE_READ(task, stack_vm_area, nr_pages) << 12) -
	       bpf_core_type_size(struct pt_regs);
}

/* As task_read(), of registers. */
#define regs_read(regs, field) (has_task_regs() ? (regs)->field : BPF_CORE_READ(regs, field))

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
 * Whether a program of iter/tcp has the lock of the socket that it looks at: since 5.15 (commit 04c7820b776f, "bpf:
 * tcp: Bpf iter batching and lock_sock"). Before that, the lock of its bucket in the table of sockets, from which it is
 * taken when it is closed.
 */
static __always_inline bool iter_tcp_locks(void)
{
	return bpf_core_type_exists(struct bpf_tcp_iter_state);
}

/*
 * What tells a network namespace from all others, those before and after it included. Before 5.12 (commit 3d368ab87cf6,
 * "net: initialize net->net_cookie at netns setup") there is the inode number alone, which is used again.
 */
static __always_inline __u64 net_id(struct net *net)
{
	return bpf_core_field_exists(struct net, net_cookie) ? BPF_CORE_READ(net, net_cookie) :
							       BPF_CORE_READ(net, ns.inum);
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
 * Name of the function that an address lies in, with that of its module after it in brackets; it does not depend on
 * kptr_restrict. False if the kernel does not tell. bpf_snprintf() came with 5.13 (commit 7b15523a989b, "bpf: Add a
 * bpf_snprintf helper").
 */
static __always_inline bool symbol_name(char *name, const __u32 size, __u64 address)
{
	static const char format[] = "%ps";

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_snprintf))
		return false;
	/* Where there is no name, it writes the address. */
	return bpf_snprintf(name, size, format, &address, sizeof(address)) >= 0 && name[0] != '0';
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

/*
 * The tracepoints of the page cache pass folios since 5.16 (commit a0580c6f9bab, "mm/filemap: Convert tracing of page
 * cache operations to folio"); the pages before that begin with the same fields.
 */
static __always_inline struct address_space *folio_mapping(struct folio *folio)
{
	if (bpf_core_type_exists(struct folio))
		return distrusted(folio)->mapping;
	return ((struct page *)folio)->mapping;
}

static __always_inline __u64 folio_index(struct folio *folio)
{
	if (bpf_core_type_exists(struct folio))
		return folio->index;
	return ((struct page *)folio)->index;
}

/* The flags became a struct in 6.18 (commit 53fbef56e07d, "mm: introduce memdesc_flags_t"). */
static __always_inline unsigned long folio_flags(struct folio *folio)
{
	if (bpf_core_field_exists(struct folio___memdesc, flags.f))
		return ((struct folio___memdesc *)folio)->flags.f;
	if (bpf_core_type_exists(struct folio))
		return folio->flags;
	return ((struct page *)folio)->flags;
}

/*
 * The cgroup that a folio is charged to, in the hierarchy of the memory controller; NULL if it is charged to none, as
 * when there is no such controller. By 7.2 folios of files point to an object cgroup instead ("mm: memcontrol:
 * eliminate the problem of dying memory cgroup for LRU folios"), and there are object cgroups that are root ones.
 */
static __always_inline struct cgroup *folio_cgroup(struct folio *folio)
{
	unsigned long data = 0;
	struct mem_cgroup *memcg;

	if (bpf_core_field_exists(struct folio, memcg_data))
		data = folio->memcg_data;
	else if (bpf_core_field_exists(struct page, memcg_data))
		data = ((struct page *)folio)->memcg_data;
	else if (bpf_core_field_exists(struct page, mem_cgroup)) /* until 5.10 */
		data = (unsigned long)BPF_CORE_READ((struct page *)folio, mem_cgroup);
	data &= ~(unsigned long)MEMCG_DATA_FLAGS;
	if (!data)
		return NULL;
	memcg = (struct mem_cgroup *)data;
	if (bpf_core_field_exists(struct obj_cgroup, is_root))
		memcg = BPF_CORE_READ((struct obj_cgroup *)data, memcg);
	return BPF_CORE_READ(memcg, css.cgroup);
}

/* It is read under RCU since 6.15 (commit 633488947ef6, "kernfs: Use RCU to access kernfs_node::parent"), by another
 * name. */
static __always_inline struct kernfs_node *kernfs_parent(struct kernfs_node *node)
{
	if (bpf_core_field_exists(struct kernfs_node___rcu, __parent))
		return BPF_CORE_READ((struct kernfs_node___rcu *)node, __parent);
	return BPF_CORE_READ(node, parent);
}

/*
 * Pages in a folio. The order lies in its second page: by itself until 6.2, in `_folio_order` until 6.5, since then in
 * the lowest byte of the flags (commit ebc1baf5c9b4, "mm: free up a word in the first tail page").
 */
static __always_inline __u64 folio_pages(struct folio *folio)
{
	struct page *second = (void *)folio + bpf_core_type_size(struct page);
	unsigned char order;

	if (!(folio_flags(folio) & 1UL << bpf_core_enum_value(enum pageflags, PG_head)))
		return 1;
	if (bpf_core_field_exists(struct page, compound_order))
		order = BPF_CORE_READ(second, compound_order);
	else if (bpf_core_field_exists(struct folio, _folio_order))
		order = BPF_CORE_READ(folio, _folio_order);
	else
		order = BPF_CORE_READ(folio, _flags_1);
	return 1ULL << (order & 63);
}

/*
 * How much filemap_get_pages() has still to read: its second argument, which was an iov_iter until 6.2 ("mm: Pass info,
 * not iter, into filemap_get_pages()"). No size comes near an address of the kernel.
 */
static __always_inline __u64 get_pages_count(void *ctx)
{
	__u64 argument = 0;

	bpf_get_func_arg(ctx, 1, &argument);
	return (__s64)argument < 0 ? BPF_CORE_READ((struct iov_iter *)argument, count) : argument;
}

#endif
