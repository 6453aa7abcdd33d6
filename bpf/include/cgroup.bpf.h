/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_CGROUP_BPF_H
#define SIDECAR_CGROUP_BPF_H

#include "cgroup.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The hierarchy of version 2 has the number 0. */
static __always_inline __u64 cgroup_number(struct cgroup *cgroup)
{
	return cgroup->root->hierarchy_id ? cgroup->kn->id | CGROUP_V1 : cgroup->kn->id;
}

/* The cgroup whose memory a task uses, in whichever version of hierarchy the memory controller is; NULL if in none. */
static __always_inline struct cgroup *memory_cgroup(struct css_set *set)
{
	struct cgroup_subsys_state **states = set->subsys;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL;
	return states[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)]->cgroup;
}

/*
 * The cgroup that tells who a task is. On hosts with both versions a runtime may put a container into the hierarchies
 * of version 1 alone: that of the memory controller tells, unless the task is at its root.
 */
static __always_inline struct cgroup *task_cgroup(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroup *memory = memory_cgroup(set);

	if (memory && memory->root->hierarchy_id && memory->level)
		return memory;
	return set->dfl_cgrp;
}

#endif
