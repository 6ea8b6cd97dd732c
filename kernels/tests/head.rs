//! The head's operations: golden integers, their distance from real arithmetic, and whatever else they are given.

use kernels::head::{
    self, Anchor, Detection, GroupNorm, INVALID, Limits, Map, Mixing, Patch, PointSampling, Probing, Rect, Region,
    RegionPool, State, Suppression,
};
use kernels::{KernelError, LayerNorm, Shape, arch, layer_norm, softmax};

/// Golden integers of the specification, which another implementation gave.
#[test]
fn logarithms_and_powers_are_the_golden_ones() {
    assert_eq!([1, 3, 48, 960, 40_000].map(head::log2), [0, 6492, 22_876, 40_579, 62_618]);
    assert_eq!([0, 2048, 4096, 14_805, -1198].map(|z| head::exp2(z, 4)), [16, 23, 32, 196, 13]);
}

#[test]
fn functions_are_near_the_real_ones() {
    let mut most = [0f64; 4];
    let mut note = |which: usize, found: f64, exact: f64, limit: f64| {
        most[which] = most[which].max((found - exact).abs());
        assert!((found - exact).abs() < limit, "function {which}: {found} for {exact}");
    };
    for value in 0..=65_535u16 {
        let signed = value.cast_signed();
        note(0, head::sigmoid(signed).into(), 32_768.0 / (1.0 + (-f64::from(signed) / 4096.0).exp()), 1.3);
        let turn = f64::from(value) / 65_536.0 * std::f64::consts::TAU;
        note(1, head::sine(value).into(), 16_384.0 * turn.sin(), 1.0);
        note(1, head::cosine(value).into(), 16_384.0 * turn.cos(), 1.0);
        if signed > i16::MIN {
            assert_eq!(head::sigmoid(signed) + head::sigmoid(-signed), 32_768);
        }
        let integer = u64::from(value) + 1;
        for large in [integer, integer * integer, integer << 47] {
            note(2, head::log2(large).into(), 4096.0 * (large as f64).log2(), 1.5);
        }
        // 2^-2 to 2^14.
        let exponent = i32::from(value) - 8192;
        let exact = (f64::from(exponent) / 4096.0 + 8.0).exp2();
        let found = f64::from(head::exp2(exponent, 8));
        note(3, 0.0, ((found - exact).abs() - 0.5).max(0.0) / exact, 2f64.powi(-14));
    }
    println!("most: {most:?}");
}

#[test]
fn functions_take_every_value() {
    assert_eq!((head::log2(0), head::log2(u64::MAX)), (0, 64 * 4096));
    assert_eq!(head::exp2(i32::MIN, 15), 0);
    assert_eq!(
        (head::exp2(i32::MAX, 0), head::exp2(31 << 12, 0), head::exp2(30 << 12, 0)),
        (i32::MAX, i32::MAX, 1 << 30)
    );
    assert_eq!((head::sigmoid(i16::MIN), head::sigmoid(0), head::sigmoid(i16::MAX)), (11, 16_384, 32_757));
    assert_eq!([0, 0x4000, 0x8000, 0xc000].map(head::sine), [0, 16_384, 0, -16_384]);
}

/// Sides of 3 to 192 pixels survive the logarithm.
#[test]
fn sides_survive_their_logarithm() {
    for side in 3 * 16..=192 * 16 {
        assert_eq!(head::exp2(head::log2(side), 0), side as i32);
    }
}

