//! The ops of a detector's head: `docs/detector.md` has their arithmetic, `kernels::head` does it.
//!
//! Anchors, patches and boxes are lists of a few bytes each, and their number depends on the picture; they are held here
//! while the head's segment runs. Maps have room for the most that there can be, one after another: an op that runs per patch or
//! per box runs on their first rows.

use core::ops::Range;

use heapless::Vec;
pub use kernels::head::Detection;
use kernels::head::{
    self, Anchor, GroupNorm, Limits, Map, Patch, PointSampling, Probing, Rect, Region, RegionPool, State, Suppression,
};
use kernels::{Isa, KernelError, Requant, Shape};
use plan::layout::{
    AT_PATCHES, DETECTION_LEN, HEAD_MAPS, IF_PATCHES, MAX_ANCHORS, MAX_BOXES, MAX_DETECTIONS, MAX_PATCHES, MIX_BOXES,
    NO_TENSOR, PER_BOX, PER_PATCH, POOL_BOXES, REFINES, WITH_BIAS_MAP,
};
use plan::{Generator, Image, Op, OpId, OpKind, Tensor, TensorId};

use crate::error::RunError;
use crate::exec;

/// Whether this build runs detectors.
pub(crate) const DETECTOR: bool = cfg!(feature = "detector");

const ANCHORS: usize = MAX_ANCHORS as usize;
const PATCHES: usize = MAX_PATCHES as usize;
const BOXES: usize = MAX_BOXES as usize;
const DETECTIONS: usize = MAX_DETECTIONS as usize;

/// What ops of a head hand to one another beside maps.
#[derive(Default)]
pub(crate) struct Boxes {
    base: Vec<Anchor, ANCHORS>,
    patches: Vec<Patch, PATCHES>,
    states: Vec<State, BOXES>,
}

/// How much of an op's maps is used in this run.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    count: usize,
    cap: usize,
}

impl Part {
    /// The rows of a map that are used.
    pub fn of(self, tensor: &Tensor) -> Tensor {
        let [height, width, channels] = tensor.shape;
        let height = usize::from(height) / self.cap.max(1) * self.count;
        Tensor { shape: [height as u16, width, channels], ..*tensor }
    }

    /// Whether nothing is.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }
}

impl Boxes {
    /// The part of an op's maps that is used; none: all.
    pub fn part(&self, image: &Image<'_>, op: &Op) -> Option<Part> {
        let (count, cap) = match op.flags & (PER_PATCH | PER_BOX | IF_PATCHES) {
            PER_PATCH => (self.patches.len(), image.meta().patches),
            PER_BOX => (self.states.len(), image.meta().boxes),
            IF_PATCHES => (self.patches.len().min(1), 1),
            _ => return None,
        };
        Some(Part { count, cap: cap.into() })
    }
}

/// Whether an op is one of this file.
pub(crate) fn takes(op: &Op) -> bool {
    op.kind.is_of_head() || op.kind == OpKind::Attention && op.flags & WITH_BIAS_MAP != 0
}

