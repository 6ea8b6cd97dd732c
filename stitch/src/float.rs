//! Float evaluation of nodes, one image at a time: gathered windows and a matrix product.

mod attention;

use crate::graph::{Graph, Node, Op, PoolKind, Window};

/// Result of one node before its clamp. `tensors` holds the values of its inputs, `shapes` all shapes `[H, W, C]`.
#[must_use]
pub fn evaluate(node: &Node, shapes: &[[usize; 3]], tensors: &[Vec<f32>]) -> Vec<f32> {
    evaluate_with(node, None, shapes, tensors)
}

/// The same; a convolution may be given another bias.
fn evaluate_with(node: &Node, other: Option<&[f32]>, shapes: &[[usize; 3]], tensors: &[Vec<f32>]) -> Vec<f32> {
    let output = shapes[node.output];
    let input = |operand: usize| (&tensors[node.inputs[operand]][..], shapes[node.inputs[operand]]);
    match &node.op {
        Op::Conv { weights, bias, window, groups, .. } => {
            let (values, shape) = input(0);
            let weights = weights.as_slice().unwrap_or_default();
            conv(values, shape, output, window, *groups, weights, other.unwrap_or(bias))
        }
        Op::Scale { factor, offset } => {
            let scaled = input(0).0.iter().zip(factor.iter().zip(offset).cycle());
            scaled.map(|(value, (factor, offset))| value * factor + offset).collect()
        }
        Op::Add { .. } => input(0).0.iter().zip(input(1).0).map(|(a, b)| a + b).collect(),
        Op::Pool { kind, window, .. } => {
            let (values, shape) = input(0);
            pool(values, shape, output, window, *kind)
        }
        Op::Move { origin, step, repeat, .. } => {
            let (values, shape) = input(0);
            moved(values, shape, output, *origin, *step, *repeat)
        }
        Op::Concat { .. } => {
            let parts: Vec<_> = (0..node.inputs.len()).map(input).collect();
            let mut values = Vec::with_capacity(output.iter().product());
            for pixel in 0..output[0] * output[1] {
                for (part, [_, _, channels]) in &parts {
                    values.extend_from_slice(&part[pixel * channels..(pixel + 1) * channels]);
                }
            }
            values
        }
        Op::LayerNorm { factor, offset, epsilon } => layer_norm(input(0).0, factor, offset, *epsilon),
        Op::Curve { function } => input(0).0.iter().map(|&value| function.at(value)).collect(),
        Op::Attention(attention) => attention::evaluate(attention, [input(0), input(1), input(2)], output),
        Op::Offset { values } => input(0).0.iter().zip(values).map(|(value, offset)| value + offset).collect(),
        Op::Prepend { tokens } => [tokens, input(0).0].concat(),
        Op::Roll { by } => {
            let (values, [height, width, channels]) = input(0);
            let mut result = Vec::with_capacity(values.len());
            for position in 0..height * width {
                let (y, x) = ((position / width + by[0]) % height, (position % width + by[1]) % width);
                result.extend_from_slice(&values[(y * width + x) * channels..][..channels]);
            }
            result
        }
    }
}

/// Sums are in f64: channels may have a mean far from 0.
fn layer_norm(values: &[f32], factor: &[f32], offset: &[f32], epsilon: f32) -> Vec<f32> {
    let count = factor.len() as f64;
    let mut result = Vec::with_capacity(values.len());
    for position in values.chunks_exact(factor.len()) {
        let mean = position.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = position.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        let table = factor.iter().zip(offset);
        let normal = position.iter().zip(table);
        result.extend(
            normal.map(|(&value, (factor, offset))| ((f64::from(value) - mean) * scale) as f32 * factor + offset),
        );
    }
    result
}

/// Bounds values by the clamp of a node.
pub fn clamp(node: &Node, values: &mut [f32]) {
    let bounds = node.op.clamp();
    for value in values {
        *value = bounds.apply(*value);
    }
}

/// All tensors of a list of nodes for one input. A tensor that no node writes stays empty.
#[must_use]
pub fn run(nodes: &[Node], shapes: &[[usize; 3]], input: usize, image: &[f32]) -> Vec<Vec<f32>> {
    run_with(nodes, shapes, input, image.to_vec(), |_| None)
}

/// The same; `bias` may give the convolution at a position another bias.
#[must_use]
pub fn run_with<'a>(
    nodes: &[Node],
    shapes: &[[usize; 3]],
    input: usize,
    image: Vec<f32>,
    bias: impl Fn(usize) -> Option<&'a [f32]>,
) -> Vec<Vec<f32>> {
    let mut tensors = vec![vec![]; shapes.len()];
    tensors[input] = image;
    for (position, node) in nodes.iter().enumerate() {
        let mut values = evaluate_with(node, bias(position), shapes, &tensors);
        clamp(node, &mut values);
        tensors[node.output] = values;
    }
    tensors
}

/// Output of a whole graph for one input.
#[must_use]
pub fn output(graph: &Graph, image: &[f32]) -> Vec<f32> {
    run(&graph.nodes, &graph.tensors, graph.input, image).swap_remove(graph.output)
}

