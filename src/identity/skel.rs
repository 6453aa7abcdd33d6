//! Generated from `bpf/identity/`: the skeleton, and the types of the wire.

#![allow(warnings, clippy::all, clippy::pedantic, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/identity.skel.rs"));
