//! V11, V12, V15 and V16 for the ops of a detector's head.

use super::op::{data, requantisation, rescale, same};
use super::{At, Check};
use crate::bytes::Field;
use crate::error::{Rule, Section};
use crate::image::Image;
use crate::layout::{
    AT_PATCHES, DETECTION_LEN, HEAD_MAPS, IF_PATCHES, IN_BLOCKS, MAX_ANCHORS, MAX_BIAS, MAX_DETECTIONS,
    MAX_NORM_CHANNELS, MAX_REDUCTION, NO_TENSOR, PER_BOX, PER_PATCH, REFINES, STREAMED, WITH_BIAS, WITH_BIAS_MAP,
    WITH_CURVE,
};
use crate::record::{Attention, Element, Generator, Mixing, Op, OpId, OpKind, Sampling, Segment, Tensor, TensorId};

/// Logarithm of a map's stride at most; sides of patches stay below 4096 pixels.
const MAX_STRIDE_LOG2: u8 = 7;

/// Flags that a kind has, and what an op that runs on a part of its rows must be: the same rows for each patch or box in all
/// its maps, whatever their number.
pub(super) fn flags(image: &Image<'_>, op: &Op, at: At) -> Check {
    let op = &Op { flags: op.flags & !STREAMED, ..*op };
    if !cfg!(feature = "detector") {
        let known = if op.kind == OpKind::Conv { WITH_CURVE | IN_BLOCKS } else { 0 };
        at.equal(Rule::KindKnown, op.flags & !known, 0u8)?;
        return at.equal(Rule::KindKnown, u8::from(op.kind.is_of_head()), 0u8);
    }
    let rows = PER_PATCH | PER_BOX;
    let known = match op.kind {
        OpKind::Conv => WITH_CURVE | IN_BLOCKS | IF_PATCHES | rows,
        OpKind::Add | OpKind::LayerNorm | OpKind::Rescale => rows,
        OpKind::Windows => PER_PATCH | AT_PATCHES,
        OpKind::Attention => PER_BOX | WITH_BIAS_MAP,
        OpKind::Position => REFINES,
        _ => 0,
    };
    at.equal(Rule::KindKnown, op.flags & !known, 0u8)?;
    let parts = op.flags & (rows | IF_PATCHES);
    at.at_most(Rule::KindKnown, parts.count_ones(), 1u8)?;
    let cap = match parts {
        PER_PATCH => image.meta().patches,
        PER_BOX => image.meta().boxes,
        IF_PATCHES => return at.at_least(Rule::Geometry, image.meta().patches, 1u8),
        _ => return Ok(()),
    };
    at.at_least(Rule::Geometry, cap, 1u8)?;
    let (input, output) = (image.tensor(op.input), image.tensor(op.output));
    if op.kind == OpKind::Windows {
        return at.equal(Rule::Geometry, op.groups, cap);
    }
    at.equal(Rule::Geometry, input.shape[0] % cap, 0u8)?;
    at.equal(Rule::Geometry, output.shape[0], input.shape[0])?;
    match op.kind {
        OpKind::Conv => at.equal(Rule::Geometry, op.stride[0], 1u8),
        OpKind::Add => at.equal(Rule::Geometry, u8::from(op.input2.0 == NO_TENSOR), 0u8),
        OpKind::Attention => {
            let record = image.attention(op);
            at.equal(Rule::Geometry, u8::from(op.input2.0 != NO_TENSOR), 0u8)?;
            for window in [record.query_window, record.key_window] {
                at.equal(Rule::Geometry, window[0], cap)?;
            }
            at.equal(Rule::Geometry, input.shape[0], cap)?;
            at.equal(Rule::KindKnown, record.flags, 0u8)?;
            at.equal(Rule::KindKnown, op.flags & WITH_BIAS_MAP, WITH_BIAS_MAP)
        }
        _ => Ok(()),
    }
}

const PARTS: u16 = PER_PATCH | PER_BOX | IF_PATCHES;

/// Rows that an op writes: all, or those of the patches or boxes that there are.
fn written(op: &Op) -> u16 {
    match op.kind {
        OpKind::Pool | OpKind::Position | OpKind::Overlap | OpKind::Sample | OpKind::Mix => PER_BOX,
        _ => op.flags & PARTS,
    }
}

