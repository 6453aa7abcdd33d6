// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The maps of what is watched, which all other objects share, and a program that knows the cgroup again when another
 * one is made under its path: before any process can be in it.
 */
#include "target.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* The path of the cgroup within its hierarchy, with zeros after it. Set by userspace before loading. */
const volatile char target_path[TARGET_PATH_SIZE];

/* The path of a cgroup that was made. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, char[TARGET_PATH_SIZE]);
} made SEC(".maps");

static __always_inline bool is_target(const char *path)
{
	__u32 zero = 0, i;
	char *copy = bpf_map_lookup_elem(&made, &zero);
	long size;

	if (!copy)
		return false;
	size = bpf_probe_read_kernel_str(copy, TARGET_PATH_SIZE, path);
	if (size <= 0 || size > TARGET_PATH_SIZE)
		return false;
	for (i = 0; i < TARGET_PATH_SIZE; i++) {
		if (i >= size)
			return true;
		if (copy[i] != target_path[i])
			return false;
	}
	return true;
}

/* Is it of the hierarchy that the cgroup is looked for in? */
static __always_inline bool of_hierarchy(struct cgroup *cgroup)
{
	struct cgroup *memory = memory_cgroup(task_read(current_task(), cgroups));

	if (!target.cgroup_v1)
		return !cgroup->root->hierarchy_id;
	return memory && task_read(memory, root, hierarchy_id) == cgroup->root->hierarchy_id;
}

/* cgroup_mkdir() of kernel/cgroup/cgroup.c, under the lock that moving a process into the cgroup takes. */
SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(target_cgroup_made, struct cgroup *cgroup, const char *path)
{
	__u64 id = cgroup->kn->id;
	__u32 zero = 0;

	if (of_hierarchy(cgroup) && is_target(path))
		bpf_map_update_elem(&target_cgroup, &zero, &id, BPF_ANY);
	return 0;
}

/* For the generated Rust types alone. */
struct target_value wire_value;
enum target_kind wire_kind;
enum workload_state wire_state;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
