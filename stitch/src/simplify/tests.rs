//! Every rule against a naive evaluator: the function stays, the form is the expected one.

use ndarray::Array4;

use super::*;
use crate::graph::PoolKind;

/// Numbers without a pattern, from −1 to 1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The value at a place, 0 outside.
fn at(map: &[f32], [height, width, channels]: [usize; 3], [y, x, c]: [isize; 3]) -> Option<f32> {
    let inside = |place: isize, side: usize| usize::try_from(place).ok().filter(|&place| place < side);
    Some(map[(inside(y, height)? * width + inside(x, width)?) * channels + inside(c, channels)?])
}

/// Result of a graph, straight from the definitions in `graph`.
fn evaluate(graph: &Graph, input: &[f32]) -> Vec<f32> {
    let mut maps = vec![vec![]; graph.tensors.len()];
    maps[graph.input] = input.to_vec();
    for node in &graph.nodes {
        let shape @ [height, width, channels] = graph.tensors[node.output];
        let (from, first) = (graph.tensors[node.inputs[0]], &maps[node.inputs[0]]);
        let mut result = vec![];
        for index in 0..height * width * channels {
            let (y, x, c) = (index / channels / width, index / channels % width, index % channels);
            let source = |window: &Window, dy: usize, dx: usize, c: usize| {
                let y = (y * window.stride[0] + dy) as isize - window.pad[0] as isize;
                let x = (x * window.stride[1] + dx) as isize - window.pad[1] as isize;
                at(first, from, [y, x, c as isize])
            };
            let value = match &node.op {
                Op::Conv { weights, bias, window, groups, .. } => {
                    let group = c / (channels / groups) * (from[2] / groups);
                    let sum = weights.outer_iter().nth(c).map(|weights| {
                        let terms = weights.indexed_iter();
                        terms.map(|((dy, dx, i), w)| w * source(window, dy, dx, group + i).unwrap_or(0.0)).sum::<f32>()
                    });
                    sum.unwrap_or(f32::NAN) + bias[c]
                }
                Op::Scale { factor, offset } => first[index] * factor[c] + offset[c],
                Op::Add { .. } => first[index] + maps[node.inputs[1]][index],
                Op::Pool { kind, window, .. } => {
                    let [rows, columns] = window.kernel;
                    let values = (0..rows * columns).map(|k| source(window, k / columns, k % columns, c));
                    match kind {
                        PoolKind::Average => {
                            values.map(|value| value.unwrap_or(0.0)).sum::<f32>() / (rows * columns) as f32
                        }
                        PoolKind::Max => values.flatten().fold(f32::NEG_INFINITY, f32::max),
                    }
                }
                Op::Move { origin, step, repeat, .. } => {
                    let place = |out: usize, axis: usize| (out * step[axis] / repeat[axis]) as isize + origin[axis];
                    at(first, from, [place(y, 0), place(x, 1), c as isize + origin[2]]).unwrap_or(0.0)
                }
                Op::Concat { .. } => {
                    let pixel = y * width + x;
                    let row = |input: &usize| maps[*input].chunks(graph.tensors[*input][2]).nth(pixel);
                    node.inputs.iter().filter_map(row).flatten().nth(c).copied().unwrap_or(f32::NAN)
                }
                Op::Roll { by } => {
                    let place = [(y + by[0]) % height, (x + by[1]) % width, c].map(|index| index as isize);
                    at(first, from, place).unwrap_or(f32::NAN)
                }
                other => panic!("no rule touches {}", other.name()),
            };
            result.push(node.op.clamp().apply(value));
        }
        assert_eq!(result.len(), shape.iter().product::<usize>());
        maps[node.output] = result;
    }
    maps.swap_remove(graph.output)
}

fn graph(tensors: &[[usize; 3]], nodes: Vec<(Op, &[usize])>) -> Graph {
    let node = |(index, (op, inputs)): (usize, (Op, &[usize]))| {
        let (name, output) = (format!("n{index}"), index + 1);
        Node { name, op, inputs: inputs.to_vec(), output }
    };
    let nodes = nodes.into_iter().enumerate().map(node).collect();
    Graph { name: "test".into(), tensors: tensors.to_vec(), nodes, input: 0, output: tensors.len() - 1, taps: vec![] }
}

