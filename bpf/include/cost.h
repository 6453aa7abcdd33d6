/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of what programs cost that run when something happens: one for each of them and each CPU. */
#ifndef SIDECAR_COST_H
#define SIDECAR_COST_H

#include "types.h"

struct cost {
	__u64 runs;
	__u64 timed; /* how many of them were timed */
	__u64 ns;    /* what those took */
	__u64 until; /* so many are not timed before the next one that is */
};

#endif