/// Rows that an op reads of one of its operands.
fn read(op: &Op, operand: usize) -> u16 {
    match (op.kind, operand) {
        (OpKind::Pool, 0) => PER_PATCH,
        (OpKind::Sample, 0) | (OpKind::Position | OpKind::Overlap | OpKind::Mix | OpKind::Detect, _) => PER_BOX,
        _ => op.flags & PARTS,
    }
}

/// V17 for maps that are written in part: the rows of what is not there hold what was in the arena before. Patches are counted by the
/// one `Select`, boxes by the one `Pool`, and what runs on them comes behind.
pub(super) fn parts(image: &Image<'_>, segment: &Segment) -> Check {
    if !cfg!(feature = "detector") {
        return Ok(());
    }
    let ops = || (segment.first_op..segment.first_op + segment.ops).map(OpId);
    let writer = |id: TensorId| ops().map(|op| image.op(op)).find(|op| op.output == id);
    let [mut patches, mut boxes] = [0u8; 2];
    for id in ops() {
        let at = At { section: Section::Ops, record: id.index() };
        let op = image.op(id);
        boxes += u8::from(op.kind == OpKind::Pool);
        at.at_most(Rule::WriteBeforeRead, boxes, 1u8)?;
        let counted = match written(&op) | read(&op, 0) {
            0 => 1,
            rows if rows & PER_BOX == 0 => patches,
            // The patches of a `Pool` may be none.
            _ => boxes,
        };
        at.equal(Rule::WriteBeforeRead, counted, 1u8)?;
        patches += u8::from(op.kind == OpKind::Select);
        at.at_most(Rule::WriteBeforeRead, patches, 1u8)?;
        for (number, operand) in op.operands().into_iter().enumerate().filter(|(_, id)| id.0 != NO_TENSOR) {
            let (found, read) = (writer(operand).map_or(0, |op| written(&op)), read(&op, number));
            let fits = found == 0 || found == read || (found == IF_PATCHES && read == PER_PATCH);
            at.equal(Rule::WriteBeforeRead, u8::from(fits), 1u8)?;
            if op.kind == OpKind::Windows && found == PER_PATCH {
                own_rows(image, &op, at)?;
            }
        }
    }
    let at = At { section: Section::Segments, record: 0 };
    at.equal(Rule::WriteBeforeRead, writer(segment.output).map_or(0, |op| written(&op)), 0u8)
}

/// A window of each patch lies on the rows of that patch.
fn own_rows(image: &Image<'_>, op: &Op, at: At) -> Check {
    at.equal(Rule::Geometry, op.flags & AT_PATCHES, 0u8)?;
    let rows = i32::from(image.tensor(op.input).shape[0] / image.meta().patches.max(1));
    let corners = image.data(op.weights, 4 * usize::from(op.groups)).as_chunks::<4>().0;
    for (&[low, high, ..], first) in corners.iter().zip((0..).step_by(rows.max(1) as usize)) {
        let top = i32::from(i16::from_le_bytes([low, high])) + i32::from(op.origin[0]);
        let inside = first <= top && top + i32::from(op.kernel[0]) <= first + rows;
        at.equal(Rule::Geometry, u8::from(inside), 1u8)?;
    }
    Ok(())
}

/// The map that is an attention's bias.
pub(super) fn bias_map(image: &Image<'_>, op: &Op, record: &Attention, at: At) -> Check {
    if !cfg!(feature = "detector") || op.flags & WITH_BIAS_MAP == 0 {
        return Ok(());
    }
    at.equal(Rule::KindKnown, record.flags & WITH_BIAS, 0u8)?;
    at.equal(Rule::KindKnown, op.flags & PER_BOX, PER_BOX)?;
    distinct(op, at)?;
    let map = image.tensor(TensorId(op.first_channel));
    int16(&map, at)?;
    let [queries, keys] = [record.queries(), record.keys()];
    for (found, expected) in map.shape.into_iter().zip([record.heads.into(), queries, keys]) {
        at.equal(Rule::Geometry, found, expected)?;
    }
    Ok(())
}

