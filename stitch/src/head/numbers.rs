//! Numbers of a head's own ops: `docs/detector.md`, section "Integers".

use std::f64::consts::{LOG2_E, PI};

use serde::Deserialize;

use super::HeadFile;
use super::builder::{Builder, integers};
use crate::error::Error;
use crate::network::{Constants, ConvWeights, Quant};
use crate::quantize::numbers::fixed_point;

/// Which heads can be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Anchors and relation block.
    Generator,
    /// The whole sparse head.
    Asag,
    /// The same without patches that anchors ask for.
    NoProbing,
    /// A box for each cell, and suppression.
    Dense,
}

impl Kinds {
    fn of(file: &HeadFile) -> Result<Self, Error> {
        let kind: String = file.entry("head")?;
        Ok(match kind.as_str() {
            "generator" => Self::Generator,
            "asag" => Self::Asag,
            "asag-no-probing" => Self::NoProbing,
            "dense" => Self::Dense,
            other => {
                let known = "`asag`, `asag-no-probing`, `generator` and `dense` can be compiled";
                return Err(file.bad(format!("a head of kind `{other}`; {known}")));
            }
        })
    }
}

/// Sizes and thresholds.
pub(super) struct Geometry {
    pub kind: Kinds,
    pub side: usize,
    pub classes: usize,
    /// Pixels of a cell of each map, finest first.
    pub strides: Vec<usize>,
    pub channels: usize,
    pub heads: usize,
    pub hidden: usize,
    pub patch: usize,
    pub compressed: usize,
    pub generator_hidden: usize,
    pub base_anchors: usize,
    pub probe_anchors: usize,
    pub patches: usize,
    pub boxes: usize,
    pub bins: usize,
    pub box_layers: usize,
    pub groups: usize,
    pub points_in: usize,
    pub points_out: usize,
    thresholds: [f64; 3],
    /// Largest side of an anchor that is looked at again, pixels.
    probed: f64,
    least: usize,
    smallest: f64,
    level_sides: Vec<f64>,
    position_unit: f64,
}

/// The recipe's `Geometry`, as the metadata has it.
#[derive(Deserialize)]
struct Recipe {
    strides: Vec<usize>,
    base_stride: usize,
    probe_strides: Vec<usize>,
    channels: usize,
    heads: usize,
    hidden: usize,
    activation: String,
    patch: usize,
    compressed: usize,
    generator_hidden: usize,
    base_anchors: usize,
    probe_anchors: usize,
    probe_low: f64,
    probe_high: f64,
    probe_side: f64,
    keep: f64,
    patch_overlap: f64,
    patch_cap: usize,
    min_selected: usize,
    min_anchors: usize,
    max_anchors: usize,
    smallest: f64,
    roi: usize,
    roi_samples: usize,
    level_sides: Vec<f64>,
    position_unit: f64,
    box_layers: usize,
    groups: usize,
    points_in: usize,
    points_out: usize,
}

