//! LayerNorm, attention, curves and position embeddings in integers. `docs/kernels.md` has the arithmetic.

use std::f64::consts::LOG2_E;

use plan::{Element, OpKind, TensorId};

use super::lower::{Lowering, Narrow, bytes_of, table};
use super::numbers::{addition, fixed_point};
use super::ranges::narrow;
use crate::error::Error;
use crate::graph::{Attention, Heads, Node, Op};
use crate::network::{Constants, Quant};

/// Steps of a base-2 exponent of the softmax.
const EXPONENT_STEPS: f64 = 256.0;
/// What a weight of the softmax counts for one.
const WEIGHT_STEPS: f64 = 32_768.0;

/// Lowers a node that [`crate::graph::Op`] has for transformers.
pub(super) fn lower(lowering: &mut Lowering<'_>, node: &Node) -> Result<(), Error> {
    match &node.op {
        Op::LayerNorm { factor, offset, epsilon } => layer_norm(lowering, node, factor, offset, *epsilon),
        Op::Attention(attention) => self::attention(lowering, node, attention),
        Op::Offset { values } => offset(lowering, node, values),
        Op::Curve { function } => {
            let input = lowering.int8(node, node.inputs[0], narrow)?;
            let written = lowering.written(node.output, false)?;
            let record = Narrow { node: &node.name }.record(OpKind::Curve, input, written)?;
            let values = table(|value| function.at(value), lowering.tensors[input].1, lowering.tensors[written].1);
            let bytes = values.iter().map(|&value| value as u8).collect();
            lowering.push(record, Constants::Bytes(bytes));
            lowering.finish(node, written, node.output)
        }
        _ => Ok(()),
    }
}

fn layer_norm(
    lowering: &mut Lowering<'_>,
    node: &Node,
    factor: &[f32],
    offset: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let names = Narrow { node: &node.name };
    let input = lowering.int16(node, node.inputs[0])?;
    let written = lowering.written(node.output, false)?;
    let (from, to) = (lowering.tensors[input].1, lowering.tensors[written].1);
    let NormNumbers { bits, factor, offset, added } = norm_numbers([factor, offset], epsilon, [from, to], &node.name)?;
    let mut record = names.record(OpKind::LayerNorm, input, written)?;
    record.shift = bits;
    record.factors = [added as u32 as i32, (added >> 32) as i32];
    lowering.push(record, Constants::Norm { factor, offset });
    lowering.finish(node, written, node.output)
}

/// A LayerNorm's integers.
pub(crate) struct NormNumbers {
    /// Fraction bits of the factors.
    pub bits: u8,
    /// Per channel.
    pub factor: Vec<i16>,
    /// Per channel, 1/64 steps.
    pub offset: Vec<i32>,
    /// Added to the variance, times the squared channels.
    pub added: u64,
}

/// Factors and offsets of a LayerNorm from one quantisation to another.
pub(crate) fn norm_numbers(
    [factor, offset]: [&[f32]; 2],
    epsilon: f32,
    [from, to]: [Quant; 2],
    node: &str,
) -> Result<NormNumbers, Error> {
    let names = Narrow { node };
    let scaled: Vec<f64> = factor.iter().map(|&factor| f64::from(factor) / f64::from(to.scale)).collect();
    let largest = scaled.iter().fold(0.0f64, |largest, factor| largest.max(factor.abs()));
    let fits = |bits: &u8| (largest * 2f64.powi((*bits).into())).round() <= 32_767.0;
    let Some(bits) = (0..=15).rev().find(fits) else {
        return Err(names.error("a factor in steps of the output of", largest));
    };
    let factor = scaled.iter().map(|factor| (factor * 2f64.powi(bits.into())).round() as i16).collect();
    // 1/64 steps: the zero point and half a step for rounding are in it.
    let steps = |&offset: &f32| {
        let real = f64::from(offset) / f64::from(to.scale) + f64::from(to.zero_point);
        let integer = (real * 64.0).round() + 32.0;
        if integer.abs() <= f64::from(plan::layout::MAX_BIAS) {
            Ok(integer as i32)
        } else {
            Err(names.error("offset", offset))
        }
    };
    let offset = offset.iter().map(steps).collect::<Result<Vec<i32>, Error>>()?;
    let channels = scaled.len() as f64;
    let added = f64::from(epsilon) * (channels / f64::from(from.scale)).powi(2);
    if !(0.0..=2f64.powi(62)).contains(&added) {
        return Err(names.error("epsilon", epsilon));
    }
    Ok(NormNumbers { bits, factor, offset, added: added.round() as u64 })
}