/// All rules that ask for one op of a head and its tensors alone.
pub(super) fn alone(image: &Image<'_>, op: &Op, at: At) -> Check {
    let (input, output) = (image.tensor(op.input), image.tensor(op.output));
    let two = !matches!(op.kind, OpKind::Windows | OpKind::Position | OpKind::Overlap);
    at.equal(Rule::Reference, u8::from(op.input2.0 != NO_TENSOR), u8::from(two))?;
    let second = if two { image.tensor(op.input2) } else { input };
    distinct(op, at)?;
    match op.kind {
        OpKind::Windows => windows(image, op, &input, &output, at),
        OpKind::Select => select(image, op, [&input, &second], &output, at),
        OpKind::Pool => pool(image, op, &input, &output, at),
        OpKind::Position => position(image, op, &input, &output, at),
        OpKind::Overlap => {
            int16(&output, at)?;
            let boxes = of_boxes(image, &input, at)?;
            same(output.shape, [output.shape[0], boxes, boxes], at)?;
            data(image, op.weights, 2 * u64::from(output.shape[0]), at)
        }
        OpKind::Sample => sample(image, op, &input, &output, at),
        OpKind::Mix => mix(image, op, [&input, &second], &output, at),
        OpKind::Suppress => suppress(image, op, &output, at),
        _ => detect(image, op, [&input, &second], &output, at),
    }
}

/// Each operand is lent once.
fn distinct(op: &Op, at: At) -> Check {
    let mut rest = &op.operands()[..];
    while let [first, others @ ..] = rest {
        if first.0 != NO_TENSOR && others.contains(first) {
            return Err(at.refuse(Rule::Reference, first.0, NO_TENSOR));
        }
        rest = others;
    }
    Ok(())
}

fn int8(tensor: &Tensor, at: At) -> Check {
    at.equal(Rule::Geometry, tensor.element.bytes(), Element::Int8.bytes())
}

fn int16(tensor: &Tensor, at: At) -> Check {
    at.equal(Rule::Geometry, tensor.element.bytes(), Element::Int16.bytes())
}

/// The image's number of boxes, which the tensor has one row for each of.
fn of_boxes(image: &Image<'_>, tensor: &Tensor, at: At) -> Result<u16, crate::error::ImageError> {
    let boxes = image.meta().boxes;
    at.at_least(Rule::Geometry, boxes, 1u8)?;
    at.equal(Rule::Geometry, tensor.shape[0], boxes)?;
    Ok(boxes)
}

/// `[boxes, 1, channels]`.
fn rows(image: &Image<'_>, tensor: &Tensor, channels: u64, at: At) -> Check {
    of_boxes(image, tensor, at)?;
    at.equal(Rule::Geometry, tensor.shape[1], 1u8)?;
    at.equal(Rule::Geometry, tensor.shape[2], channels)
}

fn windows(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    at.equal(Rule::Geometry, output.element.bytes(), input.element.bytes())?;
    let elements = |tensor: &Tensor| tensor.shape.into_iter().map(u64::from).product::<u64>();
    for side in op.kernel {
        at.at_least(Rule::Geometry, side, 1u8)?;
    }
    at.at_least(Rule::Geometry, op.groups, 1u8)?;
    // A window's rows and columns, or all that is in it as one row.
    let [tall, wide] = op.kernel.map(u64::from);
    let each = tall * wide * u64::from(input.shape[2]);
    at.equal(Rule::Geometry, elements(output), u64::from(op.groups) * each)?;
    at.equal(Rule::Geometry, u64::from(output.shape[0]) % u64::from(op.groups), 0u8)?;
    at.equal(Rule::Geometry, op.origin[2] as u16, 0u8)?;
    if op.flags & AT_PATCHES != 0 {
        return at.equal(Rule::KindKnown, op.flags & PER_PATCH, PER_PATCH);
    }
    data(image, op.weights, 4 * u64::from(op.groups), at)
}

/// What `Select` and `Pool` ask of their record.
fn generator(image: &Image<'_>, op: &Op, at: At) -> Result<Generator, crate::error::ImageError> {
    data(image, op.weights, Generator::LEN as u64, at)?;
    let record = image.generator(op);
    at.equal(Rule::KindKnown, u32::from(record.reserved) | record.reserved2, 0u8)?;
    for stride in record.strides {
        at.at_most(Rule::Numeric, stride, MAX_STRIDE_LOG2)?;
    }
    for side in record.size {
        at.at_most(Rule::Numeric, side as u16, i16::MAX as u16)?;
    }
    at.at_least(Rule::Geometry, record.patch, 1u8)?;
    at.at_most(Rule::Numeric, u32::from(record.patch) << record.strides[0], 4095u16)?;
    for cells in record.cells {
        at.at_least(Rule::Geometry, cells, record.patch)?;
    }
    Ok(record)
}

