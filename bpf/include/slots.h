/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The wire of a slot table: a bounded set of label sets, each with its counters in one slot of an array.
 * Slot 0 is `other`: whatever found no slot of its own is counted there, so that sums stay exact.
 */
#ifndef SIDECAR_SLOTS_H
#define SIDECAR_SLOTS_H

#include "types.h"

/* First member of every slot; the key follows it. */
struct slot_head {
	__u64 last_ns; /* CLOCK_MONOTONIC of the last use */
	__u32 joins;   /* grows each time a program takes the slot for its key */
	__u32 dead;    /* set by userspace to retire an idle slot; see slots.bpf.h */
};

/* First member of the counters that each CPU has of its own; after it come words of 64 bits that can be summed. */
struct slot_use {
	__u64 last_ns;
	__u32 joins;
	__u32 pad;
};

struct slot_pool {
	__u32 next;   /* first slot that was never used */
	__u32 max;    /* slots in the array, `other` included */
	__u64 folded; /* how often a key was counted in `other` */
};

#endif
