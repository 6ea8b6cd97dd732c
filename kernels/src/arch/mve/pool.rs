//! Pools, sixteen channels at a time.

use core::arch::asm;

use crate::pool::{Pool, PoolKind};
use crate::requant::{finish, rescale};

/// Channels of a block.
const BLOCK: usize = 16;

/// Runs a checked pool of 16 channels or more.
pub(super) fn pool(op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
    let (channels, width) = (usize::from(op.output.channels), usize::from(op.output.width));
    if channels < BLOCK {
        return false;
    }
    for (position, out) in output.chunks_exact_mut(channels).enumerate() {
        let [rows, columns] = op.under(position / width, position % width);
        let mut next = 0;
        while next < channels {
            // The last sixteen again rather than less than sixteen: the same inputs give the same outputs.
            let channel = next.min(channels - BLOCK);
            let lines = rows.clone().filter_map(|row| {
                let from = (row * usize::from(op.input.width) + columns.start) * channels + channel;
                input.get(from..from + (columns.len().checked_sub(1)? * channels + BLOCK))
            });
            let values = match op.kind {
                PoolKind::Max => {
                    let mut most = [i8::MIN; BLOCK];
                    lines.for_each(|line| maxima(line, channels, columns.len(), &mut most));
                    most.map(|value| value.min(op.max).max(op.min))
                }
                PoolKind::Average => {
                    let count = (rows.len() * columns.len()) as i32;
                    let mut sums = [-(i32::from(op.input_zero) * count); BLOCK];
                    lines.for_each(|line| add(line, channels, columns.len(), &mut sums));
                    sums.map(|sum| finish(rescale(sum, op.multiplier, op.shift), op.zero_point, op.min, op.max))
                }
            };
            let Some(out) = out.get_mut(channel..channel + BLOCK) else { return false };
            out.copy_from_slice(&values);
            next = channel + BLOCK;
        }
    }
    true
}

/// Adds `count` blocks of a line, `pitch` bytes apart.
#[inline(always)]
fn add(line: &[i8], pitch: usize, count: usize, sums: &mut [i32; BLOCK]) {
    // SAFETY: `line` ends with the last of `count` blocks, which is not 0; the sums are of 16 words.
    unsafe {
        asm!(
            "vldrw.u32 q0, [{sums}]",
            "vldrw.u32 q1, [{sums}, #16]",
            "vldrw.u32 q2, [{sums}, #32]",
            "vldrw.u32 q3, [{sums}, #48]",
            "dls lr, {count}",
            "2:",
            "vldrb.s32 q4, [r0]",
            "vadd.i32 q0, q0, q4",
            "vldrb.s32 q5, [r0, #4]",
            "vadd.i32 q1, q1, q5",
            "vldrb.s32 q4, [r0, #8]",
            "vadd.i32 q2, q2, q4",
            "vldrb.s32 q5, [r0, #12]",
            "vadd.i32 q3, q3, q5",
            "add r0, {pitch}",
            "le lr, 2b",
            "vstrw.32 q0, [{sums}]",
            "vstrw.32 q1, [{sums}, #16]",
            "vstrw.32 q2, [{sums}, #32]",
            "vstrw.32 q3, [{sums}, #48]",
            // A widening load takes a low register.
            inout("r0") line.as_ptr() => _,
            sums = in(reg) sums.as_mut_ptr(),
            count = in(reg) count,
            pitch = in(reg) pitch,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("q4") _,
            out("q5") _,
            out("lr") _,
            options(nostack, preserves_flags),
        );
    }
}

/// The larger of each of sixteen bytes and those of `count` blocks, `pitch` bytes apart.
#[inline(always)]
fn maxima(line: &[i8], pitch: usize, count: usize, most: &mut [i8; BLOCK]) {
    // SAFETY: as above; there are 16 maxima.
    unsafe {
        asm!(
            "vldrb.u8 q0, [{most}]",
            "dls lr, {count}",
            "2:",
            "vldrb.u8 q1, [{from}]",
            "add {from}, {pitch}",
            "vmax.s8 q0, q0, q1",
            "le lr, 2b",
            "vstrb.8 q0, [{most}]",
            from = inout(reg) line.as_ptr() => _,
            most = in(reg) most.as_mut_ptr(),
            count = in(reg) count,
            pitch = in(reg) pitch,
            out("q0") _,
            out("q1") _,
            out("lr") _,
            options(nostack, preserves_flags),
        );
    }
}
