//! Bilinear samples of int8 maps at fixed-point coordinates: pooling of boxes, and points across a pyramid.
//!
//! A coordinate in cells has 8 fraction bits, so a sample's four weights add up to 2^16 and a sample is exact in Q16.

use super::boxes::{Rect, State};
use super::fixed::{exp2, half_up};
use crate::element::wide;
use crate::requant::{finish, is_shift, rescale};
use crate::shape::{KernelError, Shape, check};

/// Most maps of a pyramid.
pub const MOST_MAPS: usize = 8;

/// A map of a pyramid.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Rows, columns, channels.
    pub shape: Shape,
    /// Its values.
    pub values: &'a [i8],
    /// Integer that stands for 0.0.
    pub zero_point: i8,
    /// Logarithm of its stride in pixels, 0..=7.
    pub stride_log2: u8,
}

/// Four cells and their weights; a cell outside of the map weighs nothing.
struct Sample<'a> {
    cells: [&'a [i8]; 4],
    weights: [i32; 4],
    zero: i32,
}

impl<'a> Map<'a> {
    fn is_whole(&self) -> bool {
        self.stride_log2 <= 7 && !self.values.is_empty() && self.values.len() == self.shape.len()
    }

    /// `count` channels from `first` on, at the Q8 coordinates of a point between cells, where a cell's middle is a whole number.
    #[inline(always)]
    fn sample(&self, [x, y]: [i64; 2], first: usize, count: usize) -> Sample<'a> {
        let (width, channels) = (i64::from(self.shape.width), usize::from(self.shape.channels));
        let mut sample = Sample { cells: [&[]; 4], weights: [0; 4], zero: self.zero_point.into() };
        let parts = |at: i64| [(at >> 8, 256 - (at & 255) as i32), ((at >> 8) + 1, (at & 255) as i32)];
        let mut next = sample.cells.iter_mut().zip(&mut sample.weights);
        for (row, down) in parts(y) {
            for ((column, across), (cell, weight)) in parts(x).into_iter().zip(&mut next) {
                if (0..i64::from(self.shape.height)).contains(&row) && (0..width).contains(&column) {
                    let start = (row * width + column) as usize * channels + first;
                    *cell = self.values.get(start..start + count).unwrap_or_default();
                    *weight = down * across;
                }
            }
        }
        sample
    }
}

impl Sample<'_> {
    /// Q16, less the zero point: below 2^24.
    #[inline(always)]
    fn at(&self, channel: usize) -> i32 {
        let parts = self.cells.iter().zip(self.weights);
        parts.map(|(cell, weight)| weight * cell.get(channel).map_or(0, |&value| i32::from(value) - self.zero)).sum()
    }
}

/// Pools the inside of boxes: `[boxes, bins, bins, C]`, one sample in the middle of each bin.
#[derive(Clone, Copy, Debug)]
pub struct RegionPool<'a> {
    /// Maps, finest first, of the same channels.
    pub maps: &'a [Map<'a>],
    /// Between two maps: the side, in 1/16 pixel, of the square from whose area on a box is pooled from the coarser one.
    pub sides: &'a [u16],
    /// Bins of a side, 1..=255.
    pub bins: u8,
    /// Rescale of a Q16 sample of each map: multiplier and right shift, 1..=62.
    pub rescales: &'a [(i32, u8)],
    /// Integer that stands for 0.0 in the output.
    pub zero_point: i8,
}