/// The head shares softmax and layer normalisation with transformers.
#[test]
fn shared_operations_are_the_golden_ones() {
    let weights = |logits: &[i32]| {
        let mut bytes: Vec<i8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).map(u8::cast_signed).collect();
        let mut out = vec![0; 2 * logits.len()];
        softmax(arch::Scalar, logits.len() as u16, &mut bytes, &mut out).unwrap();
        out.as_chunks()
            .0
            .iter()
            .map(|&pair: &[i8; 2]| i16::from_le_bytes(pair.map(i8::cast_unsigned)))
            .collect::<Vec<_>>()
    };
    // Golden logits are natural; ours are exponents of 2. Round as the golden ones do.
    for (logits, golden) in [
        (vec![512, 256, 0, -4096], vec![21_796i16, 8025, 2947, 0]),
        (vec![0; 5], vec![6554; 5]),
        (vec![100, -100, 700, 650, -3000, 699], vec![1061, 487, 11_070, 9110, 0, 11_040]),
    ] {
        let most = logits.iter().max().unwrap();
        let exponents: Vec<i32> = logits.iter().map(|logit| -(((most - logit) * 23_637 + 8192) >> 14)).collect();
        let found = weights(&exponents);
        assert_eq!(found, golden);
    }
    let values = [100i16, -50, 25, 300, -1200, 7, 0, 818];
    let row: Vec<i8> = values.iter().flat_map(|value| value.to_le_bytes()).map(u8::cast_signed).collect();
    let factor: Vec<u8> = [32i16 << 9; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let offset: Vec<u8> = [32i32; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let (channels, factor_bits, epsilon, min, max) = (8, 9, 0, -128, 127);
    let op = LayerNorm { channels, factor: &factor, factor_bits, offset: &offset, epsilon, min, max };
    let mut out = [0; 8];
    layer_norm(arch::Scalar, &op, &row, &mut out).unwrap();
    assert_eq!(out, [6, -3, 2, 18, -73, 0, 0, 50]);
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn within(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low) as u64) as i64
    }

    fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.next() as i8).collect()
    }

    /// In and around a picture of 160 pixels.
    fn rect(&mut self) -> Rect {
        let [x, y] = [(); 2].map(|()| self.within(-100, 2660) as i16);
        let [w, h] = [(); 2].map(|()| self.within(48, 2560) as u16);
        Rect { x, y, w, h }
    }
}

fn pixels(rect: Rect) -> [f64; 4] {
    [rect.x.into(), rect.y.into(), rect.w.into(), rect.h.into()].map(|value: f64| value / 16.0)
}

#[test]
fn refined_boxes_are_near_the_real_ones() {
    let mut random = Random(5);
    for _ in 0..3000 {
        let (rect, delta) = (random.rect(), [(); 4].map(|()| random.within(-4096, 4096) as i16));
        let ([x, y, w, h], [dx, dy, dz, dr]) = (pixels(rect), delta.map(|delta| f64::from(delta) / 4096.0));
        let side = (w * h).sqrt();
        let exact = [x + dx * side, y + dy * side, w * (dz - dr).exp2(), h * (dz + dr).exp2()];
        for (found, exact) in pixels(State::from(rect).refined(delta).into()).into_iter().zip(exact) {
            // Half a step, and a logarithm and a power away.
            let limit = 1.0 / 32.0 + 4e-4 * exact.abs().max(side);
            assert!((found - exact).abs() < limit, "{found} for {exact}: {rect:?} {delta:?}");
        }
    }
}

#[test]
fn overlaps_are_near_the_real_ones() {
    let mut random = Random(6);
    let rects: Vec<Rect> = (0..60).map(|_| random.rect()).collect();
    // tau 1 and 4.
    let tau: Vec<u8> = [2048i16, 8192].into_iter().flat_map(i16::to_le_bytes).collect();
    let mut bias = vec![0; 2 * 2 * 3600];
    head::overlap_bias(&rects, &tau, &mut bias).unwrap();
    let bias: Vec<i16> = from_int16s(&bias);
    let (mut none, mut partly) = (0, 0);
    for (index, (a, b)) in rects.iter().flat_map(|a| rects.iter().map(move |b| (a, b))).enumerate() {
        let ends = |rect: &Rect| {
            let [x, y, w, h] = pixels(*rect);
            [[x - w / 2.0, x + w / 2.0], [y - h / 2.0, y + h / 2.0]]
        };
        let common: f64 =
            ends(a).iter().zip(ends(b)).map(|(a, b)| (a[1].min(b[1]) - a[0].max(b[0])).max(0.0)).product();
        let [_, _, w, h] = pixels(*a);
        let exact = (common / (w * h) + 1e-7).log2();
        assert!((f64::from(bias[index]) / 256.0 - exact).abs() < 3e-3, "{} for {exact}", bias[index]);
        assert!((f64::from(bias[3600 + index]) / 256.0 - 4.0 * exact).abs() < 5e-3);
        none += usize::from(common == 0.0);
        partly += usize::from(common > 0.0 && common < w * h);
    }
    assert!(none > 100 && partly > 100);
}

fn from_int16s(bytes: &[i8]) -> Vec<i16> {
    bytes.as_chunks().0.iter().map(|&pair: &[i8; 2]| i16::from_le_bytes(pair.map(i8::cast_unsigned))).collect()
}

