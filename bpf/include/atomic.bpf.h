/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_ATOMIC_BPF_H
#define SIDECAR_ATOMIC_BPF_H

#include "compat.bpf.h"
#include "types.h"
#include <bpf/bpf_helpers.h>

/* Adds to a counter that other CPUs add to as well. */
static __always_inline void add(__u64 *counter, __u64 n)
{
	if (n)
		__sync_fetch_and_add(counter, n);
}

/*
 * Raises a word, and is a full barrier. Only an addition whose result is used orders memory: without one the compiler
 * chooses an instruction that does not, which shows on arm64. On x86 that one is a full barrier too, so that it does
 * where there is no other.
 */
static __always_inline void raise_and_fence(__u32 *word)
{
	__u32 before;

	if (has_fetch()) {
		before = __sync_fetch_and_add(word, 1);
		barrier_var(before);
	} else {
		barrier(); /* keeps the compiler from making one addition of both */
		__sync_fetch_and_add(word, 1);
	}
}

/* What comes before it is read before what comes after it. x86 keeps that order by itself. */
static __always_inline void fence_reads(void)
{
#ifndef __TARGET_ARCH_x86
	__u32 word = 0;

	raise_and_fence(&word);
#endif
	barrier();
}

#endif