impl Geometry {
    /// What the metadata of a file says, if it can be compiled.
    pub fn of(file: &HeadFile) -> Result<Self, Error> {
        let kind = Kinds::of(file)?;
        let recipe: Recipe = file.entry("geometry")?;
        let (side, classes): (usize, Vec<String>) = (file.entry("side")?, file.entry("classes")?);
        let powers = recipe.strides.iter().all(|stride| stride.is_power_of_two() && (4..=128).contains(stride));
        let doubled = recipe.strides.windows(2).all(|pair| pair[1] == 2 * pair[0]);
        let most = |value: usize, bound: u16| (1..=usize::from(bound)).contains(&value);
        let base = 5usize.saturating_mul(recipe.base_anchors);
        let checks = [
            (
                "strides must be three powers of two from 4 to 128, each twice the one before",
                recipe.strides.len() == 3 && powers && doubled,
            ),
            (
                "base_stride must be the second stride, and probe_strides the first alone",
                recipe.strides.get(1) == Some(&recipe.base_stride)
                    && recipe.strides.get(..1) == Some(&recipe.probe_strides[..]),
            ),
            (
                "side must be at most 2047 and as many cells of the base map as two patches",
                most(side, 2047) && side == 2 * recipe.patch * recipe.base_stride,
            ),
            ("activation must be relu", recipe.activation == "relu"),
            ("roi_samples must be 1", recipe.roi_samples == 1),
            ("patch_overlap must be 0.25", recipe.patch_overlap == 0.25),
            ("min_selected must be 1", recipe.min_selected == 1),
            ("probe_side must be from 0 to 1", (0.0..=1.0).contains(&recipe.probe_side)),
            ("patch_cap is out of range", most(recipe.patch_cap, plan::layout::MAX_PATCHES)),
            ("max_anchors is out of range", most(recipe.max_anchors, plan::layout::MAX_BOXES)),
            ("base_anchors is out of range", most(base, plan::layout::MAX_ANCHORS)),
            (
                "probe_anchors is out of range",
                most(recipe.probe_anchors.saturating_mul(recipe.patch_cap), plan::layout::MAX_ANCHORS),
            ),
            ("level_sides must be two", recipe.level_sides.len() == 2),
            (
                "channels must be a multiple of heads, of groups and of 8",
                most(recipe.channels, 2048)
                    && most(recipe.heads, 64)
                    && most(recipe.groups, 64)
                    && recipe.channels.is_multiple_of(recipe.heads)
                    && recipe.channels.is_multiple_of(recipe.groups)
                    && recipe.channels.is_multiple_of(8),
            ),
            (
                "a size is out of range",
                [
                    recipe.hidden,
                    recipe.patch,
                    recipe.compressed,
                    recipe.generator_hidden,
                    recipe.roi,
                    recipe.points_in,
                    recipe.points_out,
                ]
                .iter()
                .all(|&size| most(size, 8192))
                    && recipe.box_layers <= 16
                    && most(recipe.patch, 64)
                    && most(recipe.roi, 16),
            ),
            ("classes are out of range", most(classes.len(), 256)),
        ];
        if let Some((what, _)) = checks.iter().find(|(_, holds)| !holds) {
            return Err(file.bad(format!("geometry: {what}")));
        }
        // An image's head has patches. Without probing it has one that nothing asks for, as no logit lies between the thresholds,
        // and what it would hold are as many anchors as a base patch has.
        let (patches, probe_anchors, probe_high) = match kind {
            Kinds::NoProbing => (1, recipe.base_anchors, recipe.probe_low),
            _ => (recipe.patch_cap, recipe.probe_anchors, recipe.probe_high),
        };
        let logit = |probability: f64| (probability / (1.0 - probability)).ln();
        Ok(Self {
            kind,
            side,
            classes: classes.len(),
            probed: recipe.probe_side * (recipe.patch * recipe.strides[0]) as f64,
            strides: recipe.strides,
            channels: recipe.channels,
            heads: recipe.heads,
            hidden: recipe.hidden,
            patch: recipe.patch,
            compressed: recipe.compressed,
            generator_hidden: recipe.generator_hidden,
            base_anchors: recipe.base_anchors,
            probe_anchors,
            patches,
            boxes: recipe.max_anchors,
            bins: recipe.roi,
            box_layers: recipe.box_layers,
            groups: recipe.groups,
            points_in: recipe.points_in,
            points_out: recipe.points_out,
            thresholds: [recipe.probe_low, probe_high, recipe.keep].map(logit),
            least: recipe.min_anchors,
            smallest: recipe.smallest,
            level_sides: recipe.level_sides,
            position_unit: recipe.position_unit,
        })
    }

    fn stride_logs(&self) -> [u8; 3] {
        let mut logs = self.strides.iter().map(|stride| stride.ilog2() as u8);
        [(); 3].map(|()| logs.next().unwrap_or(0))
    }
}

