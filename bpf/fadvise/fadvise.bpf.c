// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Calls of posix_fadvise(), and what they do to the page cache. One of the programs of calls is attached, at the end of
 * the call: to the function that all system calls of the kind go through, whatever the descriptor and the width of the
 * caller, or to the system call itself. The compiler may make a copy of that function a part of the system call, as it
 * does on arm64 and riscv64; there the system call is hooked, and the function for callers of 32 bits.
 */
#include "call.bpf.h"
#include "cost.bpf.h"
#include "effect.bpf.h"
#include "maps.bpf.h"
#include "target.bpf.h"
#include "who.bpf.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* For the generated Rust types alone. */
enum fadvise_advice wire_advice;

/* Of the file that the current task has open; 0 if it has not, any more. */
static __always_inline __s64 file_size(int fd)
{
	struct file *file = file_of(fd);

	return BPF_CORE_READ(file, f_mapping, host, i_size);
}

/* A length of 0 means to the end of the file; so does one to the end of the largest file there could be. */
static __always_inline __u64 bytes_named(const struct fadvise_args *args)
{
	__u64 end = (__u64)args->offset + args->len;
	__s64 rest;

	if (args->len && end < MAX_LFS_FILESIZE)
		return args->len;
	rest = file_size(args->fd) - args->offset;
	return rest > 0 ? rest : 0;
}

static __always_inline void failed(const struct fadvise_call_key *call, int error, __u64 now)
{
	struct fadvise_failure_key key = { .who = call->who, .advice = call->advice, .error = error };
	__u32 slot = SLOT_FIND(failures, &key, now);
	struct fadvise_failure *failure = bpf_map_lookup_elem(&failures, &slot);

	if (failure)
		add(&failure->calls, 1);
}

static __always_inline void called(const struct fadvise_args *args, int result)
{
	__u64 now = bpf_ktime_get_ns();
	struct fadvise_call_key key = {};
	struct fadvise_call *call;
	__u32 slot;

	if (!watches_current())
		return;
	who_current(&key.who);
	key.advice = (__u32)args->advice < FADVISE_INVALID ? args->advice : FADVISE_INVALID;
	slot = SLOT_FIND(calls, &key, now);
	call = bpf_map_lookup_elem(&calls, &slot);
	if (!call)
		return;
	add(&call->calls, 1);
	if (result)
		failed(&key, -result, now);
	else
		add(&call->bytes, bytes_named(args));
}

SEC("fexit/ksys_fadvise64_64")
int BPF_PROG(fadvise_fexit, int fd, __s64 offset, __s64 len, int advice, int result)
{
	struct fadvise_args args = { .fd = fd, .offset = offset, .len = len, .advice = advice };
	__u64 begin = cost_begin(&fadvise_fexit_cost);

	called(&args, result);
	cost_end(&fadvise_fexit_cost, begin);
	return 0;
}

SEC("fexit/ksys_fadvise64_64")
int BPF_PROG(fadvise_fexit_compat, int fd, __s64 offset, __s64 len, int advice, int result)
{
	struct fadvise_args args = { .fd = fd, .offset = offset, .len = len, .advice = advice };
	__u64 begin = cost_begin(&fadvise_fexit_compat_cost);
	struct native_call call = {};

	if (!native_call(&call))
		called(&args, result);
	cost_end(&fadvise_fexit_compat_cost, begin);
	return 0;
}

static __always_inline void call_of_current(int result)
{
	struct fadvise_args args = {};

	if (args_of_current(&args))
		called(&args, result);
}

SEC("fexit/__arm64_sys_fadvise64_64")
int BPF_PROG(fadvise_fexit_arm64, void *regs, long result)
{
	__u64 begin = cost_begin(&fadvise_fexit_arm64_cost);

	call_of_current(result);
	cost_end(&fadvise_fexit_arm64_cost, begin);
	return 0;
}

SEC("fexit/__riscv_sys_fadvise64_64")
int BPF_PROG(fadvise_fexit_riscv, void *regs, long result)
{
	__u64 begin = cost_begin(&fadvise_fexit_riscv_cost);

	call_of_current(result);
	cost_end(&fadvise_fexit_riscv_cost, begin);
	return 0;
}

SEC("kretprobe/ksys_fadvise64_64")
int fadvise_return(void *regs)
{
	__u64 begin = cost_begin(&fadvise_return_cost);

	call_of_current(returned(regs));
	cost_end(&fadvise_return_cost, begin);
	return 0;
}

SEC("kretprobe/__arm64_sys_fadvise64_64")
int fadvise_return_arm64(void *regs)
{
	__u64 begin = cost_begin(&fadvise_return_arm64_cost);

	call_of_current(returned(regs));
	cost_end(&fadvise_return_arm64_cost, begin);
	return 0;
}

SEC("kretprobe/__riscv_sys_fadvise64_64")
int fadvise_return_riscv(void *regs)
{
	__u64 begin = cost_begin(&fadvise_return_riscv_cost);

	call_of_current(returned(regs));
	cost_end(&fadvise_return_riscv_cost, begin);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_fadvise64")
int fadvise_syscall(struct trace_event_raw_sys_exit *ctx)
{
	__u64 begin = cost_begin(&fadvise_syscall_cost);

	call_of_current(ctx->ret);
	cost_end(&fadvise_syscall_cost, begin);
	return 0;
}

SEC("tp_btf/mm_filemap_delete_from_page_cache")
int BPF_PROG(fadvise_evicted, struct folio *folio)
{
	__u64 begin = cost_begin(&fadvise_evicted_cost);

	if (in_dontneed() && watches_current())
		evict(folio);
	cost_end(&fadvise_evicted_cost, begin);
	return 0;
}

SEC("tp_btf/mm_filemap_add_to_page_cache")
int BPF_PROG(fadvise_read_back, struct folio *folio)
{
	__u64 begin = cost_begin(&fadvise_read_back_cost);

	if (remembered_ns)
		recall(folio);
	cost_end(&fadvise_read_back_cost, begin);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
