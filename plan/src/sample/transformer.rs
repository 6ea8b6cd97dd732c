//! The sample with every op of a transformer, in the stitch, behind what it computed; nobody reads their results.

use alloc::vec::Vec;

use super::{SCALE_BITS, painted, writer};
use crate::layout::{ARENA_ALIGN, NO_TENSOR, WITH_BIAS, WITH_CURVE, WITH_MASK};
use crate::record::{Attention, Element, Op, OpKind, Tensor, TensorId};
use crate::write::ImageWriter;

/// Scratch of the attention, ample for every kernel.
const SCRATCH: u16 = 2048;

/// The parts of the image. Its last ops are, in this order: rescale, LayerNorm, curve, roll, addition of a constant,
/// prepend, attention, convolution to int16, convolution with a curve.
#[must_use]
pub fn transformer() -> ImageWriter {
    let mut writer = writer();
    let conv = writer.ops[writer.ops.len() - 1];
    let mut parts = Parts { writer: &mut writer, end: 0 };
    parts.end = parts.writer.tensors[conv.output.index()].offset;
    let input = conv.input;
    let wide = parts.tensor([4, 4, 4], Element::Int16);
    let rescale = parts.requantised(OpKind::Rescale, input, wide);
    parts.push(rescale);
    let norm = parts.tensor([4, 4, 4], Element::Int8);
    let [factor, offset] = [painted(8), words(300)].map(|bytes| parts.writer.put(&bytes).offset);
    parts.push(Op { shift: 8, weights: factor, bias: offset, factors: [90, 0], ..op(OpKind::LayerNorm, wide, norm) });
    let table = parts.writer.put(&painted(256)).offset;
    let curved = parts.tensor([4, 4, 4], Element::Int8);
    parts.push(Op { weights: table, ..op(OpKind::Curve, norm, curved) });
    let rolled = parts.tensor([4, 4, 4], Element::Int16);
    parts.push(Op { origin: [1, 3, 0], ..op(OpKind::Roll, wide, rolled) });
    let sum = parts.tensor([4, 4, 4], Element::Int16);
    let constant = parts.writer.put(&painted(128)).offset;
    let add = Op { factors: [16_384, 8_192], shift: 15, constant: 16_384, ..op(OpKind::Add, rolled, sum) };
    parts.push(Op { weights: constant, ..add });
    let tokens = parts.tensor([1, 17, 4], Element::Int8);
    let token = parts.writer.put(&painted(4)).offset;
    parts.push(Op { groups: 1, weights: token, ..op(OpKind::Prepend, norm, tokens) });
    parts.attention(norm);
    let wide_conv = parts.tensor([4, 4, 4], Element::Int16);
    let weights = parts.writer.put(&painted(16)).offset;
    let narrow_conv = parts.tensor([4, 4, 4], Element::Int8);
    for (output, flags) in [(wide_conv, 0), (narrow_conv, WITH_CURVE)] {
        let scratch = parts.tensor([1, 1, SCRATCH], Element::Int8);
        let one = Op {
            groups: 1,
            kernel: [1; 2],
            stride: [1; 2],
            scratch,
            weights,
            flags,
            ..parts.requantised(OpKind::Conv, norm, output)
        };
        let constant = if flags == 0 { 0 } else { table as i32 };
        parts.push(Op { constant, ..one });
    }
    // The output of the stitch stays at the far end.
    let end = parts.end;
    let output = &mut writer.tensors[conv.output.index()];
    output.offset = end;
    let peak = end + output.bytes() as u32;
    if let Some(stitch) = writer.segments.last_mut() {
        stitch.peak_bytes = peak;
    }
    (writer.configs[2].arena_bytes, writer.meta.arena_bytes) = (peak, peak);
    writer
}

fn words(value: i32) -> Vec<u8> {
    core::iter::repeat_n(value.to_le_bytes(), 4).flatten().collect()
}

fn op(kind: OpKind, input: TensorId, output: TensorId) -> Op {
    Op { kind, input, output, ..Op::EMPTY }
}

/// The last segment under construction.
struct Parts<'a> {
    writer: &'a mut ImageWriter,
    /// First byte that no tensor has.
    end: u32,
}

impl Parts<'_> {
    fn tensor(&mut self, shape: [u16; 3], element: Element) -> TensorId {
        let tensor = Tensor { shape, zero_point: 0, element, offset: self.end, scale_bits: SCALE_BITS };
        self.end += (tensor.bytes() as u32).next_multiple_of(ARENA_ALIGN);
        self.writer.tensors.push(tensor);
        if let Some(segment) = self.writer.segments.last_mut() {
            segment.tensors += 1;
        }
        TensorId(self.writer.tensors.len() as u16 - 1)
    }

    fn push(&mut self, op: Op) {
        self.writer.ops.push(op);
        if let Some(segment) = self.writer.segments.last_mut() {
            segment.ops += 1;
        }
    }

    /// An op with tables for four channels.
    fn requantised(&mut self, kind: OpKind, input: TensorId, output: TensorId) -> Op {
        let [bias, multiplier] = [words(3), words(1 << 30)].map(|bytes| self.writer.put(&bytes).offset);
        let shifts = self.writer.put(&[28; 4]).offset;
        Op { bias, multiplier, shifts, ..op(kind, input, output) }
    }

    /// Two heads of two channels, two windows of two rows.
    fn attention(&mut self, map: TensorId) {
        let output = self.tensor([4, 4, 4], Element::Int8);
        let scratch = self.tensor([1, 1, SCRATCH], Element::Int8);
        let [bias, mask] = [painted(2 * 2 * 64), painted(2 * 2 * 64)].map(|bytes| self.writer.put(&bytes).offset);
        let record = Attention {
            heads: 2,
            query_first: 0,
            query_per_head: 2,
            query_width: 2,
            key_first: 2,
            key_per_head: 0,
            value_first: 0,
            value_per_head: 1,
            value_width: 2,
            query_window: [2, 4],
            key_window: [2, 4],
            logit_shift: 31,
            shift: 44,
            logit_multiplier: 1 << 30,
            multiplier: 1 << 30,
            bias,
            mask,
            flags: WITH_BIAS | WITH_MASK,
            reserved: 0,
        };
        let weights = self.writer.put(&record.to_bytes()).offset;
        self.push(Op { scratch, weights, input2: TensorId(NO_TENSOR), ..op(OpKind::Attention, map, output) });
    }
}
