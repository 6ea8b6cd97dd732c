//! One op: read its record, borrow its tensors, call its kernel. The only module that speaks the language of the
//! image and that of the kernels.

pub(crate) mod head;
pub(crate) mod stream;

use core::ops::Range;

use kernels::{
    Add, Attention, Conv, Element, Heads, Isa, LayerNorm, Move, Packing, Pool, PoolKind, Requant, Rescale, Roll, Shape,
    Window,
};
use plan::layout::{IN_BLOCKS, NO_TENSOR, WITH_CURVE};
use plan::{Image, Op, OpId, OpKind, Segment, Tensor, TensorId};

use crate::arena::View;
use crate::error::RunError;
use head::{Boxes, DETECTOR, Part};
use stream::Strip;

/// Whether this build has what only transformers use.
pub(crate) const TRANSFORMERS: bool = cfg!(feature = "transformers");

/// A segment that runs, and where.
#[derive(Clone, Copy)]
pub(crate) struct Running<'s, 'i> {
    pub image: &'s Image<'i>,
    pub segment: &'s Segment,
    pub view: View,
}

impl Running<'_, '_> {
    /// Where a tensor lies.
    pub fn place(&self, id: TensorId) -> Range<usize> {
        let tensor = self.image.tensor(id);
        match tensor.kept().filter(|_| DETECTOR) {
            Some(number) => self.view.kept(&self.image.kept(number)),
            None => self.view.range(self.segment, &tensor),
        }
    }
}

/// The maps of an op, as far as this run uses them.
struct Maps<'r> {
    running: &'r Running<'r, 'r>,
    op: &'r Op,
    part: Option<Part>,
    strip: Option<&'r Strip>,
}

impl Maps<'_> {
    /// A tensor as the kernel sees it, and its bytes; none for [`NO_TENSOR`]. A call: inlined it is a kilobyte on a Cortex-M.
    #[inline(never)]
    fn lend(&self, id: TensorId) -> (Tensor, Range<usize>) {
        let mut tensor = self.running.image.tensor(id);
        if id.0 == NO_TENSOR {
            return (tensor, 0..0);
        }
        let mut bytes = self.running.place(id);
        if let Some(strip) = self.strip {
            strip.cut(self.op, id, &mut tensor, &mut bytes);
        }
        // Scratch has no rows.
        if let Some(part) = self.part.filter(|_| id != self.op.scratch) {
            tensor = part.of(&tensor);
            bytes.end = bytes.start + tensor.bytes() as usize;
        }
        (tensor, bytes)
    }
}

