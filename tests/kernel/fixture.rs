//! What the kernel tests stand on: a running engine to ask, networks that undo themselves, and workloads.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ebpf_sidecar::collectors::{self, Config, Limits, Objects, Setup, Shared};
use ebpf_sidecar::connections::{Listing, Query};
use ebpf_sidecar::engine::{Budget, Engine, Options, StartError};
use ebpf_sidecar::events::Events;
use ebpf_sidecar::histogram::Histogram;
use ebpf_sidecar::identity::{self, Identity};
use ebpf_sidecar::kernel::Kernel;
use ebpf_sidecar::sampler::{ConnectionsError, Pace, Sampler};
use ebpf_sidecar::snapshot::{Snapshot, Value};
use ebpf_sidecar::status::{ModuleReport, Status};
use ebpf_sidecar::target::{self, Target};
use nix::libc;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};

/// The collectors at work in this process, without servers.
pub struct Sidecar {
    sampler: Option<Sampler>,
    /// What happens to connections.
    pub events: Events,
    thread: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
    /// Runs of its programs that the kernel had left out by the last snapshot.
    left_out: AtomicU64,
}

/// What the kernel counts itself (`bpf_prog_info.recursion_misses`), by module and program.
pub const MISSED_RUNS: &str = "sidecar_bpf_missed_runs_total";

/// [`Sidecar::left_out`] of all that there were.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How a test wants it.
pub struct Wish {
    pub modules: Vec<&'static str>,
    pub config: Config,
    pub target: target::Config,
    /// Nobody is asked unless a test says so.
    pub identity: identity::Config,
    pub max_series: u32,
    pub idle_ttl: Duration,
    pub interval: Duration,
    pub budget: Budget,
    /// What is known of the host, if that is not to be found out.
    pub kernel: Option<Kernel>,
    /// Takes from what this host offers.
    pub host: fn(&mut Kernel),
}

impl Default for Wish {
    fn default() -> Self {
        Wish {
            modules: ebpf_sidecar::collectors::ALL.iter().map(|spec| spec.name).collect(),
            config: Config::default(),
            target: target::Config::default(),
            identity: identity::Config {
                cri_socket: "off".into(),
                docker_socket: "off".into(),
                podman_storage: "off".into(),
                ..identity::Config::default()
            },
            max_series: 10_000,
            idle_ttl: Duration::from_secs(300),
            interval: Duration::from_secs(10),
            // Storms are what tests make.
            budget: Budget { percent: 0.0, window: Duration::from_secs(60) },
            kernel: None,
            host: |_| (),
        }
    }
}

impl Wish {
    /// These modules alone: fewer programs to be verified, which takes seconds in an emulated machine.
    pub fn of(modules: &[&'static str]) -> Wish {
        Wish { modules: modules.to_vec(), ..Wish::default() }
    }
}

impl Sidecar {
    pub fn start(wish: Wish) -> Sidecar {
        let pace = Pace { freshness: Duration::ZERO, interval: wish.interval };
        let events = Events::default();
        let offered = events.clone();
        let spawned = Sampler::spawn::<StartError, _>(pace, move |serve| {
            let mut kernel = wish.kernel.unwrap_or_else(|| Kernel::probe(ebpf_sidecar::app::btf_names()));
            (wish.host)(&mut kernel);
            let limits = Limits { max_series: wish.max_series, idle_ttl: wish.idle_ttl };
            let (shared, events) = (Shared::default(), offered);
            let identity = Identity::start(&wish.identity, &kernel, || ());
            let target = Target::start(&wish.target, &identity)?;
            let setup =
                Setup { named: true, kernel: &kernel, config: &wish.config, limits, identity, target, events, shared };
            let options = Options {
                budget: wish.budget,
                modules: wish.modules.iter().map(|&name| name.to_owned()).collect(),
                node: Arc::from("test"),
                bounds: Arc::from([]),
            };
            let objects = Objects::new();
            let mut engine = Engine::start(&setup, &objects, options)?;
            setup.identity.settle(Duration::from_secs(10));
            serve(&mut engine);
            Ok(())
        });
        let (sampler, thread) = spawned.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Sidecar { sampler: Some(sampler), events, thread: Some(thread), runtime, left_out: AtomicU64::new(0) }
    }

    pub fn snapshot(&self) -> Metrics {
        let sampler = self.sampler.as_ref().expect("it is running");
        let metrics = Metrics(self.runtime.block_on(sampler.snapshot()).expect("a snapshot"));
        let left_out = metrics.sum(MISSED_RUNS, &[]);
        let before = self.left_out.swap(left_out, Ordering::Relaxed);
        LEFT_OUT.fetch_add(left_out.saturating_sub(before), Ordering::Relaxed);
        metrics
    }

