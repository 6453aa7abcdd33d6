//! Values of maps as the bytes that the kernel gives and takes.

use std::mem::size_of;

/// A type that any bytes are a value of.
///
/// # Safety
/// The type is `repr(C)`, all integers or arrays and structs of them, and has no padding.
pub unsafe trait Plain: Copy + Default {
    /// The value as the kernel takes it.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: no padding, so every byte is there to be read; the lifetime is that of `self`.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// A value as the kernel gave it.
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let size = size_of::<T>().min(bytes.len());
    // SAFETY: any bytes are a value of such a type, and `size` fits both.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut value).cast::<u8>(), size) };
    value
}
