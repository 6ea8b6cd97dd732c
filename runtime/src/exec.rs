//! One op: read its record, borrow its tensors, call its kernel. The only file that speaks the language of the
//! image and that of the kernels.

use kernels::{Add, Conv, Element, Isa, Move, Pool, PoolKind, Requant, Shape, Window};
use plan::layout::NO_TENSOR;
use plan::{Image, Op, OpId, OpKind, Segment, Tensor, TensorId};

use crate::arena::View;
use crate::error::RunError;

/// Runs op `id` of `segment`. `bias` replaces the op's own bias offset where the config says so.
pub(crate) fn run<I: Isa>(
    isa: I,
    image: &Image<'_>,
    segment: &Segment,
    id: OpId,
    bias: Option<u32>,
    view: View,
    arena: &mut [i8],
) -> Result<(), RunError> {
    let op = image.op(id);
    let place = |tensor: TensorId| view.range(segment, tensor, &image.tensor(tensor));
    let optional = |tensor: TensorId| if tensor.0 == NO_TENSOR { 0..0 } else { place(tensor) };
    // x + x is the one op that names a tensor twice; it is lent once.
    let twice = op.input2 == op.input;
    let second = if twice { 0..0 } else { optional(op.input2) };
    let refused = RunError::Kernel { op: id.0 };
    let [input, input2, output, scratch] = arena
        .get_disjoint_mut([place(op.input), second, place(op.output), optional(op.scratch)])
        .map_err(|_| refused)?;
    let (from, to) = (image.tensor(op.input), image.tensor(op.output));
    let input2 = if twice { &*input } else { &*input2 };
    let done = match op.kind {
        OpKind::Conv => kernels::conv(isa, &convolution(image, &op, &from, &to, bias), input, output, scratch),
        OpKind::Depthwise => {
            kernels::depthwise(isa, &convolution(image, &op, &from, &to, bias), input, output, scratch)
        }
        OpKind::Add => kernels::add(isa, &addition(&op), input, input2, output),
        OpKind::AveragePool => kernels::pool(isa, &pooling(&op, PoolKind::Average, &from, &to), input, output),
        OpKind::MaxPool => kernels::pool(isa, &pooling(&op, PoolKind::Max, &from, &to), input, output),
        OpKind::Move => kernels::move_tensor(&movement(&op, &from, &to), input, output),
        OpKind::Invalid(_) => return Err(refused),
    };
    done.map_err(|_| refused)
}

fn shape(tensor: &Tensor) -> Shape {
    let [height, width, channels] = tensor.shape;
    Shape { height, width, channels }
}

fn window(op: &Op) -> Window {
    Window { kernel: op.kernel, stride: op.stride, pad: op.pad }
}

fn convolution<'a>(image: &Image<'a>, op: &Op, from: &Tensor, to: &Tensor, bias: Option<u32>) -> Conv<'a> {
    let channels = usize::from(to.shape[2]);
    let weights = usize::try_from(op.weight_bytes(from, to)).unwrap_or(usize::MAX);
    Conv {
        input: shape(from),
        output: shape(to),
        window: window(op),
        groups: op.groups,
        input_zero: from.zero_point,
        weights: image.data(op.weights, weights),
        requant: Requant {
            bias: image.data(bias.unwrap_or(op.bias), 4 * channels),
            multiplier: image.data(op.multiplier, 4 * channels),
            shift: image.data(op.shifts, channels),
            zero_point: to.zero_point,
            min: op.min,
            max: op.max,
        },
        to: Element::Int8,
        curve: None,
    }
}

fn addition(op: &Op) -> Add {
    // V16 bounds the factors to 16 bits.
    let multiplier = op.factors.map(|factor| factor as i16);
    Add { multiplier, offset: op.constant, shift: op.shift, min: op.min, max: op.max, elements: [Element::Int8; 3] }
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
    Move {
        input: shape(from),
        output: shape(to),
        origin: op.origin,
        step: op.step,
        repeat: op.repeat,
        first_channel: op.first_channel,
        channels: op.groups,
        fill: from.zero_point,
        min: op.min,
        max: op.max,
    }
}
