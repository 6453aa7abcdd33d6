/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SLOT_TABLE(x, key, value) is three maps and a pool: `x_index` (key -> slot), `x` (mmapable array of values that start
 * with a slot_head and the key), `x_freed` (queue of slots that userspace has emptied) and `x_pool`. Userspace sets the
 * sizes before loading. The index allocates as it fills: most tables stay nearly empty, and new keys are rare.
 *
 * Programs take slots, userspace gives them back. To retire an idle slot userspace sets `dead` and then looks whether
 * `joins` moved; a program raises `joins` and then looks at `dead`. At least one of the two sees the other: either the
 * slot stays, or the program counts in `other`. Nothing is counted in a slot that is being emptied.
 */
#ifndef SIDECAR_SLOTS_BPF_H
#define SIDECAR_SLOTS_BPF_H

#include "slots.h"
#include <bpf/bpf_helpers.h>

#define SLOT_OTHER 0

#define SLOT_TABLE(name, key_type, value_type)                                                                         \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__uint(max_entries, 1);                                                                                \
		__type(key, key_type);                                                                                 \
		__type(value, __u32);                                                                                  \
	} name##_index SEC(".maps");                                                                                   \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(map_flags, BPF_F_MMAPABLE);                                                                     \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, value_type);                                                                             \
	} name SEC(".maps");                                                                                           \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_QUEUE);                                                                      \
		__uint(max_entries, 1);                                                                                \
		__type(value, __u32);                                                                                  \
	} name##_freed SEC(".maps");                                                                                   \
	struct slot_pool name##_pool = {};                                                                             \
	_Static_assert(__builtin_offsetof(value_type, key) == sizeof(struct slot_head), "the key follows the head")

/* The slot of `key` in table `name`, taken now if it has none yet. */
#define SLOT_FIND(name, key, now) slot_find(&name##_pool, &name##_index, &name, &name##_freed, key, sizeof(*(key)), now)

static __always_inline __u32 slot_join(void *slots, __u32 slot, __u64 now)
{
	struct slot_head *head = bpf_map_lookup_elem(slots, &slot);

	if (!head)
		return SLOT_OTHER;
	__sync_fetch_and_add(&head->joins, 1);
	if (*(volatile __u32 *)&head->dead)
		return SLOT_OTHER;
	head->last_ns = now;
	return slot;
}

/* A slot nobody uses, or SLOT_OTHER when there is none. */
static __always_inline __u32 slot_new(struct slot_pool *pool, void *freed)
{
	__u32 slot;

	if (pool->next < pool->max) {
		slot = __sync_fetch_and_add(&pool->next, 1);
		if (slot < pool->max)
			return slot;
	}
	if (!bpf_map_pop_elem(freed, &slot))
		return slot;
	return SLOT_OTHER;
}

static __always_inline __u32 slot_find(struct slot_pool *pool, void *index, void *slots, void *freed, const void *key,
				       const __u32 size, __u64 now)
{
	__u32 *known = bpf_map_lookup_elem(index, key);
	struct slot_head *head;
	__u32 slot;

	if (known) {
		slot = slot_join(slots, *known, now);
		goto found;
	}
	slot = slot_new(pool, freed);
	if (slot == SLOT_OTHER)
		goto found;
	head = bpf_map_lookup_elem(slots, &slot);
	if (!head)
		return SLOT_OTHER;
	__builtin_memcpy(head + 1, key, size);
	if (!bpf_map_update_elem(index, key, &slot, BPF_NOEXIST)) {
		slot = slot_join(slots, slot, now);
		goto found;
	}
	/* Another CPU was first with this key (or the index is out of memory): give ours back. */
	bpf_map_push_elem(freed, &slot, BPF_ANY);
	known = bpf_map_lookup_elem(index, key);
	slot = known ? slot_join(slots, *known, now) : SLOT_OTHER;
found:
	if (slot == SLOT_OTHER) {
		__sync_fetch_and_add(&pool->folded, 1);
		slot_join(slots, SLOT_OTHER, now);
	}
	return slot;
}

#endif