fn conv(
    values: &[f32],
    [height, width, channels]: [usize; 3],
    output: [usize; 3],
    window: &Window,
    groups: usize,
    weights: &[f32],
    bias: &[f32],
) -> Vec<f32> {
    let [out_height, out_width, outputs] = output;
    let (inputs, per_group) = (channels / groups, outputs / groups);
    let positions = out_height * out_width;
    let [rows, columns] = window.kernel;
    let taps = rows * columns * inputs;
    let mut result: Vec<f32> = bias.iter().copied().cycle().take(positions * outputs).collect();
    let mut patches = vec![0.0; positions * taps];
    for group in 0..groups {
        for (position, patch) in patches.chunks_exact_mut(taps).enumerate() {
            let (y, x) = (position / out_width * window.stride[0], position % out_width * window.stride[1]);
            for (tap, part) in patch.chunks_exact_mut(inputs).enumerate() {
                let source_y = (y + tap / columns).checked_sub(window.pad[0]).filter(|&y| y < height);
                let source_x = (x + tap % columns).checked_sub(window.pad[1]).filter(|&x| x < width);
                match (source_y, source_x) {
                    (Some(y), Some(x)) => {
                        let start = (y * width + x) * channels + group * inputs;
                        part.copy_from_slice(&values[start..start + inputs]);
                    }
                    _ => part.fill(0.0),
                }
            }
        }
        let first = group * per_group;
        product(
            Matrix { values: &patches, rows: positions, columns: taps, pitch: [taps, 1] },
            Matrix { values: &weights[first * taps..], rows: taps, columns: per_group, pitch: [1, taps] },
            &mut result[first..],
            outputs,
        );
    }
    result
}

/// A matrix in a slice: element (r, c) is at `r·pitch₀ + c·pitch₁`.
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub pitch: [usize; 2],
}

/// `c += a·b`, `c` row-major with `c_pitch` elements a row.
pub(crate) fn product(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], c_pitch: usize) {
    let (Ok(a), Ok(b)) = (view(&a), view(&b)) else { return };
    let shape = (a.nrows(), b.ncols());
    let strides = ndarray::ShapeBuilder::strides(shape, (c_pitch, 1));
    if let Ok(mut c) = ndarray::ArrayViewMut2::from_shape(strides, c) {
        ndarray::linalg::general_mat_mul(1.0, &a, &b, 1.0, &mut c);
    }
}

fn view<'a>(matrix: &Matrix<'a>) -> Result<ndarray::ArrayView2<'a, f32>, ndarray::ShapeError> {
    let strides = (matrix.pitch[0], matrix.pitch[1]);
    ndarray::ArrayView2::from_shape(
        ndarray::ShapeBuilder::strides((matrix.rows, matrix.columns), strides),
        matrix.values,
    )
}

fn pool(
    values: &[f32],
    [height, width, channels]: [usize; 3],
    output: [usize; 3],
    window: &Window,
    kind: PoolKind,
) -> Vec<f32> {
    let [rows, columns] = window.kernel;
    let start = if kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 };
    let mut result = vec![start; output.iter().product()];
    for (position, pixel) in result.chunks_exact_mut(channels).enumerate() {
        let (y, x) = (position / output[1] * window.stride[0], position % output[1] * window.stride[1]);
        for tap in 0..rows * columns {
            let source_y = (y + tap / columns).checked_sub(window.pad[0]).filter(|&y| y < height);
            let source_x = (x + tap % columns).checked_sub(window.pad[1]).filter(|&x| x < width);
            let (Some(y), Some(x)) = (source_y, source_x) else { continue };
            let source = &values[(y * width + x) * channels..][..channels];
            for (value, &source) in pixel.iter_mut().zip(source) {
                *value = if kind == PoolKind::Max { value.max(source) } else { *value + source };
            }
        }
        if kind == PoolKind::Average {
            for value in pixel {
                *value /= (rows * columns) as f32;
            }
        }
    }
    result
}

fn moved(
    values: &[f32],
    [height, width, channels]: [usize; 3],
    output: [usize; 3],
    origin: [isize; 3],
    step: [usize; 2],
    repeat: [usize; 2],
) -> Vec<f32> {
    let source = |index: usize, axis: usize, side: usize| {
        let index = (index * step[axis] / repeat[axis]) as isize + origin[axis];
        usize::try_from(index).ok().filter(|&index| index < side)
    };
    let mut result = vec![0.0; output.iter().product()];
    for (position, pixel) in result.chunks_exact_mut(output[2]).enumerate() {
        let (y, x) = (source(position / output[1], 0, height), source(position % output[1], 1, width));
        let (Some(y), Some(x)) = (y, x) else { continue };
        for (channel, value) in pixel.iter_mut().enumerate() {
            let from = usize::try_from(channel as isize + origin[2]).ok().filter(|&from| from < channels);
            *value = from.map_or(0.0, |from| values[(y * width + x) * channels + from]);
        }
    }
    result
}
