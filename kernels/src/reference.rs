//! The specification: naive loops in `i64`, sharing nothing with the bodies.

mod head;
mod transformer;

pub use head::mix;
pub use transformer::{EXP2, attention, curve, layer_norm, prepend, rescale_tensor, roll, softmax};

use crate::{Add, Conv, Element, Move, Packing, Pool, PoolKind, Requant, Shape};

fn at(shape: Shape, y: i64, x: i64, c: i64) -> Option<usize> {
    let [height, width, channels] = [shape.height, shape.width, shape.channels].map(i64::from);
    let inside = (0..height).contains(&y) && (0..width).contains(&x) && (0..channels).contains(&c);
    inside.then(|| ((y * width + x) * channels + c) as usize)
}

fn positions(shape: Shape) -> impl Iterator<Item = (i64, i64, i64)> {
    let [height, width, channels] = [shape.height, shape.width, shape.channels].map(i64::from);
    (0..height).flat_map(move |y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))))
}

fn rounded(value: i64, multiplier: i64, shift: u32, zero: i8, min: i8, max: i8) -> i8 {
    // Round half up, written as a floor division.
    let scaled = (value * multiplier + (1i64 << (shift - 1))).div_euclid(1i64 << shift);
    (scaled + i64::from(zero)).clamp(min.into(), max.into()) as i8
}

fn load(element: Element, values: &[i8], index: usize) -> i64 {
    match element {
        Element::Int8 => values[index].into(),
        Element::Int16 => i64::from(values[2 * index + 1]) * 256 + i64::from(values[2 * index] as u8),
    }
}

fn save(element: Element, values: &mut [i8], index: usize, value: i64) {
    match element {
        Element::Int8 => values[index] = value as i8,
        Element::Int16 => {
            let value = value.clamp(-32_768, 32_767);
            values[2 * index] = value.rem_euclid(256) as u8 as i8;
            values[2 * index + 1] = value.div_euclid(256) as i8;
        }
    }
}

fn requantised(requant: &Requant<'_>, to: Element, channel: i64, sum: i64) -> i64 {
    let channel = channel as usize;
    let word = |table: &[u8]| i64::from(i32::from_le_bytes(table[4 * channel..4 * channel + 4].try_into().unwrap()));
    let (bias, multiplier) = (word(requant.bias), word(requant.multiplier));
    let shift = requant.shift[channel].into();
    match to {
        Element::Int8 => rounded(sum + bias, multiplier, shift, requant.zero_point, requant.min, requant.max).into(),
        Element::Int16 => ((sum + bias) * multiplier + (1i64 << (shift - 1))).div_euclid(1i64 << shift),
    }
}

/// [`crate::conv`].
pub fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8]) {
    convolve(op, false, input, output);
}

/// [`crate::depthwise`].
pub fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) {
    convolve(op, true, input, output);
}

fn convolve(op: &Conv<'_>, depthwise: bool, input: &[i8], output: &mut [i8]) {
    let groups = i64::from(op.groups);
    let (per_input, per_output) = (i64::from(op.input.channels) / groups, i64::from(op.output.channels) / groups);
    let [rows, columns] = op.window.kernel.map(i64::from);
    let row_len = (rows * columns * per_input + 3) / 4 * 4;
    for (y, x, o) in positions(op.output) {
        let mut sum = 0;
        for ky in 0..rows {
            for kx in 0..columns {
                for c in 0..per_input {
                    let iy = y * i64::from(op.window.stride[0]) + ky - i64::from(op.window.pad[0]);
                    let ix = x * i64::from(op.window.stride[1]) + kx - i64::from(op.window.pad[1]);
                    let channel = o / per_output * per_input + c;
                    let value = at(op.input, iy, ix, channel).map_or(op.input_zero, |index| input[index]);
                    let tap = ky * columns + kx;
                    let weight = if depthwise {
                        op.weights[(tap * i64::from(op.output.channels) + o) as usize]
                    } else {
                        let place = tap * per_input + c;
                        op.weights[match op.packing {
                            Packing::Rows => o * row_len + place,
                            Packing::Blocks => (o / 16 * row_len / 4 + place / 4) * 64 + o % 16 * 4 + place % 4,
                        } as usize]
                    };
                    sum += i64::from(value) * i64::from(weight as i8);
                }
            }
        }
        if let Some(index) = at(op.output, y, x, o) {
            let value = requantised(&op.requant, op.to, o, sum);
            let value = op.curve.map_or(value, |table| i64::from(table[value.rem_euclid(256) as usize] as i8));
            save(op.to, output, index, value);
        }
    }
}

/// [`crate::add`].
pub fn add(op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) {
    let [of_a, of_b, of_output] = op.elements;
    for index in 0..output.len() / of_output.bytes() {
        let (a, b) = (load(of_a, a, index), load(of_b, b, index));
        let sum = a * i64::from(op.multiplier[0]) + b * i64::from(op.multiplier[1]);
        let scaled = (sum + i64::from(op.offset)).div_euclid(1 << op.shift);
        let least = if of_output == Element::Int8 { op.min.into() } else { i64::MIN };
        let most = if of_output == Element::Int8 { op.max.into() } else { i64::MAX };
        save(of_output, output, index, scaled.clamp(least, most));
    }
}

/// [`crate::pool`].
pub fn pool(op: &Pool, input: &[i8], output: &mut [i8]) {
    for (y, x, c) in positions(op.output) {
        let (mut sum, mut most) = (0, i64::MIN);
        for ky in 0..i64::from(op.window.kernel[0]) {
            for kx in 0..i64::from(op.window.kernel[1]) {
                let iy = y * i64::from(op.window.stride[0]) + ky - i64::from(op.window.pad[0]);
                let ix = x * i64::from(op.window.stride[1]) + kx - i64::from(op.window.pad[1]);
                if let Some(index) = at(op.input, iy, ix, c) {
                    sum += i64::from(input[index]) - i64::from(op.input_zero);
                    most = most.max(input[index].into());
                }
            }
        }
        if let Some(index) = at(op.output, y, x, c) {
            output[index] = match op.kind {
                PoolKind::Average => rounded(sum, op.multiplier.into(), op.shift.into(), op.zero_point, op.min, op.max),
                PoolKind::Max => most.clamp(op.min.into(), op.max.into()) as i8,
            };
        }
    }
}

/// [`crate::move_tensor`].
pub fn move_tensor(op: &Move, input: &[i8], output: &mut [i8]) {
    for (y, x, c) in positions(op.output) {
        let local = c - i64::from(op.first_channel);
        if !(0..i64::from(op.channels)).contains(&local) {
            continue;
        }
        let iy = y * i64::from(op.step[0]) / i64::from(op.repeat[0]) + i64::from(op.origin[0]);
        let ix = x * i64::from(op.step[1]) / i64::from(op.repeat[1]) + i64::from(op.origin[1]);
        let value = at(op.input, iy, ix, local + i64::from(op.origin[2])).map_or(op.fill, |index| input[index]);
        if let Some(index) = at(op.output, y, x, c) {
            output[index] = value.clamp(op.min, op.max);
        }
    }
}
