//! Stage 8: arena offsets, segment by segment.
//!
//! The input lies at one end, the output at the other; what is between is searched. A tensor is alive from the op that
//! writes it to the last op that reads it, scratch for its op. The peak starts at the live-bytes bound (no placement
//! can need less) and grows until everything fits: first-fit in a few hundred orders finds what there is quickly, a
//! depth-first search refutes. [`check`] verifies the result and shares no code with the search.

pub mod check;

use plan::layout::ARENA_ALIGN;

use crate::error::Error;
use crate::network::{IntegerOp, IntegerSegment, Placed, Placement, Quantized};

/// Nodes of the search per segment; most segments need a handful.
const EFFORT: usize = 60_000;
/// Nodes per peak that is tried.
const EFFORT_PER_PEAK: usize = 20_000;
/// Orders per peak in which first-fit is tried.
const ORDERS: u64 = 400;

/// A run of bytes that is needed from one op to another, both included.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    bytes: u32,
    first: usize,
    last: usize,
}

impl Buffer {
    fn lives(&self, op: usize) -> bool {
        self.first <= op && op <= self.last
    }
}

/// Places every segment.
///
/// # Errors
/// [`Error::Stage`] if a segment's tensors exceed 4 GiB, or if the independent check finds a fault.
pub fn place(quantized: Quantized) -> Result<Placed, Error> {
    let mut placements = vec![];
    for segment in &quantized.segments {
        let placement = segment_placement(segment, EFFORT)?;
        check::check(segment, &placement)
            .map_err(|what| Error::Stage { stage: "place", what: format!("segment {}: {what}", segment.name) })?;
        placements.push(placement);
    }
    Ok(Placed { quantized, placements })
}

fn rounded(segment: &IntegerSegment, bytes: usize) -> Result<u32, Error> {
    let bytes = bytes.next_multiple_of(ARENA_ALIGN as usize);
    u32::try_from(bytes).map_err(|_| Error::Stage {
        stage: "place",
        what: format!("segment {}: a tensor of {bytes} bytes does not fit 32 bits", segment.name),
    })
}

/// `left`: nodes of the search.
fn segment_placement(segment: &IntegerSegment, mut left: usize) -> Result<Placement, Error> {
    let ops = segment.ops.len();
    if ops == 0 {
        return Err(Error::Stage { stage: "place", what: format!("segment {} has no op", segment.name) });
    }
    let buffers = buffers(segment)?;
    let activations = segment.tensors.len();
    let live_bytes = most_alive(&buffers, ops);
    let mut peak = live_bytes;
    let offsets = loop {
        let granted = left.min(EFFORT_PER_PEAK);
        let mut effort = granted;
        let found = first_fit(segment, &buffers, peak).or_else(|| search(segment, &buffers, peak, &mut effort));
        if let Some(offsets) = found {
            break offsets;
        }
        left -= granted - effort;
        // Refuted is refuted; where effort ran out, a step of 16 bytes would only spend it again.
        peak += if effort > 0 { ARENA_ALIGN } else { (peak / 256).next_multiple_of(ARENA_ALIGN).max(ARENA_ALIGN) };
    };
    let mut scratch = offsets[activations..].iter().copied();
    let scratch = segment.ops.iter().map(|op| if op.scratch_bytes > 0 { scratch.next() } else { None }).collect();
    let mut offsets = offsets[..activations].to_vec();
    // From the last: a sum may take the place of a sum.
    for &(output, operand) in segment.in_place.iter().rev() {
        offsets[operand] = offsets[output];
    }
    Ok(Placement { offsets, scratch, peak_bytes: peak, live_bytes })
}

