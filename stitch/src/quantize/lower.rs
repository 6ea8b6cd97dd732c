//! One segment: nodes to integer ops.

use std::collections::BTreeMap;

use plan::{Element, OpKind, TensorId};

use super::numbers::{addition, conv_weights, fixed_point, integer_bias, rescale, weight_scales};
use super::ranges::{bounds, moves, narrow, symmetric, tensor_quants, to_integer, wide};
use super::transformer;
use crate::error::Error;
use crate::graph::{Clamp, Node, Op, PoolKind, Window};
use crate::network::{Constants, Extent, IntegerOp, IntegerSegment, Quant, Segment};

/// What is known of a segment.
pub(super) struct Known<'a> {
    pub segment: &'a Segment,
    pub extents: &'a [Extent],
    /// Largest value of each channel of each tensor.
    pub channels: &'a [Vec<f32>],
    pub wide: &'a [bool],
    pub cuts: &'a [Quant],
    /// Quantisation of the maps that stay.
    pub kept: &'a [Quant],
    /// Per node and channel: the largest bias that any path gives it, without its sign.
    pub biases: &'a [Vec<f32>],
}

/// How a convolution was quantised: what another bias for it needs.
pub(super) struct Convolution {
    /// Op of the segment.
    pub op: usize,
    name: String,
    input: Quant,
    scales: Vec<f64>,
    sums: Vec<i64>,
    /// Added to every bias.
    shift: f32,
}

impl Convolution {
    /// A bias in integers.
    pub fn bias(&self, bias: &[f32]) -> Result<Vec<i32>, Error> {
        let one = |(channel, bias): (usize, &f32)| {
            integer_bias(bias + self.shift, self.input, self.scales[channel], self.sums[channel], &self.name)
        };
        bias.iter().enumerate().map(one).collect()
    }
}

/// The segment in integers, and for each node that is a convolution how it was quantised.
pub(super) fn lower(known: &Known<'_>) -> Result<(IntegerSegment, Vec<Option<Convolution>>), Error> {
    let segment = known.segment;
    let mut quants = tensor_quants(segment, known.extents, known.wide, known.cuts);
    for &(map, tensor) in &segment.keeps {
        quants[tensor] = known.kept[map];
    }
    let mut lowering = Lowering {
        known,
        tensors: segment.tensors.iter().copied().zip(quants).collect(),
        ops: vec![],
        convolutions: segment.nodes.iter().map(|_| None).collect(),
    };
    let curves = fused_curves(known);
    for (number, node) in segment.nodes.iter().enumerate() {
        match &node.op {
            Op::Conv { .. } => lowering.conv(number, curves.get(&number).map(|&curve| &segment.nodes[curve]))?,
            Op::Curve { .. } if curves.values().any(|&curve| curve == number) => {}
            _ => lowering.node(node)?,
        }
    }
    let own = segment.tensors.len();
    let integers = IntegerSegment {
        kind: segment.kind,
        name: segment.name.clone(),
        from: segment.from,
        to: segment.to,
        held: BTreeMap::new(),
        in_place: vec![],
        stands_for: (0..lowering.tensors.len()).map(|tensor| Some(tensor).filter(|&tensor| tensor < own)).collect(),
        tensors: lowering.tensors,
        ops: lowering.ops,
        input: segment.input,
        output: segment.output,
        keeps: segment.keeps.clone(),
    };
    Ok((drop_unused(integers), lowering.convolutions))
}

/// Convolutions whose result only a curve reads, and the curve: the table follows the clamp, and the map between does
/// not exist.
fn fused_curves(known: &Known<'_>) -> BTreeMap<usize, usize> {
    let segment = known.segment;
    let mut fused = BTreeMap::new();
    for (curve, node) in segment.nodes.iter().enumerate() {
        let tensor = node.inputs[0];
        let readers = segment.nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == tensor).count();
        let narrow = !known.wide[tensor] && !known.wide[node.output];
        if !matches!(node.op, Op::Curve { .. }) || readers != 1 || tensor == segment.output || !narrow {
            continue;
        }
        let source = segment.nodes.iter().position(|node| node.output == tensor);
        if let Some(source) = source.filter(|&source| matches!(segment.nodes[source].op, Op::Conv { .. })) {
            fused.insert(source, curve);
        }
    }
    fused
}

