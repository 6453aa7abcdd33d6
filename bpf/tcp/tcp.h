/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The wire between the tcp programs and the daemon. */
#ifndef SIDECAR_TCP_H
#define SIDECAR_TCP_H

#include "ends.h"
#include "hist.h"
#include "slots.h"
#include "who.h"

struct tcp_series_key {
	struct who who;
	__u8 src_ip[16]; /* the side that opened; 0 unless asked for */
	__u8 dst_ip[16]; /* the side that listens */
	__u16 src_port;  /* 0 unless asked for */
	__u16 dst_port;
	__u8 role;
	__u8 pad[3];
};

struct tcp_series {
	struct slot_head head;
	struct tcp_series_key key;
	__u64 sent, received;    /* payload bytes */
	__u64 segs_out, segs_in; /* tcp_sock.segs_out, segs_in */
	__u64 retrans;           /* tcp_sock.total_retrans, and SYN-ACKs */
	__u64 spurious;          /* tcp_sock.dsack_dups */
	__u64 opened, closed;
	__u64 chrono[3]; /* tcp_sock.chrono_stat in jiffies: busy, receiver, send buffer */
	/* As of pass number `pass`; written by the pass alone. */
	__u64 pass;
	__u64 oldest_ns; /* CLOCK_MONOTONIC when the oldest open connection began */
	__u32 open;
	__u32 pad;
};

struct tcp_timing_key {
	struct who who;
	__u16 dst_port;
	__u8 role;
	__u8 pad[5];
};

struct tcp_timing {
	struct slot_head head;
	struct tcp_timing_key key;
	struct hist setup; /* SYN to ESTABLISHED, client side */
	struct hist rtt;   /* tcp_sock.srtt_us / 8 */
};

struct tcp_listener_key {
	struct who who;
	__u16 port;
	__u8 pad[6];
};

struct tcp_listener {
	struct slot_head head;
	struct tcp_listener_key key;
	__u64 overflows; /* sk_drops of the listening socket */
	__u64 pass;
	__u64 backlog; /* sum of sk_ack_backlog as of `pass` */
};

/* Why a connect failed or a connection ended: sk_err, or the state before, in the words of a user. */
enum tcp_reason {
	REASON_OTHER,
	REASON_REFUSED,
	REASON_TIMEOUT,
	REASON_RESET,
	REASON_UNREACHABLE,
	REASON_ABORTED, /* no error: the application closed the socket first */
	REASON_LOCAL,   /* no error: this host gave up before sending, as when it has no free port */
	REASON_FIN,     /* this end closed first, or both at once */
	REASON_PEER_FIN,
	REASON_MAX,
};

struct tcp_failure_key {
	struct who who;
	__u8 dst_ip[16];
	__u16 dst_port;
	__u8 reason; /* enum tcp_reason */
	__u8 pad[5];
};

struct tcp_failure {
	struct slot_head head;
	struct tcp_failure_key key;
	__u64 count;
};

struct tcp_caller {
	struct slot_head head;
	struct who key; /* with the pid */
	__u64 connects;
};

/* What happened in a network namespace; the daemon holds it against the kernel's own counters of that namespace. */
struct tcp_namespace {
	__u64 connects; /* CLOSE -> SYN_SENT */
	__u64 accepts;  /* SYN_RECV -> ESTABLISHED */
	__u64 retrans;  /* what went into tcp_series.retrans */
	__u32 pid;      /* a process that lives there, as of the last walk over open files; 0: none seen yet */
	__u32 inum;     /* inode number */
};

/* What could not be counted, per CPU. */
struct tcp_missed {
	__u64 untracked;  /* closed before anything was known of them: older than the daemon, held by no process */
	__u64 no_memory;  /* no socket storage to be had */
	__u64 namespaces; /* no room for another namespace in the audit */
};

/* What the daemon tells the programs before they are loaded. */
struct tcp_config {
	__u8 label_pid, label_src_ip, label_src_port;
	__u8 synack_hook; /* tcp_synack is attached: it counts what children inherit */
	__u8 enters;      /* sockets are passed over in one network namespace after another */
	__u8 pad[3];
};

_Static_assert(sizeof(struct tcp_series_key) == 72, "tcp_series_key");
_Static_assert(sizeof(struct tcp_series) == 200, "tcp_series");
_Static_assert(sizeof(struct tcp_timing_key) == 40, "tcp_timing_key");
_Static_assert(sizeof(struct tcp_listener_key) == 40, "tcp_listener_key");
_Static_assert(sizeof(struct tcp_failure_key) == 56, "tcp_failure_key");

#endif