#[test]
fn position_codes_are_near_the_real_ones() {
    let mut random = Random(7);
    let falls: Vec<f64> = (0..8).map(|k| 10_000f64.powf(-f64::from(k) / 8.0)).collect();
    // A turn in 160 pixels; radians.
    let units = [2f64.powi(32) / 2560.0, 2f64.powi(32) / 2560.0, 2f64.powi(32) / (std::f64::consts::TAU * 8192.0)];
    let rates: Vec<u8> = [units[0], units[1], units[2], units[2]]
        .iter()
        .flat_map(|unit| falls.iter().map(move |fall| (unit * fall).round() as u32))
        .flat_map(u32::to_le_bytes)
        .collect();
    for _ in 0..200 {
        let rect = random.rect();
        let mut code = vec![0; 128];
        head::position_code(&[rect.into()], &rates, &mut code).unwrap();
        let [x, y, w, h] = pixels(rect);
        let (z, r) = ((w * h / 16.0).log2() / 2.0, (h / w).log2() / 2.0);
        let angles = [x * std::f64::consts::TAU / 160.0, y * std::f64::consts::TAU / 160.0, z, r];
        let exact = angles
            .iter()
            .flat_map(|angle| falls.iter().flat_map(move |fall| [(angle * fall).sin(), (angle * fall).cos()]));
        for (found, exact) in from_int16s(&code).into_iter().zip(exact) {
            assert!((f64::from(found) / 16_384.0 - exact).abs() < 3e-4, "{found} for {exact}");
        }
    }
}

struct Maps {
    shapes: [(Shape, u8); 3],
    values: Vec<Vec<i8>>,
}

impl Maps {
    fn new(random: &mut Random) -> Self {
        let shapes =
            [(20, 3), (10, 4), (5, 5)].map(|(side, stride)| (Shape { height: side, width: side, channels: 4 }, stride));
        Self { shapes, values: shapes.iter().map(|(shape, _)| random.bytes(shape.len())).collect() }
    }

    fn list(&self) -> Vec<Map<'_>> {
        let map =
            |(&(shape, stride_log2), values): (&(Shape, u8), _)| Map { shape, values, zero_point: 0, stride_log2 };
        self.shapes.iter().zip(&self.values).map(|(shape, values)| map((shape, values.as_slice()))).collect()
    }

    /// Bilinear, a cell's middle being a whole number; zero outside.
    fn at(&self, level: usize, x: f64, y: f64, channel: usize) -> f64 {
        let side = i64::from(self.shapes[level].0.width);
        let mut sum = 0.0;
        for row in 0..side {
            for column in 0..side {
                let weight = (1.0 - (x - column as f64).abs()).max(0.0) * (1.0 - (y - row as f64).abs()).max(0.0);
                sum += weight * f64::from(self.values[level][((row * side + column) * 4) as usize + channel]);
            }
        }
        sum
    }
}

/// A coordinate is half of 1/256 cell off, and neighbours differ by 255: one step in both directions, and the rounding.
const SAMPLE_LIMIT: f64 = 1.5;

#[test]
fn pooled_boxes_are_near_the_real_ones() {
    let mut random = Random(8);
    let maps = Maps::new(&mut random);
    // A Q16 sample divided by 2^16.
    let rescales = [(1 << 30, 46); 3];
    let list = maps.list();
    let op = RegionPool { maps: &list, sides: &[24 * 16, 64 * 16], bins: 4, rescales: &rescales, zero_point: 0 };
    let mut of_level = [0; 3];
    for _ in 0..300 {
        let mut rect = random.rect();
        (rect.w, rect.h) =
            (rect.w / [1, 2, 8][random.next() as usize % 3], rect.h / [1, 8][random.next() as usize % 2]);
        let mut found = [0; 64];
        head::pool_regions(&op, &[rect], &mut found).unwrap();
        let [cx, cy, w, h] = pixels(rect);
        let level = [24.0, 64.0].iter().filter(|&&side: &&f64| (w * h).sqrt() >= side).count();
        of_level[level] += 1;
        let (stride, side) = ([8.0, 16.0, 32.0][level], [20.0, 10.0, 5.0][level]);
        for (index, &found) in found.iter().enumerate() {
            let place = |centre: f64, size: f64, bin: usize| {
                (centre - size / 2.0) / stride + (size / stride).max(1.0) * (bin as f64 + 0.5) / 4.0
            };
            let (x, y) = (place(cx, w, index / 4 % 4), place(cy, h, index / 16));
            if [x, y].iter().any(|at| (at + 1.0).abs() < 0.01 || (at - side).abs() < 0.01) {
                continue; // on the edge of the rule
            }
            let inside = x >= -1.0 && x <= side && y >= -1.0 && y <= side;
            let exact = if inside {
                maps.at(level, x.clamp(0.0, side - 1.0), y.clamp(0.0, side - 1.0), index % 4)
            } else {
                0.0
            };
            assert!((f64::from(found) - exact).abs() < SAMPLE_LIMIT, "{found} for {exact}: {rect:?}, {index}");
        }
    }
    assert!(of_level.iter().all(|&count| count > 20), "{of_level:?}");
}

