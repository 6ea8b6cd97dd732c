//! Stage 5: the weights of the stitches and the statistics correction of what follows them.
//!
//! A stitch maps what the front anchor computes at a cut to what the back anchor computes at its own: a 1×1
//! convolution with a bias, fitted by least squares on unlabelled images (SN-Net: Pan, Cai, Zhuang, CVPR 2023). The suffix then
//! sees slightly other statistics than it was trained with. With batch-norm folded into the convolutions, the means
//! can be restored by other biases: layer by layer along the path, the mean of each channel before the activation is
//! brought back to what it is in the anchor. Only biases are added, so weights stay shared.

pub mod finetune;
pub mod fit;
pub mod learned;
pub mod least_squares;

use ndarray::{Array1, Array2, Array4};
use rayon::prelude::*;

use crate::cut::{AnchorBlocks, Blocks, Pair};
use crate::error::Error;
use crate::float;
use crate::graph::{Clamp, Node, Op, Window};
use crate::network::{Correction, Cut, Kind, Path, Segment, Stitched};
use fit::{Fit, LeastSquares};
use least_squares::Linear;

/// Fewer images than this do not determine a stitch.
pub const MIN_IMAGES: usize = 16;
/// Images that are in memory at once with all that the anchors make of them. The correction looks at the first so many:
/// path and anchor see the same ones, so that only what the stitch changed is corrected and not how one sample differs
/// from another.
const BATCH: usize = 128;
/// A bias that moves by less than this part of the channel's scale is left alone: int8 could not show it.
const LEAST_SHIFT: f64 = 1e-5;

/// Where the weights of stitches come from, before any fine-tuning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Least squares on calibration images.
    #[default]
    LeastSquares,
    /// From what the anchors' features have in common without any fit of one by the other: relative representations.
    Relative,
    /// Drawn, as a layer before any training: what least squares is compared with.
    Random,
}

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the weights come from.
    pub start: Start,
    /// Ridge, as a part of the mean variance of the inputs; none: chosen per layer by the error on held-out images.
    pub ridge: Option<f64>,
    /// Whether least squares sees the rounded values that the device has at a cut.
    pub rounded: bool,
    /// Whether to correct the statistics of suffixes.
    pub corrections: bool,
}

/// A family with its stitches.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The family.
    pub stitched: Stitched,
    /// What became of each layer; none without least squares.
    pub fits: Vec<Fit>,
}

/// Learns every stitch of `blocks` from normalised images `[H, W, C]`; `advance` is called once per path. Each anchor
/// runs once over the images, a batch at a time. [`Start::Random`] is never corrected: there is nothing to keep.
///
/// # Errors
/// [`Error::TooFewImages`]; [`Error::Stage`] if activations are not finite.
pub fn learn(
    blocks: &Blocks,
    images: &[Vec<f32>],
    options: Options,
    advance: &(dyn Fn() + Sync),
) -> Result<Learned, Error> {
    if options.start == Start::Random {
        return Ok(Learned { stitched: random(blocks, 0), fits: vec![] });
    }
    if images.len() < MIN_IMAGES {
        return Err(Error::TooFewImages { stage: "learn", found: images.len(), needed: MIN_IMAGES });
    }
    let mut stitched = skeleton(blocks);
    let run = |images: &[Vec<f32>]| {
        (0..blocks.anchors.len()).map(|anchor| AnchorRun::new(&stitched, anchor, images)).collect::<Result<Vec<_>, _>>()
    };
    let (first, rest) = images.split_at(images.len().min(BATCH));
    let runs = run(first)?;
    let mut sums = LeastSquares::new(&stitched, blocks, &runs, options.rounded)?;
    sums.add(&runs, 0);
    let (layers, fits) = if options.start == Start::Relative {
        (sums.relative(&runs), vec![])
    } else {
        for (number, batch) in rest.chunks(BATCH).enumerate() {
            sums.add(&run(batch)?, (number + 1) * BATCH);
        }
        sums.solve(options.ridge)
    };
    let first = add_stitches(&mut stitched, blocks, &layers);
    for path in &blocks.paths {
        let segments = route(&stitched, blocks, path, first);
        let start = path.first().map(|&pair| &blocks.pairs[pair]).filter(|_| options.corrections);
        let corrections = start.map_or(vec![], |start| {
            correct(&stitched, &segments[start.front_cut..], &runs[start.front].cuts[start.front_cut], &runs)
        });
        stitched.paths.push(Path { name: blocks.path_name(path), segments, corrections });
        advance();
    }
    Ok(Learned { stitched, fits })
}

