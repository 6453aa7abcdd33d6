/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the reclaim programs and the daemon. */
#ifndef SIDECAR_RECLAIM_H
#define SIDECAR_RECLAIM_H

#include "hist.h"
#include "slots.h"
#include "who.h"

/* For whom a task has to free pages before it gets one. */
enum reclaim_scope {
	SCOPE_NODE,  /* a node of the machine is short of free ones */
	SCOPE_MEMCG, /* its cgroup is at a limit, or was told to shrink */
};

struct reclaim_key {
	struct who who;
	__u8 scope; /* enum reclaim_scope */
	__u8 pad[7];
};

struct reclaim_stall {
	struct slot_head head;
	struct reclaim_key key;
	struct hist time;
};

/* A task that reclaims right now. */
struct reclaim_mark {
	__u64 begin_ns; /* CLOCK_MONOTONIC */
	__u32 scope;
	__u32 pad;
};

_Static_assert(sizeof(struct reclaim_key) == 40, "reclaim_key");

#endif