#[test]
fn sampled_points_are_near_the_real_ones() {
    let mut random = Random(9);
    let maps = Maps::new(&mut random);
    // Levels of strides 8, 16, 32 in units of 4 pixels: 1, 2, 3.
    let level_weights = |at: f64| {
        let powers = [1.0, 2.0, 3.0].map(|level: f64| (-(at - level).powi(2) / 2.0).exp());
        powers.map(|power| power / powers.iter().sum::<f64>())
    };
    let steps = (0..145).flat_map(|step| level_weights(f64::from(step) / 16.0 - 3.0));
    let weights: Vec<u8> = steps.map(|weight| (weight * 16_384.0).round() as u16).flat_map(u16::to_le_bytes).collect();
    let list = maps.list();
    let op = PointSampling { maps: &list, groups: 2, points: 8, weights: &weights, first: -3 * 4096, shift: 30 };
    let (mut most, mut inside) = (0f64, 0);
    for _ in 0..200 {
        let rect = random.rect();
        let offsets: Vec<i16> = (0..48).map(|_| random.within(-4096, 4096) as i16).collect();
        let raw: Vec<i8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).map(u8::cast_signed).collect();
        let mut found = [0; 32];
        head::sample_points(&op, &[rect.into()], &raw, &mut found).unwrap();
        let [x, y, w, h] = pixels(rect);
        for (index, &found) in found.iter().enumerate() {
            let [dx, dy, dz] = [0, 1, 2].map(|part| f64::from(offsets[index / 2 * 3 + part]) / 4096.0);
            let (px, py, size) = (x + dx * w, y + dy * h, (w * h / 16.0).log2() / 2.0 + dz);
            let channel = index / 16 * 2 + index % 2;
            let exact: f64 = level_weights(size)
                .iter()
                .enumerate()
                .map(|(level, weight)| {
                    let stride = [8.0, 16.0, 32.0][level];
                    weight * maps.at(level, px / stride - 0.5, py / stride - 0.5, channel)
                })
                .sum();
            most = most.max((f64::from(found) - exact).abs());
            inside += usize::from(exact != 0.0);
        }
    }
    println!("points: at most {most} steps");
    // The steps of 1/16 in the maps' weights come on top.
    assert!(most < 2.5 && inside > 1000, "{most}, {inside}");
}

fn mixed(op: &Mixing, points: &[i8], matrices: [&[i8]; 2]) -> Vec<i8> {
    let mut output = vec![1; usize::from(op.points_out) * usize::from(op.width)];
    let mut scratch = vec![9; head::mix_scratch(op.points_in, op.points_out, op.width)];
    head::mix(arch::Scalar, op, points, matrices, &mut output, &mut scratch).unwrap();
    output
}

/// Steps of 1/32 of a deviation, at most four of them; nothing below zero.
const MIXING: Mixing = {
    let norm = GroupNorm { factor: 32 << 9, factor_bits: 9, offset: 32, min: 0, max: 127 };
    Mixing { points_in: 8, points_out: 16, width: 32, inner: norm, outer: norm }
};

#[test]
fn a_mixing_is_near_the_real_one() {
    let mut random = Random(10);
    let normalised = |values: Vec<f64>| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        values.iter().map(|value| ((value - mean) / variance.sqrt()).clamp(0.0, 127.0 / 32.0)).collect()
    };
    let (mut squares, mut count) = (0.0, 0);
    for _ in 0..30 {
        let (points, channels, matrix) = (random.bytes(256), random.bytes(1024), random.bytes(128));
        let product = |a: usize, b: usize, depth: usize, left: &dyn Fn(usize) -> f64, right: &dyn Fn(usize) -> f64| {
            let dot = |row: usize, column: usize| {
                (0..depth).map(|at| left(row * depth + at) * right(column * depth + at)).sum()
            };
            (0..a * b).map(|index| dot(index / b, index % b)).collect::<Vec<f64>>()
        };
        let inner = normalised(product(32, 8, 32, &|at| channels[at].into(), &|at| points[at].into()));
        let exact = normalised(product(16, 32, 8, &|at| matrix[at].into(), &|at| inner[at]));
        for (found, exact) in mixed(&MIXING, &points, [&channels, &matrix]).into_iter().zip(exact) {
            squares += (f64::from(found) - 32.0 * exact).powi(2);
            count += 1;
        }
    }
    let error = (squares / f64::from(count)).sqrt();
    println!("mixing: {error} steps");
    // Rounding alone is 0.29 of a step.
    assert!(error < 0.6, "{error}");
}

