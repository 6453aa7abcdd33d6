/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_CGROUP_BPF_H
#define SIDECAR_CGROUP_BPF_H

#include "cgroup.h"
#include "compat.bpf.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The hierarchy of version 2 has the number 0. */
static __always_inline __u64 cgroup_number(struct cgroup *cgroup)
{
	__u64 id = task_read(cgroup, kn, id);

	return task_read(cgroup, root, hierarchy_id) ? id | CGROUP_V1 : id;
}

/* The cgroup whose memory a task uses, in whichever version of hierarchy the memory controller is; NULL if in none. */
static __always_inline struct cgroup *memory_cgroup(struct css_set *set)
{
	struct cgroup_subsys_state **states = set->subsys, *state = NULL;
	__u64 memory;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL;
	memory = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	if (has_fetch())
		return states[memory]->cgroup;
	bpf_probe_read_kernel(&state, sizeof(state), states + memory);
	return BPF_CORE_READ(state, cgroup);
}

/*
 * The cgroup that tells who a task is. On hosts with both versions a runtime may put a container into the hierarchies
 * of version 1 alone: that of the memory controller tells, unless the task is at its root.
 */
static __always_inline struct cgroup *task_cgroup(struct task_struct *task)
{
	struct css_set *set = task_read(task, cgroups);
	struct cgroup *memory = memory_cgroup(set);

	if (memory && task_read(memory, root, hierarchy_id) && task_read(memory, level))
		return memory;
	return task_read(set, dfl_cgrp);
}

#endif
