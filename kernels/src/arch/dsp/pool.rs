//! Pools of four channels at a time: sums of 16 bits in pairs, maxima of bytes in fours.

use core::arch::asm;

use crate::pool::{Pool, PoolKind};
use crate::requant::{finish, rescale};

/// Runs a checked pool, if its channels come in fours.
pub(super) fn pool(op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
    let (channels, width) = (usize::from(op.output.channels), usize::from(op.output.width));
    if channels % 4 != 0 {
        return false;
    }
    for (position, out) in output.chunks_exact_mut(channels).enumerate() {
        let [rows, columns] = op.under(position / width, position % width);
        for (block, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let lines = rows.clone().filter_map(|row| {
                let from = (row * usize::from(op.input.width) + columns.start) * channels + 4 * block;
                let to = from + (columns.len().checked_sub(1)? * channels + 4);
                input.get(from..to)
            });
            *out = match op.kind {
                PoolKind::Max => {
                    let most = lines.fold(0x8080_8080, |most, line| maxima(line, channels, columns.len(), most));
                    most.to_le_bytes().map(|value| finish(i32::from(value as i8), 0, op.min, op.max))
                }
                PoolKind::Average => {
                    let count = (rows.len() * columns.len()) as i32;
                    let mut sums = [-(i32::from(op.input_zero) * count); 4];
                    for line in lines {
                        let [even, odd] = halves(line, channels, columns.len());
                        let row = [even as i16, odd as i16, (even >> 16) as i16, (odd >> 16) as i16];
                        for (sum, value) in sums.iter_mut().zip(row) {
                            *sum += i32::from(value);
                        }
                    }
                    sums.map(|sum| finish(rescale(sum, op.multiplier, op.shift), op.zero_point, op.min, op.max))
                }
            };
        }
    }
    true
}

/// Sums of bytes 0 and 2, and of 1 and 3, over `count` words, `pitch` bytes apart. At most 255 bytes fit into 16 bits.
#[inline(always)]
fn halves(line: &[i8], pitch: usize, count: usize) -> [u32; 2] {
    let (mut even, mut odd) = (0u32, 0u32);
    // SAFETY: `line` ends with the last of `count` words, which is not 0; words are read at any alignment.
    unsafe {
        asm!(
            "2:",
            "ldr {word}, [{from}]",
            "add {from}, {from}, {pitch}",
            "sxtb16 {wide}, {word}",
            "sxtb16 {word}, {word}, ror #8",
            "sadd16 {even}, {even}, {wide}",
            "sadd16 {odd}, {odd}, {word}",
            "subs {count}, {count}, #1",
            "bne 2b",
            from = inout(reg) line.as_ptr() => _,
            count = inout(reg) count => _,
            pitch = in(reg) pitch,
            word = out(reg) _,
            wide = out(reg) _,
            even = inout(reg) even,
            odd = inout(reg) odd,
            options(nostack, readonly),
        );
    }
    [even, odd]
}

/// The larger of each of four bytes and those of `count` words, `pitch` bytes apart.
#[inline(always)]
fn maxima(line: &[i8], pitch: usize, count: usize, mut most: u32) -> u32 {
    // SAFETY: as above.
    unsafe {
        asm!(
            "2:",
            "ldr {word}, [{from}]",
            "add {from}, {from}, {pitch}",
            // Bytes that are not less than before.
            "ssub8 {less}, {word}, {most}",
            "sel {most}, {word}, {most}",
            "subs {count}, {count}, #1",
            "bne 2b",
            from = inout(reg) line.as_ptr() => _,
            count = inout(reg) count => _,
            pitch = in(reg) pitch,
            word = out(reg) _,
            less = out(reg) _,
            most = inout(reg) most,
            options(nostack, readonly),
        );
    }
    most
}