/// The family with weights of stitches drawn from −1/√I..1/√I for I inputs, and without corrections.
#[must_use]
pub fn random(blocks: &Blocks, seed: u64) -> Stitched {
    let mut stitched = skeleton(blocks);
    let mut random = simulator::Draw::new(seed);
    let mut layers: Vec<Option<Linear>> = vec![];
    for pair in &blocks.pairs {
        layers.resize(layers.len().max(pair.layer + 1), None);
        layers[pair.layer].get_or_insert_with(|| {
            let [(_, [.., inputs]), (_, [.., outputs])] = ends(&stitched, pair);
            let scale = 1.0 / (inputs as f64).sqrt();
            let draw = |_| ((random.next() >> 40) as f64 / f64::from(1u32 << 23) - 1.0) * scale;
            Linear { weights: Array2::from_shape_fn([outputs, inputs], draw), bias: Array1::zeros(outputs) }
        });
    }
    let layers: Vec<Linear> = layers.into_iter().flatten().collect();
    let first = add_stitches(&mut stitched, blocks, &layers);
    for path in &blocks.paths {
        let segments = route(&stitched, blocks, path, first);
        stitched.paths.push(Path { name: blocks.path_name(path), segments, corrections: vec![] });
    }
    stitched
}

/// Adds the stitch of each pair; returns the number of the first.
fn add_stitches(stitched: &mut Stitched, blocks: &Blocks, layers: &[Linear]) -> usize {
    let first = stitched.segments.len();
    for pair in &blocks.pairs {
        let segment = stitch(stitched, blocks, pair, &layers[pair.layer]);
        stitched.segments.push(segment);
    }
    if blocks.skip_last_norm {
        for anchor in 0..blocks.anchors.len() {
            let segment = bare_head(stitched, anchor);
            stitched.segments.push(segment);
        }
    }
    first
}

/// The last block of an anchor without its norm.
fn bare_head(stitched: &Stitched, anchor: usize) -> Segment {
    let last = stitched.paths[anchor].segments.last();
    let mut head = last.map(|&last| stitched.segments[last].clone()).expect("an anchor has blocks");
    let norm = head.nodes.iter().position(|node| matches!(node.op, Op::LayerNorm { .. })).expect("`cut` has seen it");
    let Node { inputs, output, .. } = head.nodes.remove(norm);
    let readers = head.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| **input == output);
    readers.for_each(|input| *input = inputs[0]);
    head.name += " without norm";
    head
}

/// Segments of a path that takes some pairs, one after another; the stitch of pair 0 is segment `first`.
fn route(stitched: &Stitched, blocks: &Blocks, path: &[usize], first: usize) -> Vec<usize> {
    let Some(start) = path.first().map(|&pair| &blocks.pairs[pair]) else { return vec![] };
    let mut segments = stitched.paths[start.front].segments.clone();
    for &number in path {
        let pair = &blocks.pairs[number];
        // What is left of the anchor behind the cut gives way to the stitch and to the rest of the other.
        let rest = stitched.paths[pair.front].segments.len() - pair.front_cut;
        segments.truncate(segments.len() - rest);
        segments.push(first + number);
        segments.extend(&stitched.paths[pair.back].segments[pair.back_cut..]);
    }
    if let (true, Some(&last)) = (blocks.skip_last_norm, path.last()) {
        segments.pop();
        segments.push(first + blocks.pairs.len() + blocks.pairs[last].back);
    }
    segments
}

