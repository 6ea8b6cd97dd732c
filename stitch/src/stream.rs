//! Stage 8, first: which ops run strip by strip, so that large maps never exist whole ([`plan::stream`]), and which sums are written
//! over an operand.
//!
//! A stream costs a call per op and strip and buys memory, so only segments that decide how much arena some config needs get
//! one: of all runs of ops and all strips the one with the fewest live bytes, of nearly equal ones that with the fewest ops and the
//! longest strips. Where other segments of a path need more anyway, strips are longer.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use plan::layout::{IF_PATCHES, MAX_STREAM, NO_TENSOR, PER_BOX, PER_PATCH, STREAMED};
use plan::stream::{Reach, stays_ahead};
use plan::{Element, OpKind};

use crate::error::Error;
use crate::network::{Constants, IntegerOp, IntegerPath, IntegerSegment, Quantized};
use crate::place::{live_bytes, peak_bytes};

/// Less saved memory than a part of so many is not worth a stream.
const WORTH: u32 = 20;
/// Live bytes that differ by less than a part of so many are equal: MobileNetV1-0.25 needs 10 % more arena so, and 5 % fewer instructions
/// on a Cortex-M4.
const EQUAL: u32 = 6;
/// Positions of a strip at least: kernels share each weight among a few.
const POSITIONS: usize = 8;

/// Streams where they pay, if they are wanted.
///
/// # Errors
/// What [`peak_bytes`] returns.
pub fn stream(mut quantized: Quantized, wanted: bool) -> Result<Quantized, Error> {
    if !wanted {
        return Ok(quantized);
    }
    let mut peaks = quantized.segments.iter().map(peak_bytes).collect::<Result<Vec<u32>, Error>>()?;
    let whole = peaks.clone();
    let mut tried = vec![false; peaks.len()];
    // Kept maps ask for paths that are at the same end behind the lead.
    let stay = quantized.kept.is_empty();
    loop {
        // The segments that decide, until none of them is new.
        let largest = |path: &[usize]| path.iter().copied().max_by_key(|&segment| (peaks[segment], Reverse(segment)));
        let deciding = quantized.paths.iter().flat_map(|path| parts(&quantized, path).map(largest));
        let new: BTreeSet<usize> = deciding.flatten().filter(|&segment| !tried[segment]).collect();
        if new.is_empty() {
            break;
        }
        for number in new {
            tried[number] = true;
            if let Some(streams) = best(&quantized.segments[number], stay, 0)? {
                peaks[number] = streams.peak;
            }
        }
    }
    for number in (0..peaks.len()).filter(|&number| peaks[number] < whole[number]) {
        let room = room(&quantized, &peaks, number);
        if whole[number] <= room {
            continue;
        }
        for enough in [room, 0] {
            let found = best(&quantized.segments[number], stay, enough)?;
            if let Some(streams) = found.filter(|streams| streams.peak <= room) {
                apply(&mut quantized, number, &streams, stay);
                break;
            }
        }
    }
    Ok(quantized)
}

/// The lead of a path, and what is behind it, beside which kept maps lie: each of them has an arena.
fn parts<'a>(quantized: &Quantized, path: &'a IntegerPath) -> [&'a [usize]; 2] {
    let (lead, rest) = path.segments.split_at(quantized.lead().min(path.segments.len()));
    [lead, rest]
}

/// Arena that a segment may use without a path that needs more for it, as far as first-fit tells.
fn room(quantized: &Quantized, peaks: &[u32], number: usize) -> u32 {
    let parts = quantized.paths.iter().flat_map(|path| parts(quantized, path));
    let rooms =
        parts.filter(|part| part.contains(&number)).map(|part| part.iter().map(|&segment| peaks[segment]).max());
    rooms.flatten().min().unwrap_or(0)
}

/// An order of a segment's ops, the streams in it, and the arena that it needs so.
struct Streams {
    order: Vec<usize>,
    runs: Vec<Run>,
    peak: u32,
}

/// Ops in a row, of which each but the last holds some lines of its map, and the last writes `strip` lines in a turn.
#[derive(Clone)]
struct Run {
    first: usize,
    held: Vec<usize>,
    strip: usize,
}

