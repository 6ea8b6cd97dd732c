//! Stage 7: every integer that the device will use.
//!
//! Weights are int8, symmetric per output channel; activations int8 per tensor, 0.0 exactly representable. Ops that
//! only move values (`Move`, `Concat`, maximum) cannot rescale: their operands share one quantisation, that of the
//! cut where they touch one. Where that would cut values off, or the cuts differ, the operand is rescaled first.
//! LayerNorms read int16, and residual streams towards them are int16 ([`elements`]).

pub(crate) mod elements;
mod lower;
pub(crate) mod numbers;
pub(crate) mod ranges;
pub(crate) mod transformer;

use crate::error::Error;
use crate::graph::{Node, Op};
use crate::images::normalised;
use crate::network::{Calibrated, Correction, Extent, IntegerCorrection, IntegerPath, Quant, Quantized, Stitched};
use lower::Known;

/// How a pixel value becomes a float: `(value / 255 − mean) / std`, per channel.
#[derive(Clone, Debug)]
pub struct Pixels {
    /// Per channel.
    pub mean: Vec<f32>,
    /// Per channel.
    pub std: Vec<f32>,
}

/// Turns ranges into integers. `asked` names tensors that are int16 besides those that have to be, `segment:node`.
///
/// # Errors
/// [`Error::Stage`] naming the node whose numbers do not fit; [`Error::Family`] if a name is not there.
pub fn quantize(calibrated: &Calibrated, pixels: &Pixels, asked: &[String]) -> Result<Quantized, Error> {
    let stitched = &calibrated.stitched;
    let wide = elements::wide_as_asked(stitched, asked)?;
    let of_cut = |(&extent, &wide): (_, &bool)| if wide { ranges::wide(extent) } else { ranges::narrow(extent) };
    let mut cuts: Vec<Quant> = calibrated.cuts.iter().zip(&wide.cuts).map(of_cut).collect();
    cuts[0] = ranges::of_pixels(pixels);
    let kept = kept(calibrated);
    let of_kept: Vec<Quant> = kept.iter().map(|(_, quant)| *quant).collect();
    let (mut segments, mut convolutions) = (vec![], vec![]);
    for (number, segment) in stitched.segments.iter().enumerate() {
        let (integers, of_nodes) = lower::lower(&Known {
            segment,
            extents: &calibrated.tensors[number],
            channels: &calibrated.channels[number],
            wide: &wide.tensors[number],
            cuts: &cuts,
            kept: &of_kept,
            biases: &largest_biases(stitched, number),
        })?;
        segments.push(integers);
        convolutions.push(of_nodes);
    }
    let mut paths = vec![];
    for path in &stitched.paths {
        let mut corrections = vec![];
        for &Correction { segment, node, ref bias } in &path.corrections {
            if let Some(convolution) = &convolutions[segment][node] {
                corrections.push(IntegerCorrection { segment, op: convolution.op, bias: convolution.bias(bias)? });
            }
        }
        paths.push(IntegerPath { name: path.name.clone(), segments: path.segments.clone(), corrections });
    }
    Ok(Quantized {
        anchors: stitched.anchors.clone(),
        cuts: stitched.cuts.iter().cloned().zip(cuts.iter().copied()).collect(),
        segments,
        paths,
        preprocess: preprocess(pixels, cuts[0]),
        kept,
        output: 1,
        caps: [0; 2],
    })
}

/// Shape and quantisation of each map that stays: one for all segments that may write it.
fn kept(calibrated: &Calibrated) -> Vec<([usize; 3], Quant)> {
    let segments = &calibrated.stitched.segments;
    let written = |map: usize| {
        let of = move |(number, segment): (usize, &'_ crate::network::Segment)| {
            segment.keeps.iter().find(|(other, _)| *other == map).map(|&(_, tensor)| (number, tensor))
        };
        segments.iter().enumerate().filter_map(of)
    };
    let count = segments.iter().flat_map(|segment| &segment.keeps).map(|&(map, _)| map + 1).max().unwrap_or(0);
    (0..count)
        .map(|map| {
            let shape = written(map).map(|(number, tensor)| segments[number].tensors[tensor]).next().unwrap_or([1; 3]);
            let hull = written(map).fold(Extent { min: 0.0, max: 0.0 }, |hull, (number, tensor)| {
                let extent = calibrated.tensors[number][tensor];
                Extent { min: hull.min.min(extent.min), max: hull.max.max(extent.max) }
            });
            (shape, ranges::narrow(hull))
        })
        .collect()
}

/// Per node of a segment and channel: the largest bias that any path gives it, without its sign.
fn largest_biases(stitched: &Stitched, segment: usize) -> Vec<Vec<f32>> {
    let corrections = stitched.paths.iter().flat_map(|path| &path.corrections);
    let corrections: Vec<&Correction> = corrections.filter(|correction| correction.segment == segment).collect();
    let of_node = |(number, node): (usize, &Node)| {
        let Op::Conv { bias, .. } = &node.op else { return vec![] };
        let mut largest: Vec<f32> = bias.iter().map(|bias| bias.abs()).collect();
        for correction in corrections.iter().filter(|correction| correction.node == number) {
            for (largest, bias) in largest.iter_mut().zip(&correction.bias) {
                *largest = largest.max(bias.abs());
            }
        }
        largest
    };
    stitched.segments[segment].nodes.iter().enumerate().map(of_node).collect()
}

fn preprocess(pixels: &Pixels, quant: Quant) -> Vec<[i8; 256]> {
    let table = |(mean, std): (&f32, &f32)| {
        core::array::from_fn(|value| ranges::to_integer(normalised(value as u8, *mean, *std), quant))
    };
    pixels.mean.iter().zip(&pixels.std).map(table).collect()
}

#[cfg(test)]
mod tests;
