//! Tests against a live kernel. They run as root, one at a time, on this machine (`make test-kernel`) and, the same binary,
//! in virtual machines (`make test-vm`). None of them skips: what a kernel cannot do is what a test states. Those that are
//! marked as ignored would harm a machine that others use, and run in virtual machines alone.

mod cgroup;
mod connections;
mod cpus;
mod disk;
mod drops;
mod events;
mod fadvise;
mod fixture;
mod governor;
mod host;
mod identity;
mod matrix;
mod page_cache;
mod reader;
mod reclaim;
mod retransmit;
mod target;
mod taskstats;
mod tcp;
mod verifier;
mod ways;
