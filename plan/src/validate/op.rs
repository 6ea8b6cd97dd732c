//! V11, V12, V15 and V16 for one op.

use super::stream::Maps;
use super::{At, Check};
use crate::bytes::Field;
use crate::error::Rule;
use crate::image::Image;
use crate::layout::{
    IN_BLOCKS, MAX_BIAS, MAX_KEYS, MAX_NORM_CHANNELS, MAX_REDUCTION, NO_TENSOR, WITH_BIAS, WITH_CURVE, WITH_MASK,
};
use crate::record::{Attention, Element, Op, OpKind, Tensor};

/// Whether this build knows what only transformers and heads have.
const TRANSFORMERS: bool = cfg!(feature = "transformers");

/// All rules that ask for one op and its tensors alone.
pub(super) fn alone(image: &Image<'_>, maps: &Maps<'_, '_>, op: &Op, at: At) -> Check {
    if let OpKind::Invalid(kind) = op.kind {
        return Err(at.refuse(Rule::KindKnown, kind, OpKind::Suppress.number()));
    }
    super::head::flags(image, op, at)?;
    at.at_most(Rule::Numeric, (i64::from(op.min) + 128) as u64, (i64::from(op.max) + 128) as u64)?;
    let (input, output) = (maps.whole(op.input), maps.whole(op.output));
    if cfg!(feature = "detector") && op.kind.is_of_head() {
        return super::head::alone(image, op, at);
    }
    if op.input2.0 != NO_TENSOR && !matches!(op.kind, OpKind::Add | OpKind::Attention) {
        return Err(at.refuse(Rule::Reference, op.input2.0, NO_TENSOR));
    }
    elements(op, &input, &output, at)?;
    match op.kind {
        OpKind::Conv | OpKind::Depthwise => {
            window(op, &input, &output, at)?;
            convolution(image, op, &input, &output, at)
        }
        OpKind::AveragePool | OpKind::MaxPool => {
            window(op, &input, &output, at)?;
            at.equal(Rule::Geometry, output.shape[2], input.shape[2])?;
            if op.kind == OpKind::AveragePool {
                // |Σ (x - zero)| ≤ 65,025 · 255 stays inside 31 bits.
                rescale(op.factors[0], op.shift, at)?;
            }
            Ok(())
        }
        OpKind::Add => addition(image, maps, op, &input, &output, at),
        OpKind::Move => {
            for count in op.step.into_iter().chain(op.repeat) {
                at.at_least(Rule::Geometry, count, 1u8)?;
            }
            at.at_least(Rule::Geometry, op.groups, 1u8)?;
            at.at_most(Rule::Geometry, u32::from(op.first_channel) + u32::from(op.groups), output.shape[2])
        }
        OpKind::LayerNorm if TRANSFORMERS => layer_norm(image, op, &input, &output, at),
        OpKind::Attention if TRANSFORMERS => attention(image, op, &input, &output, at),
        OpKind::Curve if TRANSFORMERS => {
            same(input.shape, output.shape, at)?;
            data(image, op.weights, 256, at)
        }
        OpKind::Prepend if TRANSFORMERS => {
            at.equal(Rule::Geometry, output.shape[0], 1u8)?;
            at.equal(Rule::Geometry, output.shape[2], input.shape[2])?;
            let positions = u64::from(op.groups) + u64::from(input.shape[0]) * u64::from(input.shape[1]);
            at.equal(Rule::Geometry, output.shape[1], positions)?;
            data(image, op.weights, u64::from(op.groups) * position_bytes(&output), at)
        }
        OpKind::Roll if TRANSFORMERS => {
            same(input.shape, output.shape, at)?;
            let [rows, columns, channel] = op.origin;
            at.equal(Rule::Geometry, channel as u16, 0u8)?;
            for (by, side) in [rows, columns].into_iter().zip(input.shape) {
                at.at_most(Rule::Geometry, by as u16, side - 1)?;
            }
            Ok(())
        }
        OpKind::Rescale if TRANSFORMERS => {
            same(input.shape, output.shape, at)?;
            requantisation(image, op, output.shape[2], at)
        }
        // Only transformers have it.
        _ => at.equal(Rule::KindKnown, op.kind.number(), OpKind::Move.number()),
    }
}

