//! Transformers in the form in which PyTorch exports them, small enough to be written here: they compute what tract
//! computes, as attention and norms on maps, and are cut where their blocks meet.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array4;
use stitch::cost::CostModel;
use stitch::emit::{Labels, Measured};
use stitch::evaluate::FloatPaths;
use stitch::family::Packing;
use stitch::family::{Space, StitchSpec};
use stitch::float_judge::Judge;
use stitch::graph::{Clamp, Graph, Node, Op, Window};
use stitch::layers::Layer;
use stitch::quantize::Pixels;
use stitch::{calibrate, cut, emit, float, images, import, layers, learn, place, quantize, simplify, verify};
use support::onnx::Attribute::{self, Int, Ints};
use support::onnx::{Message, indices, integers, model, node, node_of_many, noise, tensor};

/// A network that is being written; every method returns the name of what it adds.
#[derive(Default)]
struct Net {
    tensors: Vec<Message>,
    nodes: Vec<Message>,
    count: usize,
}

impl Net {
    fn name(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }

    /// Noise of a shape, around `mean`.
    fn noise(&mut self, dims: &[i64], mean: f32) -> String {
        let name = self.name();
        let count: i64 = dims.iter().product();
        let values: Vec<f32> =
            noise(count as usize, self.count as u32).iter().map(|value| mean + value / 2.0).collect();
        self.tensors.push(tensor(&name, dims, &values));
        name
    }

    fn number(&mut self, value: f32) -> String {
        let name = self.name();
        self.tensors.push(tensor(&name, &[], &[value]));
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.tensors.push(integers(&name, values));
        name
    }

    fn add(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = self.name();
        self.nodes.push(node(op, inputs, &name, attributes));
        name
    }

    fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.add("Reshape", &[value, &shape], &[])
    }

    fn transpose(&mut self, value: &str, order: &'static [i64]) -> String {
        self.add("Transpose", &[value], &[("perm", Ints(order))])
    }

    fn slice(&mut self, value: &str, axis: i64, start: i64, end: i64, by: i64) -> String {
        let parts = [start, end, axis, by].map(|part| self.integers(&[part]));
        self.add("Slice", &[value, &parts[0], &parts[1], &parts[2], &parts[3]], &[])
    }

    fn norm(&mut self, value: &str, channels: i64) -> String {
        let (scale, bias) = (self.noise(&[channels], 1.0), self.noise(&[channels], 0.0));
        self.add("LayerNormalization", &[value, &scale, &bias], &[("axis", Int(-1))])
    }

    fn dense(&mut self, value: &str, from: i64, to: i64) -> String {
        let (weights, bias) = (self.noise(&[from, to], 0.0), self.noise(&[to], 0.0));
        let product = self.add("MatMul", &[value, &weights], &[]);
        self.add("Add", &[&bias, &product], &[])
    }

    /// GELU in its parts.
    fn gelu(&mut self, value: &str) -> String {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|number| self.number(number));
        let scaled = self.add("Div", &[value, &root], &[]);
        let erf = self.add("Erf", &[&scaled], &[]);
        let sum = self.add("Add", &[&erf, &one], &[]);
        let product = self.add("Mul", &[value, &sum], &[]);
        self.add("Mul", &[&product, &half], &[])
    }

    /// `x + dense(gelu(dense(norm(x))))`.
    fn mlp(&mut self, value: &str, channels: i64) -> String {
        let normed = self.norm(value, channels);
        let wide = self.dense(&normed, channels, 2 * channels);
        let bent = self.gelu(&wide);
        let narrow = self.dense(&bent, 2 * channels, channels);
        self.add("Add", &[value, &narrow], &[])
    }

    /// Queries, keys and values `[windows, heads, tokens, 4]` of `[windows, tokens, channels]`.
    fn heads(&mut self, value: &str, [windows, tokens, channels]: [i64; 3]) -> [String; 3] {
        let all = self.dense(value, channels, 3 * channels);
        let all = self.reshape(&all, &[windows, tokens, 3, channels / 4, 4]);
        let all = self.transpose(&all, &[2, 0, 3, 1, 4]);
        let parts = [(); 3].map(|()| self.name());
        let outputs = parts.each_ref().map(|part| &part[..]);
        self.nodes.push(node_of_many("Split", &[&all], &outputs, &[("axis", Int(0))]));
        let axis = self.integers(&[0]);
        parts.map(|part| self.add("Squeeze", &[&part, &axis], &[]))
    }

    /// Heads side by side and a dense layer.
    fn mixed(&mut self, scores: &str, value: &str, [windows, tokens, channels]: [i64; 3]) -> String {
        let weights = self.add("Softmax", &[scores], &[("axis", Int(-1))]);
        let mixed = self.add("MatMul", &[&weights, value], &[]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[windows, tokens, channels]);
        self.dense(&mixed, channels, channels)
    }

    fn model(mut self, side: i64, output: &str) -> Vec<u8> {
        self.nodes.push(node("Identity", &[output], "y", &[]));
        model(&[1, 3, side, side], &self.tensors, &self.nodes)
    }

    fn head(&mut self, features: &str, channels: i64) -> String {
        let (weights, bias) = (self.noise(&[5, channels], 0.0), self.noise(&[5], 0.0));
        self.add("Gemm", &[features, &weights, &bias], &[("transB", Int(1))])
    }
}

