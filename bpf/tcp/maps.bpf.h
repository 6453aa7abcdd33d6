/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the tcp programs keep beside the record of every socket: a slot table for each kind of label set. */
#ifndef SIDECAR_TCP_MAPS_BPF_H
#define SIDECAR_TCP_MAPS_BPF_H

#include "cost.bpf.h"
#include "kernel.h"
#include "slots.bpf.h"
#include "sockets.bpf.h"
#include "tcp.h"
#include <bpf/bpf_helpers.h>

const volatile struct tcp_config config = {};

SLOT_TABLE(series, struct tcp_series_key, struct tcp_series);
SLOT_TABLE(timing, struct tcp_timing_key, struct tcp_timing);
SLOT_TABLE(listener, struct tcp_listener_key, struct tcp_listener);
SLOT_TABLE(failure, struct tcp_failure_key, struct tcp_failure);
SLOT_TABLE(caller, struct who, struct tcp_caller);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tcp_missed);
} missed SEC(".maps");

COST(tcp_state);
COST(tcp_synack);
COST(tcp_reset_sent);

/* By net_id(). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct tcp_namespace);
} namespaces SEC(".maps");

#endif