/// What a group of dynamic matrices is scaled by is no part of the result; all samples outside of the maps are nothing.
#[test]
fn a_mixing_has_no_scale_and_takes_equal_values() {
    let mut random = Random(11);
    let (points, matrix) = (random.bytes(256), random.bytes(128));
    let raw: Vec<i16> = (0..1024).map(|_| random.within(-500, 500) as i16).collect();
    let narrowed = |by: i16| {
        let scaled: Vec<i8> = raw.iter().flat_map(|value| (value * by).to_le_bytes()).map(u8::cast_signed).collect();
        let mut narrow = vec![0; 1024];
        head::narrow(&scaled, &mut narrow).unwrap();
        narrow
    };
    let plain = mixed(&MIXING, &points, [&narrowed(1), &matrix]);
    assert_eq!(mixed(&MIXING, &points, [&narrowed(32), &matrix]), plain);
    assert!(plain.iter().any(|&value| value > 0));
    for value in [-128, 0, 127] {
        assert_eq!(mixed(&MIXING, &[0; 256], [&[value; 1024], &[value; 128]]), [0; 512]);
        assert_eq!(mixed(&MIXING, &[127; 256], [&[value; 1024], &[-128; 128]]), [0; 512]);
    }
}

const PROBING: Probing = Probing { low: -9000, high: 3470, side: 320, patch: 5, stride_log2: 3, cells: [20, 20] };

#[test]
fn the_number_of_patches_is_capped_and_ties_go_to_the_lower_index() {
    let anchor = |x: i16, logit| Anchor { rect: Rect { x, y: 800, w: 100, h: 100 }, logit };
    let mut patches = [Patch::default(); 4];
    let apart: Vec<Anchor> = (0..8).map(|index| anchor(index * 1000, 0)).collect();
    assert_eq!(PROBING.patches(&apart, &mut patches), Ok(4));
    assert_eq!(patches.map(|patch| patch.anchor), [0, 1, 2, 3]);
    assert_eq!(patches[0].corner, [0, 3]);
    // All at one place: the best one, of equals the first.
    let same: Vec<Anchor> = (0..8).map(|index| anchor(800, [5, 7][index % 2])).collect();
    assert_eq!((PROBING.patches(&same, &mut patches), patches[0].anchor), (Ok(1), 1));
    // Thresholds exclude themselves; nothing asks.
    let none = [anchor(800, -9000), anchor(800, 3470), anchor(800, INVALID), Anchor::default()];
    let none = none.map(|anchor| if anchor.rect.w == 0 { Anchor { logit: 3470, ..anchor } } else { anchor });
    assert_eq!(PROBING.patches(&none, &mut patches), Ok(0));
    // IoU of exactly 1/4 does not suppress: 5·c·640 = 2·640² at c = 256.
    let pair = [anchor(0, 0), anchor(384, 0)];
    assert_eq!(PROBING.patches(&pair, &mut patches), Ok(2));
    assert_eq!(PROBING.patches(&[pair[0], anchor(383, 0)], &mut patches), Ok(1));
    // Fewer sure anchors than the least: exactly the least, invalid ones too.
    let mut kept = [Anchor::default(); 4];
    assert_eq!(head::remaining(0, 3, Some(&PROBING), [&none, &[]], &mut kept), Ok(3));
    assert_eq!(kept.map(|anchor| anchor.logit)[..3], [3470, 3470, -9000]);
    assert_eq!(head::remaining(0, 2, Some(&PROBING), [&none, &[]], &mut kept), Ok(2));
}

