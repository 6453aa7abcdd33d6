/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a cgroup is numbered: by its kernfs_node.id, which is the inode of its folder. */
#ifndef SIDECAR_CGROUP_H
#define SIDECAR_CGROUP_H

/* Set in the numbers of cgroups of version 1; those of version 2 have numbers of their own, which may be the same. */
#define CGROUP_V1 (1ULL << 63)

#endif
