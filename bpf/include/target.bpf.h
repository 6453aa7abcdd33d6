/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is watched, asked before anything is counted. The kinds are constants, so that the verifier takes out of a
 * program what is not asked for: all of it, if everything is watched. The maps are then not made either; else all
 * objects share those of bpf/target.
 */
#ifndef SIDECAR_TARGET_BPF_H
#define SIDECAR_TARGET_BPF_H

#include "cgroup.bpf.h"
#include "kernel.h"
#include "target.h"
#include "who.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* A section of its own: userspace fills it in the same way for every object. */
const volatile struct target_kinds target SEC(".rodata.target") = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct target_value);
	__type(value, __u8);
} target_values SEC(".maps");

/* The kernfs id of the cgroup; 0: there is none of that path now. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} target_cgroup SEC(".maps");

/* One that finds no room is as good as new: it is decided once more. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u8); /* enum workload_state */
} workloads SEC(".maps");

/* How far up relatives are looked for. */
enum { TARGET_DEPTH = 32 };

/* Whether it takes a process to be watched. */
static __always_inline bool watches_by_process(void)
{
	return target.by_process;
}

static __always_inline bool watches_all(void)
{
	return !target.any;
}

static __always_inline bool is_named(__u64 kind, __u64 number)
{
	struct target_value value = { .kind = kind, .value = { number } };

	return bpf_map_lookup_elem(&target_values, &value);
}

/* The side of a connection that listens. */
static __always_inline bool watches_port(__u16 port)
{
	return !target.ports || is_named(TARGET_PORT, port);
}

/* A process whose parent ends belongs to somebody else from then on. */
static __always_inline bool watches_pid(struct task_struct *task)
{
	for (int i = 0; i < TARGET_DEPTH; i++) {
		__u32 tgid = BPF_CORE_READ(task, tgid);

		if (!tgid)
			return false;
		if (is_named(TARGET_PID, tgid))
			return true;
		if (!target.descendants)
			return false;
		task = BPF_CORE_READ(task, group_leader, real_parent);
	}
	return false;
}

static __always_inline bool watches_comm(struct task_struct *task)
{
	struct target_value value = { .kind = TARGET_COMM };

	process_comm((__u8 *)value.value, task);
	return bpf_map_lookup_elem(&target_values, &value);
}

/* Whether the cgroup, of the hierarchy that is looked at, is the one that is named or lies below it. */
static __always_inline bool watches_cgroup(struct cgroup *cgroup)
{
	__u32 zero = 0;
	__u64 *named = bpf_map_lookup_elem(&target_cgroup, &zero);
	struct cgroup_subsys_state *parent;

	if (!named)
		return false;
	for (int i = 0; i < TARGET_DEPTH && cgroup; i++) {
		if (BPF_CORE_READ(cgroup, kn, id) == *named)
			return true;
		parent = BPF_CORE_READ(cgroup, self.parent);
		cgroup = parent ? BPF_CORE_READ(parent, cgroup) : NULL;
	}
	return false;
}

static __always_inline bool watches_cgroup_of(struct task_struct *task)
{
	struct css_set *set = task_read(task, cgroups);

	return watches_cgroup(target.cgroup_v1 ? memory_cgroup(set) : task_read(set, dfl_cgrp));
}

/* A workload of which nothing is known counts until that is so: it is not shown before. */
static __always_inline bool watches_workload(__u64 cgroup)
{
	__u8 *state;

	if (!target.workloads)
		return true;
	state = bpf_map_lookup_elem(&workloads, &cgroup);
	return !state || *state != WORKLOAD_IGNORED;
}

static __always_inline bool shows_workload(__u64 cgroup)
{
	__u8 *state;

	if (!target.workloads)
		return true;
	state = bpf_map_lookup_elem(&workloads, &cgroup);
	return state && *state == WORKLOAD_WATCHED;
}

static __always_inline bool watches_name(struct task_struct *task)
{
	return (!target.comms || watches_comm(task)) && (!target.pids || watches_pid(task));
}

/* By all but its workload, of which more may be known later. */
static __always_inline bool watches_process(struct task_struct *task)
{
	return !watches_by_process() || (watches_name(task) && (!target.cgroup || watches_cgroup_of(task)));
}

static __always_inline bool watches(struct task_struct *task)
{
	return watches_process(task) && (!target.workloads || watches_workload(cgroup_number(task_cgroup(task))));
}

/* The process that the current task belongs to. Only where the kernel works on its behalf. */
static __always_inline bool watches_current(void)
{
	return !watches_by_process() || watches(current_task());
}

/* Memory that belongs to a cgroup, of which the current task adds or takes some. */
static __always_inline bool watches_memory(struct cgroup *memory)
{
	struct task_struct *task = current_task();
	bool v1;

	if (!watches_by_process())
		return true;
	if (!watches_name(task))
		return false;
	v1 = BPF_CORE_READ(memory, root, hierarchy_id);
	if (target.cgroup && !(v1 == target.cgroup_v1 ? watches_cgroup(memory) : watches_cgroup_of(task)))
		return false;
	return watches_workload(BPF_CORE_READ(memory, kn, id) | (v1 ? CGROUP_V1 : 0));
}

#endif