/// V15 for elements, and V16 for the clamp of int16, which is none.
fn elements(op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    let is = |tensor: &Tensor, element: Element| at.equal(Rule::Geometry, tensor.element.bytes(), element.bytes());
    match op.kind {
        OpKind::Add | OpKind::Rescale => {}
        OpKind::Move | OpKind::Prepend | OpKind::Roll => {
            is(output, input.element)?;
            // They move bytes, and count them in 16 bits.
            for tensor in [input, output] {
                at.at_most(Rule::Geometry, position_bytes(tensor), u16::MAX)?;
            }
        }
        OpKind::Conv => is(input, Element::Int8)?,
        OpKind::LayerNorm => {
            is(input, Element::Int16)?;
            is(output, Element::Int8)?;
        }
        _ => {
            is(input, Element::Int8)?;
            is(output, Element::Int8)?;
        }
    }
    if output.element == Element::Int16 {
        at.equal(Rule::Numeric, op.min as u8, i8::MIN as u8)?;
        at.equal(Rule::Numeric, op.max as u8, i8::MAX as u8)?;
    }
    Ok(())
}

pub(super) fn same(found: [u16; 3], expected: [u16; 3], at: At) -> Check {
    for (found, expected) in found.into_iter().zip(expected) {
        at.equal(Rule::Geometry, found, expected)?;
    }
    Ok(())
}

/// V12: bytes of the data section.
pub(super) fn data(image: &Image<'_>, offset: u32, len: u64, at: At) -> Check {
    at.at_most(Rule::Reference, u64::from(offset) + len, image.data_len() as u64)
}

fn position_bytes(tensor: &Tensor) -> u64 {
    u64::from(tensor.shape[2]) * u64::from(tensor.element.bytes())
}

fn addition(image: &Image<'_>, maps: &Maps<'_, '_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    let second = if op.input2.0 == NO_TENSOR { *output } else { maps.whole(op.input2) };
    same(input.shape, output.shape, at)?;
    same(second.shape, output.shape, at)?;
    if op.input2.0 == NO_TENSOR {
        data(image, op.weights, output.bytes(), at)?;
    }
    // The sum stays inside 31 bits.
    let mut largest = u64::from(op.constant.unsigned_abs());
    for (factor, tensor) in op.factors.into_iter().zip([input, &second]) {
        at.at_most(Rule::Numeric, factor.unsigned_abs(), i16::MAX.unsigned_abs())?;
        largest += u64::from(factor.unsigned_abs()) << (8 * tensor.element.bytes() - 1);
    }
    at.at_most(Rule::Numeric, largest, i32::MAX.unsigned_abs())?;
    at.at_most(Rule::Numeric, op.shift, 30u8)
}

fn layer_norm(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    same(input.shape, output.shape, at)?;
    let channels = output.shape[2];
    at.at_least(Rule::Numeric, channels, 2u8)?;
    at.at_most(Rule::Numeric, channels, MAX_NORM_CHANNELS)?;
    at.at_most(Rule::Numeric, op.shift, 15u8)?;
    // The variance, times the squared channels, is below 2^52; what is added to it leaves room.
    at.at_most(Rule::Numeric, op.epsilon(), 1u64 << 62)?;
    data(image, op.weights, 2 * u64::from(channels), at)?;
    data(image, op.bias, 4 * u64::from(channels), at)?;
    biases(image, op.bias, channels, at)
}

fn attention(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    data(image, op.weights, Attention::LEN as u64, at)?;
    let record = image.attention(op);
    let keys = if op.input2.0 == NO_TENSOR { *input } else { image.tensor(op.input2) };
    at.equal(Rule::KindKnown, record.reserved, 0u8)?;
    at.equal(Rule::KindKnown, record.flags & !(WITH_BIAS | WITH_MASK), 0u8)?;
    at.equal(Rule::Geometry, keys.element.bytes(), Element::Int8.bytes())?;
    for tensor in [input, &keys] {
        at.equal(Rule::Numeric, tensor.zero_point as u8, 0u8)?;
    }
    // Each head's channels lie in their map.
    for (first, per_head, width, map) in [
        (record.query_first, record.query_per_head, record.query_width, input),
        (record.key_first, record.key_per_head, record.query_width, &keys),
        (record.value_first, record.value_per_head, record.value_width, &keys),
    ] {
        at.at_least(Rule::Geometry, width, 1u8)?;
        let last = u64::from(first) + u64::from(record.heads.saturating_sub(1)) * u64::from(per_head);
        at.at_most(Rule::Geometry, last + u64::from(width), map.shape[2])?;
    }
    at.at_least(Rule::Geometry, record.heads, 1u8)?;
    let channels = u32::from(record.heads) * u32::from(record.value_width);
    at.equal(Rule::Geometry, output.shape[2], channels)?;
    // Both maps are divided into equally many windows, down and across.
    let mut windows = 1u32;
    for axis in 0..2 {
        let count = |map: &Tensor, window: [u16; 2]| {
            let side = map.shape.get(axis).copied().unwrap_or_default();
            let of = window.get(axis).copied().unwrap_or_default();
            at.at_least(Rule::Geometry, of, 1u8)?;
            at.equal(Rule::Geometry, side % of, 0u8)?;
            Ok(side / of)
        };
        let of_queries = count(input, record.query_window)?;
        at.equal(Rule::Geometry, count(&keys, record.key_window)?, of_queries)?;
        windows = windows.saturating_mul(of_queries.into());
    }
    for (found, expected) in output.shape.into_iter().zip(input.shape).take(2) {
        at.equal(Rule::Geometry, found, expected)?;
    }
    at.at_most(Rule::Numeric, record.keys(), MAX_KEYS)?;
    rescale(record.logit_multiplier, record.logit_shift, at)?;
    rescale(record.multiplier, record.shift, at)?;
    super::head::bias_map(image, op, &record, at)?;
    data(image, record.bias, record.bias_bytes(), at)?;
    data(image, record.mask, record.mask_bytes(windows), at)
}

