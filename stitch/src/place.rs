//! Stage 8: arena offsets, segment by segment.
//!
//! The input lies at one end, the output at the other; what is between is searched. A tensor is alive from the op that
//! writes it to the last op that reads it, scratch for its op. The peak starts at the live-bytes bound (no placement
//! can need less) and grows until everything fits. [`check`] verifies the result and shares no code with the search.

pub mod check;

use plan::layout::ARENA_ALIGN;

use crate::error::Error;
use crate::network::{IntegerSegment, Placed, Placement, Quantized};

/// Nodes of the search per peak that is tried; real segments need a handful.
const EFFORT: usize = 20_000;

/// A run of bytes that is needed from one op to another, both included.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    bytes: u32,
    first: usize,
    last: usize,
}

/// Places every segment.
///
/// # Errors
/// [`Error::Stage`] if a segment's tensors exceed 4 GiB, or if the independent check finds a fault.
pub fn place(quantized: Quantized) -> Result<Placed, Error> {
    let mut placements = vec![];
    for segment in &quantized.segments {
        let placement = segment_placement(segment)?;
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

fn segment_placement(segment: &IntegerSegment) -> Result<Placement, Error> {
    let ops = segment.ops.len();
    if ops == 0 {
        return Err(Error::Stage { stage: "place", what: format!("segment {} has no op", segment.name) });
    }
    let mut buffers = vec![];
    for (tensor, (shape, _)) in segment.tensors.iter().enumerate() {
        let writes = |op: &crate::network::IntegerOp| op.record.output.index() == tensor;
        let reads =
            |op: &crate::network::IntegerOp| op.record.input.index() == tensor || op.record.input2.index() == tensor;
        let first = if tensor == segment.input { 0 } else { segment.ops.iter().position(writes).unwrap_or(0) };
        let last = segment.ops.iter().rposition(|op| reads(op) || writes(op)).unwrap_or(first);
        let last = if tensor == segment.output { ops - 1 } else { last };
        buffers.push(Buffer { bytes: rounded(segment, shape.iter().product())?, first, last });
    }
    let activations = buffers.len();
    for (op, found) in segment.ops.iter().enumerate() {
        if found.scratch_bytes > 0 {
            buffers.push(Buffer { bytes: rounded(segment, found.scratch_bytes)?, first: op, last: op });
        }
    }
    let live = |op: usize| buffers.iter().filter(|b| b.first <= op && op <= b.last).map(|b| b.bytes).sum::<u32>();
    let live_bytes = (0..ops).map(live).max().unwrap_or(0);
    let mut peak = live_bytes;
    let offsets = loop {
        if let Some(offsets) = search(segment, &buffers, peak) {
            break offsets;
        }
        peak += ARENA_ALIGN;
    };
    let mut scratch = offsets[activations..].iter().copied();
    let scratch = segment.ops.iter().map(|op| if op.scratch_bytes > 0 { scratch.next() } else { None }).collect();
    Ok(Placement { offsets: offsets[..activations].to_vec(), scratch, peak_bytes: peak, live_bytes })
}

/// Offsets within `peak`, by depth-first search over the largest buffers first.
fn search(segment: &IntegerSegment, buffers: &[Buffer], peak: u32) -> Option<Vec<u32>> {
    let mut offsets: Vec<Option<u32>> = vec![None; buffers.len()];
    offsets[segment.input] = Some(0);
    offsets[segment.output] = Some(peak.checked_sub(buffers[segment.output].bytes)?);
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&b| offsets[b].is_none()).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(buffers[b].bytes), b));
    let free = |offsets: &[Option<u32>], b: usize, at: u32| {
        let end = at.checked_add(buffers[b].bytes).filter(|&end| end <= peak);
        end.is_some_and(|end| {
            (0..buffers.len()).filter(|&other| other != b).all(|other| {
                let Some(start) = offsets[other] else { return true };
                let (mine, its) = (&buffers[b], &buffers[other]);
                let together = mine.first <= its.last && its.first <= mine.last;
                !together || end <= start || start + its.bytes <= at
            })
        })
    };
    if !free(&offsets, segment.input, 0) {
        return None;
    }
    let mut effort = EFFORT;
    descend(buffers, &order, &mut offsets, &free, peak, &mut effort).then(|| offsets.into_iter().flatten().collect())
}

fn descend(
    buffers: &[Buffer],
    order: &[usize],
    offsets: &mut [Option<u32>],
    free: &impl Fn(&[Option<u32>], usize, u32) -> bool,
    peak: u32,
    effort: &mut usize,
) -> bool {
    let Some((&buffer, rest)) = order.split_first() else { return true };
    // A buffer touches an end of the arena or of another buffer: anything else can be pushed down to that.
    let bytes = buffers[buffer].bytes;
    let mut candidates: Vec<u32> = (0..buffers.len())
        .filter_map(|other| offsets[other].map(|start| [start + buffers[other].bytes, start.saturating_sub(bytes)]))
        .flatten()
        .chain([0, peak.saturating_sub(bytes)])
        .collect();
    candidates.sort_unstable();
    candidates.dedup();
    for at in candidates {
        if *effort == 0 {
            return false;
        }
        *effort -= 1;
        if free(offsets, buffer, at) {
            offsets[buffer] = Some(at);
            if descend(buffers, rest, offsets, free, peak, effort) {
                return true;
            }
            offsets[buffer] = None;
        }
    }
    false
}

#[cfg(test)]
mod tests;
