//! Reading bytes of a frame.
//!
//! The kernel half reads packets in the kernel's memory, tests and fuzzers read slices: both through [`Bytes`].

use bytemuck::AnyBitPattern;

/// A frame that can be read from.
pub trait Bytes {
    /// The `T` at `offset`, or `None` if the frame ends before.
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// The word at `offset`, without making anything of the frame contiguous where it is not.
    #[inline(always)]
    fn load_scattered(&self, offset: usize) -> Option<[u8; 4]> {
        self.load(offset)
    }

    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Whether the frame has no bytes at all.
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