/// Of `Select`, or with maps and the quantisation of what is pooled of `Pool`.
pub(super) fn generator(
    geometry: &Geometry,
    build: &Builder<'_>,
    pooling: Option<(&[usize], Quant)>,
) -> Result<Constants, Error> {
    let pixels = |length: f64| (16.0 * length).round() as u16;
    let [low, high, keep] = geometry.thresholds.map(|logit| (4096.0 * logit).round().clamp(-32_767.0, 32_767.0) as i16);
    let (side, half) = ((16 * geometry.side) as i16, (8 * geometry.side) as i16);
    let cells = (geometry.side / geometry.strides[0]) as u16;
    let mut multipliers = [0; 3];
    let mut shifts = [1; 3];
    if let Some((maps, to)) = pooling {
        for ((multiplier, shift), &map) in multipliers.iter_mut().zip(&mut shifts).zip(maps) {
            let factor = f64::from(build.tensors[map].1.scale) / (f64::from(to.scale) * 65_536.0);
            (*multiplier, *shift) = fixed_point(factor, "pooled")?;
        }
    }
    let record = plan::Generator {
        size: [side; 2],
        smallest: pixels(geometry.smallest),
        base_anchors: geometry.base_anchors as u16,
        probe_anchors: geometry.probe_anchors as u16,
        low,
        high,
        side: pixels(geometry.probed),
        patch: geometry.patch as u16,
        keep,
        least: geometry.least as u16,
        bins: geometry.bins as u8,
        strides: geometry.stride_logs(),
        sides: [pixels(geometry.level_sides[0]), pixels(geometry.level_sides[1])],
        shifts,
        zero_point: pooling.map_or(0, |(_, to)| to.zero_point),
        reserved: 0,
        multipliers,
        regions: 0,
        cells: [cells; 2],
        weights: 0,
        reserved2: 0,
    };
    let quadrant = |left: i16, top: i16, sides: i16| [left, top, sides, sides];
    let regions = [
        quadrant(0, 0, half),
        quadrant(half, 0, half),
        quadrant(0, half, half),
        quadrant(half, half, half),
        quadrant(0, 0, side),
    ];
    Ok(Constants::Generator {
        record,
        regions: regions.iter().flatten().flat_map(|value| value.to_le_bytes()).collect(),
    })
}

/// Step 18: for x and y 2^32 of a turn per 1/16 pixel, for z and r per 1/8192; radians fall from pair to pair.
pub(super) fn position_rates(geometry: &Geometry) -> Vec<u8> {
    let pairs = geometry.channels / 8;
    let turn = 8.0 * PI * geometry.position_unit;
    let falls = || (0..pairs).map(|pair| 10_000f64.powf(-(pair as f64) / pairs as f64));
    let place = || falls().map(|fall| (2f64.powi(32) / (16.0 * turn) * fall).round());
    let size = || falls().map(|fall| (2f64.powi(32) / (2.0 * PI * 8192.0) * fall).round());
    place().chain(place()).chain(size()).chain(size()).flat_map(|rate| (rate as u32).to_le_bytes()).collect()
}

/// Step 19; `scales` of queries, keys and values.
pub(super) fn attention(
    geometry: &Geometry,
    scales: [f32; 3],
    to: Quant,
    part: &str,
) -> Result<plan::Attention, Error> {
    let [query, key, value] = scales.map(f64::from);
    let width = geometry.channels / geometry.heads;
    let logit = query * key / (width as f64).sqrt() * LOG2_E * 256.0;
    let (logit_multiplier, logit_shift) = fixed_point(logit, part)?;
    let (multiplier, shift) = fixed_point(value / (32_768.0 * f64::from(to.scale)), part)?;
    let [channels, width] = [geometry.channels as u16, width as u16];
    Ok(plan::Attention {
        heads: geometry.heads as u16,
        query_first: 0,
        query_per_head: width,
        query_width: width,
        key_first: channels,
        key_per_head: width,
        value_first: 2 * channels,
        value_per_head: width,
        value_width: width,
        query_window: [geometry.boxes as u16, 1],
        key_window: [geometry.boxes as u16, 1],
        logit_shift,
        shift,
        logit_multiplier,
        multiplier,
        bias: 0,
        mask: 0,
        flags: 0,
        reserved: 0,
    })
}