/// Whatever bytes an image or a layer may give ends in a result or an error.
#[test]
fn nothing_panics() {
    let mut random = Random(12);
    let edge = [i16::MIN, -1, 0, 1, i16::MAX];
    let mut fine = 0;
    for _ in 0..3000 {
        let any = |random: &mut Random| {
            if random.next().is_multiple_of(2) { edge[random.next() as usize % 5] } else { random.next() as i16 }
        };
        let mut rect = || {
            let [x, y, w, h] = [(); 4].map(|()| any(&mut random));
            Rect { x, y, w: w as u16, h: h as u16 }
        };
        let rects = [rect(), rect(), rect()];
        let states = rects.map(|Rect { x, y, w, h }| State { x, y, w, h });
        let [a, b, c, d, e, f, g] = [(); 7].map(|()| any(&mut random));
        assert!(states.iter().all(|state| Rect::from(state.refined([a, b, c, d])).w > 0));
        let raw = random.bytes(30);
        let mut anchors = [Anchor::default(); 3];
        let region = Region { left: a, top: b, width: c as u16, height: d as u16 };
        head::decode(&region, &Limits { smallest: e as u16, size: [f, g] }, &raw, &mut anchors).unwrap();
        let (side, stride_log2) = (c as u16, (d & 15) as u8);
        let probing = Probing { low: a, high: b, side, patch: e as u16, stride_log2, cells: [f as u16, g as u16] };
        let mut patches = [Patch::default(); 2];
        fine += usize::from(probing.patches(&anchors, &mut patches).is_ok());
        let mut kept = [Anchor::default(); 6];
        head::remaining(a, b as usize, Some(&probing), [&anchors, &anchors], &mut kept).unwrap();
        head::cap(&kept, &mut anchors).unwrap();
        let (tau, rates) = (random.bytes(4).into_iter().map(i8::cast_unsigned).collect::<Vec<_>>(), [255; 32]);
        head::overlap_bias(&rects, &tau, &mut [0; 36]).unwrap();
        head::position_code(&states, &rates, &mut [0; 96]).unwrap();
        head::detect(&states, 5, &raw, [a, b], &mut [Detection::default(); 20]).unwrap();
        let shape = Shape { height: 2, width: 1 + (a as u16 & 3), channels: 2 };
        let values = random.bytes(shape.len());
        let map = Map { shape, values: &values, zero_point: a as i8, stride_log2: (b & 7) as u8 };
        let (sides, shift) = ([e as u16], 1 + (f as u8) % 62);
        let rescales = [(i32::from(a) << 16 | 0x7fff, shift); 2];
        let op = RegionPool { maps: &[map; 2], sides: &sides, bins: 255, rescales: &rescales, zero_point: -128 };
        if random.next().is_multiple_of(50) {
            head::pool_regions(&op, &rects[..1], &mut vec![0; 255 * 255 * 2]).unwrap();
        }
        head::pool_regions(&RegionPool { bins: 3, ..op }, &rects, &mut [0; 54]).unwrap();
        let first = i32::from(a) << (b & 16);
        let op = PointSampling { maps: &[map; 2], groups: 2, points: 1, weights: &[255; 12], first, shift };
        head::sample_points(&op, &states, &random.bytes(36), &mut [0; 6]).unwrap();
        let values = random.bytes(2 * 2 * usize::from(shape.width) * 6);
        let map = Map { shape: Shape { channels: 6, ..shape }, values: &values, ..map };
        let op = Suppression { floor: f, overlap: e as u16, size: [a, b] };
        let mut found = [Detection::default(); 5];
        head::suppress(&op, &[map; 2], 2, &mut [0; 64], &mut found[..(g & 3) as usize]).unwrap();
        let norm = |random: &mut Random, bits| {
            let [offset, factor] = [random.next() as i32, random.next() as i32];
            GroupNorm { factor: factor as i16, factor_bits: bits, offset, min: 5, max: -5 }
        };
        let (inner, outer) = (norm(&mut random, (a & 15) as u8), norm(&mut random, (b & 15) as u8));
        let op = Mixing { points_in: 4, points_out: 2, width: 4, inner, outer };
        let (points, matrices) = (random.bytes(16), [random.bytes(16), random.bytes(8)]);
        mixed(&op, &points, [&matrices[0], &matrices[1]]);
    }
    assert!(fine > 100, "{fine}");
}

