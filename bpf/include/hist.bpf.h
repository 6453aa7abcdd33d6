/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_HIST_BPF_H
#define SIDECAR_HIST_BPF_H

#include "hist.h"
#include <bpf/bpf_helpers.h>

/*
 * Position of the highest bit of a value that is not 0. BPF has no such instruction. Without a branch: the verifier
 * would follow each combination of them through all that comes after.
 */
static __always_inline __u32 top_bit(__u64 v)
{
	/* All bits below the highest... */
	v |= v >> 1;
	v |= v >> 2;
	v |= v >> 4;
	v |= v >> 8;
	v |= v >> 16;
	v |= v >> 32;
	/* ...and how many those are: in pairs, in fours, in bytes, together. */
	v -= (v >> 1) & 0x5555555555555555;
	v = (v & 0x3333333333333333) + ((v >> 2) & 0x3333333333333333);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return (v * 0x0101010101010101 >> 56) - 1;
}

static __always_inline __u32 hist_bucket(__u64 us)
{
	__u32 top, bucket;

	if (us < HIST_SUB)
		return us;
	top = top_bit(us);
	bucket = (top - HIST_SUB_BITS + 1) * HIST_SUB + ((us >> (top - HIST_SUB_BITS)) & (HIST_SUB - 1));
	return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

static __always_inline void hist_add(struct hist *h, __u64 us)
{
	__u32 bucket = hist_bucket(us);

	barrier_var(bucket); /* the compiler knows that it is in range; the verifier has to be shown */
	if (bucket >= HIST_BUCKETS)
		return;
	__sync_fetch_and_add(&h->sum, us);
	__sync_fetch_and_add(&h->counts[bucket], 1);
}

#endif
