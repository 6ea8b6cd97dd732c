use super::Judge;
use crate::float;
use crate::graph::{Attention, Clamp, Function, Graph, Heads, Node, Op, PoolKind, Window};
use crate::learn::tests::{OPTIONS, anchor, family, follow, images};
use crate::learn::{learn, skeleton};
use crate::{cut, verify};

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= verify::FLOAT_TOLERANCE * largest, "{what}: {found} instead of {expected}");
    }
}

#[test]
fn a_stitched_path_with_its_own_biases_is_what_the_float_path_computes() {
    let images = images(32);
    let stitched =
        learn(&family(anchor("a", 3, 1), anchor("b", 6, 2)), &images, OPTIONS, &|| ()).expect("learned").stitched;
    assert!(!stitched.paths[2].corrections.is_empty(), "the stitched path has biases of its own");
    for (number, path) in stitched.paths.iter().enumerate() {
        let judge = Judge::of_path(&stitched, path).expect("a model");
        for image in &images[..4] {
            close(&judge.output(image).expect("it runs"), &follow(&stitched, number, image), &path.name);
        }
    }
}

/// A graph `[6, 6, 3]` of one op.
fn single(op: Op, inputs: usize, output: [usize; 3]) -> Graph {
    let nodes = vec![Node { name: "it".into(), op, inputs: vec![0; inputs], output: 1 }];
    Graph { name: "single".into(), tensors: vec![[6, 6, 3], output], nodes, input: 0, output: 1, taps: vec![] }
}

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7 % 11) as f32 / 11.0 - 0.5).collect()
}

/// Two heads of one channel each; the queries are the keys of the other head.
fn attention(window: [usize; 2], bias: Vec<f32>, mask: Vec<f32>) -> Op {
    let heads = |first, per_head| Heads { first, per_head, width: 1 };
    Op::Attention(Box::new(Attention {
        heads: 2,
        query: heads(0, 1),
        key: heads(1, 1),
        value: heads(2, 0),
        query_window: window,
        key_window: window,
        scale: 3.0,
        bias,
        mask,
    }))
}

#[test]
fn every_form_of_an_op_is_written_as_it_is_computed() {
    let clamp = Clamp::NONE;
    let moved = |origin, step, repeat| Op::Move { origin, step, repeat, clamp };
    let window = Window { kernel: [3, 2], stride: [2, 1], pad: [1, 0, 0, 1] };
    let pool = |kind| Op::Pool { kind, window, clamp };
    let graphs = [
        single(moved([0, 0, 0], [2, 2], [1, 1]), 1, [3, 3, 3]),
        single(moved([0, 0, -2], [1, 1], [1, 1]), 1, [6, 6, 8]),
        single(moved([-1, 2, 1], [1, 3], [1, 1]), 1, [8, 2, 2]),
        single(moved([0, 0, 0], [1, 1], [2, 3]), 1, [12, 18, 3]),
        single(moved([-1, 1, 0], [1, 1], [2, 1]), 1, [10, 4, 3]),
        single(pool(PoolKind::Average), 1, [3, 6, 3]),
        single(pool(PoolKind::Max), 1, [3, 6, 3]),
        single(Op::Concat { clamp: Clamp { min: -0.5, max: f32::INFINITY } }, 2, [6, 6, 6]),
        single(Op::Add { clamp: Clamp { min: -0.25, max: 0.5 } }, 2, [6, 6, 3]),
        single(
            Op::LayerNorm { factor: vec![1.0, -2.0, 0.5], offset: vec![0.1, 0.2, -0.3], epsilon: 1e-3 },
            1,
            [6, 6, 3],
        ),
        single(Op::Curve { function: Function::gelu() }, 1, [6, 6, 3]),
        single(Op::Curve { function: Function::hard_sigmoid(0.2, 0.5) }, 1, [6, 6, 3]),
        single(Op::Offset { values: ramp(108) }, 1, [6, 6, 3]),
        single(Op::Prepend { tokens: ramp(6) }, 1, [1, 38, 3]),
        single(Op::Roll { by: [2, 5] }, 1, [6, 6, 3]),
        single(attention([6, 6], vec![], vec![]), 3, [6, 6, 2]),
        single(attention([3, 2], ramp(2 * 36), ramp(6 * 36)), 3, [6, 6, 2]),
    ];
    for graph in graphs {
        let what = format!("{:?}", graph.nodes[0].op);
        let blocks = cut::cut(vec![graph.clone()], &crate::family::StitchSpec::default()).expect("one anchor");
        let stitched = skeleton(&blocks);
        let judge = Judge::of_path(&stitched, &stitched.paths[0]).expect("a model");
        for image in images(2) {
            let [height, width, channels] = graph.tensors[1];
            let last = float::output(&graph, &image);
            let first: Vec<f32> = (0..channels)
                .flat_map(|channel| (0..height * width).map(move |pixel| (pixel, channel)))
                .map(|(pixel, channel)| last[pixel * channels + channel])
                .collect();
            close(&judge.output(&image).expect("it runs"), &first, &what);
        }
    }
}

#[test]
fn an_image_of_another_size_is_refused() {
    let stitched = skeleton(&family(anchor("a", 3, 1), anchor("b", 6, 2)));
    let judge = Judge::of_path(&stitched, &stitched.paths[0]).expect("a model");
    let error = judge.output(&[0.0; 5]).expect_err("too small").to_string();
    assert_eq!(error, "float judge: 5 values; an image of [6, 6, 3] is expected");
}
