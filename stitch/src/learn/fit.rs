//! The weights of every layer from what two anchors compute at the cuts that it joins, without gradients.
//!
//! Three ways, worst first. *Random* knows nothing. *Relative* representations (Moschella et al., ICLR 2023, and its
//! inverse projection, Maiorca et al. 2024) describe a position by its cosines to a fixed set of samples, which two
//! networks see alike: for normalised features of the same samples `A` at one cut and `B` at the other, the map solves
//! `B W x = A x`. No error of `y` is ever looked at, which makes it a baseline of what the networks agree on by
//! themselves. *Least squares* is the fit of `y` by `x`.
//!
//! `x` is what the device has at the cut: the anchor's values, rounded to the 256 steps of its range, unless the cut has 16 bits.
//! A layer that several pairs share is one problem over the positions of all of them.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

use super::least_squares::{Inputs, Linear, Moments, Targets};
use super::{AnchorRun, ends};
use crate::calibrate::covering;
use crate::cut::Blocks;
use crate::error::Error;
use crate::network::{Extent, Stitched};
use crate::quantize::elements;

/// One image of so many is held out while a ridge is chosen; then it is fitted with the others.
const HELD_OUT: usize = 4;
/// Ridges that are tried.
const RIDGES: [f64; 6] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
/// Ridge of the relative map; its samples are normalised, so no scale depends on the family.
const RELATIVE_RIDGE: f64 = 1e-3;
/// Images whose positions are converted to f64 at once.
const CHUNK: usize = 8;

/// What became of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The stitches that have it.
    pub stitches: Vec<String>,
    /// Ridge that it was solved with, as a part of the mean variance of the inputs.
    pub ridge: f64,
    /// Squared error on the held-out images by the ridge's weights of the others, as a part of the targets' variation.
    pub held_out_error: f64,
    /// Input channels.
    pub inputs: usize,
    /// Input channels that never vary, or that the ones before them explain: the system is singular.
    pub dependent: usize,
}

impl Fit {
    /// What a person should know, if anything.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let Self { ridge, inputs, dependent, .. } = self;
        let stitches = self.stitches.join(", ");
        let how = if *ridge > 0.0 { format!("solved with ridge {ridge:e}") } else { "left out with weight 0".into() };
        (*dependent > 0).then(|| {
            format!("stitch {stitches}: singular, {dependent} of {inputs} inputs are idle or follow from others; {how}")
        })
    }
}

/// Sums of some images, for all pairs.
struct Sums {
    /// Per cut that a stitch leaves, by anchor and position.
    inputs: BTreeMap<(usize, usize), Inputs>,
    /// Per pair.
    targets: Vec<Targets>,
}

/// Least squares over batches of images.
pub(super) struct LeastSquares<'a> {
    stitched: &'a Stitched,
    blocks: &'a Blocks,
    /// The range of a cut that a stitch leaves; none where it has 16 bits.
    ranges: BTreeMap<(usize, usize), Option<Extent>>,
    /// Of the images that are fitted, and of those that are held out.
    parts: [Sums; 2],
}

impl<'a> LeastSquares<'a> {
    /// Of no image yet; the `first` ones say what range a cut has, if its values are to be `rounded`.
    pub fn new(stitched: &'a Stitched, blocks: &'a Blocks, first: &[AnchorRun], rounded: bool) -> Result<Self, Error> {
        let wide = elements::wide(stitched).cuts;
        let mut ranges = BTreeMap::new();
        let sums = || Sums { inputs: BTreeMap::new(), targets: vec![] };
        let mut parts = [sums(), sums()];
        for pair in &blocks.pairs {
            let [(number, input), (_, output)] = ends(stitched, pair);
            if input[..2] != output[..2] {
                return Err(Error::Stage {
                    stage: "learn",
                    what: format!(
                        "stitch {}: maps {input:?} and {output:?} [H, W, C] do not match",
                        blocks.pair_name(pair)
                    ),
                });
            }
            let cut = (pair.front, pair.front_cut);
            let range = || covering(first[cut.0].cuts[cut.1].iter().map(|values| extent(values)));
            ranges.entry(cut).or_insert_with(|| (rounded && !wide[number]).then(range));
            for Sums { inputs, targets } in &mut parts {
                inputs.entry(cut).or_insert_with(|| Inputs::zero(input[2]));
                targets.push(Targets::zero(input[2], output[2]));
            }
        }
        Ok(Self { stitched, blocks, ranges, parts })
    }

