//! Stage 7: every integer that the device will use.
//!
//! Weights are int8, symmetric per output channel; activations int8 per tensor, 0.0 exactly representable. Ops that
//! only move values (`Move`, `Concat`, maximum) cannot rescale: their operands share one quantisation, that of the
//! cut where they touch one. Where that would cut values off, or the cuts differ, a depthwise 1×1 convolution by one
//! rescales the operand first.

use plan::layout::NO_TENSOR;
use plan::{OpKind, TensorId};

use crate::error::Error;
use crate::graph::{Clamp, Node, Op, PoolKind, Window};
use crate::images::normalised;
use crate::network::{
    Calibrated, ConvWeights, Correction, Extent, IntegerCorrection, IntegerOp, IntegerPath, IntegerSegment, Quant,
    Quantized, Segment, Stitched,
};

/// How a pixel value becomes a float: `(value / 255 − mean) / std`, per channel.
#[derive(Clone, Debug)]
pub struct Pixels {
    /// Per channel.
    pub mean: Vec<f32>,
    /// Per channel.
    pub std: Vec<f32>,
}

/// Turns ranges into integers.
///
/// # Errors
/// [`Error::Stage`] naming the node whose numbers do not fit.
pub fn quantize(calibrated: &Calibrated, pixels: &Pixels) -> Result<Quantized, Error> {
    let stitched = &calibrated.stitched;
    let mut cut_quants: Vec<Quant> = calibrated.cuts.iter().map(|&extent| of_extent(extent)).collect();
    cut_quants[0] = of_pixels(pixels);
    let mut segments = vec![];
    for (number, (segment, extents)) in stitched.segments.iter().zip(&calibrated.tensors).enumerate() {
        segments.push(integer_segment(segment, extents, &cut_quants, &largest_biases(stitched, number))?);
    }
    let mut paths = vec![];
    for path in &stitched.paths {
        let mut corrections = vec![];
        for correction in &path.corrections {
            let (segment, integers) = (&stitched.segments[correction.segment], &segments[correction.segment]);
            let node = &segment.nodes[correction.node];
            let op = op_that_writes(integers, node.output);
            let Op::Conv { weights, .. } = &node.op else { continue };
            let input = integers.tensors[node.inputs[0]].1;
            let largest = &largest_biases(stitched, correction.segment)[correction.node];
            let scales = weight_scales(weights, largest, input);
            let bias = (0..correction.bias.len())
                .map(|channel| {
                    let sum = weight_sum(&integers.ops[op], channel, weights.len() / correction.bias.len());
                    integer_bias(correction.bias[channel], input, scales[channel], sum, &node.name)
                })
                .collect::<Result<Vec<i32>, Error>>()?;
            corrections.push(IntegerCorrection { segment: correction.segment, op, bias });
        }
        paths.push(IntegerPath { name: path.name.clone(), segments: path.segments.clone(), corrections });
    }
    Ok(Quantized {
        anchors: stitched.anchors.clone(),
        cuts: stitched.cuts.iter().cloned().zip(cut_quants.iter().copied()).collect(),
        segments,
        paths,
        preprocess: preprocess(pixels, cut_quants[0]),
    })
}

/// The op of the one node that writes `tensor`, if that node is a convolution: other nodes may make several.
fn op_that_writes(segment: &IntegerSegment, tensor: usize) -> usize {
    segment.ops.iter().position(|op| op.record.output.index() == tensor).unwrap_or(0)
}

/// Per node of a segment and channel: the largest bias that any path gives it, without its sign.
fn largest_biases(stitched: &Stitched, segment: usize) -> Vec<Vec<f32>> {
    let corrections = stitched.paths.iter().flat_map(|path| &path.corrections);
    let corrections: Vec<&Correction> = corrections.filter(|correction| correction.segment == segment).collect();
    let of_node = |(number, node): (usize, &Node)| {
        let Op::Conv { bias, .. } = &node.op else { return vec![] };
        let mut largest: Vec<f32> = bias.iter().map(|bias| bias.abs()).collect();
        for correction in corrections.iter().filter(|correction| correction.node == number) {
            for (largest, bias) in largest.iter_mut().zip(&correction.bias) {
                *largest = largest.max(bias.abs());
            }
        }
        largest
    };
    stitched.segments[segment].nodes.iter().enumerate().map(of_node).collect()
}

