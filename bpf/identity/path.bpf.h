/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The path of a cgroup from the root of its hierarchy, whatever namespace looks at it and wherever that is mounted. */
#ifndef SIDECAR_IDENTITY_PATH_BPF_H
#define SIDECAR_IDENTITY_PATH_BPF_H

#include "compat.bpf.h"
#include "identity.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * Writes the names that it has, as they are met on the way to the root, which has neither a name nor a parent. To bring
 * them into the order of a path here would have the verifier look at all of them again for each depth there may be.
 */
static __always_inline void cgroup_names(struct identity_record *record, struct cgroup *cgroup)
{
	struct kernfs_node *node = BPF_CORE_READ(cgroup, kn), *parent;
	__u32 length = 0;
	long size;
	int i;

	record->length = IDENTITY_TOO_LONG;
	for (i = 0; i <= IDENTITY_DEPTH; i++) {
		parent = kernfs_parent(node);
		if (!parent) {
			record->length = length;
			return;
		}
		if (length > IDENTITY_PATH - IDENTITY_NAME)
			return;
		size = bpf_probe_read_kernel_str(record->names + length, IDENTITY_NAME, BPF_CORE_READ(node, name));
		if (size <= 1 || size > IDENTITY_NAME)
			return;
		length += size;
		node = parent;
	}
}

#endif