fn conv(outputs: usize, inputs: usize, kernel: usize, stride: usize, pad: usize) -> Op {
    let weights =
        Array4::from_shape_vec([outputs, kernel, kernel, inputs], noise(outputs * kernel * kernel * inputs, 1));
    let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] };
    Op::Conv { weights: weights.expect("shape"), bias: noise(outputs, 2), window, groups: 1, clamp: Clamp::NONE }
}

fn scale(channels: usize) -> Op {
    Op::Scale { factor: noise(channels, 3), offset: noise(channels, 4) }
}

fn shift(origin: [isize; 3], clamp: Clamp) -> Op {
    Op::Move { origin, step: [1; 2], repeat: [1; 2], clamp }
}

/// Simplifies, compares results, and gives the names of the remaining operations.
fn check(graph: Graph) -> (Graph, Vec<&'static str>) {
    let input = noise(graph.tensors[graph.input].iter().product(), 9);
    let expected = evaluate(&graph, &input);
    let simple = simplify(graph).expect("simplify");
    let found = evaluate(&simple, &input);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found} instead of {expected}");
    }
    let names = simple.nodes.iter().map(|node| node.op.name()).collect();
    assert!(simple.nodes.iter().enumerate().all(|(index, node)| node.output == index + 1), "numbers are not dense");
    assert_eq!(simple.tensors.len(), simple.nodes.len() + 1);
    (simple, names)
}

#[test]
fn batch_norm_folds_into_the_convolution() {
    let nodes = vec![(conv(4, 3, 3, 2, 1), &[0][..]), (scale(4), &[1])];
    assert_eq!(check(graph(&[[6, 6, 3], [3, 3, 4], [3, 3, 4]], nodes)).1, ["conv"]);
}

#[test]
fn batch_norm_of_a_shared_convolution_becomes_depthwise() {
    let nodes = vec![(conv(4, 3, 1, 1, 0), &[0][..]), (scale(4), &[1]), (Op::Add { clamp: Clamp::NONE }, &[1, 2])];
    let (simple, names) = check(graph(&[[4, 4, 3], [4, 4, 4], [4, 4, 4], [4, 4, 4]], nodes));
    assert_eq!(names, ["conv", "conv", "add"]);
    assert!(matches!(simple.nodes[1].op, Op::Conv { groups: 4, .. }));
}

#[test]
fn batch_norm_after_relu_is_not_folded_through_it() {
    let nodes = vec![(conv(4, 3, 1, 1, 0), &[0][..]), (shift([0; 3], Clamp::RELU), &[1]), (scale(4), &[2])];
    assert_eq!(check(graph(&[[4, 4, 3], [4, 4, 4], [4, 4, 4], [4, 4, 4]], nodes)).1, ["conv", "conv"]);
}

#[test]
fn clamps_fuse_into_what_they_follow() {
    let narrow = Clamp { min: -0.5, max: 0.25 };
    let nodes = vec![
        (conv(3, 3, 1, 1, 0), &[0][..]),
        (shift([0; 3], Clamp::RELU), &[1]),
        (shift([0; 3], narrow), &[2]),
        (Op::Add { clamp: Clamp::NONE }, &[0, 3]),
        (shift([0; 3], Clamp::RELU), &[4]),
    ];
    let (simple, names) = check(graph(&[[4, 4, 3]; 6], nodes));
    assert_eq!(names, ["conv", "add"]);
    assert_eq!(simple.nodes[0].op.clamp(), Clamp { min: 0.0, max: 0.25 });
}

#[test]
fn a_clamp_stays_where_the_unclamped_map_is_read_too() {
    let nodes = vec![
        (conv(3, 3, 1, 1, 0), &[0][..]),
        (shift([0; 3], Clamp::RELU), &[1]),
        (Op::Add { clamp: Clamp::NONE }, &[1, 2]),
    ];
    assert_eq!(check(graph(&[[4, 4, 3]; 4], nodes)).1, ["conv", "move", "add"]);
}