/// Numbers tensors anew without those that no op touches.
fn drop_unused(mut segment: IntegerSegment) -> IntegerSegment {
    let ends = [segment.input, segment.output];
    let touches = |op: &plan::Op, tensor: usize| op.output.index() == tensor || op.reads(tensor);
    let used = |tensor: &usize| ends.contains(tensor) || segment.ops.iter().any(|op| touches(&op.record, *tensor));
    let kept: Vec<usize> = (0..segment.tensors.len()).filter(used).collect();
    let new = |old: usize| kept.binary_search(&old).unwrap_or(old);
    for op in &mut segment.ops {
        op.record.renumber(|id| TensorId(new(id.index()) as u16));
    }
    segment.keeps.iter_mut().for_each(|(_, tensor)| *tensor = new(*tensor));
    (segment.input, segment.output) = (new(segment.input), new(segment.output));
    segment.tensors = kept.iter().map(|&tensor| segment.tensors[tensor]).collect();
    segment.stands_for = kept.iter().map(|&tensor| segment.stands_for[tensor]).collect();
    segment
}

/// A segment under construction. The first tensors are those of the segment, others follow.
pub(super) struct Lowering<'a> {
    known: &'a Known<'a>,
    pub tensors: Vec<([usize; 3], Quant)>,
    ops: Vec<IntegerOp>,
    convolutions: Vec<Option<Convolution>>,
}

