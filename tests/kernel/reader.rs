//! Workloads of memory: a file to read, and a process that reads it.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe, read, write};

use crate::fixture::in_process;

/// The size of what is counted.
pub const PAGE: u64 = 4096;

/// A file without blocks on its disk (/var/tmp outlives a restart, so it has one): reading it costs pages of the page cache, and no more.
pub struct Sparse {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Sparse {
    pub fn new(bytes: u64) -> Sparse {
        let path = PathBuf::from(format!("/var/tmp/sidecar-{}-{bytes}", std::process::id()));
        let file = File::options().create_new(true).read(true).write(true).open(&path).expect("a folder to write to");
        file.set_len(bytes).expect("a file may have holes");
        // Without readahead, which in a small cgroup is reclaimed before it is read.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).expect("it is a file");
        Sparse { path, file, bytes }
    }

    pub fn read(&self) {
        let mut file = &self.file;
        file.rewind().expect("a file can be read again");
        // Not beyond the end, where kernels before 5.12 make a page for what is not there.
        let (mut buffer, mut left) = (vec![0; 1 << 20], self.bytes as usize);
        while left > 0 {
            let wanted = left.min(buffer.len());
            let read = file.read(&mut buffer[..wanted]).expect("the disk answers");
            assert!(read > 0, "{left} bytes are missing");
            left -= read;
        }
    }

    /// Has its pages dropped from memory.
    pub fn forget(&self) {
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("it is a file");
    }

    /// Pages that are in memory.
    pub fn resident(&self) -> u64 {
        let length = (self.bytes as usize).try_into().expect("it is not empty");
        let mut pages = vec![0; (self.bytes / PAGE) as usize];
        // SAFETY: a fresh mapping that nobody reads through; the vector has a byte for each of its pages.
        let outcome = unsafe {
            let map =
                mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, self.file.as_fd(), 0).expect("room");
            let outcome = nix::libc::mincore(map.as_ptr(), length.get(), pages.as_mut_ptr());
            munmap(map, length.get()).expect("it is mapped");
            outcome
        };
        assert_eq!(outcome, 0, "mincore");
        pages.iter().filter(|&page| page & 1 == 1).count() as u64
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A process that has done something and stays, to be looked at, until this is dropped.
pub struct Done {
    pub pid: Pid,
    leave: OwnedFd,
}

pub fn done(name: &'static str, action: impl FnOnce()) -> Done {
    let ((finished, finish), (left, leave)) = (pipe().expect("a pipe"), pipe().expect("another"));
    let pid = in_process(name, move || {
        action();
        write(&finish, b"x").expect("the parent waits");
        read(&left, &mut [0]).expect("it says when");
    });
    assert_eq!(read(&finished, &mut [0]), Ok(1), "{name} fails");
    Done { pid, leave }
}

impl Drop for Done {
    fn drop(&mut self) {
        let _ = write(&self.leave, b"x");
        let _ = waitpid(self.pid, None);
    }
}