/// Quantisation that covers a range and 0.
fn of_extent(extent: Extent) -> Quant {
    let (min, max) = (f64::from(extent.min.min(0.0)), f64::from(extent.max.max(0.0)));
    // A tensor that is always 0 still needs a scale, and one that no bias behind it overflows.
    let scale = if max > min { ((max - min) / 255.0) as f32 } else { 1.0 };
    let scale = scale.max(f32::MIN_POSITIVE);
    let zero_point = (-128.0 - min / f64::from(scale)).round().clamp(-128.0, 127.0) as i8;
    Quant { scale, zero_point }
}

/// Quantisation that covers every pixel value of every channel.
fn of_pixels(pixels: &Pixels) -> Quant {
    let ends = pixels.mean.iter().zip(&pixels.std).flat_map(|(mean, std)| [-mean / std, (1.0 - mean) / std]);
    of_extent(ends.fold(Extent { min: 0.0, max: 0.0 }, |extent, end| Extent {
        min: extent.min.min(end),
        max: extent.max.max(end),
    }))
}

fn to_integer(value: f32, quant: Quant) -> i8 {
    (f64::from(value) / f64::from(quant.scale) + f64::from(quant.zero_point)).round().clamp(-128.0, 127.0) as i8
}

fn preprocess(pixels: &Pixels, quant: Quant) -> Vec<[i8; 256]> {
    let table = |(mean, std): (&f32, &f32)| {
        core::array::from_fn(|value| to_integer(normalised(value as u8, *mean, *std), quant))
    };
    pixels.mean.iter().zip(&pixels.std).map(table).collect()
}

fn integer_segment(
    segment: &Segment,
    extents: &[Extent],
    cuts: &[Quant],
    largest: &[Vec<f32>],
) -> Result<IntegerSegment, Error> {
    let quants = tensor_quants(segment, extents, cuts);
    let mut tensors: Vec<([usize; 3], Quant)> = segment.tensors.iter().copied().zip(quants).collect();
    let mut ops = vec![];
    for (node, largest) in segment.nodes.iter().zip(largest) {
        let mut first_channel = 0;
        let operands = if matches!(node.op, Op::Concat { .. }) { &node.inputs[..] } else { &node.inputs[..1] };
        for &operand in operands {
            let mut input = operand;
            let ((shape, from), to) = (tensors[operand], tensors[node.output].1);
            if moves(node) && from != to {
                input = tensors.len();
                tensors.push((shape, to));
                ops.push(rescale(node, [operand, input], &tensors)?);
            }
            ops.push(integer_op(node, input, first_channel, &tensors, largest)?);
            first_channel += shape[2];
        }
    }
    Ok(IntegerSegment {
        kind: segment.kind,
        name: segment.name.clone(),
        from: segment.from,
        to: segment.to,
        tensors,
        ops,
        input: segment.input,
        output: segment.output,
    })
}

/// Whether a node only moves values.
fn moves(node: &Node) -> bool {
    matches!(node.op, Op::Move { .. } | Op::Concat { .. } | Op::Pool { kind: PoolKind::Max, .. })
}

/// One quantisation per tensor. Tensors that an op cannot rescale between share one, that of a cut among them if it
/// does for all; the two ends have those of their cuts in any case.
fn tensor_quants(segment: &Segment, extents: &[Extent], cuts: &[Quant]) -> Vec<Quant> {
    let mut group: Vec<usize> = (0..segment.tensors.len()).collect();
    for node in &segment.nodes {
        if moves(node) {
            for &input in &node.inputs {
                let (from, to) = (group[input], group[node.output]);
                for member in &mut group {
                    if *member == from {
                        *member = to;
                    }
                }
            }
        }
    }
    let ends = [(segment.input, cuts[segment.from]), (segment.output, cuts[segment.to])];
    let quant = |tensor: usize| {
        if let Some((_, quant)) = ends.iter().rev().find(|(end, _)| *end == tensor) {
            return *quant;
        }
        let is_end = |other| other == segment.input || other == segment.output;
        let members = || (0..group.len()).filter(|&other| group[other] == group[tensor] && !is_end(other));
        let hull = members().fold(extents[tensor], |hull, other| Extent {
            min: hull.min.min(extents[other].min),
            max: hull.max.max(extents[other].max),
        });
        // What is only moved towards the output may as well be cut off here as there.
        let only_moved =
            members().all(|member| segment.nodes.iter().all(|node| moves(node) || !node.inputs.contains(&member)));
        let [(input, from), (output, to)] = ends;
        if group[output] == group[tensor] && (only_moved || covers(to, hull)) {
            to
        } else if group[input] == group[tensor] && covers(from, hull) {
            from
        } else {
            of_extent(hull)
        }
    };
    (0..segment.tensors.len()).map(quant).collect()
}