fn apply(quantized: &mut Quantized, number: usize, streams: &Streams, stay: bool) {
    let segment = &mut quantized.segments[number];
    let mut ops: Vec<Option<IntegerOp>> = std::mem::take(&mut segment.ops).into_iter().map(Some).collect();
    segment.ops = streams.order.iter().filter_map(|&op| ops[op].take()).collect();
    for run in &streams.runs {
        set(segment, run);
    }
    add_in_place(segment, stay);
    for path in &mut quantized.paths {
        for correction in path.corrections.iter_mut().filter(|correction| correction.segment == number) {
            correction.op = streams.order.iter().position(|&op| op == correction.op).unwrap_or(correction.op);
        }
        let step = |segment: usize| path.segments.iter().position(|&other| other == segment);
        path.corrections.sort_by_key(|correction| (step(correction.segment), correction.op));
    }
}

/// The streams with which a segment needs no more than `enough`, in the first order that has some; else those with which it needs least,
/// if that is less than without.
fn best(segment: &IntegerSegment, stay: bool, enough: u32) -> Result<Option<Streams>, Error> {
    let light = without_weights(segment);
    let as_it_is: Vec<usize> = (0..light.ops.len()).collect();
    let (mut least, mut found) = (peak_bytes(&light)?, None);
    for order in [as_it_is, readers_next(&light)] {
        let mut segment = light.clone();
        segment.ops = order.iter().map(|&op| light.ops[op].clone()).collect();
        add_in_place(&mut segment, stay);
        let runs = std::iter::from_fn(|| next_run(&mut segment, stay, enough)).collect();
        let peak = peak_bytes(&segment)?;
        if peak < least {
            (least, found) = (peak, Some(Streams { order, runs, peak }));
        }
        if peak <= enough {
            break;
        }
    }
    Ok(found)
}

/// A segment that is cheap to copy.
fn without_weights(segment: &IntegerSegment) -> IntegerSegment {
    let light = |op: &IntegerOp| IntegerOp { weights: None, constants: Constants::Nothing, ..*op };
    IntegerSegment {
        name: segment.name.clone(),
        tensors: segment.tensors.clone(),
        held: segment.held.clone(),
        in_place: vec![],
        stands_for: vec![],
        ops: segment.ops.iter().map(light).collect(),
        keeps: segment.keeps.clone(),
        ..*segment
    }
}

/// The ops in an order in which what one op alone reads is computed right before it.
fn readers_next(segment: &IntegerSegment) -> Vec<usize> {
    let mut order: Vec<usize> = (0..segment.ops.len()).collect();
    for op in (0..order.len()).rev() {
        let at = order.iter().position(|&other| other == op).unwrap_or(op);
        let Some(reader) = reader(segment, op) else { continue };
        let Some(to) = order.iter().position(|&other| other == reader) else { continue };
        if to > at + 1 {
            order.remove(at);
            order.insert(to - 1, op);
        }
    }
    order
}

/// The one op that reads what an op writes, if both could be part of a stream.
fn reader(segment: &IntegerSegment, op: usize) -> Option<usize> {
    let output = segment.ops[op].record.output.index();
    let mut readers = (0..segment.ops.len()).filter(|&other| segment.ops[other].record.reads(output));
    let reader = readers.next()?;
    let stays = output == segment.output || segment.is_kept(output);
    let able = |op: usize| {
        let record = &segment.ops[op].record;
        Reach::of(record, 0).is_some() && record.flags & (PER_PATCH | PER_BOX | IF_PATCHES) == 0
    };
    (readers.next().is_none() && !stays && able(op) && able(reader)).then_some(reader)
}

/// Makes the best of the runs that are left a stream, if that is worth it and more than `enough` bytes are alive.
fn next_run(segment: &mut IntegerSegment, stay: bool, enough: u32) -> Option<Run> {
    let before = live_bytes(segment);
    if before <= enough {
        return None;
    }
    let mut found = vec![];
    for first in 0..segment.ops.len() {
        for last in first + 1..segment.ops.len().min(first + MAX_STREAM) {
            let streamed = |op: usize| segment.ops[op].record.is_streamed();
            let taken = first > 0 && streamed(first - 1) || streamed(first) || streamed(last);
            if taken || reader(segment, last - 1) != Some(last) {
                break;
            }
            let (lines, positions) = side(segment, first, segment.ops[last].record.output.index());
            let strips = std::iter::successors(Some(lines / 2), |strip| Some(strip / 2));
            for strip in strips.take_while(|&strip| strip > 0 && strip * positions >= POSITIONS) {
                let Some(run) = run(segment, first, last, strip) else { continue };
                let mut tried = segment.clone();
                set(&mut tried, &run);
                add_in_place(&mut tried, stay);
                found.push((live_bytes(&tried), run));
            }
        }
    }
    found.retain(|(live, _)| live + before / WORTH <= before);
    let least = found.iter().map(|(live, _)| *live).min()?;
    let most = enough.max(least + least / EQUAL);
    let nearly = found.into_iter().filter(|(live, _)| *live <= most);
    let (_, run) = nearly.min_by_key(|(_, run)| (run.held.len(), Reverse(run.strip)))?;
    set(segment, &run);
    add_in_place(segment, stay);
    Some(run)
}