const TOKENS: i64 = 7;
const DEPTH: usize = 3;

/// The embedding of a ViT: `[1, 7, channels]` of an image of 8x12.
fn embedding(net: &mut Net, channels: i64) -> String {
    let (weights, bias) = (net.noise(&[channels, 3, 4, 4], 0.0), net.noise(&[channels], 0.0));
    let patches = net.add("Conv", &["x", &weights, &bias], &[("strides", Ints(&[4, 4]))]);
    // The shape of the tokens is computed in the file.
    let shape = net.add("Shape", &[&patches], &[]);
    let start = net.slice(&shape, 0, 0, 2, 1);
    let rest = net.integers(&[-1]);
    let shape = net.add("Concat", &[&start, &rest], &[("axis", Int(0))]);
    let tokens = net.add("Reshape", &[&patches, &shape], &[]);
    let tokens = net.transpose(&tokens, &[0, 2, 1]);
    let (class, position) = (net.noise(&[1, 1, channels], 0.0), net.noise(&[1, TOKENS, channels], 0.0));
    let tokens = net.add("Concat", &[&class, &tokens], &[("axis", Int(1))]);
    net.add("Add", &[&tokens, &position], &[])
}

/// A block of a ViT, with the factor on both sides of the product, as scaled dot products are exported.
fn block(net: &mut Net, value: &str, channels: i64) -> String {
    let normed = net.norm(value, channels);
    let [query, key, mix] = net.heads(&normed, [1, TOKENS, channels]);
    let factor = net.number(0.5f32.sqrt());
    let query = net.add("Mul", &[&query, &factor], &[]);
    let key = net.transpose(&key, &[0, 1, 3, 2]);
    let key = net.add("Mul", &[&key, &factor], &[]);
    let scores = net.add("MatMul", &[&query, &key], &[]);
    let mixed = net.mixed(&scores, &mix, [1, TOKENS, channels]);
    let value = net.add("Add", &[value, &mixed], &[]);
    net.mlp(&value, channels)
}

/// Norm, class token, dense layer.
fn tail(net: &mut Net, value: &str, channels: i64) -> String {
    let normed = net.norm(value, channels);
    head_of_class(net, &normed, channels)
}

fn head_of_class(net: &mut Net, normed: &str, channels: i64) -> String {
    let index = net.name();
    net.tensors.push(indices(&index, &[], &[0]));
    let class = net.add("Gather", &[normed, &index], &[("axis", Int(1))]);
    net.head(&class, channels)
}

/// A ViT whose constants count from `seed`.
fn vit(channels: i64, seed: usize) -> Vec<u8> {
    let mut net = Net { count: seed, ..Net::default() };
    let mut value = embedding(&mut net, channels);
    for _ in 0..DEPTH {
        value = block(&mut net, &value, channels);
    }
    let output = tail(&mut net, &value, channels);
    net.nodes.push(node("Identity", &[&output], "y", &[]));
    model(&[1, 3, 8, 12], &net.tensors, &net.nodes)
}

