//! Facts about the host (stand-in).
#[derive(Debug)]
pub struct Kernel {
    pub kprobes: Option<bool>,
    pub tracefs: Option<bool>,
    pub tick_ns: u64,
}
impl Kernel {
    pub fn has_tracepoint(&self, _: &str) -> bool {
        true
    }
    pub fn has_function(&self, _: &str) -> bool {
        true
    }
    pub fn has_iterator(&self, _: &str) -> bool {
        true
    }
}
