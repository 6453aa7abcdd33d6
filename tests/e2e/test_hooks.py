"""What the daemon has put into the kernel, from the kernel's own list."""

from kernel import listed, owned


def test_the_default_run_hangs_on_rare_events_alone(sidecar):
    daemon = sidecar()
    daemon.page()
    ids = owned(daemon.pid)
    links = [link for id, link in listed("link").items() if id in ids["link"]]
    programs = {id: program for id, program in listed("prog").items() if id in ids["prog"]}

    # Two tracepoints: a connection changes its state, a SYN-ACK is sent again. And two iterators, which run when the
    # daemon reads them. Nothing else; nothing at all where data is sent or received, and no system call.
    attached = sorted((link["type"], link.get("tp_name") or link.get("target_name")) for link in links)
    assert attached == [
        ("iter", "bpf_sk_storage_map"),
        ("iter", "task_file"),
        ("raw_tracepoint", "inet_sock_set_state"),
        ("raw_tracepoint", "tcp_retransmit_synack"),
    ]
    # These links are of all the programs that there are, and those can be nothing but tracing programs.
    assert sorted(link["prog_id"] for link in links) == sorted(programs)
    assert {program["type"] for program in programs.values()} == {"tracing"}

    # The daemon says the same of itself.
    (tcp,) = [module for module in daemon.get("/api/v1/modules").json()["modules"] if module["name"] == "tcp"]
    kinds = {"iter": "iter", "raw_tracepoint": "tp_btf"}
    assert sorted((hook["kind"], hook["name"]) for hook in tcp["hooks"]) == [
        (kinds[kind], name) for kind, name in attached
    ]