/// Cuts, blocks and anchors: everything that needs no data.
pub(crate) fn skeleton(blocks: &Blocks) -> Stitched {
    let mut stitched = Stitched { anchors: vec![], cuts: vec![], segments: vec![], paths: vec![] };
    for (number, anchor) in blocks.anchors.iter().enumerate() {
        let last = anchor.cuts.len() - 1;
        if number == 0 {
            for cut in [anchor.cuts[0], anchor.cuts[last]] {
                let position = stitched.cuts.len();
                stitched.cuts.push(Cut { shape: cut.shape, anchor: None, position });
            }
        }
        let first = stitched.cuts.len();
        for (position, cut) in anchor.cuts.iter().enumerate().take(last).skip(1) {
            stitched.cuts.push(Cut { shape: cut.shape, anchor: Some(number), position });
        }
        let cut_number = |position: usize| match position {
            0 => 0,
            position if position == last => 1,
            position => first + position - 1,
        };
        let start = stitched.segments.len();
        for block in 0..anchor.blocks.len() {
            stitched.segments.push(block_segment(anchor, block, cut_number(block), cut_number(block + 1)));
        }
        let name = anchor.graph.name.clone();
        let segments = (start..stitched.segments.len()).collect();
        stitched.paths.push(Path { name: name.clone(), segments, corrections: vec![] });
        stitched.anchors.push(name);
    }
    stitched
}

/// One block with tensors of its own.
fn block_segment(anchor: &AnchorBlocks, block: usize, from: usize, to: usize) -> Segment {
    let graph = &anchor.graph;
    let mut known = vec![anchor.cuts[block].tensor];
    let mut local = |tensor: usize| {
        known.iter().position(|&other| other == tensor).unwrap_or_else(|| {
            known.push(tensor);
            known.len() - 1
        })
    };
    let mut nodes = vec![];
    for &position in &anchor.blocks[block] {
        let node = &graph.nodes[position];
        let inputs = node.inputs.iter().map(|&tensor| local(tensor)).collect();
        nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs, output: local(node.output) });
    }
    let output = local(anchor.cuts[block + 1].tensor);
    let of_tap = |&tap: &usize| known.iter().position(|&tensor| tensor == tap && tap != anchor.cuts[block].tensor);
    let keeps = graph.taps.iter().enumerate().filter_map(|(map, tap)| Some((map, of_tap(tap)?))).collect();
    let tensors: Vec<[usize; 3]> = known.iter().map(|&tensor| graph.tensors[tensor]).collect();
    let macs = nodes.iter().map(|node| node.macs(&tensors)).sum();
    let name = format!("{}.{block}", graph.name);
    Segment { kind: Kind::Block, layer: None, name, from, to, tensors, nodes, input: 0, output, keeps, macs }
}

/// What an anchor computes on the images.
struct AnchorRun {
    /// Values at each cut of the anchor, per image.
    cuts: Vec<Vec<Vec<f32>>>,
    /// Per segment of the anchor: mean per node and channel before the clamp; empty where the node is no convolution.
    means: Vec<(usize, Vec<Vec<f64>>)>,
}

impl AnchorRun {
    fn new(stitched: &Stitched, anchor: usize, images: &[Vec<f32>]) -> Result<Self, Error> {
        let mut cuts = vec![images.to_vec()];
        let mut means = vec![];
        for &number in &stitched.paths[anchor].segments {
            let segment = &stitched.segments[number];
            let mut of_nodes = vec![vec![]; segment.nodes.len()];
            let mut broken = None;
            let output = layer_by_layer(segment, &cuts[cuts.len() - 1], |position, values| {
                let node = &segment.nodes[position];
                if broken.is_none() && !values.par_iter().all(|values| values.iter().all(|value| value.is_finite())) {
                    broken = Some(node.name.clone());
                }
                if matches!(node.op, Op::Conv { .. }) {
                    of_nodes[position] = channel_means(values, segment.tensors[node.output][2]);
                }
            });
            if let Some(node) = broken {
                let what = format!("{}: node `{node}` computes values that are not finite", stitched.anchors[anchor]);
                return Err(Error::Stage { stage: "learn", what });
            }
            means.push((number, of_nodes));
            cuts.push(output);
        }
        Ok(Self { cuts, means })
    }
}