/// Runs an op of the segment, or a strip of it: where in the arena it wrote. `bias` replaces the op's own bias offset where the
/// config says so.
pub(crate) fn run<I: Isa>(
    isa: I,
    running: &Running<'_, '_>,
    (id, op): (OpId, &Op),
    bias: Option<u32>,
    arena: &mut [i8],
    boxes: &mut Boxes,
    strip: Option<&Strip>,
) -> Result<Range<usize>, RunError> {
    let image = running.image;
    if DETECTOR && head::takes(op) {
        return head::run(isa, running, (id, op), arena, boxes);
    }
    let part = DETECTOR.then(|| boxes.part(image, op)).flatten();
    if part.is_some_and(Part::is_empty) {
        return Ok(0..0);
    }
    let refused = RunError::Kernel { op: id.0 };
    let op = strip.map_or(*op, |strip| strip.padded(op));
    let maps = Maps { running, op: &op, part, strip };
    let [(from, input), (second, input2), (to, output), (_, scratch)] =
        [op.input, op.input2, op.output, op.scratch].map(|id| maps.lend(id));
    let written = output.clone();
    if op.kind == OpKind::Add && input == output {
        // It takes the place of its first operand.
        let [output, other] = arena.get_disjoint_mut([output, input2]).map_err(|_| refused)?;
        let sum = addition(&op, [&from, &second, &to]);
        return kernels::add_in_place(isa, &sum, output, other).map(|()| written).map_err(|_| refused);
    }
    // x + x is the one op that names a tensor twice; it is lent once.
    let twice = op.input2 == op.input;
    let input2 = if twice { 0..0 } else { input2 };
    let [input, input2, output, scratch] =
        arena.get_disjoint_mut([input, input2, output, scratch]).map_err(|_| refused)?;
    // The second operand of x + x, and keys and values beside their queries.
    let input2 = if twice || op.input2.0 == NO_TENSOR { &*input } else { &*input2 };
    let done = match op.kind {
        OpKind::Conv => kernels::conv(isa, &convolution(image, &op, &from, &to, bias), input, output, scratch),
        OpKind::Depthwise => {
            kernels::depthwise(isa, &convolution(image, &op, &from, &to, bias), input, output, scratch)
        }
        OpKind::Add if TRANSFORMERS && op.input2.0 == NO_TENSOR => {
            let constant = image.data(op.weights, output.len());
            kernels::add_constant(isa, &addition(&op, [&from, &to, &to]), input, constant, output)
        }
        OpKind::Add => kernels::add(isa, &addition(&op, [&from, &second, &to]), input, input2, output),
        OpKind::AveragePool => kernels::pool(isa, &pooling(&op, PoolKind::Average, &from, &to), input, output),
        OpKind::MaxPool => kernels::pool(isa, &pooling(&op, PoolKind::Max, &from, &to), input, output),
        OpKind::Move => kernels::move_tensor(&movement(&op, &from, &to), input, output),
        OpKind::LayerNorm if TRANSFORMERS => kernels::layer_norm(isa, &layer_norm(image, &op, &to), input, output),
        OpKind::Attention if TRANSFORMERS => {
            let keys = if op.input2.0 == NO_TENSOR { from } else { second };
            kernels::attention(isa, &attention(image, &op, [&from, &keys, &to]), input, input2, output, scratch)
        }
        OpKind::Curve if TRANSFORMERS => match image.data(op.weights, 256).first_chunk() {
            Some(table) => kernels::curve(table, input, output),
            None => return Err(refused),
        },
        OpKind::Prepend if TRANSFORMERS => {
            let tokens = usize::from(op.groups) * usize::from(to.shape[2]) * usize::from(to.element.bytes());
            kernels::prepend(image.data(op.weights, tokens), input, output)
        }
        OpKind::Roll if TRANSFORMERS => {
            let [rows, columns, _] = op.origin.map(|by| by as u16);
            kernels::roll(&Roll { shape: byte_shape(&from), by: [rows, columns] }, input, output)
        }
        OpKind::Rescale if TRANSFORMERS => {
            kernels::rescale_tensor(isa, &rescale(image, &op, &from, &to), input, output)
        }
        _ => return Err(refused),
    };
    done.map(|()| written).map_err(|_| refused)
}

fn shape(tensor: &Tensor) -> Shape {
    let [height, width, channels] = tensor.shape;
    Shape { height, width, channels }
}

/// The shape of a map whose values are moved byte by byte.
fn byte_shape(tensor: &Tensor) -> Shape {
    let shape = shape(tensor);
    Shape { channels: shape.channels.saturating_mul(tensor.element.bytes()), ..shape }
}

fn element(tensor: &Tensor) -> Element {
    match tensor.element {
        plan::Element::Int16 if TRANSFORMERS => Element::Int16,
        _ => Element::Int8,
    }
}

fn window(op: &Op) -> Window {
    Window { kernel: op.kernel, stride: op.stride, pad: op.pad }
}

fn convolution<'a>(image: &Image<'a>, op: &Op, from: &Tensor, to: &Tensor, bias: Option<u32>) -> Conv<'a> {
    let weights = usize::try_from(op.weight_bytes(from, to)).unwrap_or(usize::MAX);
    let curve = (TRANSFORMERS && op.flags & WITH_CURVE != 0)
        .then(|| image.data(op.constant as u32, 256).first_chunk())
        .flatten();
    // A curve has the output's zero point in its table, and that of what it reads in the bias.
    let zero_point = if curve.is_some() { 0 } else { to.zero_point };
    Conv {
        input: shape(from),
        output: shape(to),
        window: window(op),
        groups: op.groups,
        input_zero: from.zero_point,
        weights: image.data(op.weights, weights),
        packing: if op.flags & IN_BLOCKS == 0 { Packing::Rows } else { Packing::Blocks },
        to: element(to),
        curve,
        requant: Requant { zero_point, ..requant(image, op, bias, to) },
    }
}