    /// Adds images; `start` is the number of the first. Sums are in the order of the images, whatever the threads.
    pub fn add(&mut self, runs: &[AnchorRun], start: usize) {
        let Self { stitched, blocks, ranges, parts } = self;
        let x = |cut: (usize, usize), images: &[usize]| {
            let range = ranges[&cut];
            let number = |value: f32| range.map_or(f64::from(value), |range| rounded(value, range));
            positions(&runs[cut.0].cuts[cut.1], images, channels(stitched, cut), number)
        };
        for (part, Sums { inputs, targets }) in parts.iter_mut().enumerate() {
            let count = runs.first().map_or(0, |run| run.cuts[0].len());
            let held_out = |image: &usize| usize::from((start + image) % HELD_OUT == HELD_OUT - 1);
            let images: Vec<usize> = (0..count).filter(|image| held_out(image) == part).collect();
            let chunks = || images.chunks(CHUNK);
            inputs.par_iter_mut().for_each(|(&cut, sums)| {
                chunks().for_each(|images| sums.add(&Inputs::of(x(cut, images).view())));
            });
            targets.par_iter_mut().zip(&blocks.pairs).for_each(|(sums, pair)| {
                for images in chunks() {
                    let back = &runs[pair.back].cuts[pair.back_cut];
                    let y = positions(back, images, channels(stitched, (pair.back, pair.back_cut)), f64::from);
                    sums.add(&Targets::of(x((pair.front, pair.front_cut), images).view(), y.view()));
                }
            });
        }
    }

    /// The weights of every layer, and what became of them. Without a `ridge` the one with the least error on the
    /// held-out images is taken.
    pub fn solve(&self, ridge: Option<f64>) -> (Vec<Linear>, Vec<Fit>) {
        let [fitted, held_out] = self.parts.each_ref().map(|sums| self.per_layer(sums));
        let names = self.per_layer_names();
        let layers = fitted.into_par_iter().zip(held_out).zip(names).map(|((mut fitted, held_out), stitches)| {
            let all = held_out.variation().max(f64::MIN_POSITIVE);
            let error = |ridge: f64| held_out.squared_error(&fitted.solve(ridge)) / all;
            let tried: Vec<(f64, f64)> = match ridge {
                Some(ridge) => vec![(ridge, error(ridge))],
                None => RIDGES.iter().map(|&ridge| (ridge, error(ridge))).collect(),
            };
            let best = tried.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
            let (ridge, held_out_error) = best.unwrap_or((RIDGES[0], 0.0));
            fitted.add(&held_out);
            let (inputs, dependent) = (fitted.inputs.mean().len(), fitted.inputs.dependent());
            (fitted.solve(ridge), Fit { stitches, ridge, held_out_error, inputs, dependent })
        });
        layers.unzip()
    }

    /// Sums of each layer, over its pairs.
    fn per_layer(&self, sums: &Sums) -> Vec<Moments> {
        let mut layers: Vec<Option<Moments>> = vec![];
        for (pair, targets) in self.blocks.pairs.iter().zip(&sums.targets) {
            let inputs = sums.inputs[&(pair.front, pair.front_cut)].clone();
            let found = Moments { inputs, targets: targets.clone() };
            layers.resize(layers.len().max(pair.layer + 1), None);
            match &mut layers[pair.layer] {
                Some(sum) => sum.add(&found),
                empty => *empty = Some(found),
            }
        }
        layers.into_iter().flatten().collect()
    }