fn select(image: &Image<'_>, op: &Op, raw: [&Tensor; 2], output: &Tensor, at: At) -> Check {
    let record = generator(image, op, at)?;
    let mut anchors = 0;
    for raw in raw {
        int16(raw, at)?;
        at.equal(Rule::Geometry, raw.shape[1], 1u8)?;
        at.equal(Rule::Geometry, raw.shape[2], 5 * u32::from(record.base_anchors))?;
        anchors += u64::from(raw.shape[0]) * u64::from(record.base_anchors);
    }
    at.at_most(Rule::Numeric, anchors, MAX_ANCHORS)?;
    let regions: u64 = raw.into_iter().map(|raw| u64::from(raw.shape[0])).sum();
    data(image, record.regions, 8 * regions, at)?;
    int8(output, at)?;
    at.at_least(Rule::Geometry, image.meta().patches, 1u8)?;
    same(output.shape, [image.meta().patches, 1, 4], at)
}

/// Three int8 maps of the same channels: how many those are.
fn maps(image: &Image<'_>, op: &Op, at: At) -> Result<u16, crate::error::ImageError> {
    let [_, maps @ ..] = op.operands();
    let channels = image.tensor(op.input2).shape[2];
    for id in maps {
        let map = image.tensor(id);
        int8(&map, at)?;
        at.equal(Rule::Geometry, map.shape[2], channels)?;
    }
    Ok(channels)
}

fn pool(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    let record = generator(image, op, at)?;
    int16(input, at)?;
    same(input.shape, [image.meta().patches, 1, record.probe_anchors.saturating_mul(5)], at)?;
    at.at_most(Rule::Numeric, u64::from(image.meta().patches) * u64::from(record.probe_anchors), MAX_ANCHORS)?;
    for (multiplier, shift) in record.multipliers.into_iter().zip(record.shifts) {
        rescale(multiplier, shift, at)?;
    }
    at.at_least(Rule::Geometry, record.bins, 1u8)?;
    let bins = u64::from(record.bins);
    let terms = bins * bins * u64::from(maps(image, op, at)?);
    at.at_most(Rule::Numeric, terms, MAX_REDUCTION - 1)?;
    int16(output, at)?;
    let channels = output.shape[2];
    rows(image, output, channels.into(), at)?;
    data(image, record.weights, terms.next_multiple_of(4) * u64::from(channels), at)?;
    requantisation(image, op, channels, at)
}

fn position(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    of_boxes(image, input, at)?;
    if op.flags & REFINES != 0 {
        int16(input, at)?;
        rows(image, input, 4, at)?;
    }
    int16(output, at)?;
    let channels = output.shape[2];
    rows(image, output, channels.into(), at)?;
    at.equal(Rule::Geometry, channels % 8, 0u8)?;
    data(image, op.weights, 2 * u64::from(channels), at)
}

fn sample(image: &Image<'_>, op: &Op, input: &Tensor, output: &Tensor, at: At) -> Check {
    data(image, op.weights, Sampling::LEN as u64, at)?;
    let record = image.sampling(op);
    at.equal(Rule::KindKnown, u32::from(record.reserved) | record.reserved2, 0u8)?;
    for stride in record.strides {
        at.at_most(Rule::Numeric, stride, MAX_STRIDE_LOG2)?;
    }
    at.at_most(Rule::Numeric, record.first.unsigned_abs(), 1u32 << 24)?;
    rescale(0, record.shift, at)?;
    for count in [record.groups, record.points, record.steps] {
        at.at_least(Rule::Geometry, count, 1u8)?;
    }
    data(image, record.weights, 2 * HEAD_MAPS as u64 * u64::from(record.steps), at)?;
    let channels = maps(image, op, at)?;
    at.equal(Rule::Geometry, channels % record.groups, 0u8)?;
    int16(input, at)?;
    rows(image, input, 3 * u64::from(record.groups) * u64::from(record.points), at)?;
    int8(output, at)?;
    at.equal(Rule::Numeric, output.zero_point as u8, 0u8)?;
    rows(image, output, u64::from(channels) * u64::from(record.points), at)
}

