//! The judge of [`super::place`]: replays the ops over a map of owners, byte block by byte block.

use plan::layout::{ARENA_ALIGN, NO_TENSOR};
use plan::stream::Reach;

use crate::network::{IntegerSegment, Placement};

/// Owner of a block that nothing lives in.
const NOBODY: usize = usize::MAX;
/// Owner of a block that the op under way uses as scratch.
const SCRATCH: usize = usize::MAX - 1;

/// Verifies that every op reads what was written and destroys nothing that is still needed.
///
/// # Errors
/// A sentence that names the op and the tensor.
pub fn check(segment: &IntegerSegment, placement: &Placement) -> Result<(), String> {
    let block = ARENA_ALIGN as usize;
    let blocks = placement.peak_bytes as usize / block;
    // Which tensor's bytes each block of 16 holds.
    let mut owner = vec![NOBODY; blocks];
    let span = |tensor: usize| {
        if segment.is_kept(tensor) {
            return 0..0;
        }
        let start = placement.offsets[tensor] as usize / block;
        start..start + segment.bytes(tensor).div_ceil(block)
    };
    let output = span(segment.output);
    if placement.offsets[segment.input] != 0 || (output.end != blocks && !(segment.stays() && output.start == 0)) {
        return Err("input and output are not at the two ends".into());
    }
    if placement.offsets.iter().any(|offset| offset % ARENA_ALIGN != 0) {
        return Err("an offset is not aligned".into());
    }
    if let Some(tensor) = (0..segment.tensors.len()).find(|&tensor| span(tensor).end > blocks) {
        return Err(format!("tensor {tensor} lies outside the arena"));
    }
    if let Some((output, operand)) = segment.in_place.iter().find(|pair| !may_share(segment, **pair)) {
        return Err(format!("tensor {output} must not take the place of tensor {operand}"));
    }
    owner[output].fill(if segment.stays() { segment.output } else { NOBODY });
    owner[span(segment.input)].fill(if segment.stays() { segment.output } else { segment.input });
    let mut first = 0;
    while first < segment.ops.len() {
        let streamed = |op: &usize| segment.ops[*op].record.is_streamed();
        let last = (first..segment.ops.len()).find(|op| !streamed(op)).unwrap_or(first);
        // The ops of a stream take turns: the second time round finds whatever the first one destroyed.
        for turn in 0..=usize::from(last > first) {
            for number in first..=last {
                replay(segment, placement, number, turn == 0, &mut owner, &span)?;
            }
        }
        first = last + 1;
    }
    if owner[span(segment.output)].iter().any(|&found| found != segment.output) {
        return Err("the output was overwritten".into());
    }
    Ok(())
}

/// Whether a sum may be written over its first operand: bytes, whole before the sum begins, that nobody else reads; but the first op
/// of the sum's stream may, if it is ahead of the sum: each of its windows begins behind what was written.
fn may_share(segment: &IntegerSegment, (output, operand): (usize, usize)) -> bool {
    let ops = &segment.ops;
    let Some(sum) = ops.iter().position(|op| op.record.output.index() == output) else { return false };
    let record = &ops[sum].record;
    let first = (0..sum).rev().take_while(|&op| ops[op].record.is_streamed()).last().unwrap_or(sum);
    let handed = first < sum && ops[sum - 1].record.output.index() == operand;
    let reads = |op: &usize| *op != sum && ops[*op].record.reads(operand);
    let others: Vec<usize> = (0..ops.len()).filter(reads).collect();
    record.kind == plan::OpKind::Add
        && record.input.index() == operand
        && !record.is_streamed()
        && !handed
        && segment.bytes(output) == segment.bytes(operand)
        && ![output, operand].into_iter().any(|tensor| segment.is_kept(tensor))
        && others.iter().all(|&op| op < first || op == first && first < sum && is_ahead(segment, first, sum))
}

/// Replays a stream one line of the sum at a time, each op as late as it can be: whether the first op ever reads a line of its
/// operand that the sum has written.
fn is_ahead(segment: &IntegerSegment, first: usize, sum: usize) -> bool {
    let shape = |tensor: plan::TensorId| segment.tensors[tensor.index()].0;
    let axis = usize::from(shape(segment.ops[first].record.input)[0] == 1);
    let reaches: Option<Vec<Reach>> = segment.ops[first..=sum].iter().map(|op| Reach::of(&op.record, axis)).collect();
    let Some(reaches) = reaches else { return false };
    let lines = |op: usize| shape(segment.ops[first + op].record.output)[axis];
    (1..lines(sum - first)).all(|written| {
        // Lines of each op's output that were needed for so many lines of the sum.
        let needed =
            (1..reaches.len()).rev().fold(written, |needed, op| reaches[op].reads(0, needed, lines(op - 1)).end);
        needed == lines(0) || reaches[0].first(needed) >= written
    })
}

/// One op; `fresh` if its output is not there yet.
fn replay(
    segment: &IntegerSegment,
    placement: &Placement,
    number: usize,
    fresh: bool,
    owner: &mut [usize],
    span: &impl Fn(usize) -> std::ops::Range<usize>,
) -> Result<(), String> {
    let block = ARENA_ALIGN as usize;
    let op = &segment.ops[number];
    let record = &op.record;
    let inputs = record.operands();
    let inputs = || inputs.iter().filter(|input| input.0 != NO_TENSOR).map(|input| input.index());
    if let Some(start) = placement.scratch[number] {
        let start = start as usize / block;
        let Some(part) = owner.get_mut(start..start + op.scratch_bytes.div_ceil(block)) else {
            return Err(format!("scratch of op {number} lies outside the arena"));
        };
        part.fill(SCRATCH);
        if start * block != placement.scratch[number].unwrap_or(0) as usize {
            return Err(format!("scratch of op {number} is not aligned"));
        }
    }
    let output = record.output.index();
    // A sum and the operand whose place it takes are one.
    let one = |tensor: usize| {
        segment
            .in_place
            .iter()
            .fold(tensor, |tensor, &(output, operand)| if operand == tensor { output } else { tensor })
    };
    let output = one(output);
    let before = &owner[span(output)];
    if before.contains(&SCRATCH) {
        return Err(format!("op {number} has scratch where its output is"));
    }
    let goes_on = record.kind == plan::OpKind::Move && record.first_channel > 0 || !fresh;
    if goes_on && before.iter().any(|&found| found != output) {
        return Err(format!("op {number} writes the rest of tensor {output}, which was overwritten"));
    }
    let in_place = segment.in_place.iter().any(|(sum, _)| *sum == record.output.index());
    if in_place && before.iter().any(|&found| found != output) {
        return Err(format!("op {number} adds to tensor {output}, which was overwritten"));
    }
    owner[span(output)].fill(output);
    // Only now look at the inputs: they must have survived scratch and output.
    for input in inputs() {
        if owner[span(input)].iter().any(|&found| found != one(input)) {
            return Err(format!("op {number} reads tensor {input}, which was overwritten"));
        }
    }
    owner.iter_mut().filter(|found| **found == SCRATCH).for_each(|found| *found = NOBODY);
    Ok(())
}
