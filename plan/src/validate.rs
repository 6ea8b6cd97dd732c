//! Rules V11 to V25: the records, one pass in the order in which they depend on one another.
//!
//! First each record alone, then segments (their tensors and ops), then configs, then what belongs to the whole
//! image. Ranges of records are partitions of their sections, and what records name of the data adds up to at most
//! 16 times its length, so the cost is linear in the bytes: ops times the tensors of their own segment, which are at
//! most 256.

use crate::error::{ImageError, Rule, Section};
use crate::image::Image;
use crate::layout::{
    ARENA_ALIGN, DETECTION_LEN, MAX_BOXES, MAX_INPUT_CHANNELS, MAX_KEPT, MAX_PATCHES, MAX_PATH, MAX_PATH_SEGMENTS,
    MAX_SEGMENT_OPS, MAX_SEGMENT_TENSORS, MAX_SHARING, NO_TENSOR,
};
use crate::record::{
    Config, ConfigId, Cut, CutId, Element, Op, OpId, OpKind, Range, Segment, SegmentId, SegmentKind, TargetId, Tensor,
    TensorId,
};

use self::stream::Stream;

type Check = Result<(), ImageError>;

mod head;
mod op;
mod stream;

/// Where a rule is being checked.
#[derive(Clone, Copy)]
struct At {
    section: Section,
    record: usize,
}

