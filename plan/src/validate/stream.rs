//! V15, V17 and V18 for streams: see [`crate::stream`].

use super::{At, Check, overlap};
use crate::error::{ImageError, Rule};
use crate::image::Image;
use crate::layout::{IF_PATCHES, MAX_STREAM, NO_TENSOR, PER_BOX, PER_PATCH};
use crate::record::{Element, Op, OpId, OpKind, Segment, Tensor, TensorId};
use crate::stream::{Reach, axis, stays_ahead};

/// The stream that the ops of a segment are in, as they are met one after another.
#[derive(Default)]
pub(super) struct Stream {
    /// Ops of the stream before the one that is met.
    before: u16,
    /// Side of maps along which it runs.
    axis: usize,
    /// What the op before handed on, and how many lines it has in all.
    handed: Option<(TensorId, u16)>,
}

/// Maps as ops see them: a streamed one with all its lines.
pub(super) struct Maps<'s, 'i> {
    image: &'s Image<'i>,
    axis: usize,
    long: [Option<(TensorId, u16)>; 2],
}

impl Maps<'_, '_> {
    /// A tensor, whole.
    pub fn whole(&self, id: TensorId) -> Tensor {
        let mut tensor = self.image.tensor(id);
        let lines = self.long.into_iter().flatten().find(|(long, _)| *long == id);
        if let Some((side, (_, lines))) = tensor.shape.get_mut(self.axis).zip(lines) {
            *side = lines;
        }
        tensor
    }

    /// Whether an addition may write where its first operand is: bytes that came whole, and nothing but a sum of the same bytes.
    pub fn takes_place(&self, op: &Op) -> bool {
        let [a, b, to] = [op.input, op.input2, op.output].map(|id| self.image.tensor(id));
        let int8 = a.element == Element::Int8 && b.element == Element::Int8 && to.element == Element::Int8;
        let handed = self.long[0].is_some_and(|(handed, _)| handed == op.input);
        op.kind == OpKind::Add
            && op.input2.0 != NO_TENSOR
            && op.input2 != op.input
            && int8
            && a.offset == to.offset
            && a.shape == to.shape
            && !handed
            && !op.is_streamed()
    }
}

impl Stream {
    /// Goes on to an op: its maps. A stream begins with a whole map; the op behind, which alone reads what is handed to it, can go
    /// on with the lines that are held.
    pub fn enter<'s, 'i>(
        &mut self,
        image: &'s Image<'i>,
        segment: &Segment,
        step: u16,
        at: At,
    ) -> Result<Maps<'s, 'i>, ImageError> {
        let op = image.op(OpId(segment.first_op + step));
        if self.handed.is_none() {
            (self.before, self.axis) = (0, axis(&image.tensor(op.input)));
        } else {
            self.before += 1;
        }
        let mut maps = Maps { image, axis: self.axis, long: [self.handed.take(), None] };
        if self.axis == 1 && (self.before > 0 || op.is_streamed()) {
            // Columns follow one another where there is one row.
            at.equal(Rule::Geometry, image.tensor(op.output).shape[0], 1u8)?;
        }
        if op.is_streamed() {
            // `op` and the next one.
            at.at_most(Rule::Geometry, self.before + 2, MAX_STREAM as u64)?;
            at.at_most(Rule::Reference, step + 2, segment.ops)?;
            let next = image.op(OpId(segment.first_op + step + 1));
            let output = image.tensor(op.output);
            // It is neither the segment's output nor a map that stays.
            at.equal(Rule::WriteBeforeRead, u8::from(op.output == segment.output || output.kept().is_some()), 0u8)?;
            let (Some(reach), Some(reader)) = (Reach::of(&op, self.axis), Reach::of(&next, self.axis)) else {
                return Err(at.refuse(Rule::Geometry, self.axis as u64, 0u8));
            };
            at.equal(Rule::Geometry, (op.flags | next.flags) & (PER_PATCH | PER_BOX | IF_PATCHES), 0u8)?;
            let lines = |tensor: &Tensor| usize::from(tensor.shape.get(self.axis).copied().unwrap_or_default());
            let all = reach.outputs(lines(&maps.whole(op.input)));
            at.at_least(Rule::Geometry, lines(&output) as u64, reader.kernel as u64)?;
            at.at_most(Rule::Geometry, lines(&output) as u64, all as u64)?;
            at.at_most(Rule::Geometry, all as u64, u16::MAX)?;
            self.handed = Some((op.output, all as u16));
            maps.long[1] = self.handed;
        }
        Ok(maps)
    }

    /// Ops of a stream take turns: scratch of those before must not touch what this one writes, and they must not read what it writes
    /// over; the first may, if it is ahead.
    pub fn apart(&self, image: &Image<'_>, maps: &Maps<'_, '_>, op: &Op, at: At) -> Check {
        let output = image.tensor(op.output);
        let number = |before: u16| OpId((at.record as u16).saturating_sub(before));
        let touches = |id: TensorId| id.0 != NO_TENSOR && overlap(&image.tensor(id), &output);
        for before in 1..=self.before {
            let other = image.op(number(before));
            let [a, b, ..] = other.operands();
            let reaches = (0..=before).rev().map(|before| Reach::of(&image.op(number(before)), self.axis));
            let ahead = before == self.before && a == op.input && maps.takes_place(op) && stays_ahead(reaches);
            if touches(other.scratch) || touches(a) && !ahead || touches(b) {
                return Err(at.refuse(Rule::Placement, op.output.0, other.output.0));
            }
        }
        Ok(())
    }
}