pub(super) fn rescale(multiplier: i32, shift: u8, at: At) -> Check {
    if multiplier < 0 {
        return Err(at.refuse(Rule::Numeric, multiplier.unsigned_abs(), 0u8));
    }
    at.at_least(Rule::Numeric, shift, 1u8)?;
    at.at_most(Rule::Numeric, shift, 62u8)
}

fn window(op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    let [top, left, bottom, right] = op.pad;
    for (axis, (before, after)) in [(top, bottom), (left, right)].into_iter().enumerate() {
        let pick = |pair: [u8; 2]| pair.get(axis).copied().unwrap_or_default();
        let side = |tensor: &Tensor| u32::from(tensor.shape.get(axis).copied().unwrap_or_default());
        let (kernel, stride) = (pick(op.kernel), pick(op.stride));
        at.at_least(Rule::Geometry, kernel, 1u8)?;
        at.at_least(Rule::Geometry, stride, 1u8)?;
        // A window always sees the map, so a maximum and a mean exist.
        at.at_most(Rule::Geometry, before, kernel - 1)?;
        at.at_most(Rule::Geometry, after, kernel - 1)?;
        let padded = side(input) + u32::from(before) + u32::from(after);
        at.at_least(Rule::Geometry, padded, kernel)?;
        at.equal(Rule::Geometry, side(output), (padded - u32::from(kernel)) / u32::from(stride) + 1)?;
    }
    Ok(())
}

fn convolution(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    let (inputs, outputs) = (input.shape[2], output.shape[2]);
    at.at_least(Rule::Geometry, op.groups, 1u8)?;
    at.equal(Rule::Geometry, inputs % op.groups, 0u8)?;
    at.equal(Rule::Geometry, outputs % op.groups, 0u8)?;
    if op.kind == OpKind::Depthwise {
        at.equal(Rule::Geometry, op.groups, inputs)?;
        at.equal(Rule::Geometry, outputs, inputs)?;
    }
    if op.flags & IN_BLOCKS != 0 {
        at.equal(Rule::Geometry, u8::from(op.fits_blocks(input, output)), 1u8)?;
    }
    at.at_most(Rule::Numeric, op.reduction(input), MAX_REDUCTION)?;
    data(image, op.weights, op.weight_bytes(input, output), at)?;
    if op.flags & WITH_CURVE != 0 {
        at.equal(Rule::Geometry, output.element.bytes(), Element::Int8.bytes())?;
        data(image, op.constant as u32, 256, at)?;
    }
    requantisation(image, op, outputs, at)
}

/// Bias, multiplier and shift of each channel.
pub(super) fn requantisation(image: &Image<'_>, op: &Op, channels: u16, at: At) -> Check {
    let count = u64::from(channels);
    for (offset, len) in [(op.bias, 4 * count), (op.multiplier, 4 * count), (op.shifts, count)] {
        data(image, offset, len, at)?;
    }
    biases(image, op.bias, channels, at)?;
    let multipliers = image.data(op.multiplier, 4 * usize::from(channels)).as_chunks::<4>().0;
    let shifts = image.data(op.shifts, usize::from(channels));
    for (multiplier, &shift) in multipliers.iter().zip(shifts) {
        rescale(i32::from_le_bytes(*multiplier), shift, at)?;
    }
    Ok(())
}

pub(super) fn biases(image: &Image<'_>, offset: u32, channels: u16, at: At) -> Check {
    for bias in image.data(offset, 4 * usize::from(channels)).as_chunks::<4>().0 {
        at.at_most(Rule::Numeric, i32::from_le_bytes(*bias).unsigned_abs(), MAX_BIAS)?;
    }
    Ok(())
}
