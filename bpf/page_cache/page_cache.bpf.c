// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The page cache: what comes, goes and gets dirty, and which reads had to wait. Programs run when pages do so; none
 * runs when a read finds its pages, unless lookups are asked for.
 */
#include "compat.bpf.h"
#include "cost.bpf.h"
#include "kernel.h"
#include "page_cache.h"
#include "slots.bpf.h"
#include "syscall.bpf.h"
#include "target.bpf.h"
#include "who.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* Of the kernel's pages. Set by userspace before loading. */
const volatile __u32 page_shift;

SLOT_TABLE_PERCPU(pages, struct page_cache_pages_key, struct page_cache_pages, struct page_cache_pages_counts);
SLOT_TABLE_PERCPU(cgroups, __u64, struct page_cache_cgroup, struct page_cache_cgroup_counts);
SLOT_TABLE_PERCPU(readers, struct who, struct page_cache_reader, struct page_cache_reader_counts);

COST(page_cache_added);
COST(page_cache_evicted);
COST(page_cache_dirtied);
COST(page_cache_dirtied_page);
COST(page_cache_missed);
COST(page_cache_missed_fentry);
COST(page_cache_missed_kprobe);
COST(page_cache_lookup);
COST(page_cache_lookup_fexit);

/*
 * Which device the pages of an inode belong to, 0 if they are not counted. A block device that is read itself, as for
 * the metadata of many file systems, counts as what it is, not as the pseudo file system that it lives in. Pages of
 * tmpfs, shared memory among them, come without a tracepoint and go with one: of those nothing is known. Huge pages are
 * set aside for good, and are no cache.
 */
static __always_inline __u32 device_of_inode(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;

	switch (sb->s_magic) {
	case TMPFS_MAGIC:
	case HUGETLBFS_MAGIC:
		return 0;
	case BDEVFS_MAGIC:
		return inode->i_rdev;
	default:
		return sb->s_dev;
	}
}

static __always_inline __u32 device_of(struct address_space *mapping)
{
	return mapping && mapping->host ? device_of_inode(mapping->host) : 0;
}

/* The slots of the pages that came or went last on this CPU: most likely those of the next ones, too. */
struct recent {
	__u32 pages, cgroup;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recent);
} recent SEC(".maps");

static __always_inline struct recent *my_recent(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&recent, &zero);
}

/* The counters of the current process and the device on this CPU; NULL if it is not watched. */
static __always_inline struct page_cache_pages_counts *pages_of(__u32 device, __u64 now)
{
	struct page_cache_pages_key key = { .device = device };
	struct recent *last = my_recent();

	if (!last || !watches_current())
		return NULL;
	who_current(&key.who);
	return SLOT_COUNTS_AGAIN(pages, &key, now, &last->pages);
}

/* The counters of the cgroup that the pages are charged to, on this CPU; NULL if there is none, or it is not watched.
 */
static __always_inline struct page_cache_cgroup_counts *cgroup_of(struct folio *folio, __u64 now)
{
	struct cgroup *memory = folio_cgroup(folio);
	struct recent *last = my_recent();
	__u64 id;

	if (!memory || !last || !watches_memory(memory))
		return NULL;
	id = BPF_CORE_READ(memory, kn, id);
	return SLOT_COUNTS_AGAIN(cgroups, &id, now, &last->cgroup);
}

static __always_inline void added(struct folio *folio)
{
	__u64 pages = folio_pages(folio), now = bpf_ktime_get_ns();
	__u32 device = device_of(folio_mapping(folio));
	struct page_cache_cgroup_counts *charged;
	struct page_cache_pages_counts *counts;

	if (!device)
		return;
	counts = pages_of(device, now);
	if (counts)
		counts->added += pages;
	charged = cgroup_of(folio, now);
	if (charged)
		charged->added += pages;
}

