//! Two-ended arena: where a tensor of a segment lies in the caller's slice.
//!
//! A segment's offsets count from the end where its input is; its output sits at the other end, and the next
//! segment counts from there and runs mirrored; or it stays where the input was, and the next one lies as this one did. No tensor
//! is ever moved.

use core::ops::Range;

use plan::layout::ARENA_ALIGN;
use plan::{Segment, Tensor};

/// The part of the arena that is used, and which way round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Usable bytes between the two ends, a multiple of [`ARENA_ALIGN`].
    pub len: usize,
    /// The segment's input is at the high end.
    pub mirrored: bool,
}

/// Bytes of an arena that can be used: whole alignment steps.
pub(crate) fn usable(len: usize) -> usize {
    len - len % ARENA_ALIGN as usize
}

impl View {
    /// Bytes of a kept map: behind the two ends.
    pub fn kept(self, map: &Tensor) -> Range<usize> {
        let start = self.len + map.offset as usize;
        start..start + map.bytes() as usize
    }

    /// Bytes of a tensor of `segment`. Inside `0..len` if the arena holds the segment's peak.
    pub fn range(self, segment: &Segment, tensor: &Tensor) -> Range<usize> {
        let len = tensor.bytes() as usize;
        let room = len.next_multiple_of(ARENA_ALIGN as usize);
        let mut offset = tensor.offset as usize;
        // What lies at the far end, such as an output, moves outwards with a larger arena; everything else stays where the plan put
        // it.
        if offset > 0 && offset + room == segment.peak_bytes as usize {
            offset = self.len.saturating_sub(room);
        }
        let start = if self.mirrored { self.len.saturating_sub(offset + room) } else { offset };
        start..start + len
    }
}