/// An op and its operands, borrowed.
struct Bound<'i, 'm> {
    image: &'i Image<'i>,
    op: Op,
    tensors: [Tensor; 4],
    operands: [&'m [i8]; 4],
    to: Tensor,
}

/// What a layer of an op reads of each box.
#[derive(Clone, Copy)]
struct Content {
    channels: usize,
    zero_point: i8,
}

/// Runs an op: where in the arena it wrote.
pub(crate) fn run<I: Isa>(
    isa: I,
    running: &exec::Running<'_, '_>,
    (id, op): (OpId, &Op),
    arena: &mut [i8],
    boxes: &mut Boxes,
) -> Result<Range<usize>, RunError> {
    let image = running.image;
    let refused = RunError::Kernel { op: id.0 };
    let range = |tensor: TensorId| match tensor.0 {
        NO_TENSOR => 0..0,
        _ => running.place(tensor),
    };
    let [a, b, c, d] = op.operands();
    let to = range(op.output);
    let start = to.start;
    let [first, second, third, fourth, output, scratch] =
        arena.get_disjoint_mut([range(a), range(b), range(c), range(d), to, range(op.scratch)]).map_err(|_| refused)?;
    let tensors = [a, b, c, d].map(|tensor| image.tensor(tensor));
    let bound =
        Bound { image, op: *op, tensors, operands: [first, second, third, fourth], to: image.tensor(op.output) };
    let done = match op.kind {
        OpKind::Windows => bound.windows(boxes, output),
        OpKind::Select => bound.select(boxes, output),
        OpKind::Pool => bound.pool(isa, boxes, output, scratch),
        OpKind::Position => bound.position(boxes, output),
        OpKind::Overlap => bound.overlap(boxes, output),
        OpKind::Sample => bound.sample(boxes, output),
        OpKind::Mix => bound.mix(isa, boxes, output, scratch),
        OpKind::Detect => bound.detect(boxes, output),
        OpKind::Suppress => bound.suppress(output, scratch),
        _ => bound.attention(isa, boxes, output, scratch),
    };
    done.map(|bytes| start..start + bytes).map_err(|_| refused)
}

/// Bytes that were written, or why not.
type Done = Result<usize, KernelError>;

fn first<T>(values: &[T], count: usize) -> Result<&[T], KernelError> {
    values.get(..count).ok_or(KernelError::Input)
}

fn first_mut<T>(values: &mut [T], count: usize) -> Result<&mut [T], KernelError> {
    values.get_mut(..count).ok_or(KernelError::Output)
}

/// Number `at` of little-endian pairs.
fn pair(values: &[i8], at: usize) -> i16 {
    let pairs = values.as_chunks::<2>().0;
    pairs.get(at).map_or(0, |pair| i16::from_le_bytes(pair.map(i8::cast_unsigned)))
}

fn shape(tensor: &Tensor) -> Shape {
    let [height, width, channels] = tensor.shape;
    Shape { height, width, channels }
}

impl Bound<'_, '_> {
    /// Bytes of one box in the output.
    fn each(&self) -> usize {
        let [_, width, channels] = self.to.shape.map(usize::from);
        width * channels * usize::from(self.to.element.bytes())
    }

