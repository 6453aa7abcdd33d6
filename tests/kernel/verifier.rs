//! What the verifier of this kernel makes of every program, for each way to attach it and with whatever can be asked of it.
//! Each prints a line for a report: `verifier:`, program, instructions that were verified, states, and the most at a time.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ebpf_sidecar::app::btf_names;
use ebpf_sidecar::bpf::instructions;
use ebpf_sidecar::collectors::{self, Config, Limits, Objects, Setup, Shared, Spec, tcp::Label};
use ebpf_sidecar::events::Events;
use ebpf_sidecar::identity::Identity;
use ebpf_sidecar::kernel::{Kernel, LINUX_5_17, LINUX_WITH_FETCH};
use ebpf_sidecar::target::{Config as Filters, Target};
use libbpf_rs::libbpf_sys::{self, bpf_insn, bpf_prog_info, bpf_prog_load_opts};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{AsRawLibbpf, Object, OpenObject, Program, ProgramType};

use crate::ways::{config, forced, programs, tell};

/// A quarter of what the kernel allows (BPF_COMPLEXITY_LIMIT_INSNS of include/linux/bpf.h): the verifiers of other kernels,
/// and the code of other compilers, take up to twice as much.
const MOST_INSNS: u64 = 1_000_000 / 4;

/// BPF_LOG_STATS of include/linux/bpf_verifier.h: no more than the last lines, and what is wrong.
const STATS: u32 = 4;

/// What kernels before 6.4 insist on; no verdict fits into it.
const SHORTEST_LOG: usize = 128;

/// What a program takes to be verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Effort {
    insns: u64,
    states: u64,
    peak: u64,
}

/// By program; the dearest variant of it counts.
type Efforts = BTreeMap<String, Effort>;

#[test]
fn every_program_is_far_from_the_limits() {
    let kernel = Kernel::probe(btf_names());
    let mut efforts = Efforts::new();
    for spec in collectors::ALL {
        for forced in forced(spec, &kernel) {
            let config = config(spec, forced.setting);
            let plan = config.plan(spec, &forced.kernel, true);
            let known =
                programs(spec).filter(|program| plan.takes(program)).all(|program| efforts.contains_key(program));
            if known || plan.check().is_err() {
                continue;
            }
            for (config, target) in variants(&config) {
                measure(spec, &forced.kernel, &config, &target, &mut efforts);
            }
        }
    }
    helpers(&kernel, &mut efforts);
    for (program, Effort { insns, states, peak }) in &efforts {
        tell(&["verifier:", program, &insns.to_string(), &states.to_string(), &peak.to_string()]);
    }
    let dear: Vec<_> = efforts.iter().filter(|(_, effort)| effort.insns > MOST_INSNS).collect();
    assert!(dear.is_empty(), "more than {MOST_INSNS} instructions on Linux {}: {dear:?}", kernel.release);
}

/// As it is by default, and with all that costs more: every label, and a filter of every kind.
fn variants(config: &Config) -> [(Config, Filters); 2] {
    let mut labelled = config.clone();
    labelled.tcp.own.labels = vec![Label::SrcIp, Label::SrcPort, Label::Pid];
    let text = || vec!["anything".to_owned()];
    let filters = Filters {
        pids: vec![1],
        descendants: true,
        comms: text(),
        ports: vec![1],
        cgroup: "/".to_owned(),
        containers: text(),
        namespaces: text(),
    };
    [(config.clone(), Filters::default()), (labelled, filters)]
}

/// Starts a module, which has to take what is planned: one program for another would be silence about the first.
fn measure(spec: &Spec, kernel: &Kernel, config: &Config, target: &Filters, efforts: &mut Efforts) {
    let identity = Identity::default();
    let target = Target::start(target, &identity).expect("there is a root of cgroups");
    let limits = Limits { max_series: 10_000, idle_ttl: Duration::from_secs(300) };
    let (events, shared) = (Events::default(), Shared::default());
    let setup = Setup { named: true, kernel, config, limits, identity, target, events, shared };
    let plan = setup.plan(spec);
    let objects = Objects::new();
    let collector = (spec.start)(&setup, &objects)
        .unwrap_or_else(|error| panic!("{} does not start on Linux {}: {error}", spec.name, kernel.release));
    let taken = &collector.attachment().plan;
    let alike = programs(spec).all(|program| taken.takes(program) == plan.takes(program));
    assert!(alike && taken.refusals().is_empty(), "Linux {} refuses {:#?}", kernel.release, taken.refusals());
    efforts_of(collector.object(), efforts);
}