    fn per_layer_names(&self) -> Vec<Vec<String>> {
        let mut names: Vec<Vec<String>> = vec![];
        for pair in &self.blocks.pairs {
            names.resize(names.len().max(pair.layer + 1), vec![]);
            names[pair.layer].push(self.blocks.pair_name(pair));
        }
        names.retain(|names| !names.is_empty());
        names
    }

    /// The maps of relative representations: the samples are all positions of the images of `runs`, which must be the
    /// images that were added.
    pub fn relative(&self, runs: &[AnchorRun]) -> Vec<Linear> {
        let mut layers = self.per_layer(&self.parts[0]);
        layers.iter_mut().zip(self.per_layer(&self.parts[1])).for_each(|(sum, other)| sum.add(&other));
        let of_layer = |(layer, moments): (usize, &Moments)| {
            let (mean_x, mean_y) = (moments.inputs.mean(), moments.targets.mean(moments.inputs.rows));
            let mut reversed: Option<Moments> = None;
            for pair in self.blocks.pairs.iter().filter(|pair| pair.layer == layer) {
                let at = |cut: (usize, usize), mean: &Array1<f64>| {
                    let values = &runs[cut.0].cuts[cut.1];
                    let images: Vec<usize> = (0..values.len()).collect();
                    directions(positions(values, &images, mean.len(), f64::from), mean)
                };
                let (x, y) = (at((pair.front, pair.front_cut), &mean_x), at((pair.back, pair.back_cut), &mean_y));
                let found = Moments::of(y.view(), x.view());
                match &mut reversed {
                    Some(sum) => sum.add(&found),
                    empty => *empty = Some(found),
                }
            }
            let shape = (mean_y.len(), mean_x.len());
            let weights =
                reversed.map_or(Array2::zeros(shape), |sums| sums.solve(RELATIVE_RIDGE).weights.reversed_axes());
            // Cosines say nothing of lengths: those of y are given back.
            let length = (moments.variation() / moments.mapped_variation(&weights).max(f64::MIN_POSITIVE)).sqrt();
            let weights = weights * length;
            let bias = &mean_y - &weights.dot(&mean_x);
            Linear { weights, bias }
        };
        layers.iter().enumerate().map(of_layer).collect()
    }
}

/// Channels of a cut, by anchor and position.
fn channels(stitched: &Stitched, (anchor, position): (usize, usize)) -> usize {
    stitched.cuts[stitched.segments[stitched.paths[anchor].segments[position]].from].shape[2]
}

/// Values of some images, `[images · positions, channels]`.
fn positions(values: &[Vec<f32>], images: &[usize], channels: usize, number: impl Fn(f32) -> f64) -> Array2<f64> {
    let numbers: Vec<f64> = images.iter().flat_map(|&image| &values[image]).map(|&value| number(value)).collect();
    let rows = numbers.len() / channels.max(1);
    Array2::from_shape_vec((rows, channels), numbers).unwrap_or_else(|_| Array2::zeros((rows, channels)))
}

/// Rows around a mean, of length 1; a row at the mean stays 0.
fn directions(mut rows: Array2<f64>, mean: &Array1<f64>) -> Array2<f64> {
    for mut row in rows.axis_iter_mut(Axis(0)) {
        row -= mean;
        let length = row.dot(&row).sqrt();
        row.mapv_inplace(|value| value / length.max(f64::MIN_POSITIVE));
    }
    rows
}

/// Least and largest value, and 0.
fn extent(values: &[f32]) -> Extent {
    let none = Extent { min: 0.0, max: 0.0 };
    values.iter().fold(none, |extent, &value| Extent { min: extent.min.min(value), max: extent.max.max(value) })
}

/// A value in the nearest of the 256 steps of a range, one of which is 0.
fn rounded(value: f32, range: Extent) -> f64 {
    let step = (f64::from(range.max) - f64::from(range.min)) / 255.0;
    if step <= 0.0 {
        return 0.0;
    }
    let zero = (-f64::from(range.min) / step).round();
    ((f64::from(value) / step).round() + zero).clamp(0.0, 255.0).mul_add(step, -zero * step)
}