    /// Windows of the first operand; a window's bytes are where they are in a map of its size.
    fn windows(&self, boxes: &Boxes, output: &mut [i8]) -> Done {
        let (from, values) = (&self.tensors[0], self.operands[0]);
        let count = boxes.part(self.image, &self.op).map_or(usize::from(self.op.groups), |part| part.count);
        let bytes = usize::from(from.shape[2]) * usize::from(from.element.bytes());
        let [tall, wide] = self.op.kernel.map(usize::from);
        let each = tall * wide * bytes;
        let output = first_mut(output, count * each)?;
        let table = self.image.data(self.op.weights, 4 * count).as_chunks::<4>().0;
        for (number, out) in output.chunks_exact_mut(each).enumerate() {
            let corner = if self.op.flags & AT_PATCHES != 0 {
                boxes.patches.get(number).map(|patch| [patch.corner[1] as i16, patch.corner[0] as i16])
            } else {
                table.get(number).map(|&[a, b, c, d]| [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])])
            };
            let [row, column] = corner.ok_or(KernelError::Weights)?;
            let [row, column] = [row, column].map(i32::from);
            let [down, across] = [self.op.origin[0], self.op.origin[1]].map(i32::from);
            for (cell, out) in out.chunks_exact_mut(bytes).enumerate() {
                let at = [row + down + (cell / wide) as i32, column + across + (cell % wide) as i32];
                match cell_of(values, from, at, bytes) {
                    Some(cell) => out.copy_from_slice(cell),
                    None => out.fill(from.zero_point),
                }
            }
        }
        Ok(output.len())
    }

    fn probing(&self, numbers: &Generator) -> Probing {
        Probing {
            low: numbers.low,
            high: numbers.high,
            side: numbers.side,
            patch: numbers.patch,
            stride_log2: numbers.strides[0],
            cells: numbers.cells,
        }
    }

    /// Anchors of the fixed patches, and which ask for another look: row and column of each patch.
    fn select(&self, boxes: &mut Boxes, output: &mut [i8]) -> Done {
        let numbers = self.image.generator(&self.op);
        let limits = Limits { smallest: numbers.smallest, size: numbers.size };
        let each = usize::from(numbers.base_anchors);
        boxes.base.clear();
        let rows = self.operands[0].chunks_exact(10 * each).chain(self.operands[1].chunks_exact(10 * each));
        let regions = self.image.data(numbers.regions, 8 * ANCHORS).as_chunks::<8>().0;
        for (row, &[a, b, c, d, e, f, g, h]) in rows.zip(regions) {
            let region = Region {
                left: i16::from_le_bytes([a, b]),
                top: i16::from_le_bytes([c, d]),
                width: u16::from_le_bytes([e, f]),
                height: u16::from_le_bytes([g, h]),
            };
            decode(&region, &limits, row, each, &mut boxes.base)?;
        }
        let room = usize::from(self.image.meta().patches);
        boxes.patches.clear();
        boxes.patches.resize_default(room).map_err(|_| KernelError::Output)?;
        let count = self.probing(&numbers).patches(&boxes.base, &mut boxes.patches)?;
        boxes.patches.truncate(count);
        output.fill(0);
        for (out, patch) in output.as_chunks_mut::<4>().0.iter_mut().zip(&boxes.patches) {
            let ([a, b], [c, d]) = (patch.corner[1].to_le_bytes(), patch.corner[0].to_le_bytes());
            *out = [a, b, c, d].map(u8::cast_signed);
        }
        Ok(output.len())
    }

    /// The boxes that are left, and a layer on what is inside of each: of a few at a time, as what is inside of all is more than the
    /// maps.
    fn pool<I: Isa>(&self, isa: I, boxes: &mut Boxes, output: &mut [i8], scratch: &mut [i8]) -> Done {
        let numbers = self.image.generator(&self.op);
        let rects = self.remaining(&numbers, boxes)?;
        boxes.states = rects.iter().map(|&rect| State::from(rect)).collect();
        let mut rescales = numbers.multipliers.into_iter().zip(numbers.shifts);
        let rescales = [(); HEAD_MAPS].map(|()| rescales.next().unwrap_or_default());
        let (zero_point, bins) = (numbers.zero_point, usize::from(numbers.bins));
        let maps = &self.maps(numbers.strides);
        let pool = RegionPool { maps, sides: &numbers.sides, bins: numbers.bins, rescales: &rescales, zero_point };
        let inside = Content { channels: bins * bins * usize::from(self.tensors[1].shape[2]), zero_point };
        let together = POOL_BOXES.min(self.image.meta().boxes.into());
        let (pooled, scratch) = scratch.split_at_mut_checked(together * inside.channels).ok_or(KernelError::Scratch)?;
        let output = first_mut(output, rects.len() * self.each())?;
        for (rects, output) in rects.chunks(together).zip(output.chunks_mut(together * self.each())) {
            let pooled = first_mut(pooled, rects.len() * inside.channels)?;
            head::pool_regions(&pool, rects, pooled)?;
            let layer = self.layer(inside, numbers.weights, rects.len(), self.to.shape[2].into());
            kernels::conv(isa, &layer, pooled, output, scratch)?;
        }
        Ok(output.len())
    }

    /// Where the boxes are that are left.
    fn remaining(&self, numbers: &Generator, boxes: &Boxes) -> Result<Vec<Rect, BOXES>, KernelError> {
        let limits = Limits { smallest: numbers.smallest, size: numbers.size };
        let (probing, each) = (self.probing(numbers), usize::from(numbers.probe_anchors));
        let mut probed: Vec<Anchor, ANCHORS> = Vec::new();
        for (patch, row) in boxes.patches.iter().zip(self.operands[0].chunks_exact(10 * each)) {
            let pixels = |cells: u16| (u32::from(cells) * 16) << numbers.strides[0];
            let [left, top] = patch.corner.map(|corner| i16::try_from(pixels(corner)).unwrap_or(i16::MAX));
            let side = u16::try_from(pixels(numbers.patch)).unwrap_or(u16::MAX);
            decode(&Region { left, top, width: side, height: side }, &limits, row, each, &mut probed)?;
        }
        let mut kept = [Anchor::default(); 2 * ANCHORS];
        let lists = [&boxes.base[..], &probed[..]];
        let count = head::remaining(numbers.keep, numbers.least.into(), Some(&probing), lists, &mut kept)?;
        let mut chosen = [Anchor::default(); BOXES];
        let chosen = first_mut(&mut chosen, self.image.meta().boxes.into())?;
        let count = head::cap(first(&kept, count)?, chosen)?;
        Ok(first(chosen, count)?.iter().map(|anchor| anchor.rect).collect())
    }

    /// The maps behind the first operand.
    fn maps(&self, strides: [u8; HEAD_MAPS]) -> [Map<'_>; HEAD_MAPS] {
        let [_, a, b, c] = self.tensors;
        let [_, x, y, z] = self.operands;
        let map = |tensor: &Tensor, values, stride_log2| {
            let zero_point = tensor.zero_point;
            Map { shape: shape(tensor), values, zero_point, stride_log2 }
        };
        let [fine, middle, coarse] = strides;
        [map(&a, x, fine), map(&b, y, middle), map(&c, z, coarse)]
    }

    /// Moves each box by the deltas of the first operand.
    fn refine(&self, boxes: &mut Boxes) {
        for (state, delta) in boxes.states.iter_mut().zip(self.operands[0].as_chunks::<8>().0) {
            *state = state.refined([0, 1, 2, 3].map(|at| pair(delta, at)));
        }
    }

    fn position(&self, boxes: &mut Boxes, output: &mut [i8]) -> Done {
        if self.op.flags & REFINES != 0 {
            self.refine(boxes);
        }
        let output = first_mut(output, boxes.states.len() * self.each())?;
        head::position_code(&boxes.states, self.image.data(self.op.weights, self.each()), output)?;
        Ok(output.len())
    }

    fn overlap(&self, boxes: &Boxes, output: &mut [i8]) -> Done {
        let rects: Vec<Rect, BOXES> = boxes.states.iter().map(|&state| Rect::from(state)).collect();
        let heads = usize::from(self.to.shape[0]);
        let output = first_mut(output, 2 * heads * rects.len() * rects.len())?;
        if !rects.is_empty() {
            head::overlap_bias(&rects, self.image.data(self.op.weights, 2 * heads), output)?;
        }
        Ok(output.len())
    }

    fn sample(&self, boxes: &Boxes, output: &mut [i8]) -> Done {
        let numbers = self.image.sampling(&self.op);
        let sampling = PointSampling {
            maps: &self.maps(numbers.strides),
            groups: numbers.groups,
            points: numbers.points,
            weights: self.image.data(numbers.weights, 2 * HEAD_MAPS * usize::from(numbers.steps)),
            first: numbers.first,
            shift: numbers.shift,
        };
        let offsets = 6 * usize::from(numbers.groups) * usize::from(numbers.points) * boxes.states.len();
        let output = first_mut(output, boxes.states.len() * self.each())?;
        head::sample_points(&sampling, &boxes.states, first(self.operands[0], offsets)?, output)?;
        Ok(output.len())
    }

    /// A few boxes at a time: the matrices of all would be more than everything else in the arena, and those of one would use
    /// each weight once.
    fn mix<I: Isa>(&self, isa: I, boxes: &Boxes, output: &mut [i8], scratch: &mut [i8]) -> Done {
        let numbers = self.image.mixing(&self.op);
        let [groups, width, points_in, points_out] =
            [numbers.groups, numbers.width, numbers.points_in, numbers.points_out].map(usize::from);
        let (matrix, all) = (width * width + points_in * points_out, numbers.matrices() as usize);
        let together = MIX_BOXES.min(self.image.meta().boxes.into());
        let (wide, scratch) = scratch.split_at_mut_checked(together * 2 * all).ok_or(KernelError::Scratch)?;
        let (narrow, scratch) = scratch.split_at_mut_checked(matrix).ok_or(KernelError::Scratch)?;
        let (channels, points) = narrow.split_at_mut_checked(width * width).ok_or(KernelError::Scratch)?;
        let norm = |factor, factor_bits, offset, min, max| GroupNorm { factor, factor_bits, offset, min, max };
        let mixing = head::Mixing {
            points_in: numbers.points_in,
            points_out: numbers.points_out,
            width: numbers.width,
            inner: norm(numbers.inner_factor, numbers.inner_bits, numbers.inner_offset, 0, i8::MAX),
            outer: norm(numbers.outer_factor, numbers.outer_bits, numbers.outer_offset, self.op.min, self.op.max),
        };
        let content = Content { channels: self.tensors[0].shape[2].into(), zero_point: self.tensors[0].zero_point };
        let [sampled, mixed] = [points_in, points_out].map(|points| points * width);
        let output = first_mut(output, boxes.states.len() * self.each())?;
        let contents = first(self.operands[0], boxes.states.len() * content.channels)?;
        let contents = contents.chunks(together * content.channels);
        let samples = self.operands[1].chunks(together * groups * sampled);
        for ((contents, samples), output) in contents.zip(samples).zip(output.chunks_mut(together * groups * mixed)) {
            let count = contents.len() / content.channels.max(1);
            let wide = first_mut(wide, count * 2 * all)?;
            kernels::conv(isa, &self.layer(content, numbers.weights, count, all), contents, wide, scratch)?;
            let parts = wide.chunks_exact(2 * matrix).zip(samples.chunks_exact(sampled));
            for ((wide, samples), output) in parts.zip(output.chunks_exact_mut(mixed)) {
                let (of_channels, of_points) = wide.split_at(2 * channels.len());
                head::narrow(of_channels, channels)?;
                head::narrow(of_points, points)?;
                head::mix(isa, &mixing, samples, [channels, points], output, scratch)?;
            }
        }
        Ok(output.len())
    }

    /// The op's layer on the content of `count` boxes, to Int16.
    fn layer(&self, content: Content, weights: u32, count: usize, outputs: usize) -> kernels::Conv<'_> {
        let requant = Requant {
            bias: self.image.data(self.op.bias, 4 * outputs),
            multiplier: self.image.data(self.op.multiplier, 4 * outputs),
            shift: self.image.data(self.op.shifts, outputs),
            zero_point: 0,
            min: i8::MIN,
            max: i8::MAX,
        };
        kernels::Conv {
            input: Shape { height: count as u16, width: 1, channels: content.channels as u16 },
            output: Shape { height: count as u16, width: 1, channels: outputs as u16 },
            window: kernels::Window { kernel: [1; 2], stride: [1; 2], pad: [0; 4] },
            groups: 1,
            input_zero: content.zero_point,
            weights: self.image.data(weights, content.channels.next_multiple_of(4) * outputs),
            packing: kernels::Packing::Rows,
            to: kernels::Element::Int16,
            curve: None,
            requant,
        }
    }

    fn detect(&self, boxes: &mut Boxes, output: &mut [i8]) -> Done {
        self.refine(boxes);
        let classes = self.tensors[1].shape[2];
        let logits = first(self.operands[1], 2 * boxes.states.len() * usize::from(classes))?;
        let mut found = [Detection::default(); DETECTIONS];
        let room = usize::from(self.to.shape[0]).saturating_sub(1).min(DETECTIONS);
        let size = self.op.factors.map(|side| side as i16);
        let count = head::detect(&boxes.states, classes, logits, size, first_mut(&mut found, room)?)?;
        Ok(write(first(&found, count)?, output))
    }

    fn suppress(&self, output: &mut [i8], scratch: &mut [i8]) -> Done {
        let size = self.op.factors.map(|side| side as i16);
        let suppression = Suppression { floor: self.op.origin[0], overlap: self.op.origin[1] as u16, size };
        let classes = self.image.meta().classes;
        let mut operands = self.tensors.iter().zip(&self.operands);
        let maps = [(); HEAD_MAPS].map(|()| {
            let (tensor, values) = operands.next()?;
            Some(Map { shape: shape(tensor), values, zero_point: 0, stride_log2: self.op.stride_log2(tensor) })
        });
        let [Some(fine), Some(middle), Some(coarse)] = maps else { return Err(KernelError::Geometry) };
        let mut found = [Detection::default(); DETECTIONS];
        let room = usize::from(self.to.shape[0]).saturating_sub(1).min(DETECTIONS);
        let found = first_mut(&mut found, room)?;
        let count = head::suppress(&suppression, &[fine, middle, coarse], classes, scratch, found)?;
        Ok(write(first(found, count)?, output))
    }

    /// Attention of boxes among themselves, with a bias that depends on the picture.
    fn attention<I: Isa>(&self, isa: I, boxes: &Boxes, output: &mut [i8], scratch: &mut [i8]) -> Done {
        let count = boxes.states.len();
        let Some(part) = boxes.part(self.image, &self.op).filter(|part| !part.is_empty()) else { return Ok(0) };
        let [input, to] = [&self.tensors[0], &self.to].map(|tensor| part.of(tensor));
        let mut attention = exec::attention(self.image, &self.op, [&input, &input, &to]);
        (attention.query_window, attention.key_window) = ([count as u16, 1], [count as u16, 1]);
        let bias = first(self.operands[2], 2 * usize::from(attention.heads) * count * count)?;
        attention.bias = bytemuck::cast_slice(bias);
        let input = first(self.operands[0], input.bytes() as usize)?;
        let output = first_mut(output, to.bytes() as usize)?;
        kernels::attention(isa, &attention, input, input, output, scratch)?;
        Ok(output.len())
    }
}

