/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The path of a cgroup from the root of its hierarchy, whatever namespace looks at it and wherever that is mounted. */
#ifndef SIDECAR_IDENTITY_PATH_BPF_H
#define SIDECAR_IDENTITY_PATH_BPF_H

#include "compat.bpf.h"
#include "identity.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Writes the path and its length. */
static __always_inline void cgroup_path(struct identity_record *record, struct cgroup *cgroup)
{
	struct kernfs_node *nodes[IDENTITY_DEPTH], *node = BPF_CORE_READ(cgroup, kn);
	__u32 depth = 0, length = 0;
	long size;
	int i;

	record->length = 0;
	/* The root has no name, and no parent. */
	for (i = 0; i < IDENTITY_DEPTH; i++) {
		struct kernfs_node *parent = kernfs_parent(node);

		if (!parent)
			break;
		nodes[i] = node;
		depth = i + 1;
		node = parent;
	}
	if (kernfs_parent(node)) /* it is deeper than that */
		return;
	if (!depth) {
		record->path[0] = '/';
		record->path[1] = 0;
		record->length = 1;
		return;
	}
	for (i = IDENTITY_DEPTH - 1; i >= 0; i--) {
		if (i >= depth)
			continue;
		if (length >= IDENTITY_PATH - IDENTITY_NAME - 1)
			return;
		record->path[length] = '/';
		size =
		    bpf_probe_read_kernel_str(record->path + length + 1, IDENTITY_NAME, BPF_CORE_READ(nodes[i], name));
		if (size <= 1 || size > IDENTITY_NAME)
			return;
		length += size; /* the slash comes, and the 0 is written over */
	}
	record->length = length;
}

#endif
