//! From sums to outputs: [`crate::Requant::apply`] for shifts from 33 on.
//!
//! SQDMULH keeps `⌊2·sum·multiplier / 2^32⌋`; it saturates only for a multiplier of -2^31, which no image has. SRSHL adds the
//! half and shifts by what is left, shift - 31: from 32 on the half has no bit in what SQDMULH cut off, and a floor of a floor
//! is a floor. Narrowing saturates, as the clamp that follows does.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vdupq_n_s8, vdupq_n_s16, vdupq_n_s32, vget_low_u16, vld1_u8, vld1q_s32, vmaxq_s8,
    vminq_s8, vmovl_high_u16, vmovl_u8, vmovl_u16, vqaddq_s16, vqdmulhq_s32, vqmovn_high_s16, vqmovn_high_s32,
    vqmovn_s16, vqmovn_s32, vreinterpretq_s32_u32, vrshlq_s32, vsubq_s32,
};

use super::conv::CHANNELS;
use crate::conv::Conv;
use crate::element::Element;

/// What turns the sums of a run of channels into outputs.
#[derive(Clone, Copy)]
pub(super) struct Rescale {
    bias: *const u8,
    multiplier: *const u8,
    shift: *const u8,
    zero: int16x8_t,
    min: int8x16_t,
    max: int8x16_t,
}

/// Constants of eight neighbouring channels.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    pub(super) bias: [int32x4_t; 2],
    pub(super) multiplier: [int32x4_t; 2],
    /// To the left.
    pub(super) shift: [int32x4_t; 2],
}

impl Rescale {
    /// Of the channels from `channel` on; the tables have an entry for each (`Requant::check`).
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new(op: &Conv<'_>, channel: usize) -> Self {
        let requant = &op.requant;
        Self {
            bias: requant.bias.as_ptr().wrapping_add(4 * channel),
            multiplier: requant.multiplier.as_ptr().wrapping_add(4 * channel),
            shift: requant.shift.as_ptr().wrapping_add(channel),
            zero: vdupq_n_s16(if op.to == Element::Int8 { requant.zero_point.into() } else { 0 }),
            min: vdupq_n_s8(requant.min),
            max: vdupq_n_s8(requant.max),
        }
    }

    /// # Safety
    /// There are [`CHANNELS`] channels from `channel` on.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn constants(&self, channel: usize) -> Constants {
        let words = |table: *const u8| {
            let table = table.wrapping_add(4 * channel).cast::<i32>();
            // SAFETY: eight entries of four bytes (the caller's promise); a vector may lie at any address.
            unsafe { [vld1q_s32(table), vld1q_s32(table.wrapping_add(4))] }
        };
        // SAFETY: eight entries of a byte.
        let shift = vmovl_u8(unsafe { vld1_u8(self.shift.wrapping_add(channel)) });
        let left = |shift| vsubq_s32(vdupq_n_s32(31), vreinterpretq_s32_u32(shift));
        Constants {
            bias: words(self.bias),
            multiplier: words(self.multiplier),
            shift: [left(vmovl_u16(vget_low_u16(shift))), left(vmovl_high_u16(shift))],
        }
    }

    /// Eight rescaled sums to 16 bits, with the zero point.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn narrow(&self, low: int32x4_t, high: int32x4_t) -> int16x8_t {
        vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), self.zero)
    }

    /// Two times eight to bytes, clamped.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn bytes(&self, low: int16x8_t, high: int16x8_t) -> int8x16_t {
        vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(low), high), self.min), self.max)
    }
}

/// Four sums, rescaled.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn scaled(sums: int32x4_t, multiplier: int32x4_t, shift: int32x4_t) -> int32x4_t {
    vrshlq_s32(vqdmulhq_s32(sums, multiplier), shift)
}

const _: () = assert!(CHANNELS == 8, "two vectors of 32 bits");