/* By then they are charged. */
SEC("tp_btf/mm_filemap_add_to_page_cache")
int BPF_PROG(page_cache_added, struct folio *folio)
{
	__u64 begin = cost_begin(&page_cache_added_cost);

	added(folio);
	cost_end(&page_cache_added_cost, begin);
	return 0;
}

static __always_inline void evicted(struct folio *folio)
{
	__u64 pages = folio_pages(folio), now = bpf_ktime_get_ns();
	__u32 device = device_of(folio_mapping(folio));
	struct page_cache_cgroup_counts *charged;
	struct page_cache_pages_counts *counts;

	if (!device)
		return;
	counts = pages_of(device, now);
	if (counts)
		counts->evicted += pages;
	charged = cgroup_of(folio, now);
	if (charged)
		charged->evicted += pages;
}

/* They still are. */
SEC("tp_btf/mm_filemap_delete_from_page_cache")
int BPF_PROG(page_cache_evicted, struct folio *folio)
{
	__u64 begin = cost_begin(&page_cache_evicted_cost);

	evicted(folio);
	cost_end(&page_cache_evicted_cost, begin);
	return 0;
}

static __always_inline void dirtied(struct folio *folio, struct address_space *mapping)
{
	__u32 device = device_of(mapping);
	struct page_cache_pages_counts *counts = device ? pages_of(device, bpf_ktime_get_ns()) : NULL;

	if (counts)
		counts->dirtied += folio_pages(folio);
}

SEC("tp_btf/writeback_dirty_folio")
int BPF_PROG(page_cache_dirtied, struct folio *folio, struct address_space *mapping)
{
	__u64 begin = cost_begin(&page_cache_dirtied_cost);

	dirtied(folio, mapping);
	cost_end(&page_cache_dirtied_cost, begin);
	return 0;
}

SEC("tp_btf/writeback_dirty_page")
int BPF_PROG(page_cache_dirtied_page, struct folio *page, struct address_space *mapping)
{
	__u64 begin = cost_begin(&page_cache_dirtied_page_cost);

	dirtied(page, mapping);
	cost_end(&page_cache_dirtied_page_cost, begin);
	return 0;
}

static __always_inline void missed(void)
{
	struct page_cache_reader_counts *counts;
	struct who who = {};

	if (!watches_current())
		return;
	who_current(&who);
	counts = SLOT_COUNTS(readers, &who, bpf_ktime_get_ns());
	if (counts)
		counts->misses++;
}

SEC("tp_btf/page_cache_sync_ra")
int page_cache_missed(void *ctx)
{
	__u64 begin = cost_begin(&page_cache_missed_cost);

	missed();
	cost_end(&page_cache_missed_cost, begin);
	return 0;
}

SEC("fentry/page_cache_sync_ra")
int page_cache_missed_fentry(void *ctx)
{
	__u64 begin = cost_begin(&page_cache_missed_fentry_cost);

	missed();
	cost_end(&page_cache_missed_fentry_cost, begin);
	return 0;
}

SEC("kprobe/page_cache_sync_ra")
int page_cache_missed_kprobe(void *ctx)
{
	__u64 begin = cost_begin(&page_cache_missed_kprobe_cost);

	missed();
	cost_end(&page_cache_missed_kprobe_cost, begin);
	return 0;
}

/* The last step of the last read of a task, as the kernel looks up the pages of a large one bit by bit. */
struct read_step {
	__u64 mapping;
	__u64 index, last; /* pages, both included */
	__u64 reads;       /* read calls that the task had completed */
	__u32 slot;        /* in which it was counted */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct read_step);
} read_steps SEC(".maps");

/* Steps of reads of tasks for which there was no memory: they were counted, whatever came before them. */
__u64 read_steps_missed;

/* Read calls that the task has completed. Kernels that do not count them tell two reads that end alike less well. */
static __always_inline __u64 reads_of(struct task_struct *task)
{
	return bpf_core_field_exists(struct task_struct, ioac.syscr) ? task->ioac.syscr : 0;
}

