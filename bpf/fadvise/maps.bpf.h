/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef SIDECAR_FADVISE_MAPS_BPF_H
#define SIDECAR_FADVISE_MAPS_BPF_H

#include "cost.bpf.h"
#include "fadvise.h"
#include "kernel.h"
#include "slots.bpf.h"
#include <bpf/bpf_helpers.h>

/* Evicted pages are remembered for so long; 0: not at all. Set by userspace before loading. */
const volatile __u64 window_ns;

SLOT_TABLE(calls, struct fadvise_call_key, struct fadvise_call);
SLOT_TABLE(failures, struct fadvise_failure_key, struct fadvise_failure);
SLOT_TABLE(effects, struct who, struct fadvise_effect);

/*
 * Evicted pages, 1 GiB where they lie together. Userspace takes out what is too old. The large folios that fill many
 * blocks leave the page cache with interrupts off, when the allocator of a map that grows has little at hand: so it has
 * them all.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fadvise_block_key);
	__type(value, struct fadvise_block);
} blocks SEC(".maps");

COST(fadvise_fexit);
COST(fadvise_fexit_compat);
COST(fadvise_fexit_arm64);
COST(fadvise_fexit_riscv);
COST(fadvise_return);
COST(fadvise_return_arm64);
COST(fadvise_return_riscv);
COST(fadvise_syscall);
COST(fadvise_evicted);
COST(fadvise_read_back);

#endif