impl Lowering<'_> {
    /// A convolution, with the curve that follows it.
    fn conv(&mut self, number: usize, curve: Option<&Node>) -> Result<(), Error> {
        let node = &self.known.segment.nodes[number];
        let Op::Conv { weights, bias, window, groups, clamp } = &node.op else { return Ok(()) };
        let narrow_names = Narrow { node: &node.name };
        let (input, weights) = self.conv_input(node, weights, *groups)?;
        let inputs = self.tensors[input].0[2];
        let depthwise = *groups == inputs && bias.len() == inputs && *groups > 1;
        let output = curve.unwrap_or(node).output;
        let written = self.written(output, !depthwise && *clamp == Clamp::NONE)?;
        let from = self.tensors[input].1;
        // With a curve, 0.0 of what it reads is moved to 0 by the bias: the op's own zero point is that behind the curve.
        let between = narrow(bounded(self.known.extents[node.output], *clamp));
        let (to, shift) = match curve {
            Some(_) => (Quant { zero_point: 0, ..between }, between.scale * f32::from(between.zero_point)),
            None => (self.tensors[written].1, 0.0),
        };
        let bias: Vec<f32> = bias.iter().map(|bias| bias + shift).collect();
        let largest: Vec<f32> = self.known.biases[number].iter().map(|bias| bias + shift.abs()).collect();
        let scales = weight_scales(&weights, &largest, from);
        let (mut integers, sums) = conv_weights(&weights, &bias, &scales, depthwise, [from, to], &node.name)?;
        let mut record = narrow_names.record(OpKind::Conv, input, written)?;
        narrow_names.window(&mut record, window)?;
        record.groups = narrow_names.u16(*groups)?;
        let mut scratch_bytes = 0;
        if depthwise {
            record.kind = OpKind::Depthwise;
        } else {
            let [height, width, _] = self.tensors[written].0;
            scratch_bytes = kernels::conv_scratch(record.kernel, narrow_names.u16(inputs / groups)?, height * width);
        }
        match curve.map(|curve| &curve.op) {
            Some(Op::Curve { function }) => {
                let behind = self.tensors[written].1;
                integers.curve = table(|value| function.at(clamp.apply(value)), between, behind);
            }
            _ => (record.min, record.max) = bounds(*clamp, to),
        }
        let op = self.ops.len();
        let name = node.name.clone();
        self.convolutions[number] = Some(Convolution { op, name, input: from, scales, sums, shift });
        let macs = node.macs(&self.known.segment.tensors);
        self.ops.push(IntegerOp {
            record,
            weights: Some(integers),
            constants: Constants::Nothing,
            scratch_bytes,
            macs,
        });
        self.finish(node, written, output)
    }

    /// The int8 operand of a convolution and its weights. An int16 map is rescaled channel by channel, which costs no more
    /// than as a whole; the weights take up the factors.
    fn conv_input(
        &mut self,
        node: &Node,
        weights: &ndarray::Array4<f32>,
        groups: usize,
    ) -> Result<(usize, ndarray::Array4<f32>), Error> {
        let input = node.inputs[0];
        let (shape, from) = self.tensors[input];
        if from.element == Element::Int8 {
            return Ok((input, weights.clone()));
        }
        let of_channel = |largest: &f32| if *largest > 0.0 { largest / 127.0 } else { 1.0 };
        let scales: Vec<f32> = self.known.channels[input].iter().map(of_channel).collect();
        let one = Quant { scale: 1.0, zero_point: 0, element: Element::Int8 };
        let narrowed = self.rescaled(node, input, (shape, one), &scales)?;
        let mut weights = weights.clone();
        let [outputs, _, _, per_group] = weights.dim().into();
        for ((output, _, _, channel), weight) in weights.indexed_iter_mut() {
            *weight *= scales[output / (outputs / groups) * per_group + channel];
        }
        Ok((narrowed, weights))
    }

    /// Any other node.
    fn node(&mut self, node: &Node) -> Result<(), Error> {
        let narrow_names = Narrow { node: &node.name };
        match &node.op {
            Op::Add { clamp } => {
                let written = self.written(node.output, *clamp == Clamp::NONE)?;
                let mut record = narrow_names.record(OpKind::Add, node.inputs[0], written)?;
                record.input2 = TensorId(narrow_names.u16(node.inputs[1])?);
                let [a, b, to] = [node.inputs[0], node.inputs[1], written].map(|tensor| self.tensors[tensor].1);
                addition(&mut record, [a, b], to, &node.name)?;
                (record.min, record.max) = bounds(*clamp, to);
                self.push(record, Constants::Nothing);
                self.finish(node, written, node.output)
            }
            Op::Pool { kind: PoolKind::Average, window, clamp } => {
                let input = self.int8(node, node.inputs[0], narrow)?;
                let written = self.written(node.output, false)?;
                let (from, to) = (self.tensors[input].1, self.tensors[written].1);
                let mut record = narrow_names.record(OpKind::AveragePool, input, written)?;
                narrow_names.window(&mut record, window)?;
                let area = (window.kernel[0] * window.kernel[1]) as f64;
                let factor = f64::from(from.scale) / (f64::from(to.scale) * area);
                (record.factors[0], record.shift) = fixed_point(factor, &node.name)?;
                (record.min, record.max) = bounds(*clamp, to);
                self.push(record, Constants::Nothing);
                self.finish(node, written, node.output)
            }
            Op::Pool { kind: PoolKind::Max, window, clamp } => {
                let input = self.moved(node, node.inputs[0])?;
                if self.tensors[input].1.element == Element::Int16 {
                    return Err(narrow_names.error("a maximum of", "16 bits"));
                }
                let mut record = narrow_names.record(OpKind::MaxPool, input, node.output)?;
                narrow_names.window(&mut record, window)?;
                (record.min, record.max) = bounds(*clamp, self.tensors[node.output].1);
                self.push(record, Constants::Nothing);
                Ok(())
            }
            Op::Move { .. } | Op::Concat { .. } | Op::Prepend { .. } | Op::Roll { .. } => self.movement(node),
            Op::LayerNorm { .. } | Op::Curve { .. } | Op::Attention(_) | Op::Offset { .. } => {
                transformer::lower(self, node)
            }
            Op::Conv { .. } | Op::Scale { .. } => {
                Err(narrow_names.error("operation that `simplify` should have folded", node.op.name()))
            }
        }
    }

    fn movement(&mut self, node: &Node) -> Result<(), Error> {
        let narrow_names = Narrow { node: &node.name };
        let to = self.tensors[node.output].1;
        if to.element == Element::Int16 && node.op.clamp() != Clamp::NONE {
            return Err(narrow_names.error("a clamp of", "16 bits"));
        }
        let mut first_channel = 0;
        for &operand in &node.inputs {
            let input = self.moved(node, operand)?;
            let mut record = narrow_names.record(OpKind::Move, input, node.output)?;
            (record.min, record.max) = bounds(node.op.clamp(), to);
            let mut constants = Constants::Nothing;
            match &node.op {
                Op::Move { origin, step, repeat, .. } => {
                    for (target, &value) in record.origin.iter_mut().zip(origin) {
                        *target = i16::try_from(value).map_err(|_| narrow_names.error("origin", value))?;
                    }
                    record.groups = narrow_names.u16(self.tensors[node.output].0[2])?;
                    (record.step, record.repeat) = (narrow_names.pair(*step)?, narrow_names.pair(*repeat)?);
                }
                Op::Concat { .. } => {
                    record.groups = narrow_names.u16(self.tensors[input].0[2])?;
                    record.first_channel = narrow_names.u16(first_channel)?;
                    (record.step, record.repeat) = ([1; 2], [1; 2]);
                    first_channel += self.tensors[input].0[2];
                }
                Op::Roll { by } => {
                    record.kind = OpKind::Roll;
                    for (target, &value) in record.origin.iter_mut().zip(by) {
                        *target = i16::try_from(value).map_err(|_| narrow_names.error("shift", value))?;
                    }
                }
                Op::Prepend { tokens } => {
                    record.kind = OpKind::Prepend;
                    record.groups = narrow_names.u16(tokens.len() / self.tensors[node.output].0[2].max(1))?;
                    constants = Constants::Bytes(bytes_of(tokens, to));
                }
                _ => {}
            }
            self.push(record, constants);
        }
        Ok(())
    }

    /// An operand in the quantisation of the output: what only moves values cannot rescale.
    fn moved(&mut self, node: &Node, operand: usize) -> Result<usize, Error> {
        debug_assert!(moves(node));
        let ((shape, from), to) = (self.tensors[operand], self.tensors[node.output].1);
        if from == to { Ok(operand) } else { self.rescaled(node, operand, (shape, to), &vec![to.scale; shape[2]]) }
    }

    /// An operand in int8, in the quantisation that `of` gives its range if it is not.
    pub fn int8(&mut self, node: &Node, operand: usize, of: fn(Extent) -> Quant) -> Result<usize, Error> {
        let (shape, from) = self.tensors[operand];
        if from.element == Element::Int8 {
            return Ok(operand);
        }
        let to = of(self.known.extents[operand]);
        self.rescaled(node, operand, (shape, to), &vec![to.scale; shape[2]])
    }

    /// An operand in int8 with zero point 0.
    pub fn centred(&mut self, node: &Node, operand: usize) -> Result<usize, Error> {
        let (shape, from) = self.tensors[operand];
        if from.element == Element::Int8 && from.zero_point == 0 {
            return Ok(operand);
        }
        let to = symmetric(self.known.extents[operand]);
        self.rescaled(node, operand, (shape, to), &vec![to.scale; shape[2]])
    }

    /// An operand in int16.
    pub fn int16(&mut self, node: &Node, operand: usize) -> Result<usize, Error> {
        let (shape, from) = self.tensors[operand];
        if from.element == Element::Int16 {
            return Ok(operand);
        }
        let to = wide(self.known.extents[operand]);
        self.rescaled(node, operand, (shape, to), &vec![to.scale; shape[2]])
    }

    /// The tensor that an op writes for the tensor `output`: another one if that is int16 and the op cannot, as with a
    /// clamp, which int16 has not.
    pub fn written(&mut self, output: usize, can_wide: bool) -> Result<usize, Error> {
        let (shape, to) = self.tensors[output];
        if to.element == Element::Int8 || can_wide {
            return Ok(output);
        }
        self.tensors.push((shape, narrow(self.known.extents[output])));
        Ok(self.tensors.len() - 1)
    }

    /// Brings what was written to where it belongs.
    pub fn finish(&mut self, node: &Node, written: usize, output: usize) -> Result<(), Error> {
        if written == output {
            return Ok(());
        }
        let (shape, to) = self.tensors[output];
        self.rescale(node, [written, output], &vec![to.scale; shape[2]])
    }

    /// A new tensor with the values of another, in steps of their own per channel.
    fn rescaled(
        &mut self,
        node: &Node,
        operand: usize,
        tensor: ([usize; 3], Quant),
        scales: &[f32],
    ) -> Result<usize, Error> {
        let fresh = self.tensors.len();
        self.tensors.push(tensor);
        self.rescale(node, [operand, fresh], scales)?;
        Ok(fresh)
    }

    fn rescale(&mut self, node: &Node, [from, to]: [usize; 2], scales: &[f32]) -> Result<(), Error> {
        let record = Narrow { node: &node.name }.record(OpKind::Rescale, from, to)?;
        let weights = Some(rescale(self.tensors[from].1, scales, &node.name)?);
        let op = IntegerOp { record, weights, constants: Constants::Nothing, scratch_bytes: 0, macs: 0 };
        self.ops.push(op);
        Ok(())
    }

    pub fn push(&mut self, record: plan::Op, constants: Constants) {
        self.push_with(record, constants, 0, 0);
    }

    pub fn push_with(&mut self, record: plan::Op, constants: Constants, scratch_bytes: usize, macs: u64) {
        self.ops.push(IntegerOp { record, weights: None, constants, scratch_bytes, macs });
    }

    pub fn macs(&self, node: &Node) -> u64 {
        node.macs(&self.known.segment.tensors)
    }
}