/// Runs [`RegionPool`].
///
/// A box is at least one cell wide and high; its corner stays. A sample more than one cell outside of the middles of the map's
/// cells is 0, another one outside of them counts as on the border.
///
/// # Errors
/// [`KernelError`] if a map is not as long as its shape, maps differ in channels, or a list does not fit.
pub fn pool_regions(op: &RegionPool<'_>, rects: &[Rect], output: &mut [i8]) -> Result<(), KernelError> {
    let Some(channels) = op.maps.first().map(|map| usize::from(map.shape.channels)) else {
        return Err(KernelError::Geometry);
    };
    let whole = |map: &Map<'_>| map.is_whole() && usize::from(map.shape.channels) == channels;
    check(op.maps.iter().all(whole), KernelError::Input)?;
    let lists = op.sides.len() + 1 == op.maps.len() && op.rescales.len() == op.maps.len() && op.bins > 0;
    check(lists, KernelError::Geometry)?;
    check(op.rescales.iter().all(|&(_, shift)| is_shift(shift)), KernelError::Weights)?;
    let bins = usize::from(op.bins);
    let each = channels.saturating_mul(bins * bins);
    check(output.len() == each.saturating_mul(rects.len()), KernelError::Output)?;
    for (rect, out) in rects.iter().zip(output.chunks_exact_mut(each)) {
        let area = u64::from(rect.w) * u64::from(rect.h);
        let level = op.sides.iter().filter(|&&side| area >= u64::from(side) * u64::from(side)).count();
        let (Some(map), Some(&(multiplier, shift))) = (op.maps.get(level), op.rescales.get(level)) else { continue };
        for (bin, out) in out.chunks_exact_mut(channels).enumerate() {
            let x = middle(rect.x, rect.w, map.stride_log2, op.bins, bin % bins);
            let y = middle(rect.y, rect.h, map.stride_log2, op.bins, bin / bins);
            let (Some(x), Some(y)) = (inside(x, map.shape.width), inside(y, map.shape.height)) else {
                out.fill(op.zero_point);
                continue;
            };
            let sample = map.sample([x, y], 0, channels);
            for (channel, out) in out.iter_mut().enumerate() {
                let value = rescale(sample.at(channel), multiplier, shift);
                *out = finish(value, op.zero_point, i8::MIN, i8::MAX);
            }
        }
    }
    Ok(())
}

/// Q8 cells of the middle of a bin.
fn middle(centre: i16, side: u16, stride_log2: u8, bins: u8, bin: usize) -> i64 {
    let (bins, cell) = (i64::from(bins), 16i64 << stride_log2);
    // 1/32 pixel, `bins` times.
    let low = bins * (2 * i64::from(centre) - i64::from(side));
    let point = low + i64::from(side).max(cell) * (2 * bin as i64 + 1);
    let per_cell = bins << stride_log2;
    (16 * point + per_cell).div_euclid(2 * per_cell)
}

/// The border rule.
fn inside(at: i64, cells: u16) -> Option<i64> {
    let end = 256 * i64::from(cells);
    (-256..=end).contains(&at).then(|| at.min(end - 256).max(0))
}

/// Samples points around boxes across a pyramid: `[boxes, groups, points, C / groups]`.
#[derive(Clone, Copy, Debug)]
pub struct PointSampling<'a> {
    /// Maps, finest first, at most 8, of the same channels.
    pub maps: &'a [Map<'a>],
    /// Groups; group g reads its own share of the channels.
    pub groups: u16,
    /// Points of a group.
    pub points: u16,
    /// `u16` `[steps, maps]`: what a map weighs at a size, in steps of 1/16 of its logarithm. The host puts the maps' scales in.
    pub weights: &'a [u8],
    /// Q12 logarithm of the first step, of a size in units of 4 pixels.
    pub first: i32,
    /// Right shift of the weighted sum of Q16 samples, 1..=62.
    pub shift: u8,
}