/// Lines of a tensor along the axis of a stream that begins with an op, and positions of one.
fn side(segment: &IntegerSegment, first: usize, tensor: usize) -> (usize, usize) {
    let axis = axis(segment, first);
    let shape = segment.tensors[tensor].0;
    (shape[axis], if axis == 0 { shape[1] } else { 1 })
}

/// [`plan::stream::axis`] of a stream that begins with an op.
fn axis(segment: &IntegerSegment, first: usize) -> usize {
    usize::from(segment.tensors[segment.ops[first].record.input.index()].0[0] == 1)
}

/// Ops from one to another, both included; none if a map would not get smaller, or has several rows in a stream of columns.
fn run(segment: &IntegerSegment, first: usize, last: usize, strip: usize) -> Option<Run> {
    let axis = axis(segment, first);
    let mut held = vec![];
    let mut lines = strip;
    for op in (first..last).rev() {
        let reach = Reach::of(&segment.ops[op + 1].record, axis)?;
        Reach::of(&segment.ops[op].record, axis)?;
        let rows = [op, op + 1].map(|op| segment.tensors[segment.ops[op].record.output.index()].0[0]);
        lines = (lines - 1) * reach.stride + reach.kernel;
        let (all, _) = side(segment, first, segment.ops[op].record.output.index());
        if lines >= all || (axis == 1 && rows != [1, 1]) {
            return None;
        }
        held.push(lines);
    }
    held.reverse();
    Some(Run { first, held, strip })
}

/// Lets each sum of bytes that can take the place of an operand do so.
fn add_in_place(segment: &mut IntegerSegment, stay: bool) {
    segment.in_place.clear();
    for op in 0..segment.ops.len() {
        let record = segment.ops[op].record;
        let (output, operands) = (record.output.index(), [record.input, record.input2]);
        let int8 = |tensor: usize| segment.tensors[tensor].1.element == Element::Int8;
        let sum = record.kind == OpKind::Add && record.input2.0 != NO_TENSOR && operands[0] != operands[1];
        if !sum || record.is_streamed() || segment.is_kept(output) {
            continue;
        }
        if !operands.iter().chain([&record.output]).all(|id| int8(id.index())) {
            continue;
        }
        let free = |tensor: usize| {
            if tensor == segment.input { stay && output == segment.output } else { !segment.is_kept(tensor) }
        };
        let Some(number) = operands.iter().position(|id| free(id.index()) && is_last(segment, op, id.index())) else {
            continue;
        };
        let record = &mut segment.ops[op].record;
        if number == 1 {
            (record.input, record.input2) = (record.input2, record.input);
            record.factors.swap(0, 1);
        }
        segment.in_place.push((output, record.input.index()));
    }
}

/// Whether a sum is the last to read each line of a tensor that was whole before its stream began.
fn is_last(segment: &IntegerSegment, sum: usize, tensor: usize) -> bool {
    let streamed = |op: &usize| segment.ops[*op].record.is_streamed();
    let first = (0..sum).rev().take_while(streamed).last().unwrap_or(sum);
    let handed = first < sum && segment.ops[sum - 1].record.output.index() == tensor;
    let reads = |op: &usize| *op != sum && segment.ops[*op].record.reads(tensor);
    let others: Vec<usize> = (0..segment.ops.len()).filter(reads).collect();
    let axis = axis(segment, first);
    let ahead = || stays_ahead(segment.ops[first..=sum].iter().map(|op| Reach::of(&op.record, axis)));
    !handed
        && others.iter().all(|&op| {
            op < first || (op == first && first < sum && segment.ops[op].record.input.index() == tensor && ahead())
        })
}

/// Marks the ops of a run and shortens their maps.
fn set(segment: &mut IntegerSegment, run: &Run) {
    let axis = axis(segment, run.first);
    for (op, &lines) in (run.first..).zip(&run.held) {
        let record = &mut segment.ops[op].record;
        record.flags |= STREAMED;
        let mut shape = segment.tensors[record.output.index()].0;
        shape[axis] = lines;
        segment.held.insert(record.output.index(), shape);
    }
}

#[cfg(test)]
mod tests;
