//! Stage 7: every integer that the device will use.
//!
//! Weights are int8, symmetric per output channel; activations int8 per tensor, 0.0 exactly representable. Ops that
//! only move values (`Move`, `Concat`, maximum) cannot rescale: their operands share one quantisation, that of the
//! cut where they touch one. Where that would cut values off, or the cuts differ, the operand is rescaled first.
//! LayerNorms read int16, and residual streams towards them are int16 ([`elements`]).

pub(crate) mod elements;
mod lower;
mod numbers;
mod ranges;
mod transformer;

use crate::error::Error;
use crate::graph::{Node, Op};
use crate::images::normalised;
use crate::network::{Calibrated, Correction, IntegerCorrection, IntegerPath, Quant, Quantized, Stitched};
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
    let (mut segments, mut convolutions) = (vec![], vec![]);
    for (number, segment) in stitched.segments.iter().enumerate() {
        let (integers, of_nodes) = lower::lower(&Known {
            segment,
            extents: &calibrated.tensors[number],
            channels: &calibrated.channels[number],
            wide: &wide.tensors[number],
            cuts: &cuts,
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
    })
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