#[test]
fn wrong_lengths_are_errors() {
    let shape = Shape { height: 2, width: 2, channels: 2 };
    let map = Map { shape, values: &[1; 8], zero_point: 0, stride_log2: 3 };
    let rescales = [(1, 1)];
    let pool = RegionPool { maps: &[map], sides: &[], bins: 2, rescales: &rescales, zero_point: 0 };
    let run = |op: &RegionPool<'_>, output: usize| head::pool_regions(op, &[Rect::default()], &mut vec![0; output]);
    assert_eq!(run(&pool, 8), Ok(()));
    assert_eq!(run(&pool, 9), Err(KernelError::Output));
    assert_eq!(run(&RegionPool { maps: &[], ..pool }, 8), Err(KernelError::Geometry));
    assert_eq!(run(&RegionPool { bins: 0, ..pool }, 8), Err(KernelError::Geometry));
    assert_eq!(run(&RegionPool { sides: &[1], ..pool }, 8), Err(KernelError::Geometry));
    assert_eq!(run(&RegionPool { rescales: &[(1, 0)], ..pool }, 8), Err(KernelError::Weights));
    for map in [Map { values: &[1; 7], ..map }, Map { stride_log2: 8, ..map }] {
        assert_eq!(run(&RegionPool { maps: &[map], ..pool }, 8), Err(KernelError::Input));
    }
    let op = PointSampling { maps: &[map], groups: 2, points: 3, weights: &[0; 6], first: 0, shift: 1 };
    let run = |op: &PointSampling<'_>, offsets: usize, output: usize| {
        head::sample_points(op, &[State::default()], &vec![0; offsets], &mut vec![0; output])
    };
    assert_eq!(run(&op, 36, 6), Ok(()));
    assert_eq!(run(&op, 35, 6), Err(KernelError::Input));
    assert_eq!(run(&op, 36, 5), Err(KernelError::Output));
    assert_eq!(run(&PointSampling { groups: 3, ..op }, 36, 6), Err(KernelError::Geometry));
    assert_eq!(run(&PointSampling { maps: &[map; 9], ..op }, 36, 6), Err(KernelError::Geometry));
    for weights in [&[][..], &[0; 5]] {
        assert_eq!(run(&PointSampling { weights, ..op }, 36, 6), Err(KernelError::Weights));
    }
    let matrices: [&[i8]; 2] = [&[0; 1024], &[0; 128]];
    let run = |op: &Mixing, points: usize, output: usize, scratch: usize| {
        head::mix(arch::Scalar, op, &vec![0; points], matrices, &mut vec![0; output], &mut vec![0; scratch])
    };
    let scratch = head::mix_scratch(8, 16, 32);
    assert_eq!(run(&MIXING, 256, 512, scratch), Ok(()));
    assert_eq!(run(&MIXING, 255, 512, scratch), Err(KernelError::Input));
    assert_eq!(run(&MIXING, 256, 511, scratch), Err(KernelError::Output));
    assert_eq!(run(&MIXING, 256, 512, scratch - 1), Err(KernelError::Scratch));
    let inner = GroupNorm { factor_bits: 16, ..MIXING.inner };
    assert_eq!(run(&Mixing { inner, ..MIXING }, 256, 512, scratch), Err(KernelError::Weights));
    for op in [Mixing { width: 30, ..MIXING }, Mixing { points_in: 0, ..MIXING }, Mixing { points_out: 66, ..MIXING }] {
        assert_eq!(run(&op, 256, 512, scratch), Err(KernelError::Geometry));
    }
    assert_eq!(head::narrow(&[0; 5], &mut [0; 2]), Err(KernelError::Output));
    assert_eq!(head::overlap_bias(&[Rect::default()], &[0; 3], &mut [0; 2]), Err(KernelError::Weights));
    assert_eq!(head::overlap_bias(&[Rect::default()], &[0; 2], &mut [0; 3]), Err(KernelError::Output));
    assert_eq!(head::position_code(&[], &[0; 12], &mut []), Err(KernelError::Weights));
    assert_eq!(head::position_code(&[State::default()], &[0; 16], &mut [0; 15]), Err(KernelError::Output));
    assert_eq!(head::detect(&[], 0, &[], [0; 2], &mut []), Err(KernelError::Geometry));
    assert_eq!(head::detect(&[State::default()], 2, &[0; 3], [0; 2], &mut []), Err(KernelError::Input));
    let region = Region { left: 0, top: 0, width: 1, height: 1 };
    let limits = Limits { smallest: 0, size: [1; 2] };
    assert_eq!(head::decode(&region, &limits, &[0; 11], &mut [Anchor::default()]), Err(KernelError::Input));
    assert_eq!(head::remaining(0, 0, None, [&[Anchor::default()], &[]], &mut []), Err(KernelError::Output));
    let wide = Probing { patch: 512, ..PROBING };
    assert_eq!(wide.patches(&[], &mut []), Err(KernelError::Geometry));
    assert_eq!(Probing { stride_log2: 8, ..PROBING }.patches(&[], &mut []), Err(KernelError::Geometry));
    let map = Map { shape: Shape { channels: 6, ..shape }, values: &[0; 48], zero_point: 0, stride_log2: 3 };
    let run = |map: Map<'_>, classes: u16, scratch: usize| {
        let mut found = [Detection::default(); 4];
        head::suppress(&SUPPRESSION, &[map], classes, &mut vec![0; scratch], &mut found)
    };
    assert_eq!(run(map, 2, 16), Ok(4));
    assert_eq!(run(map, 2, 15), Err(KernelError::Scratch));
    assert_eq!(run(map, 0, 16), Err(KernelError::Geometry));
    assert_eq!(run(map, 3, 24), Err(KernelError::Geometry));
    assert_eq!(run(Map { values: &[0; 47], ..map }, 2, 16), Err(KernelError::Input));
    assert_eq!(run(Map { stride_log2: 8, ..map }, 2, 16), Err(KernelError::Geometry));
}

