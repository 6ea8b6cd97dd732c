//! Fixed-point numbers: factors, weights, biases.

use plan::Element;

use crate::error::Error;
use crate::network::{ConvWeights, Quant};

/// `factor` as `multiplier / 2^shift` with a multiplier of 31 bits.
pub(crate) fn fixed_point(factor: f64, node: &str) -> Result<(i32, u8), Error> {
    let error = || Error::Stage {
        stage: "quantize",
        what: format!("node `{node}`: rescale by {factor:e} is out of range; look at the ranges around it"),
    };
    if !factor.is_finite() || factor < 0.0 {
        return Err(error());
    }
    let mut shift = 31;
    let mut scaled = factor * 2f64.powi(31);
    while scaled < 2f64.powi(30) && shift < 62 {
        (scaled, shift) = (scaled * 2.0, shift + 1);
    }
    while scaled.round() >= 2f64.powi(31) && shift > 1 {
        (scaled, shift) = (scaled / 2.0, shift - 1);
    }
    let multiplier = scaled.round();
    if multiplier >= 2f64.powi(31) {
        return Err(error());
    }
    Ok((multiplier as i32, shift))
}

/// Steps that a bias may have: a quarter of the bound, which leaves room for the zero point.
const BIAS_STEPS: f64 = (plan::layout::MAX_BIAS / 4) as f64;

/// One scale per output channel. It may not be so small that the bias does not fit: a channel that training has
/// switched off has weights near 0 and a bias of usual size. A dead channel gets 1, so that nothing divides by 0.
pub(crate) fn weight_scales(weights: &ndarray::Array4<f32>, largest_bias: &[f32], input: Quant) -> Vec<f64> {
    let of_channel = |(channel, bias): (ndarray::ArrayView3<'_, f32>, &f32)| {
        let most = channel.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let least = f64::from(*bias) / (f64::from(input.scale) * BIAS_STEPS);
        if most > 0.0 { (f64::from(most) / 127.0).max(least) } else { least.max(1.0) }
    };
    weights.outer_iter().zip(largest_bias).map(of_channel).collect()
}

/// Weights and requantisation of a convolution, and the sum of each output channel's integer weights.
pub(crate) fn conv_weights(
    weights: &ndarray::Array4<f32>,
    bias: &[f32],
    scales: &[f64],
    depthwise: bool,
    [from, to]: [Quant; 2],
    node: &str,
) -> Result<(ConvWeights, Vec<i64>), Error> {
    let outputs = bias.len();
    let taps = weights.len() / outputs.max(1);
    let pitch = if depthwise { taps } else { taps.next_multiple_of(4) };
    let weights_len = pitch * outputs;
    let mut result =
        ConvWeights { weights: vec![0; weights_len], bias: vec![], multiplier: vec![], shift: vec![], curve: vec![] };
    let mut sums = vec![];
    for (channel, values) in weights.outer_iter().enumerate() {
        let mut sum = 0;
        for (tap, &value) in values.iter().enumerate() {
            let weight = (f64::from(value) / scales[channel]).round().clamp(-127.0, 127.0) as i8;
            sum += i64::from(weight);
            let at = if depthwise { tap * outputs + channel } else { channel * pitch + tap };
            result.weights[at] = weight;
        }
        result.bias.push(integer_bias(bias[channel], from, scales[channel], sum, node)?);
        let factor = f64::from(from.scale) * scales[channel] / f64::from(to.scale);
        let (multiplier, shift) = fixed_point(factor, node)?;
        result.multiplier.push(multiplier);
        result.shift.push(shift);
        sums.push(sum);
    }
    Ok((result, sums))
}

/// A bias in steps of its sum, input zero point folded in.
pub(crate) fn integer_bias(
    bias: f32,
    input: Quant,
    weight_scale: f64,
    weight_sum: i64,
    node: &str,
) -> Result<i32, Error> {
    let real = (f64::from(bias) / (f64::from(input.scale) * weight_scale)).round();
    let integer = real - (i64::from(input.zero_point) * weight_sum) as f64;
    if integer.abs() > f64::from(plan::layout::MAX_BIAS) || integer.is_nan() {
        let what = format!("node `{node}`: bias {bias} is {integer:e} steps of its sum; at most 2^29 fit");
        return Err(Error::Stage { stage: "quantize", what });
    }
    Ok(integer as i32)
}

/// Rescale of each channel by its own factor: `scales` has the step of each channel of the output.
pub(crate) fn rescale(from: Quant, scales: &[f32], node: &str) -> Result<ConvWeights, Error> {
    let mut result = ConvWeights { weights: vec![], bias: vec![], multiplier: vec![], shift: vec![], curve: vec![] };
    for &scale in scales {
        let (multiplier, shift) = fixed_point(f64::from(from.scale) / f64::from(scale), node)?;
        result.bias.push(-i32::from(from.zero_point));
        result.multiplier.push(multiplier);
        result.shift.push(shift);
    }
    Ok(result)
}

/// Factors, shift and constant of an addition: the finest that 16-bit factors and a 31-bit sum allow.
pub(crate) fn addition(record: &mut plan::Op, operands: [Quant; 2], to: Quant, node: &str) -> Result<(), Error> {
    let factors = operands.map(|quant| f64::from(quant.scale) / f64::from(to.scale));
    let zeros = operands.map(|quant| f64::from(quant.zero_point));
    let ranges = operands.map(|quant| if quant.element == Element::Int16 { 32_768.0 } else { 128.0 });
    let at = |shift: u8| {
        let one = 2f64.powi(shift.into());
        let rounded = factors.map(|factor| (factor * one).round());
        let constant = one / 2.0 + f64::from(to.zero_point) * one - zeros[0] * rounded[0] - zeros[1] * rounded[1];
        (shift, rounded, constant)
    };
    // From shift 1 on, the rounding half is whole.
    let fits = |(_, rounded, constant): &(u8, [f64; 2], f64)| {
        let sum = constant.abs() + rounded[0] * ranges[0] + rounded[1] * ranges[1];
        rounded.iter().all(|&factor| factor <= 32_767.0) && constant.abs() <= 2f64.powi(30) && sum < 2f64.powi(31)
    };
    let Some((shift, rounded, constant)) = (1..=30).rev().map(at).find(fits) else {
        let what = format!("node `{node}`: operands count {factors:?} steps of the sum; at most 16,383 fit");
        return Err(Error::Stage { stage: "quantize", what });
    };
    record.shift = shift;
    record.factors = rounded.map(|factor| factor as i32);
    record.constant = constant as i32;
    Ok(())
}
