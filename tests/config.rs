//! The configuration as operators meet it: files, variables, flags, and what they are told when something is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use ebpf_sidecar::collectors;
use ebpf_sidecar::config::{self, CONFIG_VARIABLE, Config, Flag, Loaded, variable_of};
use figment::providers::{Format, Yaml};
use figment::value::Value;

/// A file that is gone when the test ends.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let name = std::thread::current().name().expect("tests run on named threads").replace("::", "-");
        let path = std::env::temp_dir().join(format!("ebpf-sidecar-{}-{name}.yaml", std::process::id()));
        fs::write(&path, text).expect("the temporary folder is writable");
        File(path)
    }

    fn load(&self) -> Result<Loaded, String> {
        load(Some(&self.0), &[], &[])
    }

    /// The error of loading it, with the path cut down to `FILE`.
    fn error(&self) -> String {
        self.load().expect_err("this file is wrong").replace(&self.0.display().to_string(), "FILE")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("it was there");
    }
}

fn load(file: Option<&Path>, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, String> {
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    config::load(file, environment, flags).map_err(|error| error.to_string())
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Loaded, String> {
    load(None, environment, &[])
}

/// What the environment is told, in one variable.
fn error_of(name: &str, value: &str) -> String {
    from_environment(&[(name, value)]).expect_err("this variable is wrong")
}

fn error_in(text: &str) -> String {
    File::new(text).error()
}

fn values(config: &Config) -> Value {
    Value::serialize(config).expect("a configuration serialises")
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/config.yaml")
}

// The example file

#[test]
fn the_example_file_holds_the_defaults() {
    let loaded = load(Some(&example()), &[], &[]).unwrap();
    assert_eq!(values(&loaded.config), values(&Config::default()));
}

#[test]
fn the_example_file_has_every_key_and_explains_it() {
    let text = fs::read_to_string(example()).unwrap();
    let file = Yaml::from_str::<Value>(&text).unwrap();
    for key in config::keys() {
        assert!(file.find_ref(&key).is_some(), "add {key} to configs/config.yaml");
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    for pair in lines.windows(2) {
        let sets_a_key = pair[1].split_once(": ").is_some() && !pair[1].starts_with('#');
        assert!(!sets_a_key || pair[0].starts_with('#'), "add a comment above `{}` in configs/config.yaml", pair[1]);
    }
}

// The environment

/// For each key a value that is not its default, as text and as it is shown.
fn another(key: &str) -> (&'static str, &'static str) {
    match key {
        "collector.fadvise.read_back_window" => ("5s", "5s"),
        "collector.freshness" => ("250ms", "250ms"),
        "collector.interval" => ("20s", "20s"),
        key if key.ends_with(".hook") => ("tp_btf", "tp_btf"),
        "collector.max_cpu_percent" => ("0.5", "0.5"),
        "collector.max_cpu_window" => ("2m", "2m"),
        "collector.modules" => ("tcp", "[tcp]"),
        "collector.page-cache.lookups" => ("true", "true"),
        "collector.tcp.labels" => ("src_ip, src_port", "[src_ip, src_port]"),
        "events.enabled" => ("true", "true"),
        "events.max_files" => ("2", "2"),
        "events.max_size" => ("2MiB", "2MiB"),
        "events.output" => ("/log/events", "/log/events"),
        "identity.cri_socket" | "identity.docker_socket" => ("/run/a.sock", "/run/a.sock"),
        "identity.pod_name" | "identity.pod_namespace" => ("17", "\"17\""),
        "identity.podman_storage" => ("off", "off"),
        "log.format" => ("json", "json"),
        "log.level" => ("warn", "warn"),
        "metrics.histogram_buckets" => ("0.00002,0.00004", "[0.00002, 0.00004]"),
        "metrics.idle_ttl" => ("1h", "1h"),
        "metrics.max_series" => ("500", "500"),
        "node.name" => ("17", "\"17\""),
        "server.grpc.address" | "server.http.address" => ("::", "\"::\""),
        "server.grpc.port" | "server.http.port" => ("0", "0"),
        "server.http.metrics_path" => ("/m", "/m"),
        "target.cgroup" => ("/", "/"),
        "target.comms" => ("curl, 17", "[curl, \"17\"]"),
        "target.containers" => ("web,0123456789ab", "[web, 0123456789ab]"),
        "target.descendants" => ("true", "true"),
        "target.namespaces" => ("shop", "[shop]"),
        "target.pids" => ("1,4194304", "[1, 4194304]"),
        "target.ports" => ("80, 443", "[80, 443]"),
        key if key.ends_with("_file") => ("/tls/1", "/tls/1"),
        key => panic!("add a value for {key} to this table"),
    }
}

#[test]
fn every_key_can_be_set_by_environment() {
    for key in config::keys() {
        let (text, shown) = another(&key);
        let name = variable_of(&key);
        // Certificates are of no use without each other.
        let section = key.rsplit_once('.').filter(|(section, _)| section.ends_with(".tls")).map(|(section, _)| section);
        let pair = section.into_iter().flat_map(|tls| [format!("{tls}.cert_file"), format!("{tls}.key_file")]);
        let companions: Vec<_> = pair.map(|key| variable_of(&key)).collect();
        let mut environment: Vec<_> = companions.iter().map(|name| (name.as_str(), "/tls/pair")).collect();
        environment.push((&name, text));

        let loaded = from_environment(&environment).unwrap();
        assert_eq!(loaded.effective.value_of(&key), Some(shown), "{key}");
        assert_eq!(loaded.effective.origin_of(&key), Some(&*name), "{key}");
        for other in config::keys() {
            let set = other == key || companions.contains(&variable_of(&other));
            assert!(set || loaded.effective.origin_of(&other) == Some("default"), "{key} sets {other}");
        }
    }
}

#[test]
fn the_name_of_a_variable_is_the_key_in_capitals() {
    assert_eq!(variable_of("server.grpc.port"), "EBPF_SIDECAR_SERVER_GRPC_PORT");
    assert_eq!(variable_of("collector.page-cache.lookups"), "EBPF_SIDECAR_COLLECTOR_PAGE_CACHE_LOOKUPS");
    let mut names: Vec<_> = config::keys().iter().map(|key| variable_of(key)).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), config::keys().len(), "two keys share a variable");
}

#[test]
fn kubernetes_may_run_services_with_our_name() {
    let injected = [
        ("EBPF_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("EBPF_SIDECAR_SERVICE_PORT", "8080"),
        ("EBPF_SIDECAR_SERVICE_PORT_METRICS", "8080"),
        ("EBPF_SIDECAR_PORT", "tcp://10.0.0.1:8080"),
        ("EBPF_SIDECAR_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("EBPF_SIDECAR_PORT_8080_TCP_PROTO", "tcp"),
        ("EBPF_SIDECAR_PORT_8080_TCP_PORT", "8080"),
        ("EBPF_SIDECAR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("EBPF_SIDECAR_SERVER_GRPC_SERVICE_HOST", "10.0.0.2"),
        ("EBPF_SIDECAR_SERVER_GRPC_PORT", "tcp://10.0.0.2:9090"),
        ("EBPF_SIDECAR_SERVER_GRPC_PORT_9090_TCP_ADDR", "10.0.0.2"),
        ("EBPF_SIDECAR_CONFIG_PORT", "tcp://10.0.0.3:80"),
    ];
    let loaded = from_environment(&injected).unwrap();
    assert_eq!(values(&loaded.config), values(&Config::default()));
}

#[test]
fn kubernetes_tells_the_names_of_node_and_pod() {
    let both = [("EBPF_SIDECAR_NODE_NAME", "ours"), ("NODE_NAME", "theirs")];
    assert_eq!(from_environment(&both).unwrap().config.node.name, "ours");
    assert_eq!(from_environment(&both[1..]).unwrap().config.node.name, "theirs");
    // A copy of the example file must not take the name away again.
    let loaded = load(Some(&example()), &both[1..], &[]).unwrap();
    assert_eq!(loaded.effective.origin_of("node.name"), Some("NODE_NAME"));
    let pod = from_environment(&[("POD_NAME", "web-0"), ("POD_NAMESPACE", "shop")]).unwrap().config.identity;
    assert_eq!((pod.pod_name.as_str(), pod.pod_namespace.as_str()), ("web-0", "shop"));
}

#[test]
fn a_runtime_is_at_a_path_from_the_root() {
    assert!(from_environment(&[("EBPF_SIDECAR_IDENTITY_CRI_SOCKET", "off")]).is_ok());
    assert_eq!(
        error_of("EBPF_SIDECAR_IDENTITY_CRI_SOCKET", "containerd.sock"),
        "identity.cri_socket = containerd.sock (EBPF_SIDECAR_IDENTITY_CRI_SOCKET): \
         expected a path from the root, off, or nothing for the usual places"
    );
}

#[test]
fn a_variable_that_sets_nothing_is_an_error() {
    assert_eq!(
        error_of("EBPF_SIDECAR_SERVER_GRCP_PORT", "9090"),
        "environment variable EBPF_SIDECAR_SERVER_GRCP_PORT: it sets no key; \
         did you mean EBPF_SIDECAR_SERVER_GRPC_PORT?"
    );
    assert_eq!(
        error_of("EBPF_SIDECAR_CONFG", "a.yaml"),
        "environment variable EBPF_SIDECAR_CONFG: it sets no key; did you mean EBPF_SIDECAR_CONFIG?"
    );
    assert_eq!(
        error_of("EBPF_SIDECAR_QUX", "1"),
        "environment variable EBPF_SIDECAR_QUX: it sets no key; `ebpf-sidecar config` lists the keys"
    );
    assert!(error_of("EBPF_SIDECAR_MODULES", "tcp").ends_with("did you mean EBPF_SIDECAR_COLLECTOR_MODULES?"));
    // Not tcp://..., so it is a person's and not Kubernetes'.
    assert!(error_of("EBPF_SIDECAR_PORT", "9090").starts_with("environment variable EBPF_SIDECAR_PORT: "));
}

#[test]
fn variables_of_others_are_not_ours() {
    assert!(from_environment(&[("EBPF_SIDECARS_PORT", "1"), ("EBPF_SIDECAR", "1"), ("PATH", "/bin")]).is_ok());
}

// What is watched

#[test]
fn a_target_that_cannot_be_is_refused() {
    let too_many = vec!["1"; 1025].join(",");
    for (key, value, shown, allowed) in [
        ("target.pids", "0", "[0]", "expected whole numbers from 1 to 4194304"),
        ("target.pids", "1,x", "[1, x]", "expected a whole number from 0 to 4294967295"),
        ("target.ports", "70000", "[70000]", "expected a whole number from 0 to 65535"),
        ("target.ports", "0", "[0]", "expected whole numbers from 1 to 65535"),
        ("target.cgroup", "/no/such/one", "/no/such/one", "there is no such cgroup; expected a path"),
        ("target.cgroup", "/a/../b", "/a/../b", "expected a path without"),
        ("target.descendants", "perhaps", "perhaps", "expected true or false"),
        ("target.pids", &too_many, "[1, 1", "expected at most 1024 values, found 1025"),
    ] {
        let (name, error) = (variable_of(key), error_of(&variable_of(key), value));
        assert!(error.starts_with(&format!("{key} = {shown}")), "{error}");
        assert!(error.contains(&format!(" ({name}): {allowed}")), "{error}");
    }
    assert_eq!(error_in("target: {comms: ['']}\n"), "target.comms = [\"\"] (FILE): a name cannot be empty");
    assert!(error_in("target: {port: 80}\n").ends_with("did you mean target.ports?"));
}

#[test]
fn a_target_is_a_list_however_it_is_written() {
    let of = |text| File::new(text).load().unwrap().config.target;
    for text in ["target: {pids: [1, 2]}\n", "target: {pids: \"1,2\"}\n", "target: {pids: ['1', 2]}\n"] {
        assert_eq!(of(text).pids, [1, 2], "{text}");
    }
    assert_eq!(of("target: {ports: 80}\n").ports, [80]);
    assert_eq!(of("target: {comms: [curl, 7]}\n").comms, ["curl", "7"]);
}

// Layers

#[test]
fn the_later_layer_wins() {
    let file = File::new("server: {http: {port: 1001}, grpc: {port: 2001}}\nlog: {level: warn}");
    let environment = [("EBPF_SIDECAR_SERVER_HTTP_PORT", "1002"), ("EBPF_SIDECAR_SERVER_GRPC_PORT", "2002")];
    let flag = Flag { flag: "--metrics-port", key: "server.http.port", value: "1003".to_owned() };
    let Loaded { config, effective } = load(Some(&file.0), &environment, &[flag]).unwrap();
    assert_eq!((config.server.http.port, config.server.grpc.port), (1003, 2002));
    assert_eq!(effective.origin_of("server.http.port"), Some("--metrics-port"));
    assert_eq!(effective.origin_of("server.grpc.port"), Some("EBPF_SIDECAR_SERVER_GRPC_PORT"));
    assert_eq!(effective.origin_of("log.level"), file.0.to_str());
    assert_eq!(effective.origin_of("log.format"), Some("default"));
}

#[test]
fn the_environment_may_name_the_file_and_the_flag_beats_it() {
    let file = File::new("node: {name: a}");
    let path = file.0.to_str().unwrap();
    assert_eq!(from_environment(&[(CONFIG_VARIABLE, path)]).unwrap().config.node.name, "a");
    let loaded = load(Some(&file.0), &[(CONFIG_VARIABLE, "/does/not/exist.yaml")], &[]).unwrap();
    assert_eq!(loaded.config.node.name, "a");
    assert!(from_environment(&[(CONFIG_VARIABLE, "")]).is_ok());
}

#[test]
fn an_upper_layer_can_take_back_what_a_lower_one_set() {
    let file = File::new("server: {http: {tls: {cert_file: /a}}}\ncollector: {tcp: {labels: pid}}");
    let nothing = [("EBPF_SIDECAR_SERVER_HTTP_TLS_CERT_FILE", ""), ("EBPF_SIDECAR_COLLECTOR_TCP_LABELS", "")];
    let effective = load(Some(&file.0), &nothing, &[]).unwrap().effective;
    assert_eq!(effective.value_of("server.http.tls.cert_file"), Some("null"));
    assert_eq!(effective.value_of("collector.tcp.labels"), Some("[]"));
}

#[test]
fn what_is_printed_is_a_configuration_file() {
    let environment: Vec<_> = config::keys().into_iter().map(|key| (variable_of(&key), another(&key).0)).collect();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let first = from_environment(&environment).unwrap();
    let printed = first.effective.to_string();
    assert!(printed.contains("\n    port: 0                                   # EBPF_SIDECAR_SERVER_GRPC_PORT\n"));
    let second = File::new(&printed).load().unwrap();
    assert_eq!(values(&second.config), values(&first.config));
}

// Files

#[test]
fn yaml_scalars_take_the_type_of_their_key() {
    let text = "node: {name: 17}\nserver: {http: {port: \"81\"}}\nmetrics: {histogram_buckets: 0.00002}";
    let config = File::new(text).load().unwrap().config;
    assert_eq!((config.node.name.as_str(), config.server.http.port), ("17", 81));
    assert_eq!(config.metrics.histogram_buckets, [0.00002]);
}

#[test]
fn what_is_commented_out_is_absent() {
    for text in ["", "# nothing\n", "server:\n  # http:\nnode:\n  name:\n"] {
        let config = File::new(text).load().unwrap().config;
        assert_eq!(values(&config), values(&Config::default()), "{text}");
    }
}

#[test]
fn unknown_keys_are_errors_that_suggest_known_ones() {
    assert_eq!(
        error_in("server: {grpc: {prot: 1}}"),
        "server.grpc.prot (FILE): there is no such key; did you mean server.grpc.port?"
    );
    assert_eq!(error_in("sever: {}"), "sever (FILE): there is no such key; did you mean server?");
    assert_eq!(error_in("x: 1"), "x (FILE): there is no such key; `ebpf-sidecar config` lists the keys");
    assert_eq!(
        error_in("collector: {tcp: {lables: []}}"),
        "collector.tcp.lables (FILE): there is no such key; did you mean collector.tcp.labels?"
    );
}

#[test]
fn files_that_are_not_configurations_are_refused() {
    let missing = load(Some(Path::new("/does/not/exist.yaml")), &[], &[]).unwrap_err();
    assert_eq!(
        missing,
        "cannot read the configuration file /does/not/exist.yaml (--config): No such file or directory (os error 2)"
    );
    let named = from_environment(&[(CONFIG_VARIABLE, "/")]).unwrap_err();
    assert_eq!(named, "cannot read the configuration file / (EBPF_SIDECAR_CONFIG): Is a directory (os error 21)");
    assert!(error_in("a: [1").starts_with("the configuration file FILE is not valid YAML: "));
    assert_eq!(
        error_in("- 1"),
        "the configuration file FILE is not valid YAML: expected sections with keys, found [1]"
    );
    assert_eq!(
        error_in("node: {}\nlog: {}\nnode: {name: a}"),
        "the configuration file FILE is not valid YAML: one section has node twice"
    );
    assert_eq!(error_in("log: 1"), "log = 1 (FILE): expected a section with format, level");
    assert_eq!(error_in("log: {level: {a: 1}}").lines().count(), 1);
}

// Values

#[test]
fn errors_name_the_key_the_value_its_origin_and_what_is_allowed() {
    let modules = collectors::ALL.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
    let (none, unknown) =
        (format!("name at least one of {modules}"), format!("there is no module udp; there are {modules}"));
    const NOT_STDERR: &str = "expected stdout, or the path of a file; what the daemon says of itself goes to stderr";
    let cases = [
        ("server.http.port", "http", "http", "expected a whole number from 0 to 65535"),
        ("server.http.port", "70000", "70000", "expected a whole number from 0 to 65535"),
        ("server.http.address", "localhost", "localhost", "invalid IP address syntax"),
        ("collector.interval", "10", "\"10\"", "expected a time with a unit, such as 500ms, 10s or 5m"),
        ("collector.interval", "1ms", "1ms", "it must be at least 100ms"),
        ("collector.max_cpu_percent", "-1", "-1", "expected a number from 0 to 10000"),
        ("collector.max_cpu_percent", "nan", "NaN", "expected a number from 0 to 10000"),
        ("collector.max_cpu_window", "1ms", "1ms", "it must be at least 100ms"),
        ("collector.fadvise.read_back_window", "0s", "0s", "it must be at least 1ms"),
        ("collector.modules", "", "[]", &none),
        ("collector.modules", "tcp,udp", "[tcp, udp]", &unknown),
        ("collector.modules", "tcp,tcp", "[tcp, tcp]", "tcp is named twice"),
        ("collector.tcp.labels", "dst_ip", "[dst_ip]", "expected one of src_ip, src_port, pid"),
        ("collector.drops.hook", "kprobe", "kprobe", "the hooks of drops can be had as auto, tp_btf"),
        (
            "collector.fadvise.hook",
            "uprobe",
            "uprobe",
            "the hooks of fadvise can be had as auto, fentry, kprobe, tracepoint, tp_btf",
        ),
        (
            "collector.page-cache.hook",
            "fexit",
            "fexit",
            "the hooks of page-cache can be had as auto, tp_btf, fentry, kprobe; fentry stands for fexit, too",
        ),
        ("metrics.max_series", "0", "0", "expected a whole number from 1 to 1000000"),
        ("metrics.max_series", "-1", "-1", "expected a whole number from 0 to 4294967295"),
        ("metrics.idle_ttl", "5s", "5s", "it must be at least collector.interval, which is 10s"),
        (
            "metrics.histogram_buckets",
            "0.0001",
            "[0.0001]",
            "0.0001 s is not a boundary that is recorded; the nearest are 0.000096 and 0.000104",
        ),
        (
            "metrics.histogram_buckets",
            "0.00004,0.00002",
            "[0.00004, 0.00002]",
            "they must ascend, and 0.00002 follows 0.00004",
        ),
        ("metrics.histogram_buckets", "fast", "[fast]", "expected a number"),
        ("events.output", "", "\"\"", NOT_STDERR),
        ("events.output", "stderr", "stderr", NOT_STDERR),
        ("events.max_size", "1MB", "1MB", "expected a size, such as 64KiB, 100MiB or 1GiB"),
        ("events.max_size", "1KiB", "1KiB", "expected 0, for no bound, or at least 1MiB"),
        ("events.max_files", "1001", "1001", "expected a whole number from 0 to 1000"),
        ("log.level", "loud", "loud", "expected one of error, warn, info, debug, trace"),
        ("log.format", "", "\"\"", "expected one of text, json"),
    ];
    for (key, text, shown, allowed) in cases {
        let name = variable_of(key);
        assert_eq!(error_of(&name, text), format!("{key} = {shown} ({name}): {allowed}"));
    }
}

#[test]
fn values_in_files_are_judged_the_same() {
    assert_eq!(
        error_in("node: {name: 1.10}"),
        "node.name = 1.1 (FILE): expected a string; one that looks like a fraction needs quotes"
    );
    assert_eq!(error_in("log: {level: [info]}"), "log.level = [info] (FILE): expected a single name");
    assert_eq!(
        error_in("collector: {tcp: {labels: [pid, 1]}}"),
        "collector.tcp.labels = [pid, \"1\"] (FILE): expected one of src_ip, src_port, pid"
    );
    assert_eq!(
        error_in("metrics: {idle_ttl: 1s}"),
        "metrics.idle_ttl = 1s (FILE): it must be at least collector.interval, which is 10s"
    );
}

#[test]
fn an_error_in_a_flag_names_the_flag() {
    let flag = Flag { flag: "--grpc-port", key: "server.grpc.port", value: "x".to_owned() };
    let error = load(None, &[("EBPF_SIDECAR_SERVER_HTTP_PORT", "1")], &[flag]).unwrap_err();
    assert_eq!(error, "server.grpc.port = x (--grpc-port): expected a whole number from 0 to 65535");
}

#[test]
fn memory_stands_for_two_modules() {
    let modules = |text: &str| {
        let variable = ("EBPF_SIDECAR_COLLECTOR_MODULES".to_owned(), text.to_owned());
        config::load(None, [variable], &[]).map(|loaded| loaded.config.collector.modules)
    };
    assert_eq!(modules("tcp,memory").unwrap(), ["tcp", "page-cache", "reclaim"]);
    assert!(modules("memory,reclaim").unwrap_err().to_string().contains("reclaim is named twice"));
}

#[test]
fn a_price_is_accepted_by_naming_modules_and_not_by_copying_the_defaults() {
    let named = |file: Option<&Path>, variable: Option<&str>| {
        let variable = variable.map(|text| ("EBPF_SIDECAR_COLLECTOR_MODULES".to_owned(), text.to_owned()));
        config::load(file, variable, &[]).unwrap().config.collector.named
    };
    let all = collectors::ALL.iter().map(|spec| spec.name).collect::<Vec<_>>().join(",");
    assert!(!named(None, None));
    assert!(!named(Some(Path::new("configs/config.yaml")), None));
    assert!(named(None, Some(&all)));
    assert!(named(None, Some("fadvise")));
}

#[test]
fn every_module_runs_by_default_and_sections_belong_to_modules() {
    let names: Vec<_> = collectors::ALL.iter().map(|spec| spec.name).collect();
    assert_eq!(Config::default().collector.modules, names);
    let sections = config::keys().into_iter().filter_map(|key| {
        let (section, _) = key.strip_prefix("collector.")?.split_once('.')?;
        Some(section.to_owned())
    });
    for section in sections {
        assert!(names.contains(&section.as_str()), "collector.{section} belongs to no module");
    }
}