/// Runs [`PointSampling`]: `offsets` are Int16, Q12, `[boxes, groups, points, (dx, dy, dz)]`, in units of a box's sides and of one
/// level. The output's zero point is 0; what lies outside of the maps is 0.
///
/// # Errors
/// [`KernelError`] if a map is not as long as its shape, maps differ in channels, or a list does not fit.
pub fn sample_points(
    op: &PointSampling<'_>,
    states: &[State],
    offsets: &[i8],
    output: &mut [i8],
) -> Result<(), KernelError> {
    check((1..=MOST_MAPS).contains(&op.maps.len()) && op.groups > 0 && op.points > 0, KernelError::Geometry)?;
    let channels = op.maps.first().map_or(0, |map| map.shape.channels);
    check(channels.is_multiple_of(op.groups), KernelError::Geometry)?;
    let whole = |map: &Map<'_>| map.is_whole() && map.shape.channels == channels;
    check(op.maps.iter().all(whole), KernelError::Input)?;
    let (steps, rest) = op.weights.as_chunks::<2>();
    let whole = !steps.is_empty() && steps.len().is_multiple_of(op.maps.len()) && rest.is_empty();
    check(whole && is_shift(op.shift), KernelError::Weights)?;
    let each = usize::from(op.groups) * usize::from(op.points);
    check(offsets.len() == states.len().saturating_mul(each).saturating_mul(6), KernelError::Input)?;
    let width = usize::from(channels / op.groups);
    check(output.len() == states.len().saturating_mul(each).saturating_mul(width), KernelError::Output)?;
    let offsets = offsets.as_chunks::<6>().0;
    let boxes = states.iter().zip(offsets.chunks_exact(each)).zip(output.chunks_exact_mut(each * width));
    for ((state, offsets), out) in boxes {
        for (number, (offset, out)) in offsets.iter().zip(out.chunks_exact_mut(width)).enumerate() {
            let delta = [0, 2, 4].map(|at| wide([offset[at], offset[at + 1]]));
            point(op, steps, state, delta, number / usize::from(op.points) * width, out);
        }
    }
    Ok(())
}

/// One point, channels from `first` on.
fn point(op: &PointSampling<'_>, steps: &[[u8; 2]], state: &State, delta: [i16; 3], first: usize, out: &mut [i8]) {
    /// Logarithm of 4 pixels in 1/16 pixel.
    const UNIT: i32 = 6 << 12;
    let [dx, dy, dz] = delta;
    // 2^-16 pixel.
    let place = |centre: i16, side: u16, delta: i16| {
        (i64::from(centre) << 12) + i64::from(exp2(side.into(), 0).min(u16::MAX.into())) * i64::from(delta)
    };
    let (x, y) = (place(state.x, state.w, dx), place(state.y, state.h, dy));
    let size = ((i32::from(state.w) + i32::from(state.h)) >> 1) - UNIT + i32::from(dz);
    let maps = op.maps.len();
    let last = (steps.len() / maps) as i64 - 1;
    let step = half_up(i64::from(size) - i64::from(op.first), 8).min(last).max(0) as usize;
    let weights = steps.get(step * maps..(step + 1) * maps).unwrap_or_default();
    let mut samples = [const { (0, Sample { cells: [&[]; 4], weights: [0; 4], zero: 0 }) }; MOST_MAPS];
    for (slot, (map, &weight)) in samples.iter_mut().zip(op.maps.iter().zip(weights)) {
        let cells = |at: i64| half_up(at, 8 + u32::from(map.stride_log2)) - 128;
        *slot = (i64::from(u16::from_le_bytes(weight)), map.sample([cells(x), cells(y)], first, out.len()));
    }
    let samples = samples.get(..maps).unwrap_or_default();
    for (channel, out) in out.iter_mut().enumerate() {
        let sum: i64 = samples.iter().map(|(weight, sample)| weight * i64::from(sample.at(channel))).sum();
        *out = half_up(sum, op.shift.into()).clamp(i8::MIN.into(), i8::MAX.into()) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden integers of the specification: coordinates with a cell's middle at one half, so half a cell less here.
    #[test]
    fn samples_are_the_golden_ones() {
        let values = core::array::from_fn::<i8, 16, _>(|index| 7 * (index as i8 - 8));
        let shape = Shape { height: 4, width: 4, channels: 1 };
        let map = Map { shape, values: &values, zero_point: 0, stride_log2: 0 };
        // 1.25, 2.75; 0.1, 0.1; 3.99, -0.3; 2.5, 2.5.
        for (at, golden) in
            [([320, 704], 802_816), ([26, 26], -1_328_096), ([1021, -77], -233_835), ([640, 640], 917_504)]
        {
            assert_eq!(map.sample(at.map(|at| at - 128), 0, 1).at(0), golden);
        }
    }
}