/// Windows of 4x4 in a map of 8x8, shifted and masked or not; then a patch merging, a mean and a dense layer.
fn swin() -> Vec<u8> {
    let channels = 8;
    let mut net = Net::default();
    let (weights, bias) = (net.noise(&[channels, 3, 2, 2], 0.0), net.noise(&[channels], 0.0));
    let patches = net.add("Conv", &["x", &weights, &bias], &[("strides", Ints(&[2, 2]))]);
    let map = net.transpose(&patches, &[0, 2, 3, 1]);
    let mut map = net.norm(&map, channels);
    for shift in [0, 1] {
        let normed = net.norm(&map, channels);
        let rolled = roll(&mut net, &normed, shift);
        let windows = net.reshape(&rolled, &[1, 2, 4, 2, 4, channels]);
        let windows = net.transpose(&windows, &[0, 1, 3, 2, 4, 5]);
        let windows = net.reshape(&windows, &[-1, 16, channels]);
        let [query, key, mix] = net.heads(&windows, [4, 16, channels]);
        let factor = net.number(0.5);
        let query = net.add("Mul", &[&query, &factor], &[]);
        let key = net.transpose(&key, &[0, 1, 3, 2]);
        let scores = net.add("MatMul", &[&query, &key], &[]);
        let table = net.noise(&[1, 2, 16, 16], 0.0);
        let mut scores = net.add("Add", &[&scores, &table], &[]);
        if shift > 0 {
            let mask = net.noise(&[1, 4, 1, 16, 16], 0.0);
            let apart = net.reshape(&scores, &[-1, 4, 2, 16, 16]);
            let masked = net.add("Add", &[&apart, &mask], &[]);
            scores = net.reshape(&masked, &[-1, 2, 16, 16]);
        }
        let mixed = net.mixed(&scores, &mix, [4, 16, channels]);
        let back = net.reshape(&mixed, &[-1, 2, 2, 4, 4, channels]);
        let back = net.transpose(&back, &[0, 1, 3, 2, 4, 5]);
        let back = net.reshape(&back, &[-1, 8, 8, channels]);
        let back = roll(&mut net, &back, (8 - shift) % 8);
        let sum = net.add("Add", &[&map, &back], &[]);
        let tokens = net.reshape(&sum, &[1, -1, channels]);
        let tokens = net.mlp(&tokens, channels);
        map = net.reshape(&tokens, &[1, 8, 8, channels]);
    }
    let patches = net.reshape(&map, &[1, 4, 2, 4, 2, channels]);
    let patches = net.transpose(&patches, &[0, 1, 3, 4, 2, 5]);
    let merged = net.reshape(&patches, &[1, 4, 4, 4 * channels]);
    let merged = net.norm(&merged, 4 * channels);
    let merged = net.dense(&merged, 4 * channels, 2 * channels);
    let merged = net.mlp(&merged, 2 * channels);
    let mean = net.add("ReduceMean", &[&merged], &[("axes", Ints(&[1, 2])), ("keepdims", Int(0))]);
    let output = net.head(&mean, 2 * channels);
    net.model(16, &output)
}

/// Rows and columns shifted by slices that change places.
fn roll(net: &mut Net, value: &str, by: i64) -> String {
    if by == 0 {
        return value.into();
    }
    let mut value = value.to_owned();
    for axis in [1, 2] {
        let (end, start) = (net.slice(&value, axis, by, i64::MAX, 1), net.slice(&value, axis, 0, by, 1));
        let axis = Int(axis);
        value = net.add("Concat", &[&end, &start], &[("axis", axis)]);
    }
    value
}

