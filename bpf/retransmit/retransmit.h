/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the retransmit programs and the daemon. */
#ifndef SIDECAR_RETRANSMIT_H
#define SIDECAR_RETRANSMIT_H

#include "ends.h"
#include "slots.h"
#include "who.h"

/* Why a segment was sent again. */
enum retransmit_kind {
	KIND_OTHER,
	KIND_SYN,
	KIND_SYNACK,
	KIND_FAST,       /* found to be lost by what the peer acknowledged; TCPFastRetrans of /proc/net/netstat */
	KIND_TIMEOUT,    /* after the retransmission timer ran out, and what acknowledgements release from then on */
	KIND_LOSS_PROBE, /* tail loss probe (RFC 8985) */
};

struct retransmit_key {
	struct who who;
	__u8 dst_ip[16]; /* the side that listens */
	__u16 dst_port;
	__u8 role;
	__u8 kind;  /* enum retransmit_kind; 0 in the table of timeouts */
	__u8 state; /* TCP state; 0 in the table of timeouts */
	__u8 pad[3];
};

struct retransmit_segments {
	struct slot_head head;
	struct retransmit_key key;
	__u64 count;
};

struct retransmit_timeouts {
	struct slot_head head;
	struct retransmit_key key;
	__u64 waited; /* jiffies */
};

/* No name of the kernel's enum sk_rst_reason has this value. */
#define RESET_WITHOUT_REASON 0xffffffff

struct retransmit_reset_key {
	struct who who;
	__u32 reason;   /* enum sk_rst_reason of the running kernel, or RESET_WITHOUT_REASON */
	__u16 dst_port; /* the side that listens; 0: not known */
	__u8 received;
	__u8 pad;
};

struct retransmit_resets {
	struct slot_head head;
	struct retransmit_reset_key key;
	__u64 count;
};

_Static_assert(sizeof(struct retransmit_key) == 56, "retransmit_key");
_Static_assert(sizeof(struct retransmit_reset_key) == 40, "retransmit_reset_key");

#endif
