// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Packets that the kernel dropped: skb:kfree_skb, which is for drops alone (a packet that did its work ends in
 * consume_skb). A flood is dropped at full speed on every CPU, so that the counters are per CPU.
 */
#include "compat.bpf.h"
#include "cost.bpf.h"
#include "drops.h"
#include "slots.bpf.h"
#include "sockets.bpf.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

SLOT_TABLE_PERCPU(drops, struct drops_key, struct drops_slot, struct drops_counts);
SLOT_TABLE(function, struct drops_name, struct drops_function);

/* Slot in `function` by the address that the packet was dropped from: a function may drop in several places. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2048);
	__type(key, __u64);
	__type(value, __u32);
} places SEC(".maps");

/* How often a name was looked up that `places` had no room for. */
__u64 places_full;

COST(drops_socket);
COST(drops_reason);
COST(drops_bare);

static __always_inline __u32 function_at(void *location, __u64 now)
{
	__u64 address = (__u64)location;
	__u32 *known = bpf_map_lookup_elem(&places, &address);
	struct drops_name name = {};
	__u32 slot = FUNCTION_UNKNOWN;

	if (known)
		return *known;
	if (symbol_name((char *)name.text, sizeof(name.text), address))
		slot = SLOT_FIND(function, &name, now);
	if (bpf_map_update_elem(&places, &address, &slot, BPF_ANY))
		add(&places_full, 1);
	return slot;
}

/* Not the transport protocol: that comes after the last of them. */
static __always_inline bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT || next == IPPROTO_AH ||
	       next == IPPROTO_NONE || next == IPPROTO_DSTOPTS || next == IPPROTO_MH;
}

/* From the IP header, if the packet was taken that far; every fragment has it. */
static __always_inline __u8 transport_of(struct sk_buff *skb, bool ipv4)
{
	__u32 at = skb->network_header;
	__u8 header[10];

	if (at + (ipv4 ? 20 : 40) > skb->tail || bpf_probe_read_kernel(header, sizeof(header), skb->head + at))
		return TRANSPORT_UNKNOWN;
	if (ipv4)
		return header[0] >> 4 == 4 ? header[9] : TRANSPORT_UNKNOWN;
	return header[0] >> 4 == 6 && !is_extension(header[6]) ? header[6] : TRANSPORT_UNKNOWN;
}

static __always_inline void ip_protocol(struct drops_key *key, struct sk_buff *skb, bool ipv4)
{
	__u8 transport = transport_of(skb, ipv4);

	if (transport == IPPROTO_TCP) {
		key->protocol = PROTOCOL_TCP;
	} else if (transport == IPPROTO_UDP) {
		key->protocol = PROTOCOL_UDP;
	} else {
		key->protocol = ipv4 ? PROTOCOL_IPV4 : PROTOCOL_IPV6;
		key->transport = transport;
	}
}

static __always_inline void protocol_of(struct drops_key *key, struct sk_buff *skb)
{
	switch (bpf_ntohs(skb->protocol)) {
	case 0:
		break;
	case ETH_P_ARP:
		key->protocol = PROTOCOL_ARP;
		break;
	case ETH_P_IP:
		ip_protocol(key, skb, true);
		break;
	case ETH_P_IPV6:
		ip_protocol(key, skb, false);
		break;
	default:
		key->protocol = PROTOCOL_OTHER;
	}
}

/*
 * By the record that the tcp programs keep. skc_num is 0 once the connection is closed, inet_sport stays; the verifier
 * takes what skb->sk points to for no more than a struct sock. False if the socket is not watched.
 */
static __always_inline bool tcp_socket(struct drops_key *key, struct sock *sk)
{
	struct tcp_conn *conn = conn_of(sk);

	if (!conn)
		return watches_all();
	if (conn->tgid)
		who_of_conn(&key->who, conn);
	if (conn->role == ROLE_CLIENT)
		key->dst_port = bpf_ntohs(sk->__sk_common.skc_dport);
	else if (conn->role == ROLE_SERVER || conn->phase == PHASE_LISTENING)
		key->dst_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	return counts(conn);
}

/*
 * Nobody listens in UDP, but a connected socket has a peer to ask, and another one that receives is asked. What an
 * unconnected one sends may be a question or an answer.
 */
static __always_inline __u16 udp_port(struct sock_common *sk, bool receives)
{
	if (sk->skc_dport)
		return bpf_ntohs(sk->skc_dport);
	return receives ? sk->skc_num : 0;
}

/* False if it is not watched; only of a TCP socket the process is known. */
static __always_inline bool socket_of(struct drops_key *key, struct sock *sk, bool receives)
{
	struct sock_common *common = &sk->__sk_common;
	bool nobody = !watches_by_process();

	if (common->skc_family == AF_UNIX && key->protocol == PROTOCOL_UNKNOWN)
		key->protocol = PROTOCOL_UNIX;
	else if (common->skc_family == AF_NETLINK && key->protocol == PROTOCOL_UNKNOWN)
		key->protocol = PROTOCOL_NETLINK;
	if (common->skc_family != AF_INET && common->skc_family != AF_INET6)
		return nobody;
	/* These two are no whole sockets. */
	if (common->skc_state == TCP_TIME_WAIT)
		return nobody;
	if (common->skc_state == TCP_NEW_SYN_RECV) {
		key->dst_port = common->skc_num;
		return nobody;
	}
	if (sk->sk_protocol == IPPROTO_TCP)
		return tcp_socket(key, sk);
	if (sk->sk_protocol == IPPROTO_UDP)
		key->dst_port = udp_port(common, receives);
	return nobody;
}

static __always_inline void on_drop(struct sk_buff *skb, void *location, __u32 reason, struct sock *receiver)
{
	struct drops_key key = { .reason = reason };
	__u64 now = bpf_ktime_get_ns();
	bool watched = !watches_by_process();
	struct drops_counts *counts;
	struct sock *sk;

	protocol_of(&key, skb);
	if (receiver) {
		watched = socket_of(&key, receiver, true);
	} else if (skb_has_socket(skb)) {
		sk = skb->sk;
		if (sk)
			watched = socket_of(&key, sk, false);
	}
	if (!watched || !watches_port(key.dst_port))
		return;
	key.function = function_at(location, now);
	counts = SLOT_COUNTS(drops, &key, now);
	if (counts)
		counts->packets++;
}

/*
 * The tracepoint has told the reason since 5.17, and the receiving socket since 6.11. Without that one, skb->sk is
 * known: of a packet on its way out, and of one of an established connection on its way in.
 */
SEC("tp_btf/kfree_skb")
int BPF_PROG(drops_socket, struct sk_buff *skb, void *location, __u32 reason, struct sock *receiver)
{
	__u64 begin = cost_begin(&drops_socket_cost);

	on_drop(skb, location, reason, receiver);
	cost_end(&drops_socket_cost, begin);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(drops_reason, struct sk_buff *skb, void *location, __u32 reason)
{
	__u64 begin = cost_begin(&drops_reason_cost);

	on_drop(skb, location, reason, NULL);
	cost_end(&drops_reason_cost, begin);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(drops_bare, struct sk_buff *skb, void *location)
{
	__u64 begin = cost_begin(&drops_bare_cost);

	on_drop(skb, location, 0, NULL);
	cost_end(&drops_bare_cost, begin);
	return 0;
}

/* For the generated Rust types alone. */
enum drops_protocol wire_protocol;
struct drops_slot wire_slot;
struct drops_counts wire_counts;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
