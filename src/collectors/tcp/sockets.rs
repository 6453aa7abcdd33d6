//! The iterators over sockets and over open files: which of them this kernel has, and where they have to be run.

use std::os::fd::AsFd;

use libbpf_rs::skel::Skel;

use super::skel::TcpSkel;
use crate::bpf::object;
use crate::bpf::plan::Plan;
use crate::bpf::traversal::Traversal;

pub const PASS_STORED: &str = "tcp_pass";
pub const PASS_BY_NAMESPACE: &str = "tcp_pass_netns";
pub const LIST_STORED: &str = "tcp_list";
pub const LIST_BY_NAMESPACE: &str = "tcp_list_netns";
pub const WALK: &str = "tcp_walk";
pub const WALK_OLD: &str = "tcp_walk_old";

/// The traversals that there are.
pub struct Traversals {
    /// Brings what live sockets count to their series.
    pub pass: Traversal,
    /// Lists live connections, if that can be done.
    pub list: Option<Traversal>,
    /// Finds the owners of sockets by open files, if that can be done.
    pub walk: Option<Traversal>,
    /// Whether the first two meet only what is in one network namespace.
    pub by_namespace: bool,
}

impl Traversals {
    /// Attaches those that the plan takes.
    pub fn attach(skel: &TcpSkel<'_>, plan: &Plan) -> libbpf_rs::Result<Traversals> {
        let pass = either(skel, plan, [PASS_STORED, PASS_BY_NAMESPACE])?;
        Ok(Traversals {
            pass: pass.expect("no plan is good without a pass"),
            list: either(skel, plan, [LIST_STORED, LIST_BY_NAMESPACE])?,
            walk: either(skel, plan, [WALK, WALK_OLD])?,
            by_namespace: plan.enters(),
        })
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &Traversal> {
        [&self.pass].into_iter().chain(&self.list).chain(&self.walk)
    }
}

fn either(skel: &TcpSkel<'_>, plan: &Plan, programs: [&'static str; 2]) -> libbpf_rs::Result<Option<Traversal>> {
    let Some(name) = programs.into_iter().find(|name| plan.takes(name)) else { return Ok(None) };
    let program = object::program(skel.object(), name)?;
    let link = match name {
        PASS_STORED | LIST_STORED => program.attach_iter(skel.maps.sockets.as_fd())?,
        _ => program.attach()?,
    };
    Ok(Some(Traversal::new(name, link)))
}
