/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of the kernel's types that our programs read. Offsets are resolved when a program is loaded (CO-RE), so
 * only names, nesting and the size and sign of each field have to be right; one file serves every architecture.
 * What differs between kernels is in compat.bpf.h.
 */
#ifndef SIDECAR_KERNEL_H
#define SIDECAR_KERNEL_H

#include "types.h"

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_SK_STORAGE_GET_F_CREATE = 1,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
	BPF_F_NO_PREALLOC = 1 << 0,
	BPF_F_CLONE = 1 << 9,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

/* Known here only so that a program can ask whether the running kernel has it. */
enum bpf_func_id {
	BPF_FUNC_check_mtu = 163,
	BPF_FUNC_snprintf = 165,
	BPF_FUNC_task_pt_regs = 175,
	BPF_FUNC_loop = 181,
	BPF_FUNC_copy_from_user_task = 191,
};

/* include/linux/socket.h */
enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, AF_NETLINK = 16 };

/* include/uapi/linux/if_ether.h */
enum { ETH_P_IP = 0x0800, ETH_P_ARP = 0x0806, ETH_P_IPV6 = 0x86dd };

/* include/uapi/linux/in.h, in6.h */
enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_AH = 51,
	IPPROTO_NONE = 59,
	IPPROTO_DSTOPTS = 60,
	IPPROTO_MH = 135,
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV, /* a request_sock */
};

enum {
	/* include/uapi/asm-generic/errno.h, errno-base.h */
	ETIMEDOUT = 110,
	ECONNRESET = 104,
	ECONNREFUSED = 111,
	EHOSTDOWN = 112,
	EHOSTUNREACH = 113,
	ENETUNREACH = 101,
	ENOPROTOOPT = 92,
	ENONET = 64,
	ECONNABORTED = 103,
	EPIPE = 32,
	EACCES = 13,
};

enum {
	SOCK_DONE = 1,                      /* bit of sk_flags, include/net/sock.h: the peer's FIN has arrived */
	SHUTDOWN_MASK = 3,                  /* include/net/sock.h */
	SOCK_STREAM = 1,                    /* sk_type, include/linux/net.h */
	TCP_CHRONO_MAX = 3,                 /* kinds in tcp_sock.chrono_stat, include/linux/tcp.h */
	TCP_INFINITE_SSTHRESH = 0x7fffffff, /* include/net/tcp.h */
	PF_KTHREAD = 0x00200000,            /* task_struct.flags, include/linux/sched.h */
};

enum {
	TCP_CA_LOSS = 4,          /* icsk_ca_state, include/uapi/linux/tcp.h */
	ICSK_TIME_LOSS_PROBE = 5, /* icsk_pending, include/net/inet_connection_sock.h */
	TCPCB_LOST = 4,           /* bit of tcp_skb_cb.sacked, include/net/tcp.h */
	TCPHDR_SYN = 0x02,        /* include/net/tcp.h */
	TCPHDR_ACK = 0x10,
};

/* super_block.s_magic, include/uapi/linux/magic.h */
enum {
	TMPFS_MAGIC = 0x01021994,
	BDEVFS_MAGIC = 0x62646576,
	HUGETLBFS_MAGIC = 0x958458f6,
	SOCKFS_MAGIC = 0x534f434b,
};

enum {
	/* task_struct.flags, include/linux/sched.h */
	PF_IO_WORKER = 0x00000010,
	PF_MEMALLOC = 0x00000800,
	/* thread_info.status, arch/x86/include/asm/thread_info.h: in a system call of the 32-bit kind */
	TS_COMPAT = 0x0002,
	/* pt_regs.pstate, arch/arm64/include/asm/ptrace.h: of a 32-bit process */
	PSR_MODE32_BIT = 0x00000010,
};

/* Field of pt_regs.status that says how wide the registers of the process are, arch/riscv/include/asm/csr.h */
#define SR_UXL 0x300000000ULL
#define SR_UXL_32 0x100000000ULL

/* cgroup_subsys_state.flags, include/linux/cgroup-defs.h */
enum { CSS_ONLINE = 1 << 1 };

/* include/linux/fs.h */
#define MAX_LFS_FILESIZE 0x7fffffffffffffffULL

/* include/linux/page-flags.h; the number is that of the running kernel */
enum pageflags { PG_head };

/* Bits of folio.memcg_data that are not part of a pointer, include/linux/memcontrol.h. */
enum { MEMCG_DATA_FLAGS = 3 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
};

struct qspinlock {
	atomic_t val;
};
typedef struct qspinlock arch_spinlock_t;

struct raw_spinlock {
	arch_spinlock_t raw_lock;
};

struct spinlock {
	struct raw_spinlock rlock;
};
typedef struct spinlock spinlock_t;