    /// How a module fares.
    pub fn module(&self, name: &str) -> ModuleReport {
        let snapshot = self.snapshot().0;
        snapshot.modules.iter().find(|module| module.name == name).expect("every module is reported").clone()
    }

    /// Whether a module uses a hook.
    pub fn has(&self, module: &str, hook: &str) -> bool {
        self.module(module).hooks.iter().any(|report| report.name == hook && report.kind.is_some())
    }

    /// Lists live connections.
    pub fn connections(&self, query: Query) -> Result<Listing, ConnectionsError> {
        let sampler = self.sampler.as_ref().expect("it is running");
        self.runtime.block_on(sampler.connections(query))
    }

    /// Snapshots until `done` holds; the last one either way, so that an assertion can show what was wrong.
    pub fn until(&self, done: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let metrics = self.snapshot();
            if done(&metrics) || Instant::now() > deadline {
                return metrics;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.sampler = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the collection thread ends well");
        }
    }
}

pub struct Metrics(pub Arc<Snapshot>);

impl Metrics {
    fn values<'a>(&'a self, family: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Value> {
        let family = self.0.families.iter().filter(move |found| found.descriptor.name == family);
        let samples = family.flat_map(|family| &family.samples);
        samples
            .filter(|sample| {
                labels.iter().all(|(name, value)| {
                    sample.labels.iter().any(|(known, found)| known == name && found.as_ref() == *value)
                })
            })
            .map(|sample| &sample.value)
    }

    /// The sum over the samples of a family that carry these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> u64 {
        let integer = |value: &Value| match value {
            Value::Integer(value) => *value,
            other => panic!("{family} is no count: {other:?}"),
        };
        self.values(family, labels).map(integer).sum()
    }

    /// The number of samples of a family that carry these labels.
    pub fn count(&self, family: &str, labels: &[(&str, &str)]) -> usize {
        self.values(family, labels).count()
    }

    pub fn number(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.values(family, labels).find_map(|value| if let Value::Number(value) = value { Some(*value) } else { None })
    }

    pub fn histogram(&self, family: &str, labels: &[(&str, &str)]) -> Option<Arc<Histogram>> {
        self.values(family, labels)
            .find_map(|value| if let Value::Histogram(value) = value { Some(Arc::clone(value)) } else { None })
    }

    pub fn histograms<'a>(
        &'a self,
        family: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Histogram> {
        self.values(family, labels)
            .filter_map(|value| if let Value::Histogram(value) = value { Some(&**value) } else { None })
    }

    /// Every counter by name and labels, to be compared between snapshots.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counter = |family: &&ebpf_sidecar::snapshot::Family| family.descriptor.name.ends_with("_total");
        let families = self.0.families.iter().filter(counter);
        families
            .flat_map(|family| family.samples.iter().map(|sample| (family.descriptor.name, sample)))
            .filter_map(|(name, sample)| match sample.value {
                Value::Integer(value) => Some((format!("{name}{:?}", sample.labels), value)),
                _ => None,
            })
            .collect()
    }
}

/// How a module fares, and why, if this kernel takes what is planned for it.
pub fn planned(name: &str, kernel: &Kernel) -> (Status, String) {
    let spec = collectors::ALL.iter().find(|spec| spec.name == name).expect("it is a module");
    let plan = Config::default().plan(spec, kernel, true);
    match (plan.check(), plan.missing()) {
        (Err(missing), _) => (Status::Unsupported, missing.to_string()),
        (Ok(()), nothing) if nothing.is_empty() => (Status::Running, nothing),
        (Ok(()), missing) => (Status::Degraded, missing),
    }
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives this process a name that no other has, for as long as this lives.
pub struct Named {
    name: String,
    before: String,
}

impl Named {
    pub fn new() -> Named {
        let pid = std::process::id();
        let before = fs::read_to_string(leader()).expect("a name");
        let named = Named { name: format!("named-{pid}"), before };
        fs::write(leader(), &named.name).expect("it may have a name");
        named
    }

    pub fn labels(&self) -> [(&str, &str); 1] {
        [("comm", self.name.as_str())]
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::write(leader(), self.before.trim());
    }
}

fn leader() -> String {
    let pid = std::process::id();
    format!("/proc/self/task/{pid}/comm")
}

/// Has each CPU that this process may use do something at the same time, in a thread that stays there, and tells how many
/// these are.
pub fn on_every_cpu(work: impl Fn(usize) + Sync) -> usize {
    let usable = sched_getaffinity(Pid::this()).expect("a process knows its CPUs");
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| usable.is_set(cpu) == Ok(true)).collect();
    let start = Barrier::new(cpus.len());
    thread::scope(|scope| {
        for &cpu in &cpus {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                let mut here = CpuSet::new();
                here.set(cpu).expect("it is one of them");
                sched_setaffinity(Pid::from_raw(0), &here).expect("a thread may stay there");
                start.wait();
                work(cpu);
            });
        }
    });
    cpus.len()
}

