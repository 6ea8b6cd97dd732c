//! Sums of products by SDOT: tiles of windows, and dot products of rows.

use core::arch::aarch64::{
    int8x16_t, int32x4_t, vaddvq_s32, vdupq_n_s32, vld1q_lane_s32, vld1q_s8, vpaddq_s32, vreinterpretq_s8_s32,
};
use core::arch::asm;

use super::conv::{Block, ROWS};
use super::strip::Windows;
use crate::arch::unsigned;

/// Adds the products of bytes, four neighbours to each sum.
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction changes nothing but its first operand; the feature is enabled here.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Adds the products of a word of one window with a vector of weights.
macro_rules! sdot {
    ($sums:literal, $weights:literal, $window:literal, $lane:literal) => {
        concat!("sdot v", $sums, ".4s, v", $weights, ".16b, v", $window, ".4b[", $lane, "]\n")
    };
}

/// Adds the products of a word of four windows with the next vectors of weights, for 16 or eight channels.
macro_rules! word {
    (16, $a:literal $b:literal $c:literal $d:literal, $lane:literal) => {
        concat!(
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{weights}], #64\n",
            sdot!(16, 8, $a, $lane),
            sdot!(17, 9, $a, $lane),
            sdot!(18, 10, $a, $lane),
            sdot!(19, 11, $a, $lane),
            sdot!(20, 8, $b, $lane),
            sdot!(21, 9, $b, $lane),
            sdot!(22, 10, $b, $lane),
            sdot!(23, 11, $b, $lane),
            sdot!(24, 8, $c, $lane),
            sdot!(25, 9, $c, $lane),
            sdot!(26, 10, $c, $lane),
            sdot!(27, 11, $c, $lane),
            sdot!(28, 8, $d, $lane),
            sdot!(29, 9, $d, $lane),
            sdot!(30, 10, $d, $lane),
            sdot!(31, 11, $d, $lane),
        )
    };
    (8, $a:literal $b:literal $c:literal $d:literal, $lane:literal) => {
        concat!(
            "ld1 {{v8.16b, v9.16b}}, [{weights}], #32\n",
            sdot!(16, 8, $a, $lane),
            sdot!(17, 9, $a, $lane),
            sdot!(20, 8, $b, $lane),
            sdot!(21, 9, $b, $lane),
            sdot!(24, 8, $c, $lane),
            sdot!(25, 9, $c, $lane),
            sdot!(28, 8, $d, $lane),
            sdot!(29, 9, $d, $lane),
        )
    };
}

/// Adds the products of all lines of four windows. 32 bytes of the windows by 16 channels are twelve loads and 128 SDOT.
macro_rules! windows {
    ($channels:tt) => {
        concat!(
            "2:\n",
            "lsr {count}, {line}, #5\n",
            "cbz {count}, 4f\n",
            "3:\n",
            "ld1 {{v0.16b, v1.16b}}, [{a}], #32\n",
            "ld1 {{v2.16b, v3.16b}}, [{b}], #32\n",
            "ld1 {{v4.16b, v5.16b}}, [{c}], #32\n",
            "ld1 {{v6.16b, v7.16b}}, [{d}], #32\n",
            word!($channels, 0 2 4 6, 0), word!($channels, 0 2 4 6, 1),
            word!($channels, 0 2 4 6, 2), word!($channels, 0 2 4 6, 3),
            word!($channels, 1 3 5 7, 0), word!($channels, 1 3 5 7, 1),
            word!($channels, 1 3 5 7, 2), word!($channels, 1 3 5 7, 3),
            "subs {count}, {count}, #1\n",
            "b.ne 3b\n",
            // What a line has beside that.
            "4:\n",
            "tbz {line}, #4, 5f\n",
            "ldr q0, [{a}], #16\n", "ldr q1, [{b}], #16\n", "ldr q2, [{c}], #16\n", "ldr q3, [{d}], #16\n",
            word!($channels, 0 1 2 3, 0), word!($channels, 0 1 2 3, 1),
            word!($channels, 0 1 2 3, 2), word!($channels, 0 1 2 3, 3),
            "5:\n",
            "tbz {line}, #3, 6f\n",
            "ldr d0, [{a}], #8\n", "ldr d1, [{b}], #8\n", "ldr d2, [{c}], #8\n", "ldr d3, [{d}], #8\n",
            word!($channels, 0 1 2 3, 0), word!($channels, 0 1 2 3, 1),
            "6:\n",
            "tbz {line}, #2, 7f\n",
            "ldr s0, [{a}], #4\n", "ldr s1, [{b}], #4\n", "ldr s2, [{c}], #4\n", "ldr s3, [{d}], #4\n",
            word!($channels, 0 1 2 3, 0),
            "7:\n",
            "add {a}, {a}, {skip}\n", "add {b}, {b}, {skip}\n", "add {c}, {c}, {skip}\n", "add {d}, {d}, {skip}\n",
            "subs {lines}, {lines}, #1\n",
            "b.ne 2b\n",
        )
    };
}

