/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SLOT_TABLE(x, key, value) is four maps: `x_index` (key -> slot), `x` (mmapable array of values that start with a
 * slot_head and the key), `x_freed` (queue of slots that userspace has emptied) and `x_pool`. Userspace sets the sizes
 * before loading. The index allocates as it fills: most tables stay nearly empty, and new keys are rare.
 *
 * SLOT_TABLE_PERCPU(x, key, slot, counts) is for what many CPUs count at once: `x_counts` has the counters of each CPU,
 * and the slots have nothing but head and key, which are then hardly ever written to.
 *
 * Programs take slots, userspace gives them back. To retire an idle slot userspace sets `dead` and then looks whether
 * `joins` moved; a program raises `joins` and then looks at `dead`. At least one of the two sees the other: either the
 * slot stays, or the program counts in `other`. Nothing is counted in a slot that is being emptied.
 */
#ifndef SIDECAR_SLOTS_BPF_H
#define SIDECAR_SLOTS_BPF_H

#include "atomic.bpf.h"
#include "kernel.h"
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
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct slot_pool);                                                                       \
	} name##_pool SEC(".maps");                                                                                    \
	_Static_assert(__builtin_offsetof(value_type, key) == sizeof(struct slot_head), "the key follows the head")

#define SLOT_TABLE_PERCPU(name, key_type, slot_type, counts_type)                                                      \
	SLOT_TABLE(name, key_type, slot_type);                                                                         \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, counts_type);                                                                            \
	} name##_counts SEC(".maps");                                                                                  \
	_Static_assert(__builtin_offsetof(counts_type, use) == 0, "the counters begin with their use")

/* The slot of `key` in table `name`, taken now if it has none yet. */
#define SLOT_FIND(name, key, now) slot_find(&name##_pool, &name##_index, &name, &name##_freed, key, sizeof(*(key)), now)

/* The counters of `key` on this CPU; NULL never happens, but the verifier cannot know. */
#define SLOT_COUNTS(name, key, now)                                                                                    \
	slot_counts(&name##_pool, &name##_index, &name, &name##_freed, &name##_counts, key, sizeof(*(key)), now,       \
		    &(__u32){ SLOT_OTHER })

/* As SLOT_COUNTS, where the slot is likely to be that of last time, in `*last`: it is not looked up then. */
#define SLOT_COUNTS_AGAIN(name, key, now, last)                                                                        \
	slot_counts(&name##_pool, &name##_index, &name, &name##_freed, &name##_counts, key, sizeof(*(key)), now, last)

/* A slot nobody uses, or SLOT_OTHER when there is none. */
static __always_inline __u32 slot_new(struct slot_pool *pool, void *freed)
{
	__u32 slot;

	/* Before 5.12 userspace has put all of them into the queue, which has a lock of its own. */
	if (has_fetch() && pool->next < pool->max) {
		slot = __sync_fetch_and_add(&pool->next, 1);
		if (slot < pool->max)
			return slot;
	}
	if (!bpf_map_pop_elem(freed, &slot))
		return slot;
	return SLOT_OTHER;
}

/* The slot of the key, which may be about to be retired. */
static __always_inline __u32 slot_of(struct slot_pool *pool, void *index, void *slots, void *freed, const void *key,
				     const __u32 size)
{
	__u32 *known = bpf_map_lookup_elem(index, key);
	struct slot_head *head;
	__u32 slot;

	if (known)
		return *known;
	slot = slot_new(pool, freed);
	if (slot == SLOT_OTHER)
		return SLOT_OTHER;
	head = bpf_map_lookup_elem(slots, &slot);
	if (!head)
		return SLOT_OTHER;
	__builtin_memcpy(head + 1, key, size);
	if (!bpf_map_update_elem(index, key, &slot, BPF_NOEXIST))
		return slot;
	/* Another CPU was first with this key (or the index is out of memory): give ours back. */
	bpf_map_push_elem(freed, &slot, BPF_ANY);
	known = bpf_map_lookup_elem(index, key);
	return known ? *known : SLOT_OTHER;
}

static __always_inline __u32 slot_join(void *slots, __u32 slot, __u64 now)
{
	struct slot_head *head = bpf_map_lookup_elem(slots, &slot);

	if (!head)
		return SLOT_OTHER;
	raise_and_fence(&head->joins);
	if (*(volatile __u32 *)&head->dead)
		return SLOT_OTHER;
	head->last_ns = now;
	return slot;
}

static __always_inline __u32 slot_find(void *pools, void *index, void *slots, void *freed, const void *key,
				       const __u32 size, __u64 now)
{
	__u32 zero = 0;
	struct slot_pool *pool = bpf_map_lookup_elem(pools, &zero);
	__u32 slot;

	if (!pool)
		return SLOT_OTHER;
	slot = slot_of(pool, index, slots, freed, key, size);
	if (slot != SLOT_OTHER)
		slot = slot_join(slots, slot, now);
	if (slot == SLOT_OTHER) {
		add(&pool->folded, 1);
		slot_join(slots, SLOT_OTHER, now);
	}
	return slot;
}

/* Raises this CPU's joins instead of the slot's; the slot's then only say that it is in use. */
static __always_inline struct slot_use *slot_use(void *slots, void *counts, __u32 slot, __u64 now)
{
	struct slot_head *head = bpf_map_lookup_elem(slots, &slot);
	struct slot_use *use = bpf_map_lookup_elem(counts, &slot);

	if (!head || !use)
		return NULL;
	raise_and_fence(&use->joins);
	if (*(volatile __u32 *)&head->dead)
		return NULL;
	if (!head->joins)
		head->joins = 1;
	use->last_ns = now;
	return use;
}

/* Whether the slot is in use, for this key, and stays so as far as one can see. */
static __always_inline bool slot_is_of(void *slots, __u32 slot, const __u64 *key, const __u32 size)
{
	struct slot_head *head;
	const __u64 *its;

	if (slot == SLOT_OTHER)
		return false;
	head = bpf_map_lookup_elem(slots, &slot);
	if (!head || !head->joins || head->dead)
		return false;
	its = (const __u64 *)(head + 1);
	for (__u32 i = 0; i < size / sizeof(*key); i++)
		if (its[i] != key[i])
			return false;
	return true;
}

static __always_inline void *slot_counts(void *pools, void *index, void *slots, void *freed, void *counts,
					 const void *key, const __u32 size, __u64 now, __u32 *last)
{
	__u32 zero = 0, slot = *last;
	struct slot_pool *pool = bpf_map_lookup_elem(pools, &zero);
	struct slot_use *use = NULL;

	if (!pool)
		return NULL;
	if (!slot_is_of(slots, slot, key, size))
		slot = *last = slot_of(pool, index, slots, freed, key, size);
	if (slot != SLOT_OTHER)
		use = slot_use(slots, counts, slot, now);
	if (!use) {
		add(&pool->folded, 1);
		use = slot_use(slots, counts, SLOT_OTHER, now);
	}
	return use;
}

#endif
