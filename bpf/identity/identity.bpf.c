// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which cgroups there are, and what they are called. Programs run when one is made or removed, before the first process
 * is in it and after the last: who works in it is known even if that lasts for an instant.
 */
#include "cgroup.bpf.h"
#include "compat.bpf.h"
#include "cost.bpf.h"
#include "identity.h"
#include "kernel.h"
#include "path.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* A record is some 100 bytes: room for a thousand cgroups at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 << 10);
} records SEC(".maps");

/* Where records are written before they are sent: a path is too long for the stack. A look may be interrupted by an
 * event. */
enum { SCRATCH_EVENT, SCRATCH_LOOK, SCRATCHES };

/* In a hierarchy; the daemon knows no more either. */
#define MOST_CGROUPS (1 << 17)

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct identity_record);
} scratch SEC(".maps");

/* Events that found no room. Their cgroups are found by the next look. */
__u64 records_full;

struct identity_look look_v2, look_v1;

COST(identity_began);
COST(identity_ended);

static __always_inline bool tell(struct cgroup *cgroup, __u64 number, __u32 event, __u32 place)
{
	struct identity_record *record = bpf_map_lookup_elem(&scratch, &place);
	__u64 size;

	if (!record)
		return true;
	record->cgroup = number;
	record->event = event;
	cgroup_names(record, cgroup);
	size = __builtin_offsetof(struct identity_record, names);
	if (record->length <= IDENTITY_PATH)
		size += record->length;
	if (size > sizeof(*record)) /* for the verifier */
		return true;
	return !bpf_ringbuf_output(&records, record, size, 0);
}

/* Of the hierarchies that tasks are known by: that of version 2, and that of the memory controller. */
static __always_inline bool matters(struct cgroup_root *root)
{
	if (!root->hierarchy_id)
		return true;
	return bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id) &&
	       root->subsys_mask & 1U << bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
}

static __always_inline void tell_event(struct cgroup *cgroup, __u32 event)
{
	if (matters(cgroup->root) && !tell(cgroup, cgroup_number(cgroup), event, SCRATCH_EVENT))
		__sync_fetch_and_add(&records_full, 1);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(identity_began, struct cgroup *cgroup)
{
	__u64 begin = cost_begin(&identity_began_cost);

	tell_event(distrusted(cgroup), CGROUP_BEGAN);
	cost_end(&identity_began_cost, begin);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(identity_ended, struct cgroup *cgroup)
{
	__u64 begin = cost_begin(&identity_ended_cost);

	tell_event(distrusted(cgroup), CGROUP_ENDED);
	cost_end(&identity_ended_cost, begin);
	return 0;
}

/* Where a look is in its hierarchy. */
struct place {
	struct cgroup *root, *at;
	struct identity_look *look;
	__u64 version; /* CGROUP_V1, or 0 */
};

static __always_inline struct cgroup *cgroup_of_sibling(struct list_head *sibling)
{
	/* A cgroup begins with what the list is of, but that need not stay so. */
	return (void *)sibling - bpf_core_field_offset(struct cgroup_subsys_state, sibling) -
	       bpf_core_field_offset(struct cgroup, self);
}

/* A parent comes before its children. NULL at the end. */
static __always_inline struct cgroup *next_cgroup(struct cgroup *root, struct cgroup *cgroup)
{
	struct list_head *next = BPF_CORE_READ(cgroup, self.children.next);
	struct cgroup *parent;
	int i;

	if (next != __builtin_preserve_access_index(&cgroup->self.children))
		return cgroup_of_sibling(next);
	for (i = 0; i < IDENTITY_DEPTH && cgroup != root; i++) {
		parent = (void *)BPF_CORE_READ(cgroup, self.parent) - bpf_core_field_offset(struct cgroup, self);
		next = BPF_CORE_READ(cgroup, self.sibling.next);
		if (next != __builtin_preserve_access_index(&parent->self.children))
			return cgroup_of_sibling(next);
		cgroup = parent;
	}
	return NULL;
}

static long look_at_one(__u32 index, struct place *place)
{
	struct cgroup *cgroup = place->at;
	struct identity_look *look = place->look;
	__u32 event;

	if (index >= look->skip) {
		event = BPF_CORE_READ(cgroup, self.flags) & CSS_ONLINE ? CGROUP_IS : CGROUP_ENDED;
		if (!tell(cgroup, BPF_CORE_READ(cgroup, kn, id) | place->version, event, SCRATCH_LOOK)) {
			look->more = 1;
			return 1;
		}
		look->seen = index + 1;
	}
	place->at = next_cgroup(place->root, cgroup);
	return !place->at;
}

static __always_inline void look_at_all(struct cgroup *cgroup, struct identity_look *look, __u64 version)
{
	struct cgroup *root = (void *)cgroup->root + bpf_core_field_offset(struct cgroup_root, cgrp);
	struct place place = { .root = root, .at = root, .look = look, .version = version };

	look->more = 0;
	bpf_loop(MOST_CGROUPS, look_at_one, &place, 0);
}

/*
 * All hierarchies hang on any task; the first that is met is as good as another. Nothing is locked but what keeps
 * cgroups from being freed (RCU), so those that come and go meanwhile may be missed: of them there are events.
 */
SEC("iter/task")
int identity_look(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct cgroup *memory;
	struct css_set *set;

	if (!task || ctx->meta->seq_num)
		return 0;
	set = distrusted(task)->cgroups;
	look_at_all(set->dfl_cgrp, &look_v2, 0);
	memory = memory_cgroup(set);
	if (memory && memory->root->hierarchy_id)
		look_at_all(memory, &look_v1, CGROUP_V1);
	return 0;
}

/* For the generated Rust types alone. */
struct identity_record wire_record;
enum identity_event wire_event;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
