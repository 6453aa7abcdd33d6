/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What DONTNEED does to the page cache: pages that it evicts, and those of them that come back soon. */
#ifndef SIDECAR_FADVISE_EFFECT_BPF_H
#define SIDECAR_FADVISE_EFFECT_BPF_H

#include "call.bpf.h"
#include "compat.bpf.h"
#include "maps.bpf.h"
#include "who.bpf.h"

/*
 * Blocks of the largest folio of a file: its order is at most MAX_XAS_ORDER of include/linux/xarray.h. Before 5.16
 * files have but single pages and huge ones, of 512; a verifier of that time gives up on more turns of a loop.
 */
static __always_inline int most_blocks(void)
{
	return bpf_core_type_exists(struct folio) ? 32 : 8;
}

/* When a page was last remembered; 0: none is. Userspace sets it back when the window has passed. */
__u64 remembered_ns;

/* Pages that could not be remembered for want of room. */
__u64 forgotten;

/* Entries of `blocks`; userspace counts those that it takes out. */
__u64 blocks_held;

/*
 * Is a page deleted now because of a DONTNEED call of the current task? While it writes dirty pages back it may have to
 * reclaim memory: what that deletes is somebody else's.
 */
static __always_inline bool in_dontneed(void)
{
	struct fadvise_args args = {};

	if (task_read(current_task(), flags) & (PF_KTHREAD | PF_IO_WORKER | PF_MEMALLOC))
		return false;
	return args_of_current(&args) && args.advice == FADVISE_DONTNEED;
}

/* Another CPU may have evicted since `now`: the age is negative then. */
static __always_inline bool is_recent(const struct fadvise_block *block, __u64 now)
{
	__s64 age_ns = now - *(volatile __u64 *)&block->evicted_ns;

	return age_ns <= (__s64)window_ns;
}

/* Folios are aligned to their size: they lie in one block, or fill several. */
static __always_inline __u64 pages_in_block(__u64 index, __u64 pages)
{
	return pages < FADVISE_BLOCK_PAGES ? ((1ULL << pages) - 1) << index % FADVISE_BLOCK_PAGES : ~0ULL;
}

static __always_inline void block_key(struct fadvise_block_key *key, struct folio *folio)
{
	struct inode *inode = folio_mapping(folio)->host;

	key->inode = inode->i_ino;
	key->block = folio_index(folio) / FADVISE_BLOCK_PAGES;
	key->device = inode->i_sb->s_dev;
	key->generation = inode->i_generation;
}

/*
 * Before 5.12 there is no atomic way. Two CPUs that work on neighbouring pages of a file at the same moment may then
 * make some of them count twice, or never.
 */
static __always_inline void put_pages(__u64 *word, __u64 pages)
{
	if (has_fetch())
		__sync_fetch_and_or(word, pages);
	else
		*(volatile __u64 *)word |= pages;
}

/* Those of the pages that were there. */
static __always_inline __u64 take_pages(__u64 *word, __u64 pages)
{
	__u64 before;

	if (has_fetch())
		return __sync_fetch_and_and(word, ~pages) & pages;
	before = *(volatile __u64 *)word;
	*(volatile __u64 *)word = before & ~pages;
	return before & pages;
}

/* A block has one time and one slot: those of the last eviction hold for all of its pages. */
static __always_inline void remember_block(const struct fadvise_block_key *key, __u64 pages, __u32 slot, __u64 now)
{
	struct fadvise_block new = { .pages = pages, .evicted_ns = now, .slot = slot };
	struct fadvise_block *block;

	if (!bpf_map_update_elem(&blocks, key, &new, BPF_NOEXIST)) {
		add(&blocks_held, 1);
		return;
	}
	block = bpf_map_lookup_elem(&blocks, key);
	if (!block) {
		add(&forgotten, __builtin_popcountll(pages));
		return;
	}
	if (is_recent(block, now))
		put_pages(&block->pages, pages);
	else
		block->pages = pages;
	block->slot = slot;
	block->evicted_ns = now;
}

static __always_inline void remember(struct folio *folio, __u64 pages, __u32 slot, __u64 now)
{
	struct fadvise_block_key key = {};
	__u64 mask;

	block_key(&key, folio);
	mask = pages_in_block(folio_index(folio), pages);
	for (int i = 0; i < most_blocks() && i * FADVISE_BLOCK_PAGES < pages; i++) {
		remember_block(&key, mask, slot, now);
		key.block++;
	}
	remembered_ns = now;
}

static __always_inline void evict(struct folio *folio)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 pages = folio_pages(folio);
	struct fadvise_effect *effect;
	struct who who = {};
	__u32 slot;

	who_current(&who);
	slot = SLOT_FIND(effects, &who, now);
	effect = bpf_map_lookup_elem(&effects, &slot);
	if (!effect)
		return;
	add(&effect->evicted, pages);
	if (window_ns)
		remember(folio, pages, slot, now);
}

static __always_inline void recall_block(const struct fadvise_block_key *key, __u64 mask, __u64 now)
{
	struct fadvise_block *block = bpf_map_lookup_elem(&blocks, key);
	struct fadvise_effect *effect;
	__u64 back;
	__u32 slot;

	if (!block || !is_recent(block, now))
		return;
	slot = block->slot; /* userspace keeps it for as long as the block is recent */
	back = take_pages(&block->pages, mask);
	effect = bpf_map_lookup_elem(&effects, &slot);
	if (effect)
		add(&effect->read_back, __builtin_popcountll(back));
}

static __always_inline void recall(struct folio *folio)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 pages = folio_pages(folio);
	struct fadvise_block_key key = {};
	__u64 mask;

	block_key(&key, folio);
	mask = pages_in_block(folio_index(folio), pages);
	for (int i = 0; i < most_blocks() && i * FADVISE_BLOCK_PAGES < pages; i++) {
		recall_block(&key, mask, now);
		key.block++;
	}
}

#endif
