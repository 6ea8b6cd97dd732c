//! What differs where a CPU has other products: what rows hold, how columns lie, and the sums.

use core::arch::x86_64::__m512i;
use core::ptr::null;

use super::pack::{pack, pack_blocks, pack_line};
use super::rescale::Table;
use super::strip::Value;
use super::tile::{Factors, LANES, ROWS};
use crate::conv::Packing;

/// Most vectors of a tile.
pub(in crate::arch) const MOST: usize = 3;

/// Weights of some channels as they lie in an image.
pub(in crate::arch) struct Weights<'a> {
    pub(in crate::arch) bytes: &'a [u8],
    pub(in crate::arch) packing: Packing,
    /// Bytes of a channel.
    pub(in crate::arch) row: usize,
    /// 16 channels each; of the last one there may be fewer.
    pub(in crate::arch) vectors: usize,
    /// Lines of a window, and values of a line.
    pub(in crate::arch) lines: usize,
    pub(in crate::arch) line: usize,
}

/// How products are taken. All functions need the instruction set that they are made of.
pub(in crate::arch) trait Products {
    /// Of rows, and of packed columns.
    type Value: Value;
    /// Values of a line in a step.
    const STEP: usize;

    /// Weights in the order of [`Self::tile`]: where they are, in the room or where they were, and the constants with which
    /// their sums become outputs; of these, what is made anew lies in `biases`.
    ///
    /// # Safety
    /// The CPU has the instruction set; there is room for whole steps of all vectors and lines, and for three vectors of bytes
    /// behind.
    unsafe fn pack(
        weights: &Weights<'_>,
        table: Table,
        biases: &mut [i32; MOST * LANES],
        room: *mut Self::Value,
    ) -> (*const Self::Value, Table);

    /// Keys, `width` bytes each, in the order of [`Self::tile`] with `vectors` vectors, and what is added to their sums.
    ///
    /// # Safety
    /// As [`Self::pack`]; each vector has a key, and each lane room for a bias.
    unsafe fn pack_keys<'a>(
        keys: impl Iterator<Item = &'a [u8]>,
        width: usize,
        vectors: usize,
        biases: *mut i32,
        room: *mut Self::Value,
    );

    /// Hands on the products of the rows that begin at these places with 16 columns in each vector.
    ///
    /// # Safety
    /// The CPU has the instruction set; rows and columns have what the lengths say.
    unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors<Self::Value>,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    );

    /// The same of values of 16 bits and rows of one line, columns as [`Factors::wide`] has them.
    ///
    /// # Safety
    /// As [`Self::tile`]; rows are of one line.
    unsafe fn mixed<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    );
}

/// Of values of 16 bits, by `vpmaddwd`.
pub(super) struct Words;

impl Products for Words {
    type Value = i16;
    const STEP: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn pack(
        weights: &Weights<'_>,
        table: Table,
        _: &mut [i32; MOST * LANES],
        room: *mut i16,
    ) -> (*const i16, Table) {
        let &Weights { bytes, row, vectors, lines, line, .. } = weights;
        // SAFETY: as the caller says.
        unsafe {
            match weights.packing {
                Packing::Rows => pack(bytes, row, vectors, [lines, line], room),
                Packing::Blocks => pack_blocks(bytes, vectors, room),
            }
        }
        (room, table)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn pack_keys<'a>(
        mut keys: impl Iterator<Item = &'a [u8]>,
        width: usize,
        vectors: usize,
        biases: *mut i32,
        room: *mut i16,
    ) {
        for vector in 0..vectors {
            let lines = [0; LANES].map(|_| keys.next().map_or(null(), <[u8]>::as_ptr));
            // SAFETY: a key has `width` bytes; the part of the room for `vectors` vectors, and 16 biases.
            unsafe {
                pack_line(lines, width, vectors, room.wrapping_add(2 * LANES * vector));
                biases.cast::<[i32; LANES]>().wrapping_add(vector).write_unaligned([0; LANES]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    ) {
        // SAFETY: as the caller says.
        put(unsafe { factors.wide(places) });
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn mixed<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    ) {
        // SAFETY: as the caller says.
        put(unsafe { factors.wide(places) });
    }
}