fn attention(lowering: &mut Lowering<'_>, node: &Node, attention: &Attention) -> Result<(), Error> {
    let names = Narrow { node: &node.name };
    if node.inputs[1] != node.inputs[2] {
        return Err(names.error("attention with keys and values in", "two maps"));
    }
    let query = lowering.centred(node, node.inputs[0])?;
    let keys = if node.inputs[1] == node.inputs[0] { query } else { lowering.centred(node, node.inputs[1])? };
    let written = lowering.written(node.output, false)?;
    let scale = |tensor: usize| f64::from(lowering.tensors[tensor].1.scale);
    let logit = f64::from(attention.scale) * scale(query) * scale(keys) * LOG2_E * EXPONENT_STEPS;
    let (logit_multiplier, logit_shift) = fixed_point(logit, &node.name)?;
    let (multiplier, shift) = fixed_point(scale(keys) / (WEIGHT_STEPS * scale(written)), &node.name)?;
    let table = |values: &[f32]| -> Vec<i16> {
        let step = |&value: &f32| (f64::from(value) * LOG2_E * EXPONENT_STEPS).round().clamp(-32_768.0, 32_767.0);
        values.iter().map(|value| step(value) as i16).collect()
    };
    let heads = |part: Heads| -> Result<[u16; 3], Error> {
        Ok([names.u16(part.first)?, names.u16(part.per_head)?, names.u16(part.width)?])
    };
    let window = |window: [usize; 2]| -> Result<[u16; 2], Error> { Ok([names.u16(window[0])?, names.u16(window[1])?]) };
    let [query_first, query_per_head, query_width] = heads(attention.query)?;
    let [key_first, key_per_head, _] = heads(attention.key)?;
    let [value_first, value_per_head, value_width] = heads(attention.value)?;
    let numbers = plan::Attention {
        heads: names.u16(attention.heads)?,
        query_first,
        query_per_head,
        query_width,
        key_first,
        key_per_head,
        value_first,
        value_per_head,
        value_width,
        query_window: window(attention.query_window)?,
        key_window: window(attention.key_window)?,
        logit_shift,
        shift,
        logit_multiplier,
        multiplier,
        bias: 0,
        mask: 0,
        flags: 0,
        reserved: 0,
    };
    let mut record = names.record(OpKind::Attention, query, written)?;
    if keys != query {
        record.input2 = TensorId(names.u16(keys)?);
    }
    let (bias, mask) = (table(&attention.bias), table(&attention.mask));
    let constants = Constants::Attention { record: numbers, bias, mask };
    let scratch = kernels::attention_scratch(attention.keys(), query_width);
    lowering.push_with(record, constants, scratch, lowering.macs(node));
    lowering.finish(node, written, node.output)
}

fn offset(lowering: &mut Lowering<'_>, node: &Node, values: &[f32]) -> Result<(), Error> {
    let (from, to) = (lowering.tensors[node.inputs[0]].1, lowering.tensors[node.output].1);
    let largest = values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let steps = if to.element == Element::Int16 { 32_767.0 } else { 127.0 };
    let constant = Quant { scale: largest / steps, zero_point: 0, element: to.element };
    let mut record = Narrow { node: &node.name }.record(OpKind::Add, node.inputs[0], node.output)?;
    addition(&mut record, [from, constant], to, &node.name)?;
    lowering.push(record, Constants::Bytes(bytes_of(values, constant)));
    Ok(())
}