/// See [`super::conv::Tiles`]: 16 channels by four windows.
///
/// # Safety
/// See there.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn tiles(block: &Block, windows: &Windows) {
    // What is stored may be anywhere, for all that the compiler knows.
    let (block, windows) = (*block, *windows);
    let mut tiles = windows.tiles();
    while let Some((position, [a, b, c, d])) = tiles.next() {
        let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
        let [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] = &mut sums;
        // SAFETY: reads four biases for each vector, all lines of the windows, which are there, and the weights for them.
        unsafe {
            asm!(
                "ld1 {{v16.4s, v17.4s, v18.4s, v19.4s}}, [{bias}]",
                "ld1 {{v20.4s, v21.4s, v22.4s, v23.4s}}, [{bias}]",
                "ld1 {{v24.4s, v25.4s, v26.4s, v27.4s}}, [{bias}]",
                "ld1 {{v28.4s, v29.4s, v30.4s, v31.4s}}, [{bias}]",
                windows!(16),
                bias = in(reg) block.bias.as_ptr(), weights = inout(reg) block.weights => _,
                a = inout(reg) a => _, b = inout(reg) b => _, c = inout(reg) c => _, d = inout(reg) d => _,
                lines = inout(reg) windows.lines => _, line = in(reg) windows.line, count = out(reg) _,
                skip = in(reg) windows.pitch.wrapping_sub(windows.line),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v16") *a0, out("v17") *a1, out("v18") *a2, out("v19") *a3,
                out("v20") *b0, out("v21") *b1, out("v22") *b2, out("v23") *b3,
                out("v24") *c0, out("v25") *c1, out("v26") *c2, out("v27") *c3,
                out("v28") *d0, out("v29") *d1, out("v30") *d2, out("v31") *d3,
                options(readonly, nostack),
            );
        }
        // SAFETY: the output has the positions of the windows.
        unsafe { block.store(position, sums) };
    }
}

/// As [`tiles`], for eight channels.
///
/// # Safety
/// See there.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn narrow_tiles(block: &Block, windows: &Windows) {
    let (block, windows) = (*block, *windows);
    let mut tiles = windows.tiles();
    while let Some((position, [a, b, c, d])) = tiles.next() {
        let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
        let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = &mut sums;
        // SAFETY: as above.
        unsafe {
            asm!(
                "ld1 {{v16.4s, v17.4s}}, [{bias}]",
                "ld1 {{v20.4s, v21.4s}}, [{bias}]",
                "ld1 {{v24.4s, v25.4s}}, [{bias}]",
                "ld1 {{v28.4s, v29.4s}}, [{bias}]",
                windows!(8),
                bias = in(reg) block.bias.as_ptr(), weights = inout(reg) block.weights => _,
                a = inout(reg) a => _, b = inout(reg) b => _, c = inout(reg) c => _, d = inout(reg) d => _,
                lines = inout(reg) windows.lines => _, line = in(reg) windows.line, count = out(reg) _,
                skip = in(reg) windows.pitch.wrapping_sub(windows.line),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _,
                out("v16") *a0, out("v17") *a1, out("v20") *b0, out("v21") *b1,
                out("v24") *c0, out("v25") *c1, out("v28") *d0, out("v29") *d1,
                options(readonly, nostack),
            );
        }
        // SAFETY: the output has the positions of the windows.
        unsafe { block.store(position, sums) };
    }
}