/// Whether a quantisation cuts off no more than a step of a range.
fn covers(quant: Quant, extent: Extent) -> bool {
    let at = |integer: f32| quant.scale * (integer - f32::from(quant.zero_point));
    at(-129.0) <= extent.min && extent.max <= at(128.0)
}

/// A record whose fields are those that a kind does not use.
pub(crate) const EMPTY: plan::Op = plan::Op {
    kind: OpKind::Move,
    min: -128,
    max: 127,
    shift: 0,
    input: TensorId(0),
    input2: TensorId(NO_TENSOR),
    output: TensorId(0),
    scratch: TensorId(NO_TENSOR),
    kernel: [0; 2],
    stride: [0; 2],
    pad: [0; 4],
    groups: 0,
    reserved: 0,
    weights: 0,
    bias: 0,
    multiplier: 0,
    shifts: 0,
    factors: [0; 2],
    constant: 0,
    origin: [0; 3],
    first_channel: 0,
    step: [0; 2],
    repeat: [0; 2],
};

/// Multiplies every channel by one, from a tensor to one of the same shape and another scale.
fn rescale(node: &Node, [input, output]: [usize; 2], tensors: &[([usize; 3], Quant)]) -> Result<IntegerOp, Error> {
    let channels = tensors[input].0[2];
    let one = Node {
        name: node.name.clone(),
        op: Op::Conv {
            weights: ndarray::Array4::ones([channels, 1, 1, 1]),
            bias: vec![0.0; channels],
            window: Window { kernel: [1; 2], stride: [1; 2], pad: [0; 4] },
            groups: channels,
            clamp: Clamp::NONE,
        },
        inputs: vec![input],
        output,
    };
    integer_op(&one, input, 0, tensors, &vec![0.0; channels])
}

/// The op of one operand of a node.
fn integer_op(
    node: &Node,
    input: usize,
    first: usize,
    tensors: &[([usize; 3], Quant)],
    largest: &[f32],
) -> Result<IntegerOp, Error> {
    let narrow = Narrow { node: &node.name };
    let (from, to) = (tensors[input].1, tensors[node.output].1);
    let (min, max) = bounds(node.op.clamp(), to);
    let mut record =
        plan::Op { min, max, input: TensorId(narrow.u16(input)?), output: TensorId(narrow.u16(node.output)?), ..EMPTY };
    let mut weights = None;
    let mut scratch_bytes = 0;
    match &node.op {
        Op::Conv { weights: values, bias, window, groups, .. } => {
            narrow.window(&mut record, window)?;
            let inputs = tensors[input].0[2];
            let depthwise = *groups == inputs && bias.len() == inputs && *groups > 1;
            record.kind = if depthwise { OpKind::Depthwise } else { OpKind::Conv };
            record.groups = narrow.u16(*groups)?;
            if !depthwise {
                let [height, width, _] = tensors[node.output].0;
                scratch_bytes = kernels::conv_scratch(record.kernel, narrow.u16(inputs / groups)?, height * width);
            }
            weights = Some(conv_weights(
                values,
                bias,
                &weight_scales(values, largest, from),
                depthwise,
                from,
                to,
                &node.name,
            )?);
        }
        Op::Add { .. } => {
            record.kind = OpKind::Add;
            record.input2 = TensorId(narrow.u16(node.inputs[1])?);
            addition(&mut record, from, tensors[node.inputs[1]].1, to, &node.name)?;
        }
        Op::Pool { kind, window, .. } => {
            narrow.window(&mut record, window)?;
            record.kind = match kind {
                PoolKind::Max => OpKind::MaxPool,
                PoolKind::Average => OpKind::AveragePool,
            };
            if *kind == PoolKind::Average {
                let area = (window.kernel[0] * window.kernel[1]) as f64;
                let factor = f64::from(from.scale) / (f64::from(to.scale) * area);
                let (multiplier, shift) = fixed_point(factor, &node.name)?;
                (record.factors[0], record.shift) = (multiplier, shift);
            }
        }
        Op::Move { origin, step, repeat, .. } => {
            for (target, &value) in record.origin.iter_mut().zip(origin) {
                *target = i16::try_from(value).map_err(|_| narrow.error("origin", value))?;
            }
            record.groups = narrow.u16(tensors[node.output].0[2])?;
            (record.step, record.repeat) = (narrow.pair(*step)?, narrow.pair(*repeat)?);
        }
        Op::Concat { .. } => {
            record.groups = narrow.u16(tensors[input].0[2])?;
            record.first_channel = narrow.u16(first)?;
            (record.step, record.repeat) = ([1; 2], [1; 2]);
        }
        Op::Scale { .. } => return Err(narrow.error("operation that `simplify` should have folded", "scale")),
        Op::LayerNorm { .. }
        | Op::Curve { .. }
        | Op::Attention(_)
        | Op::Offset { .. }
        | Op::Prepend { .. }
        | Op::Roll { .. } => {
            let what = format!("node `{}` ({}) has no integer form yet", node.name, node.op.name());
            return Err(Error::Stage { stage: "quantize", what });
        }
    }
    Ok(IntegerOp { record, weights, scratch_bytes, macs: macs(node, tensors) })
}