/// Queries of every second row and column; head by head queries and keys of 2 and values of 4 channels; batch-norm behind
/// every dense layer; a table of biases by index; a curve in between.
fn levit() -> Vec<u8> {
    let mut net = Net::default();
    let (weights, bias) = (net.noise(&[8, 3, 2, 2], 0.0), net.noise(&[8], 0.0));
    let map = net.add("Conv", &["x", &weights, &bias], &[("strides", Ints(&[2, 2]))]);
    let map = net.add("HardSwish", &[&map], &[]);
    // tract fails on a strided slice behind a reshape, so this one is before it.
    let rows = net.slice(&map, 2, 0, i64::MAX, 2);
    let every_second = net.slice(&rows, 3, 0, i64::MAX, 2);
    let tokens = net.reshape(&map, &[0, 0, -1]);
    let tokens = net.transpose(&tokens, &[0, 2, 1]);
    let keys = normed_dense(&mut net, &tokens, [16, 8, 12]);
    let keys = net.reshape(&keys, &[1, 16, 2, 6]);
    let (sizes, key, mix) = (net.integers(&[2, 4]), net.name(), net.name());
    net.nodes.push(node_of_many("Split", &[&keys, &sizes], &[&key, &mix], &[("axis", Int(3))]));
    let key = net.transpose(&key, &[0, 2, 3, 1]);
    let mix = net.transpose(&mix, &[0, 2, 1, 3]);
    let query = net.reshape(&every_second, &[1, 8, -1]);
    let query = net.transpose(&query, &[0, 2, 1]);
    let query = normed_dense(&mut net, &query, [4, 8, 4]);
    let query = net.reshape(&query, &[1, 4, 2, 2]);
    let query = net.transpose(&query, &[0, 2, 1, 3]);
    let scores = net.add("MatMul", &[&query, &key], &[]);
    let factor = net.number(0.7);
    let scores = net.add("Mul", &[&scores, &factor], &[]);
    let (biases, index) = (net.noise(&[2, 9], 0.0), net.name());
    let numbers: Vec<i64> = (0..64).map(|number| number * 5 % 9).collect();
    net.tensors.push(indices(&index, &[4, 16], &numbers));
    let table = net.add("Gather", &[&biases, &index], &[("axis", Int(1))]);
    let scores = net.add("Add", &[&scores, &table], &[]);
    let weights = net.add("Softmax", &[&scores], &[("axis", Int(-1))]);
    let mixed = net.add("MatMul", &[&weights, &mix], &[]);
    let mixed = net.transpose(&mixed, &[0, 2, 1, 3]);
    let mixed = net.reshape(&mixed, &[1, 4, 8]);
    let mixed = net.add("HardSwish", &[&mixed], &[]);
    let down = normed_dense(&mut net, &mixed, [4, 8, 6]);
    let down = net.mlp(&down, 6);
    let mean = net.add("ReduceMean", &[&down], &[("axes", Ints(&[1])), ("keepdims", Int(0))]);
    let (first, second) = (net.head(&mean, 6), net.head(&mean, 6));
    let sum = net.add("Add", &[&first, &second], &[]);
    let two = net.number(2.0);
    let output = net.add("Div", &[&sum, &two], &[]);
    net.model(8, &output)
}

/// A dense layer and a batch-norm over flattened tokens.
fn normed_dense(net: &mut Net, value: &str, [tokens, from, to]: [i64; 3]) -> String {
    let weights = net.noise(&[from, to], 0.0);
    let product = net.add("MatMul", &[value, &weights], &[]);
    let flat = net.add("Flatten", &[&product], &[("axis", Int(2))]);
    let tables = [1.0, 0.0, 0.0, 1.0].map(|mean| net.noise(&[to], mean));
    let inputs = [&flat, &tables[0], &tables[1], &tables[2], &tables[3]].map(|name| &name[..]);
    let normed = net.add("BatchNormalization", &inputs, &[]);
    net.reshape(&normed, &[1, tokens, to])
}

fn graph(bytes: &[u8]) -> Graph {
    import::import("it", bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"))
}

fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-4 * largest, "{what}: {found} instead of {expected}");
    }
}

/// Checks that a file computes what tract computes on it, and returns its blocks.
fn judged(what: &str, bytes: &[u8]) -> cut::AnchorBlocks {
    let graph = graph(bytes);
    let shape = graph.tensors[graph.input];
    let judge = Judge::of_file(bytes, shape).unwrap_or_else(|error| panic!("{what}: {error}"));
    for image in noise(2 * shape.iter().product::<usize>(), 99).chunks(shape.iter().product()) {
        let expected = judge.output(image).unwrap_or_else(|error| panic!("{what}: {error}"));
        close(what, &float::output(&graph, image), &expected);
    }
    cut::blocks(graph)
}

fn ops(blocks: &cut::AnchorBlocks, block: usize) -> String {
    let ops: Vec<&str> = blocks.blocks[block].iter().map(|&node| blocks.graph.nodes[node].op.name()).collect();
    ops.join(" ")
}