/// The next 16 bytes. By itself the compiler has an addition beside each load.
///
/// # Safety
/// The bytes are there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn next(place: &mut *const i8) -> int8x16_t {
    let bytes;
    // SAFETY: reads 16 bytes, as the caller promises, and moves the pointer on.
    unsafe {
        asm!("ldr {0:q}, [{1}], #16", out(vreg) bytes, inout(reg) *place, options(readonly, nostack, preserves_flags));
    }
    bytes
}

/// A word, and zeros.
///
/// # Safety
/// It is there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn word(place: *const i32) -> int8x16_t {
    // SAFETY: as the caller says.
    vreinterpretq_s8_s32(unsafe { vld1q_lane_s32::<0>(place, vdupq_n_s32(0)) })
}

/// The sum of the lanes of each of four vectors.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn totals([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// The vectors of a row: whole ones, then its last words, each with zeros behind it.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn vectors<const ROWS: usize>(rows: [&[u8]; ROWS], mut each: impl FnMut([int8x16_t; ROWS])) {
    let len = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let mut at = 0;
    while at + 16 <= len {
        // SAFETY: 16 bytes of the shortest row, so of each.
        each(rows.map(|row| unsafe { vld1q_s8(row.as_ptr().wrapping_add(at).cast()) }));
        at += 16;
    }
    while at + 4 <= len {
        // SAFETY: four bytes of each row.
        each(rows.map(|row| unsafe { word(row.as_ptr().wrapping_add(at).cast()) }));
        at += 4;
    }
}

/// See [`crate::Isa::dot_2x4`].
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn dot_2x4([x0, x1]: [&[i8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let mut sums = [[vdupq_n_s32(0); 4]; 2];
    vectors([unsigned(x0), unsigned(x1), w0, w1, w2, w3], |[x0, x1, weights @ ..]| {
        for (sums, x) in sums.iter_mut().zip([x0, x1]) {
            for (sum, &weight) in sums.iter_mut().zip(&weights) {
                *sum = sdot(*sum, x, weight);
            }
        }
    });
    // SAFETY: both types are 16 bytes and every bit pattern is an array.
    sums.map(|sums| unsafe { core::mem::transmute::<int32x4_t, [i32; 4]>(totals(sums)) })
}

/// See [`crate::conv::row_by_blocks`].
#[target_feature(enable = "dotprod")]
pub(super) fn dot_16(row: &[i8], block: &[u8]) -> [[i32; 4]; 4] {
    let mut sums = [vdupq_n_s32(0); 4];
    for (word, weights) in unsigned(row).as_chunks::<4>().0.iter().zip(block.as_chunks::<64>().0) {
        let word = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(*word)));
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<16>().0) {
            // SAFETY: 16 bytes.
            *sum = sdot(*sum, word, unsafe { vld1q_s8(weights.as_ptr().cast()) });
        }
    }
    // SAFETY: both types are 64 bytes and every bit pattern is an array.
    unsafe { core::mem::transmute::<[int32x4_t; 4], [[i32; 4]; 4]>(sums) }
}

/// See [`crate::Isa::dot`].
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn dot(row: &[i8], weights: &[u8]) -> i32 {
    let mut sums = vdupq_n_s32(0);
    vectors([unsigned(row), weights], |[row, weights]| sums = sdot(sums, row, weights));
    vaddvq_s32(sums)
}
