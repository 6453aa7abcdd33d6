/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses as IPv6; IPv4 as ::ffff:a.b.c.d, so that a dual-stack socket and an IPv4 one count alike. */
#ifndef SIDECAR_ENDS_BPF_H
#define SIDECAR_ENDS_BPF_H

#include "compat.bpf.h"
#include "ends.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

static __always_inline void local_ip(__u8 *ip, struct sock_common *sk)
{
	if (sk->skc_family == AF_INET6 && has_ipv6()) {
		bpf_probe_read_kernel(ip, 16, &sk->skc_v6_rcv_saddr);
		return;
	}
	*(__u32 *)(ip + 8) = bpf_htonl(0xffff);
	*(__u32 *)(ip + 12) = sk->skc_rcv_saddr;
}

static __always_inline void remote_ip(__u8 *ip, struct sock_common *sk)
{
	if (sk->skc_family == AF_INET6 && has_ipv6()) {
		bpf_probe_read_kernel(ip, 16, &sk->skc_v6_daddr);
		return;
	}
	*(__u32 *)(ip + 8) = bpf_htonl(0xffff);
	*(__u32 *)(ip + 12) = sk->skc_daddr;
}

/* The side that listens, as both ends name it. skc_num is 0 once closed: the caller knows the local port. */
static __always_inline void destination(__u8 *ip, __u16 *port, struct sock_common *sk, __u8 role, __u16 local_port)
{
	if (role == ROLE_SERVER) {
		local_ip(ip, sk);
		*port = local_port;
	} else {
		remote_ip(ip, sk);
		*port = bpf_ntohs(sk->skc_dport);
	}
}

#endif
