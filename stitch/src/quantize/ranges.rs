//! From ranges to steps: one quantisation per tensor.

use plan::Element;

use super::Pixels;
use crate::graph::{Clamp, Node, Op, PoolKind};
use crate::network::{Extent, Quant, Segment};

/// int8 that covers a range and 0.
pub(crate) fn narrow(extent: Extent) -> Quant {
    let (min, max) = (f64::from(extent.min.min(0.0)), f64::from(extent.max.max(0.0)));
    // A tensor that is always 0 still needs a scale, and one that no bias behind it overflows.
    let scale = if max > min { ((max - min) / 255.0) as f32 } else { 1.0 };
    let scale = scale.max(f32::MIN_POSITIVE);
    let zero_point = (-128.0 - min / f64::from(scale)).round().clamp(-128.0, 127.0) as i8;
    Quant { scale, zero_point, element: Element::Int8 }
}

/// int8 that covers a range, 0 standing for 0.0.
pub(crate) fn symmetric(extent: Extent) -> Quant {
    Quant { scale: step(extent, 127.0), zero_point: 0, element: Element::Int8 }
}

/// int16 that covers a range twice: a step in 16 bits can spare that, and what no calibration image showed is not cut off.
pub(crate) fn wide(extent: Extent) -> Quant {
    Quant { scale: step(extent, 16_383.0), zero_point: 0, element: Element::Int16 }
}

fn step(extent: Extent, steps: f32) -> f32 {
    let largest = extent.max.max(-extent.min);
    if largest > 0.0 { (largest / steps).max(f32::MIN_POSITIVE) } else { 1.0 }
}

/// Quantisation that covers every pixel value of every channel.
pub(crate) fn of_pixels(pixels: &Pixels) -> Quant {
    let ends = pixels.mean.iter().zip(&pixels.std).flat_map(|(mean, std)| [-mean / std, (1.0 - mean) / std]);
    narrow(ends.fold(Extent { min: 0.0, max: 0.0 }, |extent, end| Extent {
        min: extent.min.min(end),
        max: extent.max.max(end),
    }))
}

pub(crate) fn to_integer(value: f32, quant: Quant) -> i8 {
    (f64::from(value) / f64::from(quant.scale) + f64::from(quant.zero_point)).round().clamp(-128.0, 127.0) as i8
}

/// The clamp in integers of the output; int16 has none.
pub(crate) fn bounds(clamp: Clamp, quant: Quant) -> (i8, i8) {
    let bounded = |value: f32| value.is_finite() && quant.element == Element::Int8;
    let bound = |value: f32, none: i8| if bounded(value) { to_integer(value, quant) } else { none };
    (bound(clamp.min, -128), bound(clamp.max, 127))
}

/// Whether a node only moves values.
pub(crate) fn moves(node: &Node) -> bool {
    let max = matches!(node.op, Op::Pool { kind: PoolKind::Max, .. });
    max || matches!(node.op, Op::Move { .. } | Op::Concat { .. } | Op::Prepend { .. } | Op::Roll { .. })
}

/// One quantisation per tensor. Tensors that an op cannot rescale between share one, that of a cut among them if it
/// does for all; the two ends have those of their cuts in any case. What attention reads has zero point 0.
pub(crate) fn tensor_quants(segment: &Segment, extents: &[Extent], is_wide: &[bool], cuts: &[Quant]) -> Vec<Quant> {
    let mut group: Vec<usize> = (0..segment.tensors.len()).collect();
    for node in &segment.nodes {
        if moves(node) {
            for &input in &node.inputs {
                let (from, to) = (group[input], group[node.output]);
                for member in &mut group {
                    if *member == from {
                        *member = to;
                    }
                }
            }
        }
    }
    let attended = |tensor: usize| {
        segment.nodes.iter().any(|node| matches!(node.op, Op::Attention(_)) && node.inputs.contains(&tensor))
    };
    let ends = [(segment.input, cuts[segment.from]), (segment.output, cuts[segment.to])];
    let quant = |tensor: usize| {
        if let Some((_, quant)) = ends.iter().rev().find(|(end, _)| *end == tensor) {
            return *quant;
        }
        let is_end = |other| other == segment.input || other == segment.output;
        let members = || (0..group.len()).filter(|&other| group[other] == group[tensor] && !is_end(other));
        let hull = members().fold(extents[tensor], |hull, other| Extent {
            min: hull.min.min(extents[other].min),
            max: hull.max.max(extents[other].max),
        });
        // What is only moved towards the output may as well be cut off here as there.
        let only_moved =
            members().all(|member| segment.nodes.iter().all(|node| moves(node) || !node.inputs.contains(&member)));
        let element = if is_wide[tensor] { Element::Int16 } else { Element::Int8 };
        let fits = |quant: Quant| quant.element == element;
        let [(input, from), (output, to)] = ends;
        if group[output] == group[tensor] && fits(to) && (only_moved || covers(to, hull)) {
            to
        } else if group[input] == group[tensor] && fits(from) && covers(from, hull) {
            from
        } else if is_wide[tensor] {
            wide(hull)
        } else if members().any(attended) {
            symmetric(hull)
        } else {
            narrow(hull)
        }
    };
    (0..segment.tensors.len()).map(quant).collect()
}

/// Whether a quantisation cuts off no more than a step of a range.
fn covers(quant: Quant, extent: Extent) -> bool {
    let steps = if quant.element == Element::Int16 { 32_768.0 } else { 128.0 };
    let at = |integer: f32| quant.scale * (integer - f32::from(quant.zero_point));
    at(-steps - 1.0) <= extent.min && extent.max <= at(steps)
}