/// Activations, then the scratch of each op that has some. The ops of a stream take turns, so what any of them reads or writes is
/// alive from the first to the last.
fn buffers(segment: &IntegerSegment) -> Result<Vec<Buffer>, Error> {
    let ops = segment.ops.len();
    let streamed = |op: &usize| segment.ops[*op].record.is_streamed();
    let begins = |op: usize| (0..op).rev().take_while(streamed).last().unwrap_or(op);
    let ends = |op: usize| (op..ops).find(|op| !streamed(op)).unwrap_or(op);
    let mut buffers = vec![];
    for tensor in 0..segment.tensors.len() {
        let writes = |op: &IntegerOp| op.record.output.index() == tensor;
        let reads = |op: &IntegerOp| op.record.reads(tensor);
        let first = if tensor == segment.input { 0 } else { segment.ops.iter().position(writes).unwrap_or(0) };
        let last = segment.ops.iter().rposition(|op| reads(op) || writes(op)).unwrap_or(first);
        let last = if tensor == segment.output { ops - 1 } else { ends(last) };
        // A map that stays lies elsewhere.
        let bytes = if segment.is_kept(tensor) { 0 } else { segment.bytes(tensor) };
        buffers.push(Buffer { bytes: rounded(segment, bytes)?, first: begins(first), last });
    }
    for &(output, operand) in &segment.in_place {
        buffers[output].first = buffers[operand].first;
        buffers[operand].bytes = 0;
    }
    for (op, found) in segment.ops.iter().enumerate() {
        if found.scratch_bytes > 0 {
            buffers.push(Buffer { bytes: rounded(segment, found.scratch_bytes)?, first: op, last: op });
        }
    }
    Ok(buffers)
}

fn alive(buffers: &[Buffer], op: usize) -> u32 {
    buffers.iter().filter(|buffer| buffer.lives(op)).map(|buffer| buffer.bytes).sum()
}

fn most_alive(buffers: &[Buffer], ops: usize) -> u32 {
    (0..ops).map(|op| alive(buffers, op)).max().unwrap_or(0)
}

/// Bytes in the arena: of an activation, or without its number of scratch.
pub(crate) struct Alive {
    pub tensor: Option<usize>,
    pub bytes: u32,
}

/// The first op at which most bytes are alive, and what they are.
///
/// # Errors
/// As [`place`].
pub(crate) fn fullest(segment: &IntegerSegment) -> Result<(usize, Vec<Alive>), Error> {
    let buffers = buffers(segment)?;
    let op = (0..segment.ops.len()).rev().max_by_key(|&op| alive(&buffers, op)).unwrap_or(0);
    let tensor = |number: usize| Some(number).filter(|&number| number < segment.tensors.len());
    let living = buffers.iter().enumerate().filter(|(_, buffer)| buffer.lives(op) && buffer.bytes > 0);
    Ok((op, living.map(|(number, buffer)| Alive { tensor: tensor(number), bytes: buffer.bytes }).collect()))
}

/// Most bytes alive at once in a segment: no placement can need less.
pub(crate) fn live_bytes(segment: &IntegerSegment) -> u32 {
    buffers(segment).map_or(u32::MAX, |buffers| most_alive(&buffers, segment.ops.len()))
}

/// Arena that a segment needs at most: what first-fit finds.
///
/// # Errors
/// As [`place`].
pub(crate) fn peak_bytes(segment: &IntegerSegment) -> Result<u32, Error> {
    segment_placement(segment, 0).map(|placement| placement.peak_bytes)
}

/// Where the output lies within `peak`: at the other end, or where the input was.
fn end(segment: &IntegerSegment, buffers: &[Buffer], peak: u32) -> Option<u32> {
    let top = peak.checked_sub(buffers[segment.output].bytes)?;
    Some(if segment.stays() { 0 } else { top })
}