/// Detections as bytes, behind their number: how many bytes.
fn write(found: &[Detection], output: &mut [i8]) -> usize {
    output.fill(0);
    let rows = output.as_chunks_mut::<{ DETECTION_LEN as usize }>().0;
    let [low, high] = (found.len() as u16).to_le_bytes().map(u8::cast_signed);
    if let Some([first, second, ..]) = rows.first_mut() {
        (*first, *second) = (low, high);
    }
    for (row, detection) in rows.iter_mut().skip(1).zip(found) {
        let [a, b, c, d] = detection.corners;
        let fields = [a, b, c, d, detection.class as i16, detection.logit];
        for (out, field) in row.as_chunks_mut::<2>().0.iter_mut().zip(fields) {
            *out = field.to_le_bytes().map(u8::cast_signed);
        }
    }
    output.len()
}

/// Bytes of the cell of a map at a row and a column, if it has one.
fn cell_of<'v>(values: &'v [i8], map: &Tensor, [row, column]: [i32; 2], bytes: usize) -> Option<&'v [i8]> {
    let [height, width, _] = map.shape.map(i32::from);
    let inside = (0..height).contains(&row) && (0..width).contains(&column);
    let start = usize::try_from(row.checked_mul(width)? + column).ok().filter(|_| inside)? * bytes;
    values.get(start..start + bytes)
}

/// Appends the anchors of one prediction.
fn decode(
    region: &Region,
    limits: &Limits,
    raw: &[i8],
    count: usize,
    anchors: &mut Vec<Anchor, ANCHORS>,
) -> Result<(), KernelError> {
    let before = anchors.len();
    anchors.resize_default(before + count).map_err(|_| KernelError::Output)?;
    head::decode(region, limits, raw, anchors.get_mut(before..).unwrap_or_default())
}

/// The detections in the bytes of a detector's output, best first: corners in 1/16 pixel of the input, logits Q12.
pub fn detections(output: &[i8]) -> impl Iterator<Item = Detection> {
    let rows = output.as_chunks::<{ DETECTION_LEN as usize }>().0;
    let count = rows.first().map_or(0, |row| pair(row, 0) as u16);
    rows.iter().skip(1).take(count.into()).map(|row| Detection {
        corners: [0, 1, 2, 3].map(|at| pair(row, at)),
        class: pair(row, 4) as u16,
        logit: pair(row, 5),
    })
}
