//! Reads values from the bytes of a frame.
//!
//! The kernel half reads packets in kernel memory; tests and fuzzers read slices. [`Bytes`] covers both.

use bytemuck::AnyBitPattern;

/// A frame to read from.
pub trait Bytes {
    /// Reads the `T` at `offset`, or returns `None` if the frame is too short.
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// Reads the four bytes at `offset` without linearizing the frame.
    #[inline(always)]
    fn load_scattered(&self, offset: usize) -> Option<[u8; 4]> {
        self.load(offset)
    }

    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Returns `true` if the frame is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        self.get(offset..end).map(bytemuck::pod_read_unaligned)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}