impl At {
    fn refuse(self, rule: Rule, found: impl Into<u64>, expected: impl Into<u64>) -> ImageError {
        ImageError {
            rule,
            section: self.section,
            record: self.record as u32,
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn equal(self, rule: Rule, found: impl Into<u64>, expected: impl Into<u64>) -> Check {
        let (found, expected) = (found.into(), expected.into());
        if found == expected { Ok(()) } else { Err(self.refuse(rule, found, expected)) }
    }

    fn at_most(self, rule: Rule, found: impl Into<u64>, bound: impl Into<u64>) -> Check {
        let (found, bound) = (found.into(), bound.into());
        if found <= bound { Ok(()) } else { Err(self.refuse(rule, found, bound)) }
    }

    fn at_least(self, rule: Rule, found: impl Into<u64>, bound: impl Into<u64>) -> Check {
        let (found, bound) = (found.into(), bound.into());
        if found >= bound { Ok(()) } else { Err(self.refuse(rule, found, bound)) }
    }
}

/// All rules about records.
pub(crate) fn records(image: &Image<'_>) -> Check {
    let path_segments =
        (0..image.configs()).map(|number| u64::from(image.config(ConfigId(number)).segments)).sum::<u64>();
    At { section: Section::Path, record: 0 }.at_most(Rule::RecordCount, path_segments, MAX_PATH_SEGMENTS)?;
    let at = At { section: Section::Meta, record: 0 };
    at.at_most(Rule::Numeric, image.meta().patches, MAX_PATCHES)?;
    at.at_most(Rule::Numeric, image.meta().boxes, MAX_BOXES)?;
    at.equal(Rule::Path, image.meta().lead % 2, 0u8)?;
    for index in 0..image.tensors() {
        tensor(&image.tensor(TensorId(index as u16)), At { section: Section::Tensors, record: index })?;
    }
    for index in 0..image.cuts() {
        cut(&image.cut(CutId(index as u16)), At { section: Section::Cuts, record: index })?;
    }
    kept(image)?;
    sharing(image)?;
    let (mut ops, mut tensors) = (0, 0);
    for index in 0..image.segments() {
        let at = At { section: Section::Segments, record: index };
        let record = image.segment(SegmentId(index as u16));
        at.equal(Rule::Partition, record.first_op, ops as u64)?;
        at.equal(Rule::Partition, record.first_tensor, tensors as u64)?;
        ops += usize::from(record.ops);
        tensors += usize::from(record.tensors);
        at.at_most(Rule::Reference, ops as u64, image.ops() as u64)?;
        at.at_most(Rule::Reference, tensors as u64, image.tensors() as u64)?;
        segment(image, &record, at)?;
    }
    let at = At { section: Section::Segments, record: image.segments() };
    at.equal(Rule::Partition, ops as u64, image.ops() as u64)?;
    at.equal(Rule::Partition, tensors as u64, image.tensors() as u64)?;
    costs(image)?;
    let (mut entries, mut overlays) = (0, 0);
    for index in 0..usize::from(image.configs()) {
        let at = At { section: Section::Configs, record: index };
        let record = image.config(ConfigId(index as u16));
        at.equal(Rule::Partition, record.first_run, entries as u64)?;
        at.equal(Rule::Partition, record.first_overlay, overlays as u64)?;
        entries = runs(image, &record, entries, at)?;
        overlays += usize::from(record.overlays);
        at.at_most(Rule::Reference, overlays as u64, image.overlays() as u64)?;
        config(image, &record, at)?;
    }
    let at = At { section: Section::Configs, record: usize::from(image.configs()) };
    at.equal(Rule::Partition, entries as u64, image.runs() as u64)?;
    at.equal(Rule::Partition, overlays as u64, image.overlays() as u64)?;
    whole(image)
}

/// V12 for all tables and names together, before any is read: many records may name one long run of bytes.
fn sharing(image: &Image<'_>) -> Check {
    let channels = |op: &Op| u64::from(image.tensor(op.output).shape[2]);
    let tables = |op: &Op| match op.kind {
        OpKind::Mix => 9 * image.mixing(op).matrices(),
        OpKind::Conv | OpKind::Depthwise | OpKind::Rescale | OpKind::LayerNorm | OpKind::Pool => 9 * channels(op),
        _ => 0,
    };
    let ops: u64 = (0..image.ops()).map(|index| tables(&image.op(OpId(index as u16)))).sum();
    let overlays: u64 = (0..image.overlays()).map(|index| 4 * channels(&image.op(image.any_overlay(index).op))).sum();
    let names: u64 = (0..image.targets()).map(|number| u64::from(image.target(TargetId(number)).name.len)).sum();
    let at = At { section: Section::Data, record: 0 };
    at.at_most(Rule::Reference, ops + overlays + names, MAX_SHARING * image.data_len() as u64)
}

/// V10, V13 and V18 for the kept maps: one after another.
fn kept(image: &Image<'_>) -> Check {
    let mut end = 0;
    At { section: Section::Kept, record: 0 }.at_most(Rule::RecordCount, image.kept_maps(), MAX_KEPT)?;
    for number in 0..image.kept_maps() {
        let at = At { section: Section::Kept, record: number.into() };
        let map = image.kept(number.into());
        tensor(&map, at)?;
        at.equal(Rule::Placement, map.offset, end)?;
        end += arena_len(&map);
        at.at_most(Rule::Placement, end, (1u32 << 31) - 1)?;
    }
    Ok(())
}

fn tensor(record: &Tensor, at: At) -> Check {
    values(record.element, record.zero_point, record.bytes(), at)
}

fn cut(record: &Cut, at: At) -> Check {
    values(record.element, record.zero_point, record.bytes(), at)
}

fn values(element: Element, zero_point: i8, bytes: u64, at: At) -> Check {
    match element {
        Element::Int8 => {}
        Element::Int16 => at.equal(Rule::KindKnown, zero_point as u8, 0u8)?,
        Element::Invalid(kind) => return Err(at.refuse(Rule::KindKnown, kind, 1u8)),
    }
    at.at_least(Rule::TensorShape, bytes, 1u8)?;
    at.at_most(Rule::TensorShape, bytes, (1u32 << 31) - 1)
}

/// Bytes in the arena.
fn arena_len(tensor: &Tensor) -> u64 {
    tensor.bytes().next_multiple_of(u64::from(ARENA_ALIGN))
}

fn overlap(a: &Tensor, b: &Tensor) -> bool {
    // A kept map lies elsewhere.
    if a.kept().is_some() || b.kept().is_some() {
        return false;
    }
    let (a_start, b_start) = (u64::from(a.offset), u64::from(b.offset));
    a_start < b_start + arena_len(b) && b_start < a_start + arena_len(a)
}

fn segment(image: &Image<'_>, record: &Segment, at: At) -> Check {
    if let SegmentKind::Invalid(kind) = record.kind {
        return Err(at.refuse(Rule::KindKnown, kind, 2u8));
    }
    at.equal(Rule::KindKnown, record.reserved, 0u8)?;
    at.at_least(Rule::RecordCount, record.ops, 1u8)?;
    at.at_most(Rule::RecordCount, record.ops, MAX_SEGMENT_OPS)?;
    at.at_most(Rule::RecordCount, record.tensors, MAX_SEGMENT_TENSORS as u64)?;
    for cut in [record.from, record.to] {
        at.at_most(Rule::Reference, cut.0, (image.cuts() - 1) as u64)?;
    }
    let own = |id: TensorId| id.0.checked_sub(record.first_tensor).filter(|&local| local < record.tensors);
    for id in [record.input, record.output] {
        if own(id).is_none() {
            return Err(at.refuse(Rule::Reference, id.0, record.first_tensor));
        }
    }
    at.equal(Rule::Placement, record.peak_bytes % ARENA_ALIGN, 0u8)?;
    at.at_most(Rule::Placement, record.live_bytes, record.peak_bytes)?;
    let mut kept = 0;
    for local in 0..record.tensors {
        let id = record.first_tensor + local;
        let tensor = image.tensor(TensorId(id));
        let at = At { section: Section::Tensors, record: usize::from(id) };
        if let Some(number) = tensor.kept() {
            at.at_most(Rule::Reference, number + 1, image.kept_maps())?;
            kept |= kept_once(record, &tensor, number, &image.kept(number), kept, at)?;
            continue;
        }
        at.equal(Rule::Placement, tensor.offset % ARENA_ALIGN, 0u8)?;
        at.at_most(Rule::Placement, u64::from(tensor.offset) + arena_len(&tensor), record.peak_bytes)?;
    }
    at.equal(Rule::Reference, record.keeps | record.takes, kept)?;
    ends(image, record, at)?;
    lifetimes(image, record, &own)
}

/// The bit of a kept map that a segment has a tensor for: it has one, like the map, and writes it or reads it.
fn kept_once(
    record: &Segment,
    tensor: &Tensor,
    number: u32,
    map: &Tensor,
    before: u8,
    at: At,
) -> Result<u8, ImageError> {
    let bit = 1u8 << number;
    at.equal(Rule::Reference, before & bit, 0u8)?;
    at.equal(Rule::Reference, record.keeps & record.takes & bit, 0u8)?;
    for (found, expected) in tensor.shape.into_iter().zip(map.shape) {
        at.equal(Rule::Placement, found, expected)?;
    }
    at.equal(Rule::Placement, tensor.zero_point as u8, map.zero_point as u8)?;
    at.equal(Rule::Placement, tensor.element.bytes(), map.element.bytes())?;
    Ok(bit)
}

/// V19: input and output are the cuts' tensors, at the two ends or both at the first.
fn ends(image: &Image<'_>, record: &Segment, at: At) -> Check {
    for (cut, id) in [(record.from, record.input), (record.to, record.output)] {
        let (cut, tensor) = (image.cut(cut), image.tensor(id));
        for (found, expected) in tensor.shape.into_iter().zip(cut.shape) {
            at.equal(Rule::SegmentEnds, found, expected)?;
        }
        at.equal(Rule::SegmentEnds, tensor.zero_point as u8, cut.zero_point as u8)?;
        at.equal(Rule::SegmentEnds, tensor.element.bytes(), cut.element.bytes())?;
    }
    at.equal(Rule::SegmentEnds, image.tensor(record.input).offset, 0u8)?;
    let output = image.tensor(record.output);
    if output.offset == 0 {
        // It stays where the input was.
        return Ok(());
    }
    at.equal(Rule::SegmentEnds, u64::from(output.offset) + arena_len(&output), record.peak_bytes)
}

/// V15 to V18 for the ops of one segment. `own` gives a tensor's position in the segment.
fn lifetimes(image: &Image<'_>, record: &Segment, own: &impl Fn(TensorId) -> Option<u16>) -> Check {
    // Channels written so far, and the last op that reads or writes each tensor (`u16::MAX`: the segment's output).
    let mut written = [0u16; MAX_SEGMENT_TENSORS];
    let mut last_use = [0u16; MAX_SEGMENT_TENSORS];
    let local =
        |id: TensorId, at: At| own(id).map(usize::from).ok_or_else(|| at.refuse(Rule::Reference, id.0, record.tensors));
    let set = |table: &mut [u16], index: usize, value: u16| {
        if let Some(slot) = table.get_mut(index) {
            *slot = value;
        }
    };
    let get = |table: &[u16], index: usize| table.get(index).copied().unwrap_or_default();
    // From the end: what an op of a stream uses is needed until the last one has run. And who reads a tensor: here `written` has the
    // number of its one reader plus 1, or more than any if there are several.
    let mut end = 0;
    for step in (0..record.ops).rev() {
        let id = OpId(record.first_op + step);
        let at = At { section: Section::Ops, record: id.index() };
        let op = image.op(id);
        // An op has an operand and a result, whatever else.
        for id in [op.input, op.output] {
            local(id, at)?;
        }
        if op.is_streamed() {
            at.equal(Rule::WriteBeforeRead, get(&written, local(op.output, at)?), step + 2)?;
        } else {
            end = step;
        }
        for id in op.operands().into_iter().filter(|id| id.0 != NO_TENSOR) {
            let tensor = local(id, at)?;
            let reader = if get(&written, tensor) == 0 { step + 1 } else { u16::MAX };
            set(&mut written, tensor, reader);
        }
        for id in op.operands().into_iter().chain([op.output]).filter(|id| id.0 != NO_TENSOR) {
            let tensor = local(id, at)?;
            let last = get(&last_use, tensor).max(end);
            set(&mut last_use, tensor, last);
        }
    }
    written.fill(0);
    for index in 0..record.tensors {
        let tensor = image.tensor(TensorId(record.first_tensor + index));
        let taken = tensor.kept().is_some_and(|number| record.takes & 1u8 << number != 0);
        if taken {
            set(&mut written, index.into(), tensor.shape[2]);
        }
    }
    let segment_at = At { section: Section::Segments, record: 0 };
    set(&mut last_use, local(record.output, segment_at)?, u16::MAX);
    set(&mut written, local(record.input, segment_at)?, image.tensor(record.input).shape[2]);
    let mut stream = Stream::default();
    for step in 0..record.ops {
        let id = OpId(record.first_op + step);
        let at = At { section: Section::Ops, record: id.index() };
        let op = image.op(id);
        let maps = stream.enter(image, record, step, at)?;
        op::alone(image, &maps, &op, at)?;
        for input in op.operands() {
            if input.0 != NO_TENSOR {
                at.equal(Rule::WriteBeforeRead, get(&written, local(input, at)?), image.tensor(input).shape[2])?;
            }
        }
        // The output is written once; a `Move` may write it in parts, from the first channel on.
        let output = local(op.output, at)?;
        let (from, channels) = match op.kind {
            OpKind::Move => (op.first_channel, op.groups),
            _ => (0, image.tensor(op.output).shape[2]),
        };
        at.equal(Rule::WriteBeforeRead, get(&written, output), from)?;
        let new = from == 0;
        set(&mut written, output, from.saturating_add(channels));
        // What this op brings to life must not touch anything that is still needed.
        let brought = [Some(op.output).filter(|_| new), Some(op.scratch).filter(|id| id.0 != NO_TENSOR)];
        for fresh in brought.into_iter().flatten() {
            let fresh_local = local(fresh, at)?;
            let fresh_tensor = image.tensor(fresh);
            for other in 0..record.tensors {
                let index = usize::from(other);
                let live = get(&written, index) > 0 && get(&last_use, index) >= step || index == output;
                let in_place = fresh == op.output
                    && other + record.first_tensor == op.input.0
                    && get(&last_use, index) == step
                    && maps.takes_place(&op);
                if index != fresh_local
                    && live
                    && !in_place
                    && overlap(&fresh_tensor, &image.tensor(TensorId(record.first_tensor + other)))
                {
                    return Err(at.refuse(Rule::Placement, fresh.0, record.first_tensor + other));
                }
            }
        }
        stream.apart(image, &maps, &op, at)?;
        if op.scratch.0 != NO_TENSOR {
            // Scratch belongs to ops alone: nothing reads or writes it as an activation.
            at.equal(Rule::WriteBeforeRead, get(&written, local(op.scratch, at)?), 0u8)?;
        }
    }
    for index in 0..record.tensors {
        let tensor = image.tensor(TensorId(record.first_tensor + index));
        if tensor.kept().is_some() {
            segment_at.equal(Rule::WriteBeforeRead, get(&written, index.into()), tensor.shape[2])?;
        }
    }
    let output = image.tensor(record.output);
    segment_at.equal(Rule::WriteBeforeRead, get(&written, local(record.output, segment_at)?), output.shape[2])?;
    head::parts(image, record)
}

/// V20: what the targets pay.
fn costs(image: &Image<'_>) -> Check {
    let at = At { section: Section::Costs, record: 0 };
    let expected = u64::from(image.targets()) * image.segments() as u64;
    at.equal(Rule::Costs, image.cost_entries() as u64, expected)?;
    for number in 0..image.targets() {
        let target = image.target(TargetId(number));
        let at = At { section: Section::Targets, record: usize::from(number) };
        at.at_least(Rule::Costs, target.ticks_per_second, 1u8)?;
        text(image, target.name, at)?;
        for index in 0..image.segments() {
            let cost = image.cost(TargetId(number), SegmentId(index as u16));
            let record = usize::from(number) * image.segments() + index;
            let at = At { section: Section::Costs, record };
            at.at_least(Rule::Costs, cost.bound_ticks, cost.ticks)?;
            at.at_least(Rule::Costs, cost.bound_energy_uj, cost.energy_uj)?;
        }
    }
    Ok(())
}

/// V12, V14 and V21 for the runs of a path that starts with run `start`: the run behind its last.
fn runs(image: &Image<'_>, record: &Config, start: usize, at: At) -> Result<usize, ImageError> {
    at.at_least(Rule::Path, record.segments, 1u8)?;
    at.at_most(Rule::Path, record.segments, MAX_PATH)?;
    let (mut index, mut left) = (start, record.segments);
    while left > 0 {
        at.at_most(Rule::Reference, index as u64 + 1, image.runs() as u64)?;
        let at = At { section: Section::Path, record: index };
        let run = image.run(index);
        at.at_least(Rule::Path, run.segments, 1u8)?;
        at.at_most(Rule::Partition, run.segments, left)?;
        at.at_most(Rule::Reference, run.end(), image.segments() as u64)?;
        for before in start..index {
            // None twice: an overlay could not say which of the two it means. And one path is stored in one way: no run
            // goes on where the last one ends.
            let other = image.run(before);
            let twice = u32::from(run.first.0) < other.end() && u32::from(other.first.0) < run.end();
            if twice || before + 1 == index && u32::from(run.first.0) == other.end() {
                return Err(at.refuse(Rule::Path, run.first.0, other.first.0));
            }
        }
        (index, left) = (index + 1, left - run.segments);
    }
    Ok(index)
}

fn config(image: &Image<'_>, record: &Config, at: At) -> Check {
    let meta = image.meta();
    let mut cut = meta.input;
    let (mut lead, mut arena, mut kept) = (0, 0, 0);
    // Overlays follow the ops of the path, so one walk meets them all.
    let mut overlay = 0;
    for (step, id) in image.path(record).enumerate() {
        let segment = image.segment(id);
        at.equal(Rule::Path, segment.from.0, cut.0)?;
        cut = segment.to;
        if step < usize::from(meta.lead) {
            at.equal(Rule::Path, segment.takes | segment.keeps, 0u8)?;
            // Behind the lead every path is at the same end.
            at.at_least(Rule::Path, image.tensor(segment.output).offset, 1u8)?;
            lead = lead.max(segment.peak_bytes);
        } else {
            arena = arena.max(segment.peak_bytes);
        }
        at.equal(Rule::Path, segment.takes & !kept, 0u8)?;
        at.equal(Rule::Path, segment.keeps & kept, 0u8)?;
        kept |= segment.keeps;
        let mut next_op = segment.first_op;
        while overlay < record.overlays {
            let found = image.overlay(record, overlay);
            let end = u32::from(segment.first_op) + u32::from(segment.ops);
            if found.op.0 < next_op || u32::from(found.op.0) >= end {
                break;
            }
            let at = At { section: Section::Overlays, record: usize::from(record.first_overlay + overlay) };
            at.equal(Rule::OverlayOrder, found.step, step as u64)?;
            let op = image.op(found.op);
            if !matches!(op.kind, OpKind::Conv | OpKind::Depthwise) {
                return Err(at.refuse(Rule::OverlayOrder, found.op.0, next_op));
            }
            let channels = image.tensor(op.output).shape[2];
            at.at_most(Rule::Reference, u64::from(found.bias) + 4 * u64::from(channels), image.data_len() as u64)?;
            op::biases(image, found.bias, channels, at)?;
            next_op = found.op.0 + 1;
            overlay += 1;
        }
    }
    at.equal(Rule::Path, cut.0, meta.output.0)?;
    at.equal(Rule::OverlayOrder, overlay, record.overlays)?;
    let arena = u64::from(lead).max(u64::from(arena) + u64::from(image.kept_bytes()));
    at.equal(Rule::ConfigCost, record.arena_bytes, arena)?;
    at.at_most(Rule::ConfigCost, record.arena_bytes, meta.arena_bytes)?;
    at.at_most(Rule::ConfigCost, record.score.max(record.float_score), 10_000u16)
}

fn text(image: &Image<'_>, range: Range, at: At) -> Check {
    inside(image, range, at)?;
    match core::str::from_utf8(image.range(range)) {
        Ok(_) => Ok(()),
        Err(error) => Err(at.refuse(Rule::Text, error.valid_up_to() as u64, range.len)),
    }
}

fn inside(image: &Image<'_>, range: Range, at: At) -> Check {
    at.at_most(Rule::Reference, u64::from(range.offset) + u64::from(range.len), image.data_len() as u64)
}

/// What belongs to the whole image.
fn whole(image: &Image<'_>) -> Check {
    let at = At { section: Section::Meta, record: 0 };
    let meta = image.meta();
    for cut in [meta.input, meta.output] {
        at.at_most(Rule::Reference, cut.0, (image.cuts() - 1) as u64)?;
    }
    at.equal(Rule::KindKnown, u8::from(meta.reserved != [0; 10]), 0u8)?;
    let (input, output) = (image.cut(meta.input), image.cut(meta.output));
    // Pixels and scores are bytes.
    for (cut, record) in [(meta.input, &input), (meta.output, &output)] {
        if record.element != Element::Int8 {
            return Err(at.refuse(Rule::Geometry, cut.0, 0u8));
        }
    }
    at.at_most(Rule::Geometry, input.shape[2], MAX_INPUT_CHANNELS)?;
    at.at_most(Rule::Geometry, meta.classes, output.bytes())?;
    if image.is_detector() {
        for (found, expected) in output.shape.into_iter().skip(1).zip([1, DETECTION_LEN]) {
            at.equal(Rule::Geometry, found, expected)?;
        }
    }
    at.at_most(Rule::Reference, meta.anchors, image.configs())?;
    for range in [meta.preprocess, meta.test_input, meta.test_outputs] {
        inside(image, range, at)?;
    }
    at.equal(Rule::SelfTest, meta.preprocess.len, 256 * u32::from(input.shape[2]))?;
    at.equal(Rule::SelfTest, meta.test_input.len, input.bytes())?;
    at.equal(Rule::SelfTest, meta.test_outputs.len, output.bytes().saturating_mul(image.configs().into()))?;
    for range in [meta.name, meta.labels, meta.anchor_names] {
        text(image, range, at)?;
    }
    at.equal(Rule::Text, image.text(meta.labels).lines().count() as u64, meta.classes)?;
    at.equal(Rule::Text, image.text(meta.anchor_names).lines().count() as u64, meta.anchors)
}
