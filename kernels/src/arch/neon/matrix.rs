//! Tiles by SMMLA: two windows times two rows of weights, eight places each, 32 products an instruction.

use core::arch::aarch64::{
    int32x4_t, vdupq_n_s32, vreinterpretq_s32_s64, vreinterpretq_s64_s32, vzip1q_s64, vzip2q_s64,
};
use core::arch::asm;

use super::conv::{Block, ROWS};
use super::strip::Windows;

/// Adds the products of eight bytes of two windows with those of two channels: sums are rows of two, window and channel,
/// `[w0·c0, w0·c1, w1·c0, w1·c1]`.
macro_rules! smmla {
    ($sums:literal, $windows:literal, $weights:literal) => {
        concat!("smmla v", $sums, ".4s, v", $windows, ".16b, v", $weights, ".16b\n")
    };
}

/// Adds the products of eight bytes of four windows with the next vectors of weights, for 16 or eight channels.
macro_rules! eight {
    (16, $two:literal $other:literal) => {
        concat!(
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{weights}], #64\n",
            "ld1 {{v12.16b, v13.16b, v14.16b, v15.16b}}, [{weights}], #64\n",
            smmla!(16, $two, 8),
            smmla!(17, $two, 9),
            smmla!(18, $two, 10),
            smmla!(19, $two, 11),
            smmla!(20, $two, 12),
            smmla!(21, $two, 13),
            smmla!(22, $two, 14),
            smmla!(23, $two, 15),
            smmla!(24, $other, 8),
            smmla!(25, $other, 9),
            smmla!(26, $other, 10),
            smmla!(27, $other, 11),
            smmla!(28, $other, 12),
            smmla!(29, $other, 13),
            smmla!(30, $other, 14),
            smmla!(31, $other, 15),
        )
    };
    (8, $two:literal $other:literal) => {
        concat!(
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{weights}], #64\n",
            smmla!(16, $two, 8),
            smmla!(17, $two, 9),
            smmla!(18, $two, 10),
            smmla!(19, $two, 11),
            smmla!(24, $other, 8),
            smmla!(25, $other, 9),
            smmla!(26, $other, 10),
            smmla!(27, $other, 11),
        )
    };
}