/* Whether this step goes on with a read whose pages are all counted already. Remembers it either way. */
static __always_inline bool continues(struct read_step *step, __u64 mapping, __u64 index, __u64 last, __u64 reads)
{
	bool same = step->mapping == mapping && step->last == last && step->index < index && step->reads == reads;

	step->mapping = mapping;
	step->index = index;
	step->last = last;
	step->reads = reads;
	return same;
}

/*
 * The first page that the current system call reads, if it is one of those that end with page `last`. The kernel goes
 * past the tracepoint where the disk has not delivered the last page of a step yet, but never in the last step of a
 * read.
 */
static __always_inline __u64 first_page(__u64 index, __u64 last)
{
	struct native_call call = {};
	struct file *file;
	__s64 from, count;
	__u64 first;

	if (bpf_get_current_task_btf()->flags & (PF_KTHREAD | PF_IO_WORKER) || !native_call(&call))
		return index;
	if (is_call(&call, X86_PREAD64, GENERIC_PREAD64)) {
		from = call.args[3];
	} else if (is_call(&call, X86_READ, GENERIC_READ)) {
		file = file_of(call.args[0]);
		from = BPF_CORE_READ(file, f_pos);
	} else {
		return index;
	}
	count = call.args[2];
	if (from < 0 || count <= 0 || (__u64)(from + count - 1) >> page_shift != last)
		return index;
	first = (__u64)from >> page_shift;
	return first < index ? first : index;
}

/* A read wants pages `index` to `last`, of which the file may have fewer. */
static __always_inline void lookup(struct address_space *mapping, __u64 index, __u64 last, bool seen_from_its_begin)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct read_step none = {}, *step;
	struct page_cache_reader_counts *counts;
	struct inode *inode = mapping->host;
	struct who who = {};
	__u64 end;

	if (!watches_current())
		return;
	step = bpf_task_storage_get(&read_steps, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!step) {
		add(&read_steps_missed, 1);
		step = &none;
	}
	if (continues(step, (__u64)mapping, index, last, reads_of(task)) || !inode || inode->i_size <= 0)
		return;
	if (!seen_from_its_begin)
		index = first_page(index, last);
	end = (__u64)(inode->i_size - 1) >> page_shift;
	if (last > end)
		last = end;
	if (index > last)
		return;
	who_current(&who);
	counts = SLOT_COUNTS_AGAIN(readers, &who, bpf_ktime_get_ns(), &step->slot);
	if (counts)
		counts->lookups += last - index + 1;
}

SEC("tp_btf/mm_filemap_get_pages")
int BPF_PROG(page_cache_lookup, struct address_space *mapping, unsigned long index, unsigned long last)
{
	__u64 begin = cost_begin(&page_cache_lookup_cost);

	lookup(mapping, index, last, false);
	cost_end(&page_cache_lookup_cost, begin);
	return 0;
}

/* As the tracepoint, which is not reached when the pages cannot be had. */
SEC("fexit/filemap_get_pages")
int BPF_PROG(page_cache_lookup_fexit, struct kiocb *iocb)
{
	__u64 begin = cost_begin(&page_cache_lookup_fexit_cost);
	__u64 from = iocb->ki_pos, count = get_pages_count(ctx), failure = 0;

	bpf_get_func_ret(ctx, &failure);
	if (!(int)failure && count)
		lookup(iocb->ki_filp->f_mapping, from >> page_shift, (from + count - 1) >> page_shift, true);
	cost_end(&page_cache_lookup_fexit_cost, begin);
	return 0;
}

struct page_cache_pages wire_pages;
struct page_cache_pages_counts wire_pages_counts;
struct page_cache_cgroup wire_cgroup;
struct page_cache_cgroup_counts wire_cgroup_counts;
struct page_cache_reader wire_reader;
struct page_cache_reader_counts wire_reader_counts;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
