//! What the definitions lose against real arithmetic, in f64.

use kernels::{LayerNorm, arch, layer_norm, reference, softmax};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound as u64) as i64
    }

    /// About normal: mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next() as f64 / 2f64.powi(32)).sum::<f64>() - 6.0
    }
}

#[test]
fn powers_of_two_are_rounded_right() {
    for (index, &entry) in reference::EXP2.iter().enumerate() {
        let exact = 32_768.0 * (-(index as f64) / 256.0).exp2();
        assert!((exact - f64::from(entry)).abs() < 0.499_99, "{index}: {entry} for {exact}");
    }
}

/// Sum of the differences of a row's weights from its exact softmax.
fn softmax_error(logits: &[i32]) -> f64 {
    let mut bytes: Vec<i8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).map(u8::cast_signed).collect();
    let mut weights = vec![0; 2 * logits.len()];
    softmax(arch::Scalar, logits.len() as u16, &mut bytes, &mut weights).unwrap();
    let most = f64::from(*logits.iter().max().unwrap());
    let powers: Vec<f64> = logits.iter().map(|&logit| ((f64::from(logit) - most) / 256.0).exp2()).collect();
    let sum: f64 = powers.iter().sum();
    let found = weights
        .as_chunks()
        .0
        .iter()
        .map(|&[low, high]| f64::from(i16::from_le_bytes([low.cast_unsigned(), high.cast_unsigned()])) / 32_768.0);
    powers.iter().zip(found).map(|(power, found)| (power / sum - found).abs()).sum()
}

#[test]
fn a_row_of_softmax_is_near_the_exact_one() {
    let mut random = Random(1);
    let mut worst = (0.0, 0, 0.0);
    for keys in [1, 2, 3, 17, 50, 65, 197, 199] {
        for spread in [1.0, 100.0, 256.0, 700.0, 2000.0, 10_000.0] {
            for _ in 0..50 {
                let logits: Vec<i32> = (0..keys).map(|_| (spread * random.normal()) as i32).collect();
                let error = softmax_error(&logits);
                if error > worst.0 {
                    worst = (error, keys, spread);
                }
            }
        }
    }
    let (error, keys, spread) = worst;
    println!("worst row: L1 {error:.2e}, {keys} keys, deviation {spread} / 256 binary orders");
    assert!(error <= 2e-3);
}

/// A long row loses to the 15 bits of a weight: half a unit each.
#[test]
fn the_longest_row_of_softmax_loses_half_a_unit_per_weight() {
    let mut random = Random(2);
    let logits: Vec<i32> = (0..2048).map(|_| (300.0 * random.normal()) as i32).collect();
    assert!(softmax_error(&logits) <= 2048.0 * 0.5 / 32_768.0 + 1e-4);
}

/// Outputs of a row that are not the ideal ones, of all; the ideal is the floor of the exact real value.
struct Row {
    off: usize,
    most: i64,
}

fn compare(op: &LayerNorm<'_>, row: &[i16]) -> Row {
    let bytes: Vec<i8> = row.iter().flat_map(|value| value.to_le_bytes()).map(u8::cast_signed).collect();
    let mut found = vec![0; row.len()];
    layer_norm(arch::Scalar, op, &bytes, &mut found).unwrap();
    let (count, sum) = (row.len() as i128, row.iter().map(|&x| i128::from(x)).sum::<i128>());
    let squares: i128 = row.iter().map(|&x| i128::from(x) * i128::from(x)).sum();
    let spread = count * squares - sum * sum + i128::from(op.epsilon);
    let mut result = Row { off: 0, most: 0 };
    for (channel, (&x, &found)) in row.iter().zip(&found).enumerate() {
        let normal = if spread == 0 { 0.0 } else { (count * i128::from(x) - sum) as f64 / (spread as f64).sqrt() };
        let factor = f64::from(i16::from_le_bytes(op.factor.as_chunks().0[channel])) / f64::from(op.factor_bits).exp2();
        let offset = f64::from(i32::from_le_bytes(op.offset.as_chunks().0[channel]));
        let ideal = (normal * factor + offset / 64.0).floor().clamp(op.min.into(), op.max.into());
        let off = (i64::from(found) - ideal as i64).abs();
        result.off += usize::from(off > 0);
        result.most = result.most.max(off);
    }
    result
}

/// Rows of every size of deviation and mean. Factors up to 32 steps for a normalised 1: ±4 deviations fill a byte.
#[test]
fn a_layer_normalisation_is_at_most_one_step_from_the_ideal() {
    let mut random = Random(3);
    let (mut values, mut off, mut most) = (0, 0, 0);
    for number in 0..4000 {
        let channels = [2, 3, 7, 16, 64, 96, 192, 384, 768, 2048][number % 10];
        let deviation = 2f64.powi(random.below(17) as i32 - 3);
        let mean = if random.below(2) == 0 { 0.0 } else { (random.below(60_000) - 30_000) as f64 };
        let row: Vec<i16> = match random.below(8) {
            0 => vec![mean as i16; channels],
            1 => {
                let mut row = vec![mean as i16; channels];
                row[channels / 2] = random.next() as i16;
                row
            }
            2 => (0..channels).map(|_| [-32_767, 32_767][random.below(2) as usize]).collect(),
            3 => (0..channels).map(|_| mean as i16 + random.below(2) as i16).collect(),
            _ => (0..channels).map(|_| (mean + deviation * random.normal()) as i16).collect(),
        };
        let epsilon = if random.below(3) == 0 { 0 } else { random.next() >> random.below(32) };
        let factor_bits = 9 + random.below(2) as u8;
        let bound = 32 << factor_bits;
        let factor: Vec<u8> =
            (0..channels).flat_map(|_| ((random.below(2 * bound) - bound) as i16).to_le_bytes()).collect();
        let offset: Vec<u8> = (0..channels).flat_map(|_| (random.below(2048) as i32 - 1024).to_le_bytes()).collect();
        let (min, max) = (-128, 127);
        let op =
            LayerNorm { channels: channels as u16, factor: &factor, factor_bits, offset: &offset, epsilon, min, max };
        let found = compare(&op, &row);
        assert!(found.most <= 1, "row {number}: {} steps, {channels} channels, {deviation}, {mean}", found.most);
        values += channels;
        off += found.off;
        most = most.max(found.most);
    }
    let share = off as f64 / values as f64;
    println!("at most {most} from the ideal, {:.2} % of {values} values are off", 100.0 * share);
    // What is lost is some thousandths of a step: that many values lie so near to a boundary.
    assert!(share < 0.005);
}
