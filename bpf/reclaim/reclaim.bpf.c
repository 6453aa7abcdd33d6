// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Time that tasks spend in reclaim on their own account: from the begin of each direct or cgroup reclaim to its end.
 * None of the programs looks at an argument of its tracepoint, because those change from kernel to kernel.
 */
#include "cost.bpf.h"
#include "hist.bpf.h"
#include "kernel.h"
#include "reclaim.h"
#include "slots.bpf.h"
#include "target.bpf.h"
#include "who.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

SLOT_TABLE(stalls, struct reclaim_key, struct reclaim_stall);

/*
 * By thread. Made in full at load: in the middle of reclaim is no time to ask for memory. There is one mark for a
 * thread, as the kernel lets nobody who reclaims do so again (PF_MEMALLOC).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct reclaim_mark);
} marks SEC(".maps");

/* Stalls that are not measured because too many tasks reclaim at once. */
__u64 marks_full;

COST(reclaim_direct_begin);
COST(reclaim_direct_end);
COST(reclaim_memcg_begin);
COST(reclaim_memcg_end);

static __always_inline void stall_begin(__u32 scope)
{
	struct reclaim_mark mark = { .begin_ns = bpf_ktime_get_ns(), .scope = scope };
	__u32 tid = bpf_get_current_pid_tgid();

	if (!watches_current())
		return;
	if (bpf_map_update_elem(&marks, &tid, &mark, BPF_ANY))
		add(&marks_full, 1);
}

static __always_inline void stall_end(__u32 scope)
{
	struct reclaim_key key = { .scope = scope };
	__u32 tid = bpf_get_current_pid_tgid();
	struct reclaim_mark *mark = bpf_map_lookup_elem(&marks, &tid);
	struct reclaim_stall *stall;
	__u64 now, begin;
	__u32 slot;

	if (!mark) /* it began before we came, or is not watched */
		return;
	now = bpf_ktime_get_ns();
	begin = mark->scope == scope ? mark->begin_ns : 0;
	bpf_map_delete_elem(&marks, &tid);
	if (!begin) /* the mark is of a stall whose end was missed */
		return;
	who_current(&key.who);
	slot = SLOT_FIND(stalls, &key, now);
	stall = bpf_map_lookup_elem(&stalls, &slot);
	if (stall)
		hist_add(&stall->time, (now - begin) / 1000);
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(reclaim_direct_begin)
{
	__u64 begin = cost_begin(&reclaim_direct_begin_cost);

	stall_begin(SCOPE_NODE);
	cost_end(&reclaim_direct_begin_cost, begin);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(reclaim_direct_end)
{
	__u64 begin = cost_begin(&reclaim_direct_end_cost);

	stall_end(SCOPE_NODE);
	cost_end(&reclaim_direct_end_cost, begin);
	return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_begin")
int BPF_PROG(reclaim_memcg_begin)
{
	__u64 begin = cost_begin(&reclaim_memcg_begin_cost);

	stall_begin(SCOPE_MEMCG);
	cost_end(&reclaim_memcg_begin_cost, begin);
	return 0;
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end")
int BPF_PROG(reclaim_memcg_end)
{
	__u64 begin = cost_begin(&reclaim_memcg_end_cost);

	stall_end(SCOPE_MEMCG);
	cost_end(&reclaim_memcg_end_cost, begin);
	return 0;
}

/* For the generated Rust types alone. */
enum reclaim_scope wire_scope;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
