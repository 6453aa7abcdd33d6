//! A ring that programs find in a map of maps, for as long as somebody reads it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, RingBuffer, RingBufferBuilder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The only element of the map of maps.
const SLOT: [u8; 4] = [0; 4];

/// A ring in use. Dropping it without [`Ring::close`] leaves it to the programs, unread.
#[derive(Debug)]
pub struct Ring {
    slot: MapHandle,
    records: RingBuffer<'static>,
}

impl Ring {
    /// Makes a ring of so many bytes, a power of two, and puts it where programs find it. From here on they write.
    ///
    /// # Errors
    /// If the kernel refuses, as for want of memory.
    pub fn open(
        slot: MapHandle,
        bytes: u32,
        take: impl FnMut(&[u8]) -> i32 + Send + 'static,
    ) -> libbpf_rs::Result<Ring> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        };
        let ring = MapHandle::create(MapType::RingBuf, slot.name().to_str(), 0, 0, bytes, &options)?;
        let mut builder = RingBufferBuilder::new();
        builder.add(&ring, take)?;
        let records = builder.build()?;
        slot.update(&SLOT, &ring.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
        Ok(Ring { slot, records })
    }

    /// Takes at most so many records, and says how many there were.
    ///
    /// # Errors
    /// If libbpf finds the ring broken.
    pub fn read(&self, most: usize) -> libbpf_rs::Result<usize> {
        let read = self.records.consume_raw_n(most);
        usize::try_from(read).map_err(|_| libbpf_rs::Error::from_raw_os_error(-read))
    }

    /// Sleeps until a program calls, or for that time.
    pub fn wait(&self, longest: Duration) {
        // SAFETY: libbpf keeps the descriptor open for as long as the ring lives.
        let woken = unsafe { BorrowedFd::borrow_raw(self.records.epoll_fd()) };
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        // A signal is a reason to look as well.
        let _ = poll(&mut [PollFd::new(woken, PollFlags::POLLIN)], timeout);
    }

    /// Takes the ring from the programs. When this returns, no program writes to it any more: what it holds is complete,
    /// and can still be read.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn close(&self) -> libbpf_rs::Result<()> {
        self.slot.delete(&SLOT)
    }
}

/// Whether programs find a ring there now.
pub fn is_open(slot: &impl MapCore) -> bool {
    slot.lookup(&SLOT, MapFlags::ANY).is_ok_and(|ring| ring.is_some())
}