typedef struct {
	spinlock_t slock;
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	atomic_t sk_drops;
	int sk_err;
	__u32 sk_ack_backlog;
	unsigned long sk_pacing_rate; /* bytes a second; all bits set: without bound */
	__u16 sk_type, sk_protocol;
	__u8 sk_shutdown;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct tcp_congestion_ops {
	char name[16];
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_rto;
	__u32 icsk_pmtu_cookie;
	const struct tcp_congestion_ops *icsk_ca_ops;
	__u8 icsk_ca_state : 5;
	__u8 icsk_pending;
	__u8 icsk_backoff;
	struct {
		__u32 lrcvtime;
		__u16 rcv_mss;
	} icsk_ack;
};

struct minmax_sample {
	__u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct list_head {
	struct list_head *next;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	struct list_head tsorted_sent_queue;
	__u32 segs_in;
	__u64 bytes_received;
	__u32 segs_out;
	__u64 bytes_sent;
	__u64 bytes_acked;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 write_seq;
	__u32 srtt_us;
	__u32 chrono_start;
	__u32 chrono_stat[TCP_CHRONO_MAX];
	__u8 chrono_type : 2; /* a plain byte since 6.9: read it through BPF_CORE_READ_BITFIELD */
	__u64 bytes_retrans;
	__u32 dsack_dups;
	__u32 total_retrans;
	__u32 data_segs_in, data_segs_out;
	__u32 delivered, delivered_ce;
	__u32 rcv_ooopack;
	__u32 mdev_us;
	struct minmax rtt_min;
	struct {
		__u32 rtt_us;
	} rcv_rtt_est;
	__u32 snd_cwnd, snd_ssthresh;
	__u32 mss_cache;
	__u16 advmss;
	__u32 packets_out, sacked_out, lost_out, retrans_out;
	__u32 reordering, reord_seen;
	__u32 copied_seq, rcv_nxt;
	__u32 snd_wnd, rcv_wnd;
	__u32 rate_delivered, rate_interval_us;
	__u32 lsndtime, rcv_tstamp;
};

struct sk_buff {
	struct sock *sk;
	int ip_defrag_offset;
	char cb[48];
	__be16 protocol;
	__u16 transport_header; /* offsets from head; the tail too, on machines of 64 bits */
	__u16 network_header;
	unsigned int tail;
	unsigned char *head;
};

/* What TCP keeps in sk_buff.cb. */
struct tcp_skb_cb {
	__u16 tcp_gso_segs;
	__u8 sacked;
};

struct request_sock {
	struct sock_common __req_common;
};

struct inet_request_sock {
	struct request_sock req;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_io_accounting {
	__u64 syscr;
};

struct thread_info {
	__u32 status; /* x86 */
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct vm_struct {
	unsigned int nr_pages;
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	struct vm_struct *stack_vm_area;
	unsigned int flags;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	char comm[16];
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct css_set *cgroups;
	struct task_io_accounting ioac;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	__u32 i_generation;
	long long i_size;
};

struct address_space {
	struct inode *host;
};

struct kernfs_node {
	__u64 id;
	struct kernfs_node *parent; /* until 6.14: read it through kernfs_parent() */
	const char *name;
};

/* Since 6.15. */
struct kernfs_node___rcu {
	struct kernfs_node *__parent;
};

struct cgroup_root;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct list_head sibling;
	struct list_head children;
	unsigned int flags;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct cgroup_root {
	unsigned int subsys_mask;
	int hierarchy_id;
	struct cgroup cgrp;
};

/* The numbers are those of the running kernel. */
enum cgroup_subsys_id {
	memory_cgrp_id,
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
};

struct obj_cgroup {
	struct mem_cgroup *memcg;
	bool is_root;
};

struct page {
	unsigned long flags;
	struct address_space *mapping;
	unsigned long index;
	unsigned long memcg_data;
	struct mem_cgroup *mem_cgroup; /* until 5.10 */
	unsigned char compound_order;  /* of the second page; until 6.2 */
};

struct folio {
	unsigned long flags;
	struct address_space *mapping;
	unsigned long index;
	unsigned long memcg_data;
	unsigned char _folio_order; /* 6.1 to 6.5 */
	unsigned long _flags_1;
};

/* Since 6.18. */
struct folio___memdesc {
	struct {
		unsigned long f;
	} flags;
};

struct iov_iter {
	unsigned long count;
};

struct file {
	struct inode *f_inode;
	void *private_data;
	struct address_space *f_mapping;
	long long f_pos;
};

struct kiocb {
	struct file *ki_filp;
	long long ki_pos;
};

/* The registers with which user space entered the kernel; of a kretprobe, those at the return of its function. */
struct pt_regs {
	unsigned long sp;
};

struct pt_regs___x86 {
	unsigned long bp, bx, r10, ax, cx, dx, si, di, orig_ax;
};

struct pt_regs___aarch64 {
	__u64 regs[31];
	__u64 pstate;
	__u64 orig_x0;
	int syscallno;
};

struct pt_regs___riscv64 {
	unsigned long a0, a1, a2, a3, a7, status, orig_a0;
};

struct trace_event_raw_sys_exit {
	long ret;
};

struct socket {
	struct sock *sk;
};

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct file *file;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_tcp_iter_state {
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

#endif