/// Runs `body` in a child process of that name.
pub fn in_process(name: &str, body: impl FnOnce()) -> Pid {
    // SAFETY: the child only makes system calls and allocates, which glibc allows after fork; it ends in _exit.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // A test that fails must not leave it behind.
            set_pdeathsig(Signal::SIGKILL).expect("a signal may be asked for");
            set_name(&CString::new(name).expect("a name without zeros")).expect("it may have a name");
            // What the harness keeps of its words, to show them when the test fails, is kept in this process.
            set_hook(Box::new(|panic| _ = writeln!(io::stderr(), "{panic}")));
            let outcome = catch_unwind(AssertUnwindSafe(body));
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
    }
}

/// What programs do not see (docs/details.md) cannot be counted: where a kernel leaves out runs, as of a task that comes
/// while another was made to wait in the middle of the same program, which it counts; and on some hosted machines, where none
/// runs while process 1 has the CPU, which nobody counts. A window that fails is tried again with fresh traffic: only if
/// either happened in it, and a few times at most, so that what always counts wrong still fails.
pub fn seen(window: impl Fn()) {
    const WINDOWS: u32 = 8;
    let unseen = || (run_time_of_process_1(), LEFT_OUT.load(Ordering::Relaxed));
    for _ in 1..WINDOWS {
        let before = unseen();
        match catch_unwind(AssertUnwindSafe(&window)) {
            Ok(()) => return,
            Err(failure) if unseen() == before => resume_unwind(failure),
            Err(_) => (),
        }
    }
    window();
}

/// Nanoseconds on a CPU, of all its threads: /proc/pid/schedstat.
fn run_time_of_process_1() -> u64 {
    let threads = fs::read_dir("/proc/1/task").expect("there is a process 1").flatten();
    let spent = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    spent.map(|line| line.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).expect("a number")).sum()
}

/// The number of that name in lines of a name and a number.
pub fn number(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().map(str::split_whitespace);
    let found = lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?);
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Two network namespaces joined by a veth pair: `a` has 10.199.0.1 and fd99::1, `b` has .2 and ::2.
pub struct Network {
    pub a: String,
    pub b: String,
}

const A4: &str = "10.199.0.1";
pub const B4: &str = "10.199.0.2";
const A6: &str = "fd99::1";
pub const B6: &str = "fd99::2";

impl Network {
    pub fn new() -> Network {
        let pid = std::process::id();
        let network = Network { a: format!("sidecar-a-{pid}"), b: format!("sidecar-b-{pid}") };
        let (a, b) = (&network.a, &network.b);
        run(&format!("ip netns add {a}"));
        run(&format!("ip netns add {b}"));
        run(&format!("ip link add veth0 netns {a} type veth peer name veth0 netns {b}"));
        for (ns, v4, v6) in [(a, A4, A6), (b, B4, B6)] {
            run(&format!("ip -n {ns} addr add {v4}/24 dev veth0"));
            run(&format!("ip -n {ns} addr add {v6}/64 dev veth0 nodad"));
            run(&format!("ip -n {ns} link set veth0 up"));
            run(&format!("ip -n {ns} link set lo up"));
        }
        network
    }

    /// Installs nft rules on what comes into a namespace.
    pub fn filter(&self, ns: &str, rules: &[&str]) {
        self.filter_at(ns, "input", rules);
    }

    /// Installs nft rules at a hook of a namespace, in a table called like the hook.
    pub fn filter_at(&self, ns: &str, hook: &str, rules: &[&str]) {
        let rules = rules.join("\n");
        let table = format!("table inet {hook} {{\nchain c {{\ntype filter hook {hook} priority 0\n{rules}\n}}\n}}\n");
        let mut nft = Command::new("ip")
            .args(["netns", "exec", ns, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft is installed");
        nft.stdin.take().expect("it is piped").write_all(table.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("it ends").success(), "nft refuses {table}");
    }

    /// What each rule with a `counter` has counted in packets, in the order of the rules.
    pub fn filtered(&self, ns: &str) -> Vec<u64> {
        let rules = run(&format!("ip netns exec {ns} nft list ruleset"));
        let counts = rules.split("counter packets ").skip(1);
        counts.map(|rest| rest.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")).collect()
    }

    /// Takes away what [`Network::filter_at`] installed.
    pub fn unfilter(&self, ns: &str, hook: &str) {
        run(&format!("ip netns exec {ns} nft delete table inet {hook}"));
    }

    /// Does something in a thread that lives in a namespace.
    pub fn within<T: Send + 'static>(&self, ns: &str, action: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = fs::File::open(format!("/run/netns/{ns}")).expect("the namespace is there");
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            action()
        })
    }