fn requant<'a>(image: &Image<'a>, op: &Op, bias: Option<u32>, to: &Tensor) -> Requant<'a> {
    let channels = usize::from(to.shape[2]);
    Requant {
        bias: image.data(bias.unwrap_or(op.bias), 4 * channels),
        multiplier: image.data(op.multiplier, 4 * channels),
        shift: image.data(op.shifts, channels),
        zero_point: to.zero_point,
        min: op.min,
        max: op.max,
    }
}

fn rescale<'a>(image: &Image<'a>, op: &Op, from: &Tensor, to: &Tensor) -> Rescale<'a> {
    let requant = requant(image, op, None, to);
    Rescale { channels: to.shape[2], from: element(from), to: element(to), requant }
}

fn layer_norm<'a>(image: &Image<'a>, op: &Op, to: &Tensor) -> LayerNorm<'a> {
    let channels = usize::from(to.shape[2]);
    LayerNorm {
        channels: to.shape[2],
        factor: image.data(op.weights, 2 * channels),
        factor_bits: op.shift,
        offset: image.data(op.bias, 4 * channels),
        epsilon: op.epsilon(),
        min: op.min,
        max: op.max,
    }
}

pub(crate) fn attention<'a>(image: &Image<'a>, op: &Op, [queries, keys, to]: [&Tensor; 3]) -> Attention<'a> {
    let numbers = image.attention(op);
    let [height, width] = numbers.query_window;
    let windows = u32::from(queries.shape[0] / height.max(1)) * u32::from(queries.shape[1] / width.max(1));
    let table = |offset: u32, bytes: u64| image.data(offset, usize::try_from(bytes).unwrap_or(usize::MAX));
    let heads = |first, per_head, width| Heads { first, per_head, width };
    Attention {
        query_map: shape(queries),
        key_map: shape(keys),
        heads: numbers.heads,
        query: heads(numbers.query_first, numbers.query_per_head, numbers.query_width),
        key: heads(numbers.key_first, numbers.key_per_head, numbers.query_width),
        value: heads(numbers.value_first, numbers.value_per_head, numbers.value_width),
        query_window: numbers.query_window,
        key_window: numbers.key_window,
        logit_multiplier: numbers.logit_multiplier,
        logit_shift: numbers.logit_shift,
        bias: table(numbers.bias, numbers.bias_bytes()),
        mask: table(numbers.mask, numbers.mask_bytes(windows)),
        multiplier: numbers.multiplier,
        shift: numbers.shift,
        zero_point: to.zero_point,
        min: op.min,
        max: op.max,
    }
}

fn addition(op: &Op, tensors: [&Tensor; 3]) -> Add {
    // V16 bounds the factors to 16 bits.
    let multiplier = op.factors.map(|factor| factor as i16);
    let elements = tensors.map(element);
    Add { multiplier, offset: op.constant, shift: op.shift, min: op.min, max: op.max, elements }
}

fn pooling(op: &Op, kind: PoolKind, from: &Tensor, to: &Tensor) -> Pool {
    Pool {
        kind,
        input: shape(from),
        output: shape(to),
        window: window(op),
        input_zero: from.zero_point,
        multiplier: op.factors[0],
        shift: op.shift,
        zero_point: to.zero_point,
        min: op.min,
        max: op.max,
    }
}

fn movement(op: &Op, from: &Tensor, to: &Tensor) -> Move {
    let width = from.element.bytes();
    let [row, column, channel] = op.origin;
    Move {
        input: byte_shape(from),
        output: byte_shape(to),
        origin: [row, column, channel.saturating_mul(width as i16)],
        step: op.step,
        repeat: op.repeat,
        first_channel: op.first_channel.saturating_mul(width),
        channels: op.groups.saturating_mul(width),
        fill: from.zero_point,
        min: op.min,
        max: op.max,
    }
}