/// Runs a segment over all images at once, node by node; `look` sees (and may change) what each node gives
/// before its clamp. Returns the values at the far cut.
fn layer_by_layer(
    segment: &Segment,
    inputs: &[Vec<f32>],
    mut look: impl FnMut(usize, &mut [Vec<f32>]),
) -> Vec<Vec<f32>> {
    let mut images: Vec<Vec<Vec<f32>>> = inputs
        .iter()
        .map(|input| {
            let mut tensors = vec![vec![]; segment.tensors.len()];
            tensors[segment.input].clone_from(input);
            tensors
        })
        .collect();
    for (position, node) in segment.nodes.iter().enumerate() {
        let mut values: Vec<Vec<f32>> =
            images.par_iter().map(|tensors| float::evaluate(node, &segment.tensors, tensors)).collect();
        look(position, &mut values);
        images.par_iter_mut().zip(values).for_each(|(tensors, mut values)| {
            float::clamp(node, &mut values);
            tensors[node.output] = values;
        });
    }
    images.into_iter().map(|mut tensors| tensors.swap_remove(segment.output)).collect()
}

/// Mean per channel; images are summed in order, so the result does not depend on threads.
fn channel_means(images: &[Vec<f32>], channels: usize) -> Vec<f64> {
    let sums: Vec<Vec<f64>> = images
        .par_iter()
        .map(|values| {
            let mut sums = vec![0.0; channels];
            for pixel in values.chunks_exact(channels) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(value);
                }
            }
            sums
        })
        .collect();
    let count: usize = images.iter().map(|values| values.len() / channels).sum();
    (0..channels).map(|channel| sums.iter().map(|sums| sums[channel]).sum::<f64>() / count.max(1) as f64).collect()
}

/// Cut and shape that a stitch starts from and that it reaches.
fn ends(stitched: &Stitched, pair: &Pair) -> [(usize, [usize; 3]); 2] {
    [(pair.front, pair.front_cut), (pair.back, pair.back_cut)].map(|(anchor, position)| {
        let cut = stitched.segments[stitched.paths[anchor].segments[position]].from;
        (cut, stitched.cuts[cut].shape)
    })
}

/// The stitch of a pair. It has no clamp, although targets are often clamped at 0: a clamp always lowers the squared
/// error at such a cut, so that error cannot judge it.
fn stitch(stitched: &Stitched, blocks: &Blocks, pair: &Pair, fit: &Linear) -> Segment {
    let [(from, input), (to, output)] = ends(stitched, pair);
    let name = blocks.pair_name(pair);
    let weights = Array4::from_shape_fn([output[2], 1, 1, input[2]], |(o, _, _, i)| fit.weights[[o, i]] as f32);
    let bias = fit.bias.iter().map(|&value| value as f32).collect();
    let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    let op = Op::Conv { weights, bias, window, groups: 1, clamp: Clamp::NONE };
    let nodes = vec![Node { name: name.clone(), op, inputs: vec![0], output: 1 }];
    let tensors = vec![input, output];
    let macs = nodes.iter().map(|node| node.macs(&tensors)).sum();
    let layer = Some(pair.layer);
    Segment { kind: Kind::Stitch, layer, name, from, to, tensors, nodes, input: 0, output: 1, keeps: vec![], macs }
}

/// Biases that bring the means of the blocks behind a stitch back to those of their anchors, layer by layer. `segments` starts with the
/// stitch, `start` holds what it reads.
fn correct(stitched: &Stitched, segments: &[usize], start: &[Vec<f32>], runs: &[AnchorRun]) -> Vec<Correction> {
    let mut corrections = vec![];
    let mut values = start.to_vec();
    for &number in segments {
        let segment = &stitched.segments[number];
        let means = runs.iter().flat_map(|run| &run.means).find(|(other, _)| *other == number);
        values = layer_by_layer(segment, &values, |node, images| {
            let (Some((_, means)), Op::Conv { bias, .. }) = (means, &segment.nodes[node].op) else { return };
            let found = channel_means(images, bias.len());
            let scale = means[node].iter().fold(0.0f64, |most, mean| most.max(mean.abs()));
            let shift: Vec<f32> = means[node].iter().zip(&found).map(|(goal, found)| (goal - found) as f32).collect();
            if shift.iter().all(|&shift| f64::from(shift.abs()) <= LEAST_SHIFT * scale) {
                return;
            }
            images.par_iter_mut().for_each(|values| {
                for (value, shift) in values.iter_mut().zip(shift.iter().cycle()) {
                    *value += shift;
                }
            });
            let bias = bias.iter().zip(&shift).map(|(bias, shift)| bias + shift).collect();
            corrections.push(Correction { segment: number, node, bias });
        });
    }
    corrections
}

#[cfg(test)]
pub(crate) mod tests;
