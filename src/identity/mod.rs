//! Who it is that the kernel knows by a number.

pub mod cgroups;