fn bounded(extent: Extent, clamp: Clamp) -> Extent {
    Extent { min: clamp.apply(extent.min), max: clamp.apply(extent.max) }
}

/// The table of a function from one int8 tensor to another, by the value as a byte.
pub(super) fn table(function: impl Fn(f32) -> f32, from: Quant, to: Quant) -> Vec<i8> {
    (0..=255u8)
        .map(|byte| {
            let value = f32::from(byte as i8) - f32::from(from.zero_point);
            to_integer(function(from.scale * value), to)
        })
        .collect()
}

/// Values as the image stores them.
pub(super) fn bytes_of(values: &[f32], to: Quant) -> Vec<u8> {
    let integers = values.iter().map(|&value| (f64::from(value) / f64::from(to.scale)).round());
    match to.element {
        Element::Int16 => integers.flat_map(|value| (value.clamp(-32_768.0, 32_767.0) as i16).to_le_bytes()).collect(),
        _ => values.iter().map(|&value| to_integer(value, to) as u8).collect(),
    }
}

/// Conversions to the widths of the image, with the node's name in the error.
pub(super) struct Narrow<'a> {
    pub node: &'a str,
}

impl Narrow<'_> {
    pub fn error(&self, what: &str, value: impl std::fmt::Display) -> Error {
        Error::Stage { stage: "quantize", what: format!("node `{}`: {what} {value} does not fit the image", self.node) }
    }

    pub fn record(&self, kind: OpKind, input: usize, output: usize) -> Result<plan::Op, Error> {
        let (input, output) = (TensorId(self.u16(input)?), TensorId(self.u16(output)?));
        Ok(plan::Op { kind, input, output, ..plan::Op::EMPTY })
    }

    pub fn u16(&self, value: usize) -> Result<u16, Error> {
        u16::try_from(value).map_err(|_| self.error("number", value))
    }

    pub fn pair(&self, values: [usize; 2]) -> Result<[u8; 2], Error> {
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
