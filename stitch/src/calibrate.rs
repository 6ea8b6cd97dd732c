//! Stage 6: the range of every tensor, along every path.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::float;
use crate::graph::Op;
use crate::network::{Calibrated, Extent, Path, Segment, Stitched};

/// Part of the images whose extreme a range must cover: the few brightest would cost everyone else resolution.
const COVERED: f64 = 0.95;
/// Images that are looked at.
const IMAGES: usize = 128;

/// Least and largest value of each tensor of a segment, for one image.
type Extents = Vec<Extent>;
/// Largest value of each channel of each tensor of a segment, without its sign.
type Largest = Vec<Vec<f32>>;

/// Runs every path over normalised images `[H, W, C]`. A cut has one range, over all paths that pass it.
#[must_use]
pub fn calibrate(stitched: Stitched, images: &[Vec<f32>], advance: &(dyn Fn() + Sync)) -> Calibrated {
    let images = &images[..images.len().min(IMAGES)];
    // Per segment: the extents of each image in each path that runs it.
    let mut seen: Vec<Vec<Extents>> = vec![vec![]; stitched.segments.len()];
    let none = |segment: &Segment| segment.tensors.iter().map(|[_, _, channels]| vec![0.0; *channels]).collect();
    let mut channels: Vec<Largest> = stitched.segments.iter().map(none).collect();
    // Values at the cuts of the anchors, where stitched paths set out.
    let mut anchors: BTreeMap<Vec<usize>, Vec<Vec<f32>>> = BTreeMap::new();
    for (path_number, path) in stitched.paths.iter().enumerate() {
        let known = (0..=path.segments.len()).rev().find(|&len| anchors.contains_key(&path.segments[..len]));
        let done = known.unwrap_or(0);
        let mut values = anchors.get(&path.segments[..done]).cloned().unwrap_or_else(|| images.to_vec());
        let is_anchor = path_number < stitched.anchors.len();
        for (step, &number) in path.segments.iter().enumerate().skip(done) {
            let segment = &stitched.segments[number];
            let runs: Vec<Run> = values.par_iter().map(|image| run(segment, number, path, image)).collect();
            values = vec![];
            for Run { extents, largest, output } in runs {
                seen[number].push(extents);
                let new = largest.iter().flatten();
                channels[number].iter_mut().flatten().zip(new).for_each(|(most, new)| *most = most.max(*new));
                values.push(output);
            }
            if is_anchor && step + 1 < path.segments.len() {
                anchors.insert(path.segments[..=step].to_vec(), values.clone());
            }
        }
        advance();
    }
    let mut tensors: Vec<Extents> = stitched
        .segments
        .iter()
        .zip(&seen)
        .map(|(segment, seen)| {
            (0..segment.tensors.len()).map(|tensor| covering(seen.iter().map(|e| e[tensor]))).collect()
        })
        .collect();
    let cuts: Vec<Extent> = (0..stitched.cuts.len())
        .map(|cut| {
            let at_cut = stitched.segments.iter().zip(&seen).flat_map(|(segment, seen)| {
                let tensor = if segment.to == cut { Some(segment.output) } else { None };
                let tensor = tensor.or((cut == 0 && segment.from == 0).then_some(segment.input));
                seen.iter().filter_map(move |extents| tensor.map(|tensor| extents[tensor]))
            });
            if cut <= 1 { hull(at_cut) } else { covering(at_cut) }
        })
        .collect();
    for (segment, tensors) in stitched.segments.iter().zip(&mut tensors) {
        tensors[segment.input] = cuts[segment.from];
        tensors[segment.output] = cuts[segment.to];
    }
    Calibrated { stitched, tensors, channels, cuts }
}

/// What one image left in one segment.
struct Run {
    extents: Extents,
    largest: Largest,
    output: Vec<f32>,
}

/// One image through one segment of a path.
fn run(segment: &Segment, number: usize, path: &Path, image: &[f32]) -> Run {
    let mut nodes = segment.nodes.clone();
    for correction in path.corrections.iter().filter(|correction| correction.segment == number) {
        if let Op::Conv { bias, .. } = &mut nodes[correction.node].op {
            bias.clone_from(&correction.bias);
        }
    }
    let mut tensors = float::run(&nodes, &segment.tensors, segment.input, image);
    let extents = tensors
        .iter()
        .map(|values| {
            values.iter().fold(Extent { min: 0.0, max: 0.0 }, |extent, &value| Extent {
                min: extent.min.min(value),
                max: extent.max.max(value),
            })
        })
        .collect();
    let of_tensor = |(values, [_, _, channels]): (&Vec<f32>, &[usize; 3])| {
        let mut largest = vec![0.0f32; *channels];
        for position in values.chunks_exact(*channels) {
            largest.iter_mut().zip(position).for_each(|(most, value)| *most = most.max(value.abs()));
        }
        largest
    };
    let largest = tensors.iter().zip(&segment.tensors).map(of_tensor).collect();
    Run { extents, largest, output: tensors.swap_remove(segment.output) }
}

/// The range that covers the extremes of most images, and 0.
pub(crate) fn covering(extents: impl Iterator<Item = Extent>) -> Extent {
    let (mut low, mut high): (Vec<f32>, Vec<f32>) = extents.map(|extent| (-extent.min, extent.max)).unzip();
    let pick = |values: &mut Vec<f32>| {
        values.sort_by(f32::total_cmp);
        let last = values.len().saturating_sub(1) as f64;
        values.get((last * COVERED).round() as usize).copied().unwrap_or(0.0).max(0.0)
    };
    Extent { min: -pick(&mut low), max: pick(&mut high) }
}

fn hull(extents: impl Iterator<Item = Extent>) -> Extent {
    extents.fold(Extent { min: 0.0, max: 0.0 }, |hull, extent| Extent {
        min: hull.min.min(extent.min),
        max: hull.max.max(extent.max),
    })
}

#[cfg(test)]
mod tests;
