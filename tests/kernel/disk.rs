//! File systems of our own, on which nobody else does anything, and what the kernel says of the pages of a file.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::fixture::run;

pub const PAGE: usize = 4096;

/// A file system in a file in memory, mounted through a loop device. All of it goes away with this value.
pub struct Disk {
    /// As the kernel calls it, such as `loop0`.
    pub device: String,
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    /// One that leaves its device alone: ext4 would write a journal, and a thread of it look at the disk ahead of time.
    pub fn new(kind: &str) -> Disk {
        let name = format!("sidecar-{kind}-{}", std::process::id());
        let image = Path::new("/dev/shm").join(format!("{name}.image"));
        let file = File::create(&image).expect("/dev/shm is writable");
        file.set_len(320 << 20).expect("a sparse file takes no room");
        // Before 5.13 ext4 looks ahead only if told so, and does not know how to be told otherwise.
        let (make, options): (_, &[_]) = match kind {
            "ext4" => (
                "-O ^has_journal -E lazy_itable_init=0",
                &["noatime,noinit_itable,no_prefetch_block_bitmaps", "noatime,noinit_itable"],
            ),
            _ => ("", &["noatime"]),
        };
        run(&format!("mkfs.{kind} -q {make} {}", image.display()));
        let node = run(&format!("losetup --find --show {}", image.display())).trim().to_owned();
        let device = node.strip_prefix("/dev/").expect("it is in /dev").to_owned();
        let disk = Disk { device, image, folder: std::env::temp_dir().join(name) };
        fs::create_dir_all(&disk.folder).expect("the temporary folder is writable");
        let mount = |options: &&str| {
            let mount = Command::new("mount").args(["-t", kind, "-o", options, &node]).arg(&disk.folder).status();
            mount.is_ok_and(|status| status.success())
        };
        assert!(options.iter().any(mount), "{node} cannot be mounted");
        disk.read_ahead(128);
        disk
    }

    /// How far the kernel reads ahead. A loop device keeps what an earlier user of it made of this.
    pub fn read_ahead(&self, kib: u32) {
        let file = format!("/sys/block/{}/queue/read_ahead_kb", self.device);
        fs::write(file, kib.to_string()).expect("it reads ahead");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
        let _ = Command::new("losetup").arg("--detach").arg(format!("/dev/{}", self.device)).status();
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::remove_file(&self.image);
    }
}

/// Other work on this machine may make the kernel reclaim pages of ours between two looks; then all is done once more. What
/// counts wrong does so each time.
pub fn undisturbed(scenario: impl Fn()) {
    if !(0..4).any(|_| catch_unwind(AssertUnwindSafe(&scenario)).is_ok()) {
        scenario();
    }
}

pub fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("the disk is writable")
}

/// `advice` is one of `POSIX_FADV_*`, for the whole file.
pub fn advise(file: &File, advice: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) }, 0);
}

/// A file in memory.
pub struct Mapped {
    base: NonNull<c_void>,
    bytes: NonZeroUsize,
}

impl Mapped {
    pub fn new(file: &File) -> Mapped {
        let bytes = file.metadata().expect("it is open").len() as usize;
        let bytes = NonZeroUsize::new(bytes).expect("a file that is not empty");
        // SAFETY: a fresh mapping at an address of the kernel's choice; unmapped in drop.
        let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) };
        Mapped { base: base.expect("a file can be mapped"), bytes }
    }

    /// Reads a byte of each page.
    pub fn touch(&self) {
        for offset in (0..self.bytes.get()).step_by(PAGE) {
            // SAFETY: within the mapping, which lies within the file.
            unsafe { self.base.cast::<u8>().add(offset).read_volatile() };
        }
    }

    /// How many of its pages are in the page cache, as mincore(2) says.
    pub fn resident(&self) -> u64 {
        let mut pages = vec![0u8; self.bytes.get().div_ceil(PAGE)];
        // SAFETY: one byte for each page of the mapping.
        assert_eq!(unsafe { libc::mincore(self.base.as_ptr(), self.bytes.get(), pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 == 1).count() as u64
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped; nothing points into it.
        unsafe { munmap(self.base, self.bytes.get()).expect("the mapping was whole") }
    }
}

/// Reads so many bytes past the page cache.
pub fn read_directly(path: &Path, bytes: usize) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero in it");
    // SAFETY: the path ends in a zero; the memory is fresh, and as large as what is read.
    unsafe {
        let fd: RawFd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECT);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let size = NonZeroUsize::new(bytes).expect("something to read");
        let memory = nix::sys::mman::mmap_anonymous(
            None,
            size,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        );
        let memory = memory.expect("there is memory");
        assert_eq!(libc::pread(fd, memory.as_ptr(), bytes, 0), bytes as isize);
        munmap(memory, bytes).expect("the mapping was whole");
        libc::close(fd);
    }
}
