//! What all collectors need of libbpf: choosing hooks, loading, slot tables, and what our programs and maps cost.

pub mod array;
pub mod enums;
pub mod hook;
pub mod instructions;
pub mod load;
pub mod object;
pub mod own;
pub mod plain;
pub mod plan;
pub mod ring;
pub mod slots;
mod tracepoint;
pub mod traversal;
