/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of what programs cost that run when something happens: one for each of them and each CPU. bpf/cost.rs reads
 * it. */
#ifndef SIDECAR_COST_H
#define SIDECAR_COST_H

#include "types.h"

struct cost {
	__u64 runs;
	__u64 ns;    /* those that are timed stand for the others, too: a sum that only grows */
	__u64 until; /* so many are not timed before the next one that is */
};

#endif
