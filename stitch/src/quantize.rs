//! Stage 7: every integer that the device will use.
//!
//! Weights are int8, symmetric per output channel; activations int8 per tensor, 0.0 exactly representable. Ops that
//! only move values (`Move`, `Concat`, maximum) cannot rescale: their operands share one quantisation, that of the
//! cut where they touch one.

use plan::layout::NO_TENSOR;
use plan::{OpKind, TensorId};

use crate::error::Error;
use crate::graph::{Clamp, Node, Op, PoolKind, Window};
use crate::network::{
    Calibrated, ConvWeights, Extent, IntegerCorrection, IntegerOp, IntegerPath, IntegerSegment, Quant, Quantized, Segment,
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
/// [`Error::Stage`] naming the node whose numbers do not fit, or that would need a rescale where none is possible.
pub fn quantize(calibrated: &Calibrated, pixels: &Pixels) -> Result<Quantized, Error> {
    let stitched = &calibrated.stitched;
    let mut cut_quants: Vec<Quant> = calibrated.cuts.iter().map(|&extent| of_extent(extent)).collect();
    cut_quants[0] = of_pixels(pixels);
    let mut segments = vec![];
    for (segment, extents) in stitched.segments.iter().zip(&calibrated.tensors) {
        segments.push(integer_segment(segment, extents, &cut_quants)?);
    }
    let mut paths = vec![];
    for path in &stitched.paths {
        let mut corrections = vec![];
        for correction in &path.corrections {
            let (segment, integers) = (&stitched.segments[correction.segment], &segments[correction.segment]);
            let node = &segment.nodes[correction.node];
            // Concat makes several ops of one node; a convolution makes exactly one, so ops before it are counted.
            let op = segment.nodes[..correction.node].iter().map(ops_of).sum();
            let Op::Conv { weights, .. } = &node.op else { continue };
            let input = integers.tensors[node.inputs[0]].1;
            let weight_scales = weight_scales(weights);
            let bias = (0..correction.bias.len())
                .map(|channel| {
                    let sum = weight_sum(&integers.ops[op], channel, weights.len() / correction.bias.len());
                    integer_bias(correction.bias[channel], input, weight_scales[channel], sum, &node.name)
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

fn ops_of(node: &Node) -> usize {
    if matches!(node.op, Op::Concat { .. }) { node.inputs.len() } else { 1 }
}

/// Quantisation that covers a range and 0.
fn of_extent(extent: Extent) -> Quant {
    let (min, max) = (f64::from(extent.min.min(0.0)), f64::from(extent.max.max(0.0)));
    // A tensor that is always 0 still needs a scale.
    let scale = ((max - min) / 255.0).max(1e-6) as f32;
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
        core::array::from_fn(|value| to_integer((value as f32 / 255.0 - mean) / std, quant))
    };
    pixels.mean.iter().zip(&pixels.std).map(table).collect()
}

fn integer_segment(segment: &Segment, extents: &[Extent], cuts: &[Quant]) -> Result<IntegerSegment, Error> {
    let quants = tensor_quants(segment, extents, cuts)?;
    let mut ops = vec![];
    for node in &segment.nodes {
        let mut first_channel = 0;
        for operand in 0..ops_of(node) {
            ops.push(integer_op(segment, node, operand, first_channel, &quants)?);
            first_channel += segment.tensors[node.inputs[operand]][2];
        }
    }
    Ok(IntegerSegment {
        kind: segment.kind,
        name: segment.name.clone(),
        from: segment.from,
        to: segment.to,
        tensors: segment.tensors.iter().copied().zip(quants).collect(),
        ops,
        input: segment.input,
        output: segment.output,
    })
}

/// One quantisation per tensor; tensors that an op cannot rescale between share one.
fn tensor_quants(segment: &Segment, extents: &[Extent], cuts: &[Quant]) -> Result<Vec<Quant>, Error> {
    let mut group: Vec<usize> = (0..segment.tensors.len()).collect();
    for node in &segment.nodes {
        let moves = matches!(node.op, Op::Move { .. } | Op::Concat { .. } | Op::Pool { kind: PoolKind::Max, .. });
        if moves {
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
    let fixed = [(segment.input, cuts[segment.from]), (segment.output, cuts[segment.to])];
    let mut quants = vec![];
    for tensor in 0..segment.tensors.len() {
        let ends: Vec<Quant> = fixed.iter().filter(|(end, _)| group[*end] == group[tensor]).map(|end| end.1).collect();
        let members = || (0..group.len()).filter(|&other| group[other] == group[tensor]);
        quants.push(match ends[..] {
            [] => of_extent(members().fold(extents[tensor], |hull, other| Extent {
                min: hull.min.min(extents[other].min),
                max: hull.max.max(extents[other].max),
            })),
            [quant] => quant,
            [first, ..] if ends.iter().all(|&quant| quant == first) => first,
            _ => {
                return Err(Error::Stage {
                    stage: "quantize",
                    what: format!(
                        "segment {}: only moves lie between its cuts, which have different scales; cut elsewhere",
                        segment.name
                    ),
                });
            }
        });
    }
    Ok(quants)
}

const EMPTY: plan::Op = plan::Op {
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

/// The op of one operand of a node.
fn integer_op(segment: &Segment, node: &Node, operand: usize, first: usize, quants: &[Quant]) -> Result<IntegerOp, Error> {
    let narrow = Narrow { node: &node.name };
    let input = node.inputs[operand];
    let (from, to) = (quants[input], quants[node.output]);
    let (min, max) = bounds(node.op.clamp(), to);
    let mut record = plan::Op {
        min,
        max,
        input: TensorId(narrow.u16(input)?),
        output: TensorId(narrow.u16(node.output)?),
        ..EMPTY
    };
    let mut weights = None;
    let mut scratch_bytes = 0;
    match &node.op {
        Op::Conv { weights: values, bias, window, groups, .. } => {
            narrow.window(&mut record, window)?;
            let inputs = segment.tensors[input][2];
            let depthwise = *groups == inputs && bias.len() == inputs && *groups > 1;
            record.kind = if depthwise { OpKind::Depthwise } else { OpKind::Conv };
            record.groups = narrow.u16(*groups)?;
            if !depthwise {
                scratch_bytes = kernels::conv_scratch(record.kernel, narrow.u16(inputs / groups)?);
                let direct = record.kernel == [1, 1] && record.stride == [1, 1] && record.pad == [0; 4];
                if direct && *groups == 1 && inputs % 4 == 0 {
                    scratch_bytes = 0;
                }
            }
            weights = Some(conv_weights(values, bias, depthwise, from, to, &node.name)?);
        }
        Op::Add { .. } => {
            record.kind = OpKind::Add;
            record.input2 = TensorId(narrow.u16(node.inputs[1])?);
            addition(&mut record, from, quants[node.inputs[1]], to);
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
            record.groups = narrow.u16(segment.tensors[node.output][2])?;
            (record.step, record.repeat) = (narrow.pair(*step)?, narrow.pair(*repeat)?);
        }
        Op::Concat { .. } => {
            record.groups = narrow.u16(segment.tensors[input][2])?;
            record.first_channel = narrow.u16(first)?;
            (record.step, record.repeat) = ([1; 2], [1; 2]);
        }
        Op::Scale { .. } => return Err(narrow.error("operation that `simplify` should have folded", "scale")),
    }
    Ok(IntegerOp { record, weights, scratch_bytes, macs: node.macs(&segment.tensors) })
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

/// One scale per output channel; a dead channel gets 1 so that nothing divides by 0.
fn weight_scales(weights: &ndarray::Array4<f32>) -> Vec<f64> {
    weights
        .outer_iter()
        .map(|channel| {
            let most = channel.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
            if most > 0.0 { f64::from(most) / 127.0 } else { 1.0 }
        })
        .collect()
}

fn conv_weights(
    weights: &ndarray::Array4<f32>,
    bias: &[f32],
    depthwise: bool,
    from: Quant,
    to: Quant,
    node: &str,
) -> Result<ConvWeights, Error> {
    let scales = weight_scales(weights);
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
fn addition(record: &mut plan::Op, a: Quant, b: Quant, to: Quant) {
    let factors = [a, b].map(|quant| f64::from(quant.scale) / f64::from(to.scale));
    let zeros = [a, b].map(|quant| f64::from(quant.zero_point));
    let at = |shift: u8| {
        let one = 2f64.powi(shift.into());
        let rounded = factors.map(|factor| (factor * one).round());
        let constant = one / 2.0 + f64::from(to.zero_point) * one - zeros[0] * rounded[0] - zeros[1] * rounded[1];
        (rounded, constant.round())
    };
    let fits = |shift: u8| {
        let (rounded, constant) = at(shift);
        rounded.iter().all(|&factor| factor <= 32_767.0) && constant.abs() <= 2f64.powi(30)
    };
    let shift = (1..=22).rev().find(|&shift| fits(shift)).unwrap_or(0);
    let (rounded, constant) = at(shift);
    record.shift = shift;
    record.factors = rounded.map(|factor| factor.min(32_767.0) as i32);
    record.constant = constant as i32;
}
