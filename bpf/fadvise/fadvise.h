/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the fadvise programs and the daemon. */
#ifndef SIDECAR_FADVISE_H
#define SIDECAR_FADVISE_H

#include "slots.h"
#include "who.h"

/* include/uapi/linux/fadvise.h, for all architectures but s390 */
enum fadvise_advice {
	FADVISE_NORMAL,
	FADVISE_RANDOM,
	FADVISE_SEQUENTIAL,
	FADVISE_WILLNEED,
	FADVISE_DONTNEED,
	FADVISE_NOREUSE,
	FADVISE_INVALID, /* any other number */
};

struct fadvise_call_key {
	struct who who;
	__u32 advice; /* enum fadvise_advice */
	__u32 pad;
};

struct fadvise_call {
	struct slot_head head;
	struct fadvise_call_key key;
	__u64 calls;
	__u64 bytes; /* named by those that succeeded */
};

struct fadvise_failure_key {
	struct who who;
	__u32 advice; /* enum fadvise_advice */
	__u32 error;  /* errno */
};

struct fadvise_failure {
	struct slot_head head;
	struct fadvise_failure_key key;
	__u64 calls;
};

/* What a workload's DONTNEED did to the page cache, in pages. */
struct fadvise_effect {
	struct slot_head head;
	struct who key;
	__u64 evicted;
	__u64 read_back;
};

enum { FADVISE_BLOCK_PAGES = 64 };

/* So many neighbouring pages of a file. */
struct fadvise_block_key {
	__u64 inode;
	__u64 block; /* index of the first page / FADVISE_BLOCK_PAGES */
	__u32 device;
	__u32 generation; /* tells a file from a later one with the same inode number */
};

struct fadvise_block {
	__u64 pages; /* one bit for each that was evicted and is not back yet */
	__u64 evicted_ns;
	__u32 slot; /* of the one who evicted last */
	__u32 pad;
};

_Static_assert(sizeof(struct fadvise_call_key) == 40, "fadvise_call_key");
_Static_assert(sizeof(struct fadvise_failure_key) == 40, "fadvise_failure_key");
_Static_assert(sizeof(struct fadvise_block_key) == 24, "fadvise_block_key");

#endif
