/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_HIST_BPF_H
#define SIDECAR_HIST_BPF_H

#include "hist.h"
#include <bpf/bpf_helpers.h>

/* Position of the highest bit of a value that is not 0. BPF has no such instruction. */
static __always_inline __u32 top_bit(__u64 v)
{
	__u32 bit = 0;

	if (v >> 32) {
		v >>= 32;
		bit += 32;
	}
	if (v >> 16) {
		v >>= 16;
		bit += 16;
	}
	if (v >> 8) {
		v >>= 8;
		bit += 8;
	}
	if (v >> 4) {
		v >>= 4;
		bit += 4;
	}
	if (v >> 2) {
		v >>= 2;
		bit += 2;
	}
	return bit + (v >> 1);
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