/// The programs that are no module's.
fn helpers(kernel: &Kernel, efforts: &mut Efforts) {
    let mut place = MaybeUninit::uninit();
    let mut open = identity::IdentitySkelBuilder::default().open(&mut place).expect("it is an object");
    open.progs.identity_look.set_autoload(kernel.is_since(LINUX_5_17));
    fit(open.open_object_mut(), kernel);
    let skel = open.load().unwrap_or_else(|error| panic!("identity on Linux {}: {error}", kernel.release));
    efforts_of(skel.object(), efforts);

    let mut place = MaybeUninit::uninit();
    let mut open = target::TargetSkelBuilder::default().open(&mut place).expect("it is an object");
    let path = &mut open.maps.rodata_data.as_deref_mut().expect("it has read-only data").target_path;
    path.fill(b'/' as _);
    *path.last_mut().expect("it has room") = 0;
    let skel = open.load().unwrap_or_else(|error| panic!("target on Linux {}: {error}", kernel.release));
    efforts_of(skel.object(), efforts);
}

/// As the daemon does, for the programs of its modules.
fn fit(object: &mut OpenObject, kernel: &Kernel) {
    for mut program in object.progs_mut() {
        let fetch = kernel.is_since(LINUX_WITH_FETCH);
        instructions::fit(&mut program, fetch, kernel.cast).expect("there is memory");
    }
}

fn efforts_of(object: &Object, efforts: &mut Efforts) {
    for program in object.progs().filter(Program::autoload) {
        let name = program.name().to_string_lossy().into_owned();
        let effort = Verified::of(object, &program).verify(1 << 12);
        let effort = effort.unwrap_or_else(|verdict| panic!("{name} is refused when it is loaded again: {verdict}"));
        let dearest = efforts.entry(name).or_default();
        *dearest = effort.max(*dearest);
    }
}

/// A program as it was loaded, to be loaded again.
struct Verified<'a> {
    program: &'a Program<'a>,
    insns: Vec<bpf_insn>,
    /// The types of its object. Old kernels refuse those of some, and libbpf loads the programs without: 5.10 takes no
    /// section of nothing but nameless constants.
    btf: Option<u32>,
}

impl<'a> Verified<'a> {
    fn of(object: &Object, program: &'a Program<'a>) -> Self {
        // SAFETY: the object is loaded.
        let btf = unsafe { libbpf_sys::bpf_object__btf_fd(object.as_libbpf_object().as_ptr()) };
        Verified { program, insns: program.insns().to_vec(), btf: u32::try_from(btf).ok() }
    }

    /// What the verifier says, in however long a log: where this is too short for it, its begin or its end is missing, and
    /// there is no saying which before 6.4.
    fn verify(&self, log_bytes: usize) -> Result<Effort, String> {
        let mut log = vec![0u8; log_bytes];
        let outcome = self.load(&mut log);
        let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        match outcome {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => self.verify(4 * log_bytes),
            Err(error) => Err(format!("{error}: {text}")),
            Ok(_) => Ok(effort(&text).unwrap_or_else(|| panic!("the verifier says {text}"))),
        }
    }

    fn load(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        let program = self.program.as_libbpf_object().as_ptr();
        // SAFETY: the program is loaded, and nobody changes it.
        let (functions, count) =
            unsafe { (libbpf_sys::bpf_program__func_info(program), libbpf_sys::bpf_program__func_info_cnt(program)) };
        let mut options = bpf_prog_load_opts {
            sz: size_of::<bpf_prog_load_opts>() as libbpf_sys::size_t,
            // SAFETY: as above.
            expected_attach_type: unsafe { libbpf_sys::bpf_program__expected_attach_type(program) },
            // SAFETY: as above.
            prog_flags: unsafe { libbpf_sys::bpf_program__flags(program) },
            attach_btf_id: attach_btf_id(self.program),
            prog_btf_fd: self.btf.unwrap_or(0),
            func_info: functions.cast::<c_void>(),
            func_info_cnt: self.btf.map_or(0, |_| count),
            func_info_rec_size: size_of::<libbpf_sys::bpf_func_info>() as u32,
            log_level: STATS,
            log_size: log.len() as u32,
            log_buf: log.as_mut_ptr().cast(),
            ..Default::default()
        };
        let name = CString::new("again").expect("no zero in it");
        // SAFETY: all pointers are to what outlives the call, and the lengths are theirs.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::bpf_program__type(program),
                name.as_ptr(),
                c"Dual BSD/GPL".as_ptr(),
                self.insns.as_ptr(),
                self.insns.len() as libbpf_sys::size_t,
                &mut options,
            )
        };
        // SAFETY: a descriptor that the call made, and nobody else has.
        if fd < 0 { Err(io::Error::from_raw_os_error(-fd)) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
    }
}

