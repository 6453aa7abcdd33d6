//! Names of devices.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Names are asked for once; when there are more than this, all of them are asked for again.
const KNOWN: usize = 1024;

/// Bits of the minor number in a `dev_t` of the kernel (MINORBITS of include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// The names that are known so far, by `dev_t`. What has a name keeps it, also when the device is gone.
#[derive(Debug, Default)]
pub struct Devices {
    known: HashMap<u32, String>,
}

impl Devices {
    /// As `iostat` names it: what /sys/dev/block says, else `major:minor`, as the third column of
    /// /proc/self/mountinfo has it for file systems that are on no block device.
    pub fn name(&mut self, device: u32) -> String {
        if let Some(name) = self.known.get(&device) {
            return name.clone();
        }
        let number = number(device);
        let Some(name) = block_device(&number) else { return number };
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.entry(device).or_insert(name).clone()
    }
}

fn number(device: u32) -> String {
    format!("{}:{}", device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

/// Names of files have a `!` where those of devices have a `/`.
fn block_device(number: &str) -> Option<String> {
    let target = fs::read_link(Path::new("/sys/dev/block").join(number)).ok()?;
    Some(target.file_name()?.to_str()?.replace('!', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_name_is_its_number() {
        assert_eq!(Devices::default().name(45), "0:45");
        assert_eq!(number(254 << 20 | 1), "254:1");
    }

    #[test]
    fn a_block_device_is_called_as_the_kernel_calls_it() {
        let Some(entry) = fs::read_dir("/sys/dev/block").into_iter().flatten().next() else { return };
        let number = entry.unwrap().file_name().into_string().unwrap();
        let (major, minor) = number.split_once(':').unwrap();
        let device = major.parse::<u32>().unwrap() << 20 | minor.parse::<u32>().unwrap();
        let mut devices = Devices::default();
        let name = devices.name(device);
        assert!(Path::new("/sys/class/block").join(name.replace('/', "!")).exists(), "{name}");
        assert_eq!(devices.known.len(), 1);
        assert_eq!(devices.name(device), name);
    }
}