#[test]
fn a_vit_is_an_embedding_blocks_of_attention_and_a_head() {
    let blocks = judged("vit", &vit(8, 0));
    assert_eq!(blocks.blocks.len(), 1 + DEPTH + 1, "{}", blocks.graph);
    assert_eq!(ops(&blocks, 0), "conv prepend offset");
    for block in 1..=DEPTH {
        assert_eq!(ops(&blocks, block), "layernorm conv attention conv add layernorm conv gelu conv add");
    }
    assert_eq!(ops(&blocks, DEPTH + 1), "move layernorm conv");
    assert_eq!(blocks.opens, [true, false, false, false, false]);
    assert!(blocks.cuts[1..=DEPTH + 1].iter().all(|cut| cut.shape == [1, TOKENS as usize, 8]));
    // Of a block 12·N·D² + 2·N²·D with a hidden layer of 4·D; here it is 2·D.
    let macs: u64 = blocks.blocks[1].iter().map(|&node| blocks.graph.nodes[node].macs(&blocks.graph.tensors)).sum();
    let (tokens, width) = (TOKENS as u64, 8);
    assert_eq!(macs, 8 * tokens * width * width + 2 * tokens * tokens * width);
    let block = 8 * width * width + 11 * width;
    let others = (48 + 1) * width + width + tokens * width + 2 * width + 5 * (width + 1);
    assert_eq!(blocks.graph.parameters() as u64, DEPTH as u64 * block + others);
}

#[test]
fn windows_shifts_and_merged_patches_are_attention_on_maps() {
    let blocks = judged("swin", &swin());
    let block = "conv attention conv";
    assert_eq!(ops(&blocks, 0), "conv layernorm");
    assert_eq!(ops(&blocks, 1), format!("layernorm {block} add layernorm conv gelu conv add"));
    assert_eq!(ops(&blocks, 2), format!("layernorm roll {block} roll add layernorm conv gelu conv add"));
    assert_eq!(ops(&blocks, 3), "move move move move concat layernorm conv");
    assert_eq!(blocks.opens[..4], [true, false, false, true], "{}", blocks.graph);
    assert_eq!((blocks.cuts[3].shape, blocks.cuts[4].shape), ([8, 8, 8], [4, 4, 16]));
}

#[test]
fn an_attention_with_fewer_queries_opens_a_stage() {
    let blocks = judged("levit", &levit());
    assert_eq!(blocks.cuts.iter().map(|cut| cut.shape).collect::<Vec<_>>()[1..], [[4, 4, 8], [2, 2, 6], [1, 1, 5]]);
    assert!(blocks.opens[1] && ops(&blocks, 1).contains("attention hardswish conv"), "{}", blocks.graph);
}

/// The stitched network as one file: blocks of `front` up to `a`, the stitch, blocks of `back` from `b`.
fn joined(front: i64, back: i64, [a, b]: [usize; 2], weights: &[f32], bias: &[f32], norm: bool) -> Vec<u8> {
    let mut net = Net::default();
    let mut value = embedding(&mut net, front);
    for _ in 0..=a {
        value = block(&mut net, &value, front);
    }
    net.tensors.push(tensor("stitch", &[front, back], weights));
    net.tensors.push(tensor("stitch.bias", &[back], bias));
    let product = net.add("MatMul", &[&value, "stitch"], &[]);
    let mut value = net.add("Add", &[&product, "stitch.bias"], &[]);
    // The constants of the back anchor have the numbers that they have in its own file.
    let mut own = Net { count: BACK_SEED, ..Net::default() };
    let mut skipped = embedding(&mut own, back);
    for number in 0..DEPTH {
        if number < b {
            skipped = block(&mut own, &skipped, back);
        } else {
            value = block(&mut own, &value, back);
        }
    }
    let normed = own.norm(&value, back);
    let output = head_of_class(&mut own, if norm { &normed } else { &value }, back);
    net.tensors.append(&mut own.tensors);
    net.nodes.append(&mut own.nodes);
    net.nodes.push(node("Identity", &[&output], "y", &[]));
    model(&[1, 3, 8, 12], &net.tensors, &net.nodes)
}

const BACK_SEED: usize = 10_000;