    /// Both ends of a connection from `a` to this address of `b`.
    pub fn pair(&self, ip: &'static str, port: u16) -> (TcpStream, TcpStream) {
        let listener = self.within(&self.b, move || TcpListener::bind((ip, port)).unwrap()).join().unwrap();
        let client = self.within(&self.a, move || TcpStream::connect((ip, port)).unwrap()).join().unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// What we show, and RetransSegs of `a` and `b`, at a moment in which the kernel's counts stand still.
    pub fn retransmits_at_rest(&self, sidecar: &Sidecar) -> (Metrics, [u64; 2]) {
        let kernel = || [&self.a, &self.b].map(|ns| self.kernel_counter(ns, "Tcp", "RetransSegs"));
        let mut moments = (0..100).map(|_| (kernel(), sidecar.snapshot(), kernel()));
        let quiet = moments.find(|(before, _, after)| before == after);
        let (counts, metrics, _) = quiet.expect("a moment in which nothing is sent again");
        (metrics, counts)
    }

    /// A counter of the kernel's own for a namespace, such as `Tcp`, `RetransSegs` or `Udp6`, `NoPorts`.
    pub fn kernel_counter(&self, ns: &str, protocol: &'static str, name: &'static str) -> u64 {
        self.within(ns, move || kernel_counter(protocol, name)).join().expect("it is there")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for ns in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

/// From /proc/net/snmp, netstat or, one to a line, snmp6 of the calling thread's network namespace.
pub fn kernel_counter(protocol: &str, name: &str) -> u64 {
    let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("the kernel counts");
    if protocol.ends_with('6') {
        let (text, wanted) = (read("snmp6"), format!("{protocol}{name}"));
        let mut words = text.split_whitespace().skip_while(|word| *word != wanted);
        return words.nth(1).expect("a counter of that name").parse().expect("a number");
    }
    let text = ["snmp", "netstat"].map(read);
    let text = text.concat();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let index = names.split_whitespace().position(|known| known == name).expect("a counter of that name");
    values.split_whitespace().nth(index).expect("its value").parse().expect("a number")
}

/// Reads to the end, and says how much there was.
pub fn drain(mut stream: &TcpStream) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return total,
            Ok(read) => total += read,
        }
    }
}

/// What a socket says of itself.
#[derive(PartialEq)]
pub struct TcpInfo {
    pub timeout_us: f64,
    /// Segments.
    pub unacked: u32,
    pub rtt_us: f64,
    pub segs_in: u64,
    pub segs_out: u64,
}

/// From `struct tcp_info` of include/uapi/linux/tcp.h, by offset.
pub fn tcp_info(stream: &TcpStream) -> TcpInfo {
    let mut bytes = [0u8; 256];
    let mut length = bytes.len() as u32;
    // SAFETY: the kernel writes at most `length` bytes.
    let outcome = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, bytes.as_mut_ptr().cast(), &mut length)
    };
    assert_eq!(outcome, 0);
    let at = |offset: usize| u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
    TcpInfo {
        timeout_us: at(8).into(),
        unacked: at(24),
        rtt_us: at(68).into(),
        segs_in: at(140).into(),
        segs_out: at(136).into(),
    }
}

/// A server on its own thread that answers `reply` bytes after `request` bytes, for each of `connections`, one by one.
pub fn serve(listener: TcpListener, connections: usize, request: usize, reply: usize) -> JoinHandle<()> {
    thread::spawn(move || serve_here(&listener, connections, request, reply))
}

pub fn serve_here(listener: &TcpListener, connections: usize, request: usize, reply: usize) {
    let (mut received, sent) = (vec![0; request], vec![7; reply]);
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.read_exact(&mut received).expect("the whole request");
        stream.write_all(&sent).expect("the client reads");
    }
}

/// Connects, sends `request` bytes, reads `reply` bytes and the end.
pub fn exchange(to: SocketAddr, request: usize, reply: usize) {
    let mut stream = TcpStream::connect(to).expect("somebody listens");
    stream.write_all(&vec![9; request]).expect("the server reads");
    assert_eq!(drain(&stream), reply);
}

/// Ports that nothing else on this machine is likely to use at the same time, in any namespace: metrics tell none, and these
/// tests may run twice. They lie below those that the kernel gives to clients.
pub fn ports<const N: usize>() -> [u16; N] {
    static USED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % 300 * 100;
    [0; N].map(|_| 2000 + ((first + USED.fetch_add(1, Ordering::Relaxed)) % 30_000) as u16)
}

/// A listener on a port of the kernel's choice.
pub fn listen(ip: &str) -> TcpListener {
    let ip: IpAddr = ip.parse().expect("an address");
    TcpListener::bind((ip, 0)).expect("a free port")
}