fn macs(node: &Node, tensors: &[([usize; 3], Quant)]) -> u64 {
    let shapes: Vec<[usize; 3]> = tensors.iter().map(|(shape, _)| *shape).collect();
    node.macs(&shapes)
}

/// Conversions to the widths of the image, with the node's name in the error.
struct Narrow<'a> {
    node: &'a str,
}

impl Narrow<'_> {
    fn error(&self, what: &str, value: impl std::fmt::Display) -> Error {
        Error::Stage { stage: "quantize", what: format!("node `{}`: {what} {value} does not fit the image", self.node) }
    }

    fn u16(&self, value: usize) -> Result<u16, Error> {
        u16::try_from(value).map_err(|_| self.error("number", value))
    }

    fn pair(&self, values: [usize; 2]) -> Result<[u8; 2], Error> {
        let byte = |value: usize| u8::try_from(value).map_err(|_| self.error("size", value));
        Ok([byte(values[0])?, byte(values[1])?])
    }

    fn window(&self, record: &mut plan::Op, window: &Window) -> Result<(), Error> {
        (record.kernel, record.stride) = (self.pair(window.kernel)?, self.pair(window.stride)?);
        let [top, left, bottom, right] = window.pad;
        let ([top, left], [bottom, right]) = (self.pair([top, left])?, self.pair([bottom, right])?);
        record.pad = [top, left, bottom, right];
        Ok(())
    }
}

/// The clamp in integers of the output.
fn bounds(clamp: Clamp, quant: Quant) -> (i8, i8) {
    let bound = |value: f32, none: i8| if value.is_finite() { to_integer(value, quant) } else { none };
    (bound(clamp.min, -128), bound(clamp.max, 127))
}

/// `factor` as `multiplier / 2^shift` with a multiplier of 31 bits.
fn fixed_point(factor: f64, node: &str) -> Result<(i32, u8), Error> {
    let error = || Error::Stage {
        stage: "quantize",
        what: format!("node `{node}`: rescale by {factor:e} is out of range; look at the ranges around it"),
    };
    if !factor.is_finite() || factor < 0.0 {
        return Err(error());
    }
    let mut shift = 31;
    let mut scaled = factor * 2f64.powi(31);
    while scaled < 2f64.powi(30) && shift < 62 {
        (scaled, shift) = (scaled * 2.0, shift + 1);
    }
    while scaled.round() >= 2f64.powi(31) && shift > 1 {
        (scaled, shift) = (scaled / 2.0, shift - 1);
    }
    let multiplier = scaled.round();
    if multiplier >= 2f64.powi(31) {
        return Err(error());
    }
    Ok((multiplier as i32, shift))
}

/// Steps that a bias may have: a quarter of the bound, which leaves room for the zero point.
const BIAS_STEPS: f64 = (plan::layout::MAX_BIAS / 4) as f64;