/// The type in the kernel's BTF that the program hangs on, which is told to the verifier; 0 for programs that hang on none.
/// A kernel that tells what it was told (bpf_prog_info, since 6.0) has to agree.
fn attach_btf_id(program: &Program<'_>) -> u32 {
    if program.prog_type() != ProgramType::Tracing {
        return 0;
    }
    let section = program.section().to_str().expect("its section has a name");
    let (_, target) = section.split_once('/').expect("its section names what it hangs on");
    let target = CString::new(target).expect("no zero in it");
    // SAFETY: a string that ends; the program is loaded.
    let id = unsafe {
        let kind = libbpf_sys::bpf_program__expected_attach_type(program.as_libbpf_object().as_ptr());
        libbpf_sys::libbpf_find_vmlinux_btf_id(target.as_ptr(), kind)
    };
    let id = u32::try_from(id).unwrap_or_else(|_| panic!("{section} is not in the kernel's BTF: {id}"));
    let told = info(program).attach_btf_id;
    assert!(told == 0 || told == id, "{section} hangs on {told}, not on {id}");
    id
}

fn info(program: &Program<'_>) -> bpf_prog_info {
    let mut info = bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    let fd = program.as_fd().as_raw_fd();
    // SAFETY: `info` is zeroed, so it asks for no arrays, and `size` is its size.
    let outcome = unsafe { libbpf_sys::bpf_obj_get_info_by_fd(fd, (&raw mut info).cast(), &mut size) };
    assert_eq!(outcome, 0, "the kernel tells of a program");
    info
}

/// From `processed 21 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1`.
fn effort(log: &str) -> Option<Effort> {
    let line = log.lines().find(|line| line.starts_with("processed "))?;
    let after = |name| line.split(' ').skip_while(|word| *word != name).nth(1)?.parse().ok();
    Some(Effort { insns: after("processed")?, states: after("total_states")?, peak: after("peak_states")? })
}

/// A program of ours that ends in an access that no verifier lets through, after all that it did before.
#[test]
fn a_verdict_is_seen_however_short_the_log_was() {
    let kernel = Kernel::probe(btf_names());
    let mut place = MaybeUninit::uninit();
    let mut open = identity::IdentitySkelBuilder::default().open(&mut place).expect("it is an object");
    open.progs.identity_look.set_autoload(false);
    fit(open.open_object_mut(), &kernel);
    let skel = open.load().unwrap_or_else(|error| panic!("identity on Linux {}: {error}", kernel.release));
    let program = skel.object().progs().find(|program| program.name() == "identity_began").expect("it has this one");
    let mut broken = Verified::of(skel.object(), &program);
    assert_eq!(broken.verify(SHORTEST_LOG), broken.verify(1 << 16));
    assert!(broken.verify(SHORTEST_LOG).is_ok());
    // r0 = *(u64 *)(r10 + 8), above the stack, in place of what comes before the end.
    let end = broken.insns.iter().rposition(|insn| insn.code == 0x95).expect("it ends");
    broken.insns[end - 1] = bpf_insn { code: 0x79, off: 8, ..Default::default() };
    broken.insns[end - 1].set_src_reg(10);
    for bytes in [SHORTEST_LOG, 1 << 16] {
        let verdict = broken.verify(bytes).expect_err("nothing is there");
        assert!(verdict.contains("invalid read from stack") && verdict.contains("processed "), "{bytes}: {verdict}");
    }
}

/// The objects that no module owns, opened here as the daemon opens them.
mod identity {
    #![allow(warnings, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/identity.skel.rs"));
}

mod target {
    #![allow(warnings, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/target.skel.rs"));
}