const SUPPRESSION: Suppression = Suppression { floor: -18_000, overlap: 19_661, size: [160 * 16; 2] };

/// What suppression means, in real numbers: the boxes that are left do not overlap, and each that is gone does, with a surer one.
#[test]
fn suppression_leaves_the_surest_of_those_that_overlap() {
    let (classes, sides) = (3, [20u16, 10, 5]);
    let mut state = 1u64;
    let mut draw = |from: f64, to: f64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (to - from) * (state >> 40) as f64 / (1u64 << 24) as f64
    };
    for round in 0..20 {
        let room = if round % 4 == 0 { 12 } else { 600 };
        let mut values = sides.map(|side| vec![0i16; usize::from(side * side) * 7]);
        for cell in values.iter_mut().flat_map(|map| map.chunks_exact_mut(7)) {
            let (logits, distances) = cell.split_at_mut(classes);
            // A third of the cells is below the floor; many logits are equal.
            logits.iter_mut().for_each(|value| *value = 512 * draw(-60.0, 20.0) as i16);
            distances.iter_mut().for_each(|value| *value = (4096.0 * draw(-0.5, 5.0 - f64::from(round % 3))) as i16);
        }
        let bytes = values
            .each_ref()
            .map(|map| map.iter().flat_map(|v| v.to_le_bytes()).map(u8::cast_signed).collect::<Vec<i8>>());
        let maps: Vec<Map<'_>> = (0..3)
            .map(|at| {
                let shape = Shape { height: sides[at], width: sides[at], channels: 7 };
                Map { shape, values: &bytes[at], zero_point: 0, stride_log2: 3 + at as u8 }
            })
            .collect();
        let mut found = vec![Detection::default(); room];
        let mut scratch = vec![0; head::suppress_scratch(525 * classes)];
        let count = head::suppress(&SUPPRESSION, &maps, classes as u16, &mut scratch, &mut found).expect("they fit");
        found.truncate(count);

        // Corners, class and logit of all pairs above the floor, surest first.
        let mut all: Vec<([f64; 4], u16, i16)> = vec![];
        for (at, map) in values.iter().enumerate() {
            let (side, stride) = (usize::from(sides[at]), f64::from(8 << at));
            for (cell, values) in map.chunks_exact(7).enumerate() {
                let centre = [cell % side, cell / side].map(|at| (at as f64 + 0.5) * stride * 16.0);
                let far = |side: usize| (f64::from(values[classes + side]) / 4096.0).min(4.0).exp() * stride * 16.0;
                let corners = [centre[0] - far(0), centre[1] - far(1), centre[0] + far(2), centre[1] + far(3)];
                let sure = (0..classes).filter(|&class| values[class] > SUPPRESSION.floor);
                all.extend(sure.map(|class| (corners, class as u16, values[class])));
            }
        }
        all.sort_by_key(|&(_, _, logit)| std::cmp::Reverse(logit));
        let overlap = |a: &[f64; 4], b: &[f64; 4]| {
            let area = |c: [f64; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
            let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
            common / (area(*a) + area(*b) - common)
        };
        let mut left: Vec<([f64; 4], u16, i16)> = vec![];
        let mut rest = found.iter();
        for one in &all {
            let most = left.iter().filter(|other| other.1 == one.1).map(|other| overlap(&other.0, &one.0));
            let most = most.fold(0.0, f64::max);
            let clipped = one.0.map(|end| end.clamp(0.0, 2560.0));
            let is = |found: &Detection| {
                let near = found.corners.iter().zip(clipped).all(|(&a, b)| (f64::from(a) - b).abs() < 12.0);
                near && (found.class, found.logit) == (one.1, one.2)
            };
            // At the limit either is right.
            if rest.clone().next().is_some_and(is) && most < 0.605 {
                left.push(*one);
                rest.next();
            } else {
                assert!(most > 0.595 || left.len() == room, "round {round}: {one:?} is gone, {most}");
            }
        }
        assert_eq!(rest.next(), None, "round {round}");
        assert!(left.len() > 5 && left.len() < all.len(), "round {round}: {} of {}", left.len(), all.len());
    }
}
