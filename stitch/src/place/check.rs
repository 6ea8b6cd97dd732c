//! The judge of [`super::place`]: replays the ops over a map of owners, byte block by byte block.

use plan::layout::{ARENA_ALIGN, NO_TENSOR};

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
        let (shape, quant) = segment.tensors[tensor];
        let width = if quant.element == plan::Element::Int16 { 2 } else { 1 };
        let start = placement.offsets[tensor] as usize / block;
        start..start + (width * shape[0] * shape[1] * shape[2]).div_ceil(block)
    };
    if placement.offsets[segment.input] != 0 || span(segment.output).end != blocks {
        return Err("input and output are not at the two ends".into());
    }
    if placement.offsets.iter().any(|offset| offset % ARENA_ALIGN != 0) {
        return Err("an offset is not aligned".into());
    }
    if let Some(tensor) = (0..segment.tensors.len()).find(|&tensor| span(tensor).end > blocks) {
        return Err(format!("tensor {tensor} lies outside the arena"));
    }
    owner[span(segment.input)].fill(segment.input);
    for (number, op) in segment.ops.iter().enumerate() {
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
        let before = &owner[span(output)];
        if before.contains(&SCRATCH) {
            return Err(format!("op {number} has scratch where its output is"));
        }
        if record.kind == plan::OpKind::Move && record.first_channel > 0 && before.iter().any(|&found| found != output)
        {
            return Err(format!("op {number} writes the rest of tensor {output}, which was overwritten"));
        }
        owner[span(output)].fill(output);
        // Only now look at the inputs: they must have survived scratch and output.
        for input in inputs() {
            if owner[span(input)].iter().any(|&found| found != input) {
                return Err(format!("op {number} reads tensor {input}, which was overwritten"));
            }
        }
        owner.iter_mut().filter(|found| **found == SCRATCH).for_each(|found| *found = NOBODY);
    }
    if owner[span(segment.output)].iter().any(|&found| found != segment.output) {
        return Err("the output was overwritten".into());
    }
    Ok(())
}