#[test]
fn a_stitched_network_is_its_anchors_and_a_stitch() {
    let (front, back) = (cut::blocks(graph(&vit(8, 0))), cut::blocks(graph(&vit(12, BACK_SEED))));
    for (number, [a, b]) in [[0, 0], [0, 1], [1, 1], [1, 0], [2, 2], [2, 1]].into_iter().enumerate() {
        let (weights, bias) = (noise(8 * 12, number as u32), noise(12, 50 + number as u32));
        let file = joined(8, 12, [a, b], &weights, &bias, true);
        let judge = Judge::of_file(&file, [8, 12, 3]).unwrap_or_else(|error| panic!("{a}, {b}: {error}"));
        let (leave, enter) = (front.cuts[a + 2], back.cuts[b + 1]);
        let matrix = Array4::from_shape_fn([12, 1, 1, 8], |(to, _, _, from)| weights[from * 12 + to]);
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let op = Op::Conv { weights: matrix, bias, window, groups: 1, clamp: Clamp::NONE };
        let stitch = Node { name: "stitch".into(), op, inputs: vec![0], output: 1 };
        let suffix: Vec<Node> =
            back.blocks[b + 1..].iter().flatten().map(|&node| back.graph.nodes[node].clone()).collect();
        for image in noise(2 * 8 * 12 * 3, 7).chunks(8 * 12 * 3) {
            let values = float::run(&front.graph.nodes, &front.graph.tensors, front.graph.input, image);
            let middle =
                float::run(std::slice::from_ref(&stitch), &[leave.shape, enter.shape], 0, &values[leave.tensor]);
            let found = float::run(&suffix, &back.graph.tensors, enter.tensor, &middle[1]);
            let expected = judge.output(image).unwrap_or_else(|error| panic!("{a}, {b}: {error}"));
            close(&format!("{a} to {b}"), &found[back.graph.output], &expected);
        }
    }
}