/// Offsets within `peak` from putting buffers one after another at the lowest place that is free, large ones rather
/// early, in an order that is drawn anew each time. `None` says nothing.
fn first_fit(segment: &IntegerSegment, buffers: &[Buffer], peak: u32) -> Option<Vec<u32>> {
    let (input, output, top) = (segment.input, segment.output, end(segment, buffers, peak)?);
    // Knuth's MMIX constants: the same draws every time.
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 48
    };
    (0..ORDERS).find_map(|_| {
        // A buffer may pass another that is up to four times as large.
        let mut order: Vec<(u64, usize)> = (0..buffers.len())
            .filter(|&buffer| buffer != input && buffer != output)
            .map(|buffer| (u64::from(buffers[buffer].bytes) * (21_845 + draw()), buffer))
            .collect();
        order.sort_unstable_by_key(|&(key, buffer)| (std::cmp::Reverse(key), buffer));
        let mut offsets: Vec<Option<u32>> = vec![None; buffers.len()];
        (offsets[input], offsets[output]) = (Some(0), Some(top));
        for (_, buffer) in order {
            let others = || (0..buffers.len()).filter(|&other| together(&buffers[buffer], &buffers[other]));
            let mut taken: Vec<(u32, u32)> =
                others().filter_map(|other| offsets[other].map(|at| (at, at + buffers[other].bytes))).collect();
            taken.sort_unstable();
            let mut at = 0;
            for (start, end) in taken {
                if at + buffers[buffer].bytes <= start {
                    break;
                }
                at = at.max(end);
            }
            if at.checked_add(buffers[buffer].bytes)? > peak {
                return None;
            }
            offsets[buffer] = Some(at);
        }
        let apart = !together(&buffers[input], &buffers[output]) || buffers[input].bytes <= top;
        apart.then(|| offsets.into_iter().flatten().collect())
    })
}

/// Offsets within `peak`, by depth-first search; with effort left over, `None` means that there are none.
///
/// Every placement can be pushed down until each buffer lies at 0 or on another that lives with it. Taken in the order
/// of their offsets, buffers of such a placement each lie at the lowest place that those before leave: so it is enough
/// to try orders.
fn search(segment: &IntegerSegment, buffers: &[Buffer], peak: u32, effort: &mut usize) -> Option<Vec<u32>> {
    let mut offsets: Vec<Option<u32>> = vec![None; buffers.len()];
    let (input, output, top) = (segment.input, segment.output, end(segment, buffers, peak)?);
    offsets[input] = Some(0);
    let stays = segment.stays();
    if stays {
        offsets[output] = Some(top);
    }
    let limit = |b: usize| if !stays && together(&buffers[b], &buffers[output]) { top } else { peak };
    if buffers[input].bytes > limit(input) {
        return None;
    }
    let mut rest: Vec<usize> = (0..buffers.len()).filter(|&b| b != input && b != output).collect();
    rest.sort_by_key(|&b| (std::cmp::Reverse(buffers[b].bytes), b));
    let found = descend(buffers, &rest, &mut offsets, &limit, 0, effort);
    offsets[output] = Some(top);
    found.then(|| offsets.into_iter().flatten().collect())
}

fn together(a: &Buffer, b: &Buffer) -> bool {
    a.first <= b.last && b.first <= a.last
}

/// Places `rest`, none of it lower than `floor`, where the last one was put.
fn descend(
    buffers: &[Buffer],
    rest: &[usize],
    offsets: &mut [Option<u32>],
    limit: &impl Fn(usize) -> u32,
    floor: u32,
    effort: &mut usize,
) -> bool {
    if rest.is_empty() {
        return true;
    }
    if *effort == 0 {
        return false;
    }
    *effort -= 1;
    let lowest = |b: usize| {
        let below = (0..buffers.len()).filter(|&other| together(&buffers[b], &buffers[other]));
        below.filter_map(|other| Some(offsets[other]? + buffers[other].bytes)).max().unwrap_or(0)
    };
    // Lowest first, of those the largest: that is first fit, and mostly the answer.
    let mut next: Vec<(u32, usize)> = rest.iter().map(|&b| (lowest(b), b)).collect();
    // What others are put below can only push a buffer up: one that does not fit now never will.
    if next.iter().any(|&(at, b)| at.max(floor).checked_add(buffers[b].bytes).is_none_or(|end| end > limit(b))) {
        return false;
    }
    next.sort_by_key(|&(at, _)| at);
    for (at, b) in next {
        if at < floor {
            // It belonged before the last one.
            continue;
        }
        let others: Vec<usize> = rest.iter().copied().filter(|&other| other != b).collect();
        offsets[b] = Some(at);
        if descend(buffers, &others, offsets, limit, at, effort) {
            return true;
        }
        offsets[b] = None;
    }
    false
}

#[cfg(test)]
mod tests;
