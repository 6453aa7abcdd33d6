/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the drops programs and the daemon. */
#ifndef SIDECAR_DROPS_H
#define SIDECAR_DROPS_H

#include "slots.h"
#include "who.h"

/* What a packet is, as far as its buffer tells. */
enum drops_protocol {
	PROTOCOL_UNKNOWN, /* not set, as on a packet that was not finished */
	PROTOCOL_OTHER,
	PROTOCOL_ARP,
	PROTOCOL_IPV4, /* neither TCP nor UDP: drops_key.transport tells */
	PROTOCOL_IPV6,
	PROTOCOL_TCP, /* over either */
	PROTOCOL_UDP,
	PROTOCOL_UNIX,    /* no packet of a network: a message between processes */
	PROTOCOL_NETLINK, /* or between the kernel and a process */
};

/* Reserved by IANA: no packet has it. There is no header to be read, or an IPv6 extension header comes first. */
#define TRANSPORT_UNKNOWN 255

/* In place of a slot of the table `function`: the kernel does not tell the name. */
#define FUNCTION_UNKNOWN 0xffffffff

struct drops_key {
	struct who who; /* whom the packet's socket belongs to; empty if it has none, or nobody knows */
	__u32 reason;   /* enum skb_drop_reason; 0 before Linux 5.17 */
	__u32 function; /* that dropped it: slot of the table `function` */
	__u16 dst_port;
	__u8 protocol;  /* enum drops_protocol */
	__u8 transport; /* of PROTOCOL_IPV4 and PROTOCOL_IPV6 */
	__u32 pad;
};

struct drops_slot {
	struct slot_head head;
	struct drops_key key;
};

struct drops_counts {
	struct slot_use use;
	__u64 packets;
};

/* A longer name is cut, and counts together with those that are cut alike. */
struct drops_name {
	__u8 text[64];
};

struct drops_function {
	struct slot_head head;
	struct drops_name key;
};

_Static_assert(sizeof(struct drops_key) == 48, "drops_key");
_Static_assert(sizeof(struct drops_counts) == 24, "drops_counts");

#endif