/// A compiled network: what its integers differ from float by, tensor by tensor, on pictures of noise. The judge of the
/// bytes is `agreed_outputs`: every instruction set of this machine, in arenas of two sizes. `counts`: pictures to
/// calibrate with, and to compare on.
fn integer_layers(blocks: &cut::Blocks, counts: [usize; 2]) -> Vec<Vec<Layer>> {
    let [calibration, compared] = counts;
    let shape = blocks.anchors[0].graph.tensors[blocks.anchors[0].graph.input];
    let size = shape.iter().product::<usize>();
    let pixels = Pixels { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let pictures: Vec<Vec<u8>> = noise((calibration + compared) * size, 3)
        .chunks(size)
        .map(|picture| picture.iter().map(|value| ((value + 1.0) * 127.0) as u8).collect())
        .collect();
    let normal = |picture: &Vec<u8>| picture.iter().map(|&pixel| images::normalised(pixel, 0.5, 0.25)).collect();
    let samples: Vec<Vec<f32>> = pictures[..calibration].iter().map(normal).collect();
    let options = learn::Options { start: learn::Start::LeastSquares, ridge: None, rounded: true, corrections: true };
    let learned = learn::learn(blocks, &samples, options, &|| ()).unwrap_or_else(|error| panic!("{error}"));
    let calibrated = calibrate::calibrate(learned.stitched, &samples, &|| ());
    let quantized = quantize::quantize(&calibrated, &pixels, &[]).unwrap_or_else(|error| panic!("{error}"));
    let placed = place::place(quantized).unwrap_or_else(|error| panic!("{error}"));
    let classes = blocks.anchors[0].graph.tensors[blocks.anchors[0].graph.output][2];
    let labels = Labels {
        family: "test".into(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        packing: Packing::Rows,
    };
    let bytes = emit::emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let image = plan::Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    for id in (0..image.configs()).map(plan::ConfigId) {
        let (name, config) = (image.config_name(id), image.config(id));
        let least = image.path(&config).map(|id| image.segment(id).live_bytes).max().unwrap_or(0);
        let peak = config.arena_bytes;
        // Two of the steps to which sizes are rounded are nothing to a real network.
        assert!(peak <= least + least / 20 + 32, "{name}: {peak} bytes, {least} are alive");
    }
    let input: Vec<i8> = pictures[calibration].iter().map(|&pixel| pixel as i8).collect();
    verify::agreed_outputs(&image, &input).unwrap_or_else(|error| panic!("{error}"));
    (0..placed.quantized.paths.len())
        .map(|path| {
            layers::layers(&calibrated, &placed.quantized, &bytes, path, &pixels, &pictures[calibration..])
                .unwrap_or_else(|error| panic!("{error}"))
        })
        .collect()
}

#[test]
fn a_family_of_transformers_in_integers_is_near_float_at_every_cut() {
    let spec = StitchSpec { direction: cut::Direction::Both, ..StitchSpec::default() };
    let families = [vec![graph(&vit(8, 0)), graph(&vit(12, BACK_SEED))], vec![graph(&swin())], vec![graph(&levit())]];
    for graphs in families {
        let blocks = cut::cut(graphs, &spec).unwrap_or_else(|error| panic!("{error}"));
        for layer in integer_layers(&blocks, [16, 8]).iter().flatten().filter(|layer| layer.cut) {
            assert!(layer.cosine >= 0.99, "{}: {}", layer.name, layer.cosine);
        }
    }
}

/// The files need Python, so this runs when asked for:
/// `STRUCTURES=folder cargo test --release --workspace --test transformers -- --ignored --nocapture`.
#[test]
#[ignore = "needs deit-ti.onnx, deit-s.onnx and swin-t.onnx of models/recipe/structures.py"]
fn published_transformers_in_integers_are_near_float_at_every_cut() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/recipe/cache/structures");
    let folder = std::env::var_os("STRUCTURES").map_or(default, PathBuf::from);
    for name in ["deit-ti", "deit-s", "swin-t"] {
        let path = folder.join(format!("{name}.onnx"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let blocks = cut::cut(vec![graph(&bytes)], &StitchSpec::default()).unwrap_or_else(|error| panic!("{error}"));
        let layers = integer_layers(&blocks, [16, 1]).concat();
        let least = |layers: &mut dyn Iterator<Item = &Layer>| {
            layers.min_by(|a, b| a.cosine.total_cmp(&b.cosine)).expect("a tensor").clone()
        };
        let (cut, tensor) = (least(&mut layers.iter().filter(|layer| layer.cut)), least(&mut layers.iter()));
        println!(
            "{name}: least cosine {:.5} at a cut, {}; {:.5} of all, {}",
            cut.cosine, cut.name, tensor.cosine, tensor.name
        );
        assert!(cut.cosine >= 0.99, "{name}: {} has cosine {}", cut.name, cut.cosine);
    }
}

#[test]
fn a_published_checkpoint_runs_without_the_last_norm() {
    let graphs = vec![graph(&vit(8, 0)), graph(&vit(12, BACK_SEED))];
    let spec = |skip_last_norm| StitchSpec { space: Space::V1, skip_last_norm, ..StitchSpec::default() };
    let [with, without] = [false, true].map(|skip| {
        let blocks = cut::cut(graphs.clone(), &spec(skip)).unwrap_or_else(|error| panic!("{error}"));
        learn::random(&blocks, 3)
    });
    assert_eq!(with.paths.len(), 2 + 3 * DEPTH - 2);
    assert_eq!(without.paths.len(), with.paths.len());
    let image = &noise(8 * 12 * 3, 7)[..];
    for number in 0..with.paths.len() {
        let name = &with.paths[number].name;
        let outputs = [&with, &without].map(|family| FloatPaths::new(family).output(number, image));
        // Anchors keep their norm.
        let Some((leave, enter)) = name.split_once('>') else {
            assert_eq!(outputs[0], outputs[1], "{name}");
            continue;
        };
        let cut = |text: &str| text.split_once('.').and_then(|(_, cut)| cut.parse::<usize>().ok()).expect("a cut");
        let stitch = with.paths[number].segments.iter().map(|&segment| &with.segments[segment]);
        let stitch = stitch.map(|segment| &segment.nodes[0].op).zip(with.paths[number].segments.iter());
        let op = stitch.filter(|(_, segment)| with.segments[**segment].name == *name).map(|(op, _)| op).next();
        let Some(Op::Conv { weights, bias, .. }) = op else { panic!("{name} has no stitch") };
        let weights: Vec<f32> = (0..8 * 12).map(|index| weights[[index % 12, 0, 0, index / 12]]).collect();
        for (norm, output) in [true, false].into_iter().zip(&outputs) {
            let file = joined(8, 12, [cut(leave) - 2, cut(enter) - 1], &weights, bias, norm);
            let judge = Judge::of_file(&file, [8, 12, 3]).unwrap_or_else(|error| panic!("{name}: {error}"));
            close(name, output, &judge.output(image).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    let cnn = cut::cut(vec![graph(&levit())], &spec(true)).expect_err("no norm").to_string();
    assert!(cnn.contains("skip_last_norm is given, and the last block of `it` has no layer norm"), "{cnn}");
}
