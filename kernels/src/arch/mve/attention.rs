//! Leaves of attention: dot products of queries and keys, and values mixed by weights.

use core::arch::asm;

use crate::attention::{ROWS, Rows};

/// Dot products of two rows with two others.
#[inline(always)]
fn dot_2x2([a, b]: [&[i8]; 2], [c, d]: [&[u8]; 2]) -> [[i32; 2]; 2] {
    let len = a.len().min(b.len()).min(c.len()).min(d.len());
    let mut sums = [[0; 2]; 2];
    let [[ac, ad], [bc, bd]] = &mut sums;
    // SAFETY: `len` bytes of each row are read; tail predication leaves out those behind them.
    unsafe {
        asm!(
            "wlstp.8 lr, {len}, 3f",
            "2:",
            "vldrb.u8 q0, [{a}], #16",
            "vldrb.u8 q1, [{c}], #16",
            "vmlava.s8 r0, q0, q1",
            "vldrb.u8 q2, [{d}], #16",
            "vmlava.s8 r2, q0, q2",
            "vldrb.u8 q3, [{b}], #16",
            "vmlava.s8 r4, q3, q1",
            "vmlava.s8 r12, q3, q2",
            "letp lr, 2b",
            "3:",
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            c = inout(reg) c.as_ptr() => _,
            d = inout(reg) d.as_ptr() => _,
            len = in(reg) len,
            // Sums lie in registers of even numbers.
            inout("r0") 0 => *ac,
            inout("r2") 0 => *ad,
            inout("r4") 0 => *bc,
            inout("r12") 0 => *bd,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("lr") _,
            options(nostack, readonly),
        );
    }
    sums
}

/// Dot products of two rows with four others.
#[inline(never)]
pub(super) fn dot_2x4(rows: [&[i8]; 2], [a, b, c, d]: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let ([[p, q], [t, u]], [[r, s], [v, w]]) = (dot_2x2(rows, [a, b]), dot_2x2(rows, [c, d]));
    [[p, q, r, s], [t, u, v, w]]
}

/// Adds eight channels of `count` values, `pitch` bytes apart, each times its weight, to the sums of two queries.
///
/// # Safety
/// `weights` have `count` values, at any address; `values` have eight bytes each of `count`, which is not 0.
#[inline(always)]
unsafe fn add_products(
    [first, second]: [&mut [i32; 8]; 2],
    [weights, others]: [*const [i8; 2]; 2],
    values: *const i8,
    pitch: usize,
    count: usize,
) {
    // SAFETY: as the caller says; the sums are of eight words each.
    unsafe {
        asm!(
            "vldrw.u32 q0, [{first}]",
            "vldrw.u32 q1, [{first}, #16]",
            "vldrw.u32 q2, [{second}]",
            "vldrw.u32 q3, [{second}, #16]",
            "dls lr, {count}",
            "2:",
            "vldrb.s32 q4, [r0]",
            "ldrsh {weight}, [{weights}], #2",
            "vmla.i32 q0, q4, {weight}",
            "vldrb.s32 q5, [r0, #4]",
            "ldrsh {count}, [{others}], #2",
            "vmla.i32 q1, q5, {weight}",
            "add r0, {pitch}",
            "vmla.i32 q2, q4, {count}",
            "vmla.i32 q3, q5, {count}",
            "le lr, 2b",
            "vstrw.32 q0, [{first}]",
            "vstrw.32 q1, [{first}, #16]",
            "vstrw.32 q2, [{second}]",
            "vstrw.32 q3, [{second}, #16]",
            first = in(reg) first.as_mut_ptr(),
            second = in(reg) second.as_mut_ptr(),
            weights = inout(reg) weights => _,
            others = inout(reg) others => _,
            // A widening load takes a low register.
            inout("r0") values => _,
            pitch = in(reg) pitch,
            // Free in the loop, which counts in lr.
            count = inout(reg) count => _,
            weight = out(reg) _,
            out("lr") _,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("q4") _,
            out("q5") _,
            options(nostack),
        );
    }
}

/// Values mixed by the weights of four queries, 16 channels from `channel` on.
#[inline(never)]
pub(super) fn mix(weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
    let mut sums = [[0; 16]; ROWS];
    let keys = weights[0].len();
    if weights.iter().any(|row| row.len() != keys) {
        return sums;
    }
    let (columns, pitch) = (values.grid.columns, values.grid.pixel);
    for first in (0..keys).step_by(columns) {
        let count = columns.min(keys - first);
        let line = values.run(first, count).get(channel..).unwrap_or_default();
        if line.len() < (count - 1) * pitch + 16 {
            return sums;
        }
        for (sums, weights) in sums.as_chunks_mut::<2>().0.iter_mut().zip(weights.as_chunks::<2>().0) {
            let [a, b] = sums;
            let weights = weights.map(|row| row.as_ptr().wrapping_add(first));
            for (half, (a, b)) in a.as_chunks_mut().0.iter_mut().zip(b.as_chunks_mut().0).enumerate() {
                let values = line.as_ptr().wrapping_add(8 * half);
                // SAFETY: each row has `keys` weights, `count` from `first` on; `line` has 16 bytes in each of `count`
                // places, of which these are eight.
                unsafe { add_products([a, b], weights, values, pitch, count) };
            }
        }
    }
    sums
}
