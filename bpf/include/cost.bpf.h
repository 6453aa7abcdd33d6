/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs time themselves, one run in 17. The kernel's run-time statistics would read two clocks for every run of
 * every BPF program on the machine, ours or not, and switching them on takes CAP_SYS_ADMIN. A program does not
 * interrupt itself on a CPU (since 6.2 the kernel leaves such a run out and counts it, before it is rare), nor runs
 * there while a task waits in the middle of it (as one may since 7.0: commit a46023d5616e, "tracing: Guard
 * __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast"; such runs are left out, too), so plain additions do.
 */
#ifndef SIDECAR_COST_BPF_H
#define SIDECAR_COST_BPF_H

#include "cost.h"
#include <bpf/bpf_helpers.h>

/* A prime, so that what a connection goes through step by step does not keep in step with it. */
#define COST_EVERY 17

/* The cost of a program, in a map that is called like it: the daemon finds it by name. */
#define COST(program)                                                                                                  \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct cost);                                                                            \
	} program##_cost SEC(".maps")

/* When this run began, if it is to be timed, else 0. */
static __always_inline __u64 cost_begin(void *costs)
{
	__u32 zero = 0;
	struct cost *cost = bpf_map_lookup_elem(costs, &zero);

	if (!cost)
		return 0;
	/* The first run is a cold one, and no measure of the others. */
	if (!cost->runs++)
		cost->until = COST_EVERY / 2;
	if (cost->until) {
		cost->until--;
		return 0;
	}
	cost->until = COST_EVERY - 1;
	return bpf_ktime_get_ns();
}

static __always_inline void cost_end(void *costs, __u64 begin)
{
	__u32 zero = 0;
	struct cost *cost;

	if (!begin)
		return;
	cost = bpf_map_lookup_elem(costs, &zero);
	if (cost)
		cost->ns += (bpf_ktime_get_ns() - begin) * COST_EVERY;
}

#endif