/// One scale per output channel. It may not be so small that the bias does not fit: a channel that training has
/// switched off has weights near 0 and a bias of usual size. A dead channel gets 1, so that nothing divides by 0.
fn weight_scales(weights: &ndarray::Array4<f32>, largest_bias: &[f32], input: Quant) -> Vec<f64> {
    let of_channel = |(channel, bias): (ndarray::ArrayView3<'_, f32>, &f32)| {
        let most = channel.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let least = f64::from(*bias) / (f64::from(input.scale) * BIAS_STEPS);
        if most > 0.0 { (f64::from(most) / 127.0).max(least) } else { least.max(1.0) }
    };
    weights.outer_iter().zip(largest_bias).map(of_channel).collect()
}

fn conv_weights(
    weights: &ndarray::Array4<f32>,
    bias: &[f32],
    scales: &[f64],
    depthwise: bool,
    from: Quant,
    to: Quant,
    node: &str,
) -> Result<ConvWeights, Error> {
    let outputs = bias.len();
    let taps = weights.len() / outputs.max(1);
    let pitch = if depthwise { taps } else { taps.next_multiple_of(4) };
    let mut result = ConvWeights { weights: vec![0; pitch * outputs], bias: vec![], multiplier: vec![], shift: vec![] };
    for (channel, values) in weights.outer_iter().enumerate() {
        let mut sum = 0;
        for (tap, &value) in values.iter().enumerate() {
            let weight = (f64::from(value) / scales[channel]).round().clamp(-127.0, 127.0) as i8;
            sum += i64::from(weight);
            let at = if depthwise { tap * outputs + channel } else { channel * pitch + tap };
            result.weights[at] = weight;
        }
        result.bias.push(integer_bias(bias[channel], from, scales[channel], sum, node)?);
        let factor = f64::from(from.scale) * scales[channel] / f64::from(to.scale);
        let (multiplier, shift) = fixed_point(factor, node)?;
        result.multiplier.push(multiplier);
        result.shift.push(shift);
    }
    Ok(result)
}

/// Sum of one output channel's integer weights.
fn weight_sum(op: &IntegerOp, channel: usize, taps: usize) -> i64 {
    let Some(weights) = &op.weights else { return 0 };
    let outputs = weights.bias.len();
    let at = |tap: usize| match op.record.kind {
        OpKind::Depthwise => tap * outputs + channel,
        _ => channel * taps.next_multiple_of(4) + tap,
    };
    (0..taps).map(|tap| i64::from(weights.weights[at(tap)])).sum()
}

fn integer_bias(bias: f32, input: Quant, weight_scale: f64, weight_sum: i64, node: &str) -> Result<i32, Error> {
    let real = (f64::from(bias) / (f64::from(input.scale) * weight_scale)).round();
    let integer = real - (i64::from(input.zero_point) * weight_sum) as f64;
    if integer.abs() > f64::from(plan::layout::MAX_BIAS) || integer.is_nan() {
        let what = format!("node `{node}`: bias {bias} is {integer:e} steps of its sum; at most 2^29 fit");
        return Err(Error::Stage { stage: "quantize", what });
    }
    Ok(integer as i32)
}

/// Factors, shift and constant of an addition: the finest that 16-bit factors and a 31-bit sum allow.
fn addition(record: &mut plan::Op, a: Quant, b: Quant, to: Quant, node: &str) -> Result<(), Error> {
    let factors = [a, b].map(|quant| f64::from(quant.scale) / f64::from(to.scale));
    let zeros = [a, b].map(|quant| f64::from(quant.zero_point));
    let at = |shift: u8| {
        let one = 2f64.powi(shift.into());
        let rounded = factors.map(|factor| (factor * one).round());
        let constant = one / 2.0 + f64::from(to.zero_point) * one - zeros[0] * rounded[0] - zeros[1] * rounded[1];
        (shift, rounded, constant)
    };
    // From shift 1 on, the rounding half is whole.
    let fits = |(_, rounded, constant): &(u8, [f64; 2], f64)| {
        rounded.iter().all(|&factor| factor <= 32_767.0) && constant.abs() <= 2f64.powi(30)
    };
    let Some((shift, rounded, constant)) = (1..=30).rev().map(at).find(fits) else {
        let what = format!("node `{node}`: operands count {factors:?} steps of the sum; at most 16,383 fit");
        return Err(Error::Stage { stage: "quantize", what });
    };
    record.shift = shift;
    record.factors = rounded.map(|factor| factor as i32);
    record.constant = constant as i32;
    Ok(())
}

#[cfg(test)]
mod tests;
