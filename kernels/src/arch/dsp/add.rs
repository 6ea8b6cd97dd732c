//! Additions: the operands of one element as a pair, so that one SMLAD is both products and the constant.

use core::arch::naked_asm;

use crate::add::{Add, BYTES, WORDS};

/// `words` times four elements.
///
/// # Safety
/// `a`, `b` and `output` have four bytes per word; `words` is not 0. `output` may be `a`.
#[unsafe(naked)]
unsafe extern "C" fn fours(a: *const i8, b: *const i8, output: *mut i8, words: usize, op: *const [i32; 3]) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldr r4, [sp, #36]",
        // Both factors, the constant, the shift.
        "ldm r4, {{r11, r12, lr}}",
        "2:",
        "ldr r4, [r0], #4",
        "ldr r5, [r1], #4",
        "sxtb16 r6, r4",
        "sxtb16 r4, r4, ror #8",
        "sxtb16 r7, r5",
        "sxtb16 r5, r5, ror #8",
        "pkhbt r8, r6, r7, lsl #16",
        "pkhtb r10, r7, r6, asr #16",
        "pkhbt r9, r4, r5, lsl #16",
        "pkhtb r4, r5, r4, asr #16",
        "smlad r8, r8, r11, r12",
        "smlad r9, r9, r11, r12",
        "smlad r10, r10, r11, r12",
        "smlad r4, r4, r11, r12",
        "asr r8, r8, lr",
        "asr r9, r9, lr",
        "asr r10, r10, lr",
        "asr r4, r4, lr",
        "ssat r8, #8, r8",
        "ssat r9, #8, r9",
        "ssat r10, #8, r10",
        "ssat r4, #8, r4",
        "bfi r8, r9, #8, #8",
        "bfi r8, r10, #16, #8",
        "bfi r8, r4, #24, #8",
        "str r8, [r2], #4",
        "subs r3, r3, #1",
        "bne 2b",
        "pop {{r4-r11, pc}}",
    )
}

/// `words` times two elements of 16 bits.
///
/// # Safety
/// As [`fours`].
#[unsafe(naked)]
unsafe extern "C" fn pairs(a: *const i8, b: *const i8, output: *mut i8, words: usize, op: *const [i32; 3]) {
    naked_asm!(
        "push {{r4-r6, r11, lr}}",
        "ldr r4, [sp, #20]",
        "ldm r4, {{r11, r12, lr}}",
        "2:",
        "ldr r4, [r0], #4",
        "ldr r5, [r1], #4",
        "pkhbt r6, r4, r5, lsl #16",
        "pkhtb r5, r5, r4, asr #16",
        "smlad r6, r6, r11, r12",
        "smlad r5, r5, r11, r12",
        "asr r6, r6, lr",
        "asr r5, r5, lr",
        "ssat r6, #16, r6",
        "ssat r5, #16, r5",
        "pkhbt r6, r6, r5, lsl #16",
        "str r6, [r2], #4",
        "subs r3, r3, #1",
        "bne 2b",
        "pop {{r4-r6, r11, pc}}",
    )
}

fn constants(op: &Add) -> [i32; 3] {
    let [first, second] = op.multiplier.map(|factor| factor as u16);
    [(u32::from(second) << 16 | u32::from(first)) as i32, op.offset, i32::from(op.shift.min(30))]
}

/// The whole words of an addition; returns how many elements they are.
pub(super) fn add(op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
    let words = a.len().min(b.len()).min(output.len()) / 4;
    if op.elements == WORDS && words > 0 {
        // SAFETY: each slice has as many words; there is at least one.
        unsafe { pairs(a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), words, &constants(op)) };
        return 2 * words;
    }
    if op.elements != BYTES {
        return 0;
    }
    if words > 0 {
        // SAFETY: each slice has as many words; there is at least one.
        unsafe { fours(a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), words, &constants(op)) };
        super::clamp(op.min, op.max, output.get_mut(..4 * words).unwrap_or_default());
    }
    4 * words
}

/// [`add`] whose output takes the place of `a`.
pub(super) fn add_in_place(op: &Add, a: &mut [i8], b: &[i8]) -> usize {
    let words = a.len().min(b.len()) / 4;
    if words > 0 {
        let values = a.as_mut_ptr();
        // SAFETY: as above; an element is read before it is written.
        unsafe { fours(values, b.as_ptr(), values, words, &constants(op)) };
        super::clamp(op.min, op.max, a.get_mut(..4 * words).unwrap_or_default());
    }
    4 * words
}
