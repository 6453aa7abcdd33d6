/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Log-linear histograms of microseconds: exact below 8, then eight buckets for each doubling, so that the middle of a
 * bucket is within 6.25 % of every value in it. The last bucket takes all from 2^27 us (134 s) * 15/8 on.
 */
#ifndef SIDECAR_HIST_H
#define SIDECAR_HIST_H

#include "types.h"

enum {
	HIST_SUB_BITS = 3,
	HIST_SUB = 1 << HIST_SUB_BITS,
	HIST_TOP_BIT = 27,
	HIST_BUCKETS = (HIST_TOP_BIT - HIST_SUB_BITS + 2) * HIST_SUB,
};

struct hist {
	__u64 sum; /* microseconds */
	__u64 counts[HIST_BUCKETS];
};

#endif
