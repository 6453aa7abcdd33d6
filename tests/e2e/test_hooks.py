"""What the daemon has put into the kernel, from the kernel's own list."""

from kernel import listed, owned

RARE = {
    "cgroup_mkdir",
    "cgroup_rmdir",
    "inet_sock_set_state",
    "kfree_skb",
    "mm_filemap_add_to_page_cache",
    "mm_filemap_delete_from_page_cache",
    "mm_vmscan_direct_reclaim_begin",
    "mm_vmscan_direct_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin",
    "mm_vmscan_memcg_reclaim_end",
    "page_cache_sync_ra",
    "tcp_receive_reset",
    "tcp_retransmit_skb",
    "tcp_retransmit_synack",
    "tcp_send_reset",
    "writeback_dirty_folio",
}


def test_the_default_run_hangs_on_rare_events_alone(sidecar):
    daemon = sidecar()
    daemon.page()
    ids = owned(daemon.pid)
    links = [link for id, link in listed("link").items() if id in ids["link"]]
    programs = {id: program for id, program in listed("prog").items() if id in ids["prog"]}

    # A cgroup comes or goes; a connection changes its state, a segment is sent again, a packet is dropped; a page comes,
    # goes, gets dirty or is waited for; memory is short. And iterators, which run when the daemon reads them. Nothing
    # else; nothing at all where data is sent or received, or read from the page cache, and no system call.
    attached = sorted((link["type"], link.get("tp_name") or link.get("target_name")) for link in links)
    events = {name for kind, name in attached if kind == "raw_tracepoint"}
    assert events <= RARE, events - RARE
    assert {kind for kind, _ in attached} == {"iter", "raw_tracepoint"}
    # These links are of all the programs that there are, and those can be nothing but tracing programs.
    assert sorted(link["prog_id"] for link in links) == sorted(programs)
    assert {program["type"] for program in programs.values()} == {"tracing"}

    # The daemon says the same of itself.
    said = daemon.get("/api/v1/modules").json()
    modules = said["modules"] + said["helpers"]
    kinds = {"iter": "iter", "raw_tracepoint": "tp_btf"}
    hooks = [hook for module in modules for hook in module["hooks"] if hook["kind"]]
    assert sorted((hook["kind"], hook["target"]) for hook in hooks) == [(kinds[kind], name) for kind, name in attached]
