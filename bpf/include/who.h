/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of a workload, as far as its labels go. */
#ifndef SIDECAR_WHO_H
#define SIDECAR_WHO_H

#include "types.h"

struct who {
	__u8 comm[16]; /* of the process, not of the thread */
	__u64 cgroup;  /* see cgroup.h; 0: not known */
	__u32 pid;     /* 0 unless asked for */
	__u32 pad;
};

#endif
