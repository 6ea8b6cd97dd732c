//! Ops that run strip by strip: [`plan::stream`].

use core::ops::Range;

use kernels::Isa;
use plan::layout::MAX_STREAM;
use plan::stream::{Reach, axis};
use plan::{Op, OpId, Tensor, TensorId};

use super::{Boxes, Running};
use crate::error::RunError;

/// The lines of an op's maps in one turn.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    axis: usize,
    /// The operand that the stream comes from: the lines that are read, and padding before and behind them.
    handed: TensorId,
    read: Lines,
    padding: [u8; 2],
    /// Lines that are written, and of another operand read.
    written: Lines,
    other: Lines,
}

/// Some lines of a tensor: where they begin in its memory, and how many they are.
#[derive(Clone, Copy)]
struct Lines {
    first: usize,
    count: usize,
}

impl Strip {
    fn lines(&self, op: &Op, id: TensorId) -> Option<Lines> {
        match id {
            _ if id == op.output => Some(self.written),
            _ if id == self.handed => Some(self.read),
            _ if id == op.scratch => None,
            _ => Some(self.other),
        }
    }

    /// Leaves of a tensor and its bytes what the kernel sees.
    pub fn cut(&self, op: &Op, id: TensorId, tensor: &mut Tensor, bytes: &mut Range<usize>) {
        let Some(lines) = self.lines(op, id) else { return };
        bytes.start += lines.first * line_bytes(tensor, self.axis);
        if let Some(side) = tensor.shape.get_mut(self.axis) {
            *side = lines.count as u16;
        }
        bytes.end = bytes.start + tensor.bytes() as usize;
    }

    /// The op with the padding that these lines have.
    pub fn padded(&self, op: &Op) -> Op {
        let mut pad = op.pad;
        let sides = [self.axis, self.axis + 2];
        for (side, padding) in sides.into_iter().zip(self.padding) {
            if let Some(pad) = pad.get_mut(side) {
                *pad = padding;
            }
        }
        Op { pad, ..*op }
    }
}

/// Bytes of a row, or of a column of a map of one row.
fn line_bytes(tensor: &Tensor, axis: usize) -> usize {
    let [_, width, channels] = tensor.shape.map(usize::from);
    let positions = if axis == 0 { width } else { 1 };
    positions * channels * usize::from(tensor.element.bytes())
}

/// A map between two ops of a stream, or behind the last one.
#[derive(Clone, Copy, Default)]
struct Map {
    /// Of the op that writes it.
    reach: Reach,
    /// Lines in all, and that the tensor has room for.
    lines: usize,
    room: usize,
    /// Lines that are written, and of these the ones that were dropped.
    done: usize,
    dropped: usize,
}

/// Runs the stream that begins with an op: each op in turn does what it can, until the last is done. Returns the last op, and where
/// in the arena its map is.
pub(crate) fn run<I: Isa>(
    isa: I,
    running: &Running<'_, '_>,
    (first, op): (OpId, &Op),
    bias: impl Fn(OpId) -> Option<u32>,
    arena: &mut [i8],
    boxes: &mut Boxes,
) -> Result<(OpId, Range<usize>), RunError> {
    let image = running.image;
    let input = image.tensor(op.input);
    let axis = axis(&input);
    let refused = RunError::Kernel { op: first.0 };
    let side = |tensor: &Tensor| usize::from(tensor.shape.get(axis).copied().unwrap_or_default());
    let mut maps = [Map::default(); MAX_STREAM];
    let (mut lines, mut last) = (side(&input), first);
    for (number, map) in (first.0..).zip(&mut maps) {
        last = OpId(number);
        let op = image.op(last);
        let reach = Reach::of(&op, axis).ok_or(refused)?;
        lines = reach.outputs(lines);
        *map = Map { reach, lines, room: side(&image.tensor(op.output)), ..Map::default() };
        if !op.is_streamed() {
            break;
        }
    }
    loop {
        let lines = side(&input);
        let mut from = Map { lines, done: lines, ..Map::default() };
        let mut handed = op.input;
        let mut went_on = false;
        for number in first.0..=last.0 {
            let id = OpId(number);
            let op = image.op(id);
            let mut rest = maps.iter_mut().skip(usize::from(number - first.0));
            let Some(map) = rest.next() else { return Err(refused) };
            // What the next op will not read again goes.
            let needed = match rest.next().filter(|_| id != last) {
                Some(next) => next.reach.first(next.done).min(map.done),
                None => 0,
            };
            let ready = if from.done == from.lines { map.lines } else { map.reach.ready(from.done).min(map.lines) };
            let end = ready.min(needed + map.room);
            if end > map.done {
                if needed > map.dropped {
                    let line = line_bytes(&image.tensor(op.output), axis);
                    let rows = arena.get_mut(running.place(op.output)).ok_or(refused)?;
                    move_up(rows, (needed - map.dropped) * line, (map.done - needed) * line);
                    map.dropped = needed;
                }
                // A map drops only lines before the first that its reader still needs: what is read was not dropped.
                let reads = map.reach.reads(map.done, end, from.lines);
                let count = end - map.done;
                let strip = Strip {
                    axis,
                    handed,
                    read: Lines { first: reads.first - from.dropped, count: reads.end - reads.first },
                    padding: [reads.before as u8, reads.after as u8],
                    written: Lines { first: map.done - map.dropped, count },
                    other: Lines { first: map.done, count },
                };
                super::run(isa, running, (id, &op), bias(id), arena, boxes, Some(&strip))?;
                map.done = end;
                went_on = true;
            }
            (from, handed) = (*map, op.output);
        }
        if from.done == from.lines {
            return Ok((last, running.place(handed)));
        }
        if !went_on {
            return Err(refused);
        }
    }
}

/// Moves `len` bytes to the start that lie `by` behind it, in pieces that do not overlap.
fn move_up(bytes: &mut [i8], by: usize, len: usize) {
    let mut at = 0;
    while at < len {
        let piece = by.min(len - at);
        let Some((to, from)) = bytes.split_at_mut_checked(at + by) else { return };
        if let Some((to, from)) = to.get_mut(at..at + piece).zip(from.get(..piece)) {
            to.copy_from_slice(from);
        }
        at += piece;
    }
}
