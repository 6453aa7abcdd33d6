/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the page cache programs and the daemon. Pages are of 4 KiB, whatever the size of the folio. */
#ifndef SIDECAR_PAGE_CACHE_H
#define SIDECAR_PAGE_CACHE_H

#include "slots.h"
#include "who.h"

struct page_cache_pages_key {
	struct who who;
	__u32 device; /* as the kernel encodes it: major << 20 | minor */
	__u32 pad;
};

struct page_cache_pages {
	struct slot_head head;
	struct page_cache_pages_key key;
};

struct page_cache_pages_counts {
	struct slot_use use;
	__u64 added, evicted, dirtied;
};

struct page_cache_cgroup {
	struct slot_head head;
	__u64 key; /* see cgroup.h */
};

struct page_cache_cgroup_counts {
	struct slot_use use;
	__u64 added, evicted; /* pages that are charged to it */
};

struct page_cache_reader {
	struct slot_head head;
	struct who key;
};

struct page_cache_reader_counts {
	struct slot_use use;
	__u64 misses;  /* reads */
	__u64 lookups; /* pages */
};

_Static_assert(sizeof(struct page_cache_pages_key) == 40, "page_cache_pages_key");

#endif
