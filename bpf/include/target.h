/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of what is to be watched: every kind that is named has to fit, by one of its values. */
#ifndef SIDECAR_TARGET_H
#define SIDECAR_TARGET_H

#include "types.h"

/* Which kinds are named. Userspace says so before loading: what it does not ask for is no part of the programs then. */
struct target_kinds {
	__u8 any;
	__u8 by_process; /* any but ports */
	__u8 pids;
	__u8 descendants; /* of the processes that are named by pid */
	__u8 comms;
	__u8 ports;
	__u8 cgroup;
	__u8 cgroup_v1; /* it is one of the memory controller's hierarchy of version 1 */
	__u8 workloads; /* by their container or namespace */
	__u8 pad[7];
};

enum target_kind {
	TARGET_PID = 1,
	TARGET_COMM,
	TARGET_PORT,
};

struct target_value {
	__u64 value[2]; /* a number, or the 16 bytes of task_struct.comm */
	__u64 kind;
};

/* What is known of a workload, by the number of its cgroup. Of one that is not in the map nothing is, yet. */
enum workload_state {
	WORKLOAD_IGNORED = 1,
	WORKLOAD_WATCHED,
};

/* Longer paths of cgroups are not followed. */
enum { TARGET_PATH_SIZE = 512 };

#endif
