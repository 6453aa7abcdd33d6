/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the identity programs and the daemon. */
#ifndef SIDECAR_IDENTITY_H
#define SIDECAR_IDENTITY_H

#include "cgroup.h"
#include "types.h"

enum {
	IDENTITY_PATH = 1024, /* longest path that is told, with a 0 at its end */
	IDENTITY_NAME = 256,  /* longest name in it: NAME_MAX and a 0 */
	IDENTITY_DEPTH = 32,  /* most names in it */
	IDENTITY_TOO_LONG = IDENTITY_PATH + 1,
};

/* What is told of a cgroup. */
enum identity_event {
	CGROUP_IS,    /* it was there when all were looked at */
	CGROUP_BEGAN, /* it was made; it has no processes yet */
	CGROUP_ENDED, /* it was removed; sockets may outlive it */
};

/* As much of it is sent as the names take. */
struct identity_record {
	__u64 cgroup;              /* its number: see cgroup.h */
	__u32 event;               /* enum identity_event */
	__u32 length;              /* of the names; IDENTITY_TOO_LONG if they are not told */
	char names[IDENTITY_PATH]; /* those of its path, the last one first, each with a 0 at its end */
};

/* One look at all cgroups of a hierarchy; where the buffer is too small for them, several. */
struct identity_look {
	__u32 skip; /* in: this many were seen before */
	__u32 seen; /* out: this many with them */
	__u32 more; /* out: whether there are others */
	__u32 pad;
};

#endif