/// Adds the products of all lines of four windows. 16 bytes of the windows by 16 channels are eight loads, four ZIP that bring
/// two windows together, and 32 SMMLA.
macro_rules! windows {
    ($channels:tt) => {
        concat!(
            "2:\n",
            "lsr {count}, {line}, #4\n",
            "cbz {count}, 4f\n",
            "3:\n",
            "ldr q0, [{a}], #16\n", "ldr q1, [{b}], #16\n", "ldr q2, [{c}], #16\n", "ldr q3, [{d}], #16\n",
            "zip1 v4.2d, v0.2d, v1.2d\n", "zip1 v5.2d, v2.2d, v3.2d\n",
            "zip2 v6.2d, v0.2d, v1.2d\n", "zip2 v7.2d, v2.2d, v3.2d\n",
            eight!($channels, 4 5), eight!($channels, 6 7),
            "subs {count}, {count}, #1\n",
            "b.ne 3b\n",
            "4:\n",
            "tbz {line}, #3, 5f\n",
            "ldr d0, [{a}], #8\n", "ldr d1, [{b}], #8\n", "ldr d2, [{c}], #8\n", "ldr d3, [{d}], #8\n",
            "zip1 v4.2d, v0.2d, v1.2d\n", "zip1 v5.2d, v2.2d, v3.2d\n",
            eight!($channels, 4 5),
            "5:\n",
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
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn tiles(block: &Block, windows: &Windows) {
    // What is stored may be anywhere, for all that the compiler knows.
    let (block, windows) = (*block, *windows);
    let bias = block.bias.map(|bias| halves([bias; 2]));
    let mut tiles = windows.tiles();
    while let Some((position, [a, b, c, d])) = tiles.next() {
        let mut sums = [[[vdupq_n_s32(0); 2]; 4]; ROWS / 2];
        let [[[a0, a1], [a2, a3], [a4, a5], [a6, a7]], [[b0, b1], [b2, b3], [b4, b5], [b6, b7]]] = &mut sums;
        // SAFETY: reads the biases, all lines of the windows, which are there, and the weights for them.
        unsafe {
            asm!(
                "ld1 {{v16.4s, v17.4s, v18.4s, v19.4s}}, [{bias}], #64",
                "ld1 {{v20.4s, v21.4s, v22.4s, v23.4s}}, [{bias}]",
                "ld1 {{v28.4s, v29.4s, v30.4s, v31.4s}}, [{bias}]",
                "sub {bias}, {bias}, #64",
                "ld1 {{v24.4s, v25.4s, v26.4s, v27.4s}}, [{bias}]",
                windows!(16),
                bias = inout(reg) bias.as_ptr() => _, weights = inout(reg) block.weights => _,
                a = inout(reg) a => _, b = inout(reg) b => _, c = inout(reg) c => _, d = inout(reg) d => _,
                lines = inout(reg) windows.lines => _, line = in(reg) windows.line, count = out(reg) _,
                skip = in(reg) windows.pitch.wrapping_sub(windows.line),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                out("v16") *a0, out("v17") *a1, out("v18") *a2, out("v19") *a3,
                out("v20") *a4, out("v21") *a5, out("v22") *a6, out("v23") *a7,
                out("v24") *b0, out("v25") *b1, out("v26") *b2, out("v27") *b3,
                out("v28") *b4, out("v29") *b5, out("v30") *b6, out("v31") *b7,
                options(readonly, nostack),
            );
        }
        // SAFETY: the output has the positions of the windows.
        unsafe { block.store(position, by_position(sums)) };
    }
}

/// As [`tiles`], for eight channels.
///
/// # Safety
/// See there.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn narrow_tiles(block: &Block, windows: &Windows) {
    let (block, windows) = (*block, *windows);
    let bias = block.bias.map(|bias| halves([bias; 2]));
    let mut tiles = windows.tiles();
    while let Some((position, [a, b, c, d])) = tiles.next() {
        let mut sums = [[[vdupq_n_s32(0); 2]; 2]; ROWS / 2];
        let [[[a0, a1], [a2, a3]], [[b0, b1], [b2, b3]]] = &mut sums;
        // SAFETY: as above.
        unsafe {
            asm!(
                "ld1 {{v16.4s, v17.4s, v18.4s, v19.4s}}, [{bias}]",
                "ld1 {{v24.4s, v25.4s, v26.4s, v27.4s}}, [{bias}]",
                windows!(8),
                bias = in(reg) bias.as_ptr(), weights = inout(reg) block.weights => _,
                a = inout(reg) a => _, b = inout(reg) b => _, c = inout(reg) c => _, d = inout(reg) d => _,
                lines = inout(reg) windows.lines => _, line = in(reg) windows.line, count = out(reg) _,
                skip = in(reg) windows.pitch.wrapping_sub(windows.line),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                out("v16") *a0, out("v17") *a1, out("v18") *a2, out("v19") *a3,
                out("v24") *b0, out("v25") *b1, out("v26") *b2, out("v27") *b3,
                options(readonly, nostack),
            );
        }
        // SAFETY: the output has the positions of the windows.
        unsafe { block.store(position, by_position(sums)) };
    }
}

/// Sums of pairs of channels of two windows to sums of fours of channels of each.
#[inline]
#[target_feature(enable = "neon")]
fn by_position<const COUNT: usize>(sums: [[[int32x4_t; 2]; COUNT]; ROWS / 2]) -> [[int32x4_t; COUNT]; ROWS] {
    let [[a, b], [c, d]] = sums.map(|sums| {
        let positions = sums.map(|both| halves(both));
        [positions.map(|[first, _]| first), positions.map(|[_, second]| second)]
    });
    [a, b, c, d]
}

/// The first halves of two vectors, and the second ones.
#[inline]
#[target_feature(enable = "neon")]
fn halves(both: [int32x4_t; 2]) -> [int32x4_t; 2] {
    let [a, b] = both.map(|vector| vreinterpretq_s64_s32(vector));
    [vreinterpretq_s32_s64(vzip1q_s64(a, b)), vreinterpretq_s32_s64(vzip2q_s64(a, b))]
}