fn mix(image: &Image<'_>, op: &Op, [content, samples]: [&Tensor; 2], output: &Tensor, at: At) -> Check {
    data(image, op.weights, Mixing::LEN as u64, at)?;
    let record = image.mixing(op);
    at.equal(Rule::KindKnown, u32::from(record.reserved) | record.reserved2, 0u8)?;
    for tensor in [content, samples, output] {
        int8(tensor, at)?;
    }
    at.equal(Rule::Numeric, samples.zero_point as u8, 0u8)?;
    let [groups, width, inputs, outputs] =
        [record.groups, record.width, record.points_in, record.points_out].map(u64::from);
    at.at_least(Rule::Geometry, groups, 1u8)?;
    for (count, multiple) in [(width, 4u64), (inputs, 4), (outputs, 2)] {
        at.equal(Rule::Geometry, count % multiple, 0u8)?;
    }
    for values in [inputs * width, outputs * width] {
        at.at_least(Rule::Numeric, values, 2u8)?;
        at.at_most(Rule::Numeric, values, MAX_NORM_CHANNELS)?;
    }
    for bits in [record.inner_bits, record.outer_bits] {
        at.at_most(Rule::Numeric, bits, 15u8)?;
    }
    for offset in [record.inner_offset, record.outer_offset] {
        at.at_most(Rule::Numeric, offset.unsigned_abs(), MAX_BIAS)?;
    }
    rows(image, content, content.shape[2].into(), at)?;
    rows(image, samples, groups * inputs * width, at)?;
    rows(image, output, groups * outputs * width, at)?;
    let terms = u32::from(content.shape[2]);
    at.at_most(Rule::Numeric, terms, MAX_REDUCTION)?;
    at.at_most(Rule::Geometry, record.matrices(), u16::MAX)?;
    data(image, record.weights, record.matrices() * u64::from(terms.next_multiple_of(4)), at)?;
    requantisation(image, op, record.matrices() as u16, at)
}

fn detect(image: &Image<'_>, op: &Op, [deltas, logits]: [&Tensor; 2], output: &Tensor, at: At) -> Check {
    int16(deltas, at)?;
    rows(image, deltas, 4, at)?;
    int16(logits, at)?;
    rows(image, logits, image.meta().classes.into(), at)?;
    let pairs = u64::from(logits.shape[0]) * u64::from(logits.shape[2]);
    at.at_most(Rule::Numeric, pairs, u16::MAX)?;
    detections(op, output, at)
}

/// The output of a head, and the size of the picture.
fn detections(op: &Op, output: &Tensor, at: At) -> Check {
    int8(output, at)?;
    at.at_least(Rule::Geometry, output.shape[0], 2u8)?;
    at.at_most(Rule::Numeric, output.shape[0], MAX_DETECTIONS + 1)?;
    same(output.shape, [output.shape[0], 1, DETECTION_LEN], at)?;
    for side in op.factors {
        at.at_least(Rule::Numeric, side.max(0) as u32, 1u8)?;
        at.at_most(Rule::Numeric, side.unsigned_abs(), i16::MAX as u16)?;
    }
    Ok(())
}

fn suppress(image: &Image<'_>, op: &Op, output: &Tensor, at: At) -> Check {
    detections(op, output, at)?;
    at.at_least(Rule::Numeric, op.origin[1].max(0) as u16, 1u8)?;
    at.equal(Rule::Geometry, op.origin[2] as u16, 0u8)?;
    let classes = image.meta().classes;
    // The runtime reads three maps.
    at.equal(Rule::Reference, u8::from(op.first_channel != NO_TENSOR), 1u8)?;
    let mut pairs = 0;
    for id in op.operands().into_iter().filter(|id| id.0 != NO_TENSOR) {
        let map = image.tensor(id);
        int16(&map, at)?;
        let [height, width, channels] = map.shape.map(u64::from);
        at.equal(Rule::Geometry, channels, u64::from(classes) + 4)?;
        pairs += height * width * u64::from(classes);
        // A cell is a power of two of pixels, both ways.
        let stride = op.stride_log2(&map);
        at.at_most(Rule::Numeric, stride, MAX_STRIDE_LOG2)?;
        for (side, cells) in op.factors.into_iter().zip([width, height]) {
            at.equal(Rule::Geometry, side.unsigned_abs(), cells << (stride + 4))?;
        }
    }
    at.at_most(Rule::Numeric, pairs, u16::MAX)
}
