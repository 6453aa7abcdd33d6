/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire of a list of live connections: what is asked for, what is found, and one row for each that is chosen. */
#ifndef SIDECAR_TCP_ROWS_H
#define SIDECAR_TCP_ROWS_H

#include "ends.h"
#include "who.h"

/*
 * The numbers that a row has and a list may be sorted by; src/connections/field.rs has their names in the same order.
 * Times are in nanoseconds if the name there ends in _seconds, in microseconds if it ends in _us.
 */
enum tcp_field {
	FIELD_DURATION,
	FIELD_BYTES_SENT,
	FIELD_BYTES_RECEIVED,
	FIELD_BYTES_ACKED,
	FIELD_BYTES_RETRANSMITTED,
	FIELD_PACKETS_SENT,
	FIELD_PACKETS_RECEIVED,
	FIELD_DATA_PACKETS_SENT,
	FIELD_DATA_PACKETS_RECEIVED,
	FIELD_RETRANSMITS,
	FIELD_SPURIOUS_RETRANSMITS,
	FIELD_DELIVERED,
	FIELD_DELIVERED_CE,
	FIELD_OUT_OF_ORDER,
	FIELD_RTT,
	FIELD_RTT_VARIATION,
	FIELD_MIN_RTT,
	FIELD_RECEIVE_RTT,
	FIELD_RTO,
	FIELD_BACKOFF,
	FIELD_CWND,
	FIELD_SSTHRESH,
	FIELD_MSS,
	FIELD_ADVERTISED_MSS,
	FIELD_RECEIVE_MSS,
	FIELD_PATH_MTU,
	FIELD_UNACKED,
	FIELD_SACKED,
	FIELD_LOST,
	FIELD_RETRANSMITTING,
	FIELD_REORDERING,
	FIELD_REORDERINGS,
	FIELD_SEND_QUEUE,
	FIELD_UNSENT,
	FIELD_RECEIVE_QUEUE,
	FIELD_SEND_WINDOW,
	FIELD_RECEIVE_WINDOW,
	FIELD_PACING_RATE,
	FIELD_DELIVERY_RATE,
	FIELD_BUSY,
	FIELD_RECEIVER_LIMITED,
	FIELD_SEND_BUFFER_LIMITED,
	FIELD_SINCE_SENT,
	FIELD_SINCE_RECEIVED,
	FIELD_SINCE_ACKED,
	FIELD_MAX,
};

/* In a field: the kernel does not know it, or does not keep it. */
#define FIELD_UNKNOWN (~0ULL)

/* Both ends, named from the side that opened the connection. */
struct tcp_ends {
	__u8 src_ip[16], dst_ip[16];
	__u16 src_port, dst_port;
	__u32 netns; /* inode number */
};

/* Bits of tcp_wish.asked: what of it counts. */
enum tcp_asked {
	ASKED_FLOOR = 1 << 0,
	ASKED_COMM = 1 << 1,
	ASKED_PID = 1 << 2,
	ASKED_CGROUP = 1 << 3, /* one of those in the map wish_cgroups */
	ASKED_ROLE = 1 << 4,
	ASKED_STATE = 1 << 5,
	ASKED_SRC_IP = 1 << 6,
	ASKED_SRC_PORT = 1 << 7,
	ASKED_DST_IP = 1 << 8,
	ASKED_DST_PORT = 1 << 9,
};

/* Which connections are wanted. Set by userspace before each pass. */
struct tcp_wish {
	__u64 floor;   /* only what exceeds it in the field that is sorted by */
	__u64 now_ns;  /* CLOCK_MONOTONIC */
	__u64 tick_ns; /* length of a jiffy */
	__u32 asked;   /* enum tcp_asked */
	__u32 sort;    /* enum tcp_field */
	__u32 stride;  /* of those that match and exceed the floor, one in so many is stored */
	__u32 pid;
	__u8 comm[16];
	struct tcp_ends ends;
	__u8 role;
	__u8 state;
	__u8 fill; /* fill the rows of those that were chosen; otherwise rank all */
	__u8 pad[5];
};

/* What a pass met. */
struct tcp_ranking {
	__u64 live;   /* established or closing, and watched */
	__u64 total;  /* of these, those that match */
	__u64 above;  /* of these, those above the floor */
	__u64 stored; /* of these, those in the map candidates */
};

struct tcp_candidate {
	__u64 socket; /* address of the struct sock: what it is known by */
	__u64 key;    /* value of the field that is sorted by */
};

#define CANDIDATES 32768
#define MAX_ROWS 16384

struct tcp_row {
	struct who who;
	struct tcp_ends ends;
	__u8 congestion[16]; /* tcp_congestion_ops.name */
	__u8 role;
	__u8 state;    /* 0: the row has not been filled */
	__u8 ca_state; /* icsk_ca_state */
	__u8 adopted;  /* the duration is not that of the connection: when it began is not known */
	__u32 pad;
	__u64 fields[FIELD_MAX];
};

_Static_assert(sizeof(struct tcp_ends) == 40, "tcp_ends");
_Static_assert(sizeof(struct tcp_wish) == 104, "tcp_wish");
_Static_assert(sizeof(struct tcp_row) == 96 + 8 * FIELD_MAX, "tcp_row");

#endif
