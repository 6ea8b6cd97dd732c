//! The operations of [`super::ops`] as candle's own, which run on every device that candle has and bring their gradients.

use candle_core::{DType, Result, Tensor, bail};

use super::ops::Conv;
use crate::graph::{Clamp, PoolKind, Window};

/// The clamp; like [`super::ops`], no gradient passes at its ends.
pub fn clamped(values: &Tensor, clamp: Clamp) -> Result<Tensor> {
    if clamp == Clamp::NONE {
        return Ok(values.clone());
    }
    let above = values.gt(&Tensor::full(clamp.min, values.shape(), values.device())?)?;
    let below = values.lt(&Tensor::full(clamp.max, values.shape(), values.device())?)?;
    let passing = (values * (above * below)?.to_dtype(DType::F32)?)?;
    let fixed = (values.clamp(clamp.min, clamp.max)? - &passing)?.detach();
    passing + fixed
}

/// The convolution; input `[N, H, W, I]`, weights `[O, KH·KW·I/groups]`, bias `[O]`.
///
/// # Errors
/// Steps that differ by axis, which candle has not.
pub fn conv(op: &Conv, input: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ([rows, columns], [step, across]) = (op.window.kernel, op.window.stride);
    if step != across {
        bail!("a convolution with steps of {step} and {across}; only equal ones are trained on this device");
    }
    let shape = (op.output[2], rows, columns, op.input[2] / op.groups);
    let weights = weights.reshape(shape)?.permute((0, 3, 1, 2))?.contiguous()?;
    let input = padded(input, &op.window, op.output, 0.0)?.permute((0, 3, 1, 2))?.contiguous()?;
    let sums = input.conv2d(&weights, 0, step, 1, op.groups)?.permute((0, 2, 3, 1))?.contiguous()?;
    clamped(&sums.broadcast_add(bias)?, op.clamp)
}

/// Mean or maximum over a window, then the clamp; `output` is the size of one image.
///
/// # Errors
/// What candle refuses.
pub fn pool(input: &Tensor, kind: PoolKind, window: &Window, output: [usize; 3], clamp: Clamp) -> Result<Tensor> {
    let ([rows, columns], [down, across]) = (window.kernel, window.stride);
    let average = kind == PoolKind::Average;
    let input = padded(input, window, output, if average { 0.0 } else { f32::NEG_INFINITY })?;
    let mut result: Option<Tensor> = None;
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let tap = taken(&input, 1, (0..output[0]).map(|y| y * down + row))?;
        let tap = taken(&tap, 2, (0..output[1]).map(|x| x * across + column))?;
        result = Some(match result {
            None => tap,
            Some(sum) if average => (sum + tap)?,
            Some(most) => most.maximum(&tap)?,
        });
    }
    let Some(result) = result else { bail!("a pooling without a window") };
    clamped(&if average { (result / (rows * columns) as f64)? } else { result }, clamp)
}

/// [`crate::graph::Op::Move`]; `output` is the size of one image.
///
/// # Errors
/// What candle refuses.
pub fn moved(
    input: &Tensor,
    output: [usize; 3],
    origin: [isize; 3],
    step: [usize; 2],
    repeat: [usize; 2],
    clamp: Clamp,
) -> Result<Tensor> {
    let mut result = input.clone();
    for axis in 0..3 {
        let length = input.dim(axis + 1)?;
        let source = |index: usize| {
            let moved = if axis < 2 { index * step[axis] / repeat[axis] } else { index };
            usize::try_from(moved as isize + origin[axis]).ok().filter(|&from| from < length)
        };
        // What comes from nowhere is 0: it is read behind the end.
        result = result.pad_with_zeros(axis + 1, 0, 1)?;
        result = taken(&result, axis + 1, (0..output[axis]).map(|index| source(index).unwrap_or(length)))?;
    }
    clamped(&result, clamp)
}

/// Slices of an axis, by index.
fn taken(values: &Tensor, axis: usize, indices: impl Iterator<Item = usize>) -> Result<Tensor> {
    let indices: Vec<u32> = indices.map(|index| index as u32).collect();
    let count = indices.len();
    values.contiguous()?.index_select(&Tensor::from_vec(indices, count, values.device())?, axis)
}

/// The part of the map that the windows lie on, with `value` where they reach beyond it.
fn padded(input: &Tensor, window: &Window, output: [usize; 3], value: f32) -> Result<Tensor> {
    let mut map = input.clone();
    for axis in 0..2 {
        let border = |map: &Tensor, size: usize| {
            let mut shape = map.dims().to_vec();
            shape[axis + 1] = size;
            Tensor::full(value, shape, map.device())
        };
        let before = window.pad[axis];
        let needed = (output[axis] - 1) * window.stride[axis] + window.kernel[axis];
        let after = needed.saturating_sub(before + map.dim(axis + 1)?);
        map = Tensor::cat(&[&border(&map, before)?, &map, &border(&map, after)?], axis + 1)?;
        map = map.narrow(axis + 1, 0, needed)?;
    }
    Ok(map)
}