/// Step 24: weights of the maps by the size of what is sampled, in steps of 1/16 of its logarithm, from 4 below the finest map to 3
/// above the coarsest. The scales of the maps are in them.
pub(super) fn sampling(
    geometry: &Geometry,
    build: &Builder<'_>,
    maps: &[usize],
    to: Quant,
) -> Result<Constants, Error> {
    let levels: Vec<f64> = geometry.strides.iter().map(|&stride| (stride as f64 / 4.0).log2()).collect();
    let first = levels[0] - 4.0;
    let steps = 16 * (levels.len() + 6) + 1;
    let factors: Vec<f64> =
        maps.iter().map(|&map| f64::from(build.tensors[map].1.scale) / f64::from(to.scale)).collect();
    let rows: Vec<Vec<f64>> = (0..steps)
        .map(|step| {
            let size = first + step as f64 / 16.0;
            let powers: Vec<f64> = levels.iter().map(|level| (-(size - level).powi(2) / 2.0).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.iter().zip(&factors).map(|(power, factor)| power / sum * factor).collect()
        })
        .collect();
    let largest = rows.iter().flatten().fold(0.0f64, |largest, &weight| largest.max(weight));
    // The finest that 16 bits hold.
    let fits = |shift: &u8| (largest * 2f64.powi(i32::from(*shift) - 16)).round() <= 65_535.0;
    let Some(shift) = (1..=40).rev().find(fits) else {
        return Err(build
            .file
            .bad(format!("`stage.samples`: a map counts {largest} steps of what is sampled from it")));
    };
    let weights =
        rows.iter().flatten().map(|weight| (weight * 2f64.powi(i32::from(shift) - 16)).round() as u16).collect();
    let record = plan::Sampling {
        groups: geometry.groups as u16,
        points: geometry.points_in as u16,
        first: (first * 4096.0) as i32,
        steps: steps as u16,
        strides: geometry.stride_logs(),
        shift,
        reserved: 0,
        weights: 0,
        reserved2: 0,
    };
    Ok(Constants::Sampling { record, weights })
}

/// Step 25: the layer that makes the matrices, and the norms. The file has the first matrix of a group input by output.
pub(super) fn mixing(
    geometry: &Geometry,
    build: &Builder<'_>,
    content: usize,
    to: Quant,
) -> Result<(ConvWeights, Constants), Error> {
    let name = "stage.mixing.generator";
    let Geometry { channels, groups, points_in, points_out, .. } = *geometry;
    let width = channels / groups;
    let per_group = width * width + points_in * points_out;
    let found = build.file.weights(name, [groups * per_group, 1, 1, channels])?;
    let found_bias = build.file.bias(name, groups * per_group)?;
    let source = |row: usize| {
        let (group, within) = (row / per_group, row % per_group);
        let turned = within % width * width + within / width;
        group * per_group + if within < width * width { turned } else { within }
    };
    let order: Vec<usize> = (0..groups * per_group).map(source).collect();
    let weights = found.select(ndarray::Axis(0), &order);
    let bias: Vec<f32> = order.iter().map(|&row| found_bias[row]).collect();
    let matrices = super::roomy(build.file.range("stage.matrices")?);
    let layer = integers(&weights, &bias, false, [build.tensors[content].1, matrices], name)?;
    let factor = |steps: f64| {
        let fits = |bits: &u8| (steps * 2f64.powi((*bits).into())).round() <= 32_767.0;
        let bits = (0..=15).rev().find(fits);
        bits.map(|bits| ((steps * 2f64.powi(bits.into())).round() as i16, bits))
            .ok_or_else(|| build.file.bad(format!("`stage.mixed`: a normalised 1 is {steps} steps; 32,767 at most")))
    };
    let (inner_factor, inner_bits) = factor(127.0 / f64::from(super::INNER_LARGEST))?;
    let (outer_factor, outer_bits) = factor(1.0 / f64::from(to.scale))?;
    let record = plan::Mixing {
        groups: groups as u16,
        width: width as u16,
        points_in: points_in as u16,
        points_out: points_out as u16,
        inner_factor,
        inner_bits,
        outer_bits,
        outer_factor,
        reserved: 0,
        // Half a step for rounding.
        inner_offset: 32,
        outer_offset: 64 * i32::from(to.zero_point) + 32,
        weights: 0,
        reserved2: 0,
    };
    Ok((layer, Constants::Mixing(record)))
}