#[test]
fn padding_merges_into_the_window() {
    let nodes = vec![(shift([-1, 0, 0], Clamp::NONE), &[0][..]), (conv(2, 3, 3, 1, 1), &[1])];
    let (simple, names) = check(graph(&[[4, 4, 3], [6, 5, 3], [6, 5, 2]], nodes));
    assert_eq!(names, ["conv"]);
    assert!(matches!(simple.nodes[0].op, Op::Conv { window: Window { pad: [2, 1, 2, 2], .. }, .. }));
}

#[test]
fn padding_of_channels_and_cropping_stay() {
    let nodes = vec![(shift([0, 0, -1], Clamp::NONE), &[0][..]), (conv(2, 5, 3, 1, 1), &[1])];
    assert_eq!(check(graph(&[[4, 4, 3], [4, 4, 5], [4, 4, 2]], nodes)).1, ["move", "conv"]);
    let nodes = vec![(shift([1, 1, 0], Clamp::NONE), &[0][..]), (conv(2, 3, 3, 1, 1), &[1])];
    assert_eq!(check(graph(&[[4, 4, 3], [3, 3, 3], [3, 3, 2]], nodes)).1, ["move", "conv"]);
}

#[test]
fn identities_and_unread_nodes_go() {
    let window = Window { kernel: [2; 2], stride: [2; 2], pad: [0; 4] };
    let pool = |kind| Op::Pool { kind, window, clamp: Clamp::NONE };
    let nodes = vec![
        (shift([0; 3], Clamp::NONE), &[0][..]),
        (pool(PoolKind::Max), &[1]),
        (conv(3, 3, 1, 1, 0), &[1]),
        (pool(PoolKind::Average), &[1]),
        (Op::Concat { clamp: Clamp::NONE }, &[2, 4]),
    ];
    let shapes = [[4, 4, 3], [4, 4, 3], [2, 2, 3], [4, 4, 3], [2, 2, 3], [2, 2, 6]];
    assert_eq!(check(graph(&shapes, nodes)).1, ["max", "mean", "concat"]);
}

#[test]
fn rolls_one_after_another_are_one() {
    let roll = |by| Op::Roll { by };
    let nodes = vec![(roll([3, 0]), &[0][..]), (roll([2, 4]), &[1])];
    let (simple, names) = check(graph(&[[4, 6, 2]; 3], nodes));
    assert_eq!((names, &simple.nodes[0].op), (vec!["roll"], &roll([1, 4])));
}

#[test]
fn a_graph_without_operations_is_refused() {
    assert!(simplify(graph(&[[4, 4, 3]], vec![])).is_err());
}

#[test]
fn a_norm_runs_on_the_position_that_a_head_reads_alone() {
    let norm = Op::LayerNorm { factor: vec![1.0, 2.0, 0.5], offset: vec![0.1, 0.0, -0.2], epsilon: 1e-5 };
    let pick = Op::Move { origin: [0, 1, 0], step: [1, 1], repeat: [1, 1], clamp: Clamp::NONE };
    let pad = Op::Move { origin: [-1, 0, 0], step: [1, 1], repeat: [1, 1], clamp: Clamp::NONE };
    let of =
        |op: &Op, shape| graph(&[[4, 4, 3], [4, 4, 3], shape], vec![(norm.clone(), &[0][..]), (op.clone(), &[1][..])]);
    let names = |graph: &Graph| graph.nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>().join(" ");
    let before = of(&pick, [1, 1, 3]);
    let after = simplify(before.clone()).expect("simplified");
    assert_eq!(names(&after), "move layernorm");
    let image = noise(48, 3);
    assert_eq!(crate::float::output(&after, &image), crate::float::output(&before, &image));
    // A norm of padding is not padding.
    assert_eq!(names(&simplify(of(&pad, [6, 4, 3])).expect("simplified")), "layernorm move");
}
