//! A small image for tests and for the hex dump of `docs/image-format.md`: two anchors, one stitch, one overlay.
//!
//! ```text
//! tiny : input 4x4x3 ─ conv 3x3 ─► 4x4x4 ─ mean, dense ─► 2 scores
//!                                    └─ stitch 1x1 ─┐
//! wide : input 4x4x3 ─ conv 3x3 ────────────────► 4x4x8 ─ conv 3x3, add ─► 4x4x8 ─ mean, dense ─► 2 scores
//! ```

mod detector;
mod transformer;

use alloc::vec;
use alloc::vec::Vec;

pub use detector::{dense, detector};
pub use transformer::transformer;

use crate::layout::{ARENA_ALIGN, SHARED, STREAMED};
use crate::record::{
    Config, Cost, Cut, CutId, Element, Meta, Op, OpId, OpKind, Overlay, Range, Segment, SegmentId, SegmentKind, Target,
    Tensor, TensorId,
};
use crate::write::ImageWriter;

const EMPTY: Range = Range { offset: 0, len: 0 };
/// Step of every tensor: 1/16, as the bits of an IEEE 754 single.
const SCALE_BITS: u32 = 0x3d80_0000;
/// Cost of every segment.
const COST: Cost = Cost { ticks: 10, bound_ticks: 15, energy_uj: 4, bound_energy_uj: 6 };
/// Scratch for the largest window of the sample, ample for every kernel.
const SCRATCH: u16 = 1024;

/// The parts of the image; its bytes are `writer().finish()`.
#[must_use]
pub fn writer() -> ImageWriter {
    let mut writer = ImageWriter::new(Meta {
        name: EMPTY,
        labels: EMPTY,
        preprocess: EMPTY,
        test_input: EMPTY,
        test_outputs: EMPTY,
        input: CutId(0),
        output: CutId(1),
        classes: 2,
        anchors: 2,
        arena_bytes: 0,
        score_images: 100,
        anchor_names: EMPTY,
        patches: 0,
        boxes: 0,
        lead: 0,
        reserved: [0; 10],
    });
    let shared =
        [([4, 4, 3], SHARED, 0), ([1, 1, 2], SHARED, 0), ([4, 4, 4], 0, 1), ([4, 4, 8], 1, 1), ([4, 4, 8], 1, 2)];
    for (shape, anchor, position) in shared {
        writer.cuts.push(Cut {
            shape,
            zero_point: -3,
            element: Element::Int8,
            scale_bits: SCALE_BITS,
            anchor,
            position,
        });
    }
    let stem = |writer: &mut ImageWriter, to| {
        let mut segment = Builder::new(writer, SegmentKind::Block, 0, to);
        segment.conv(0, 1, [3, 3], 1);
        segment.finish(&[])
    };
    let head = |writer: &mut ImageWriter, from: u16| {
        let mut segment = Builder::new(writer, SegmentKind::Block, from, 1);
        let channels = segment.shape(0)[2];
        let mean = segment.tensor([1, 1, channels]);
        segment.mean(0, mean);
        segment.conv(mean, 1, [1, 1], 0);
        segment.finish(&[mean])
    };
    let tiny_stem = stem(&mut writer, 2);
    let tiny_head = head(&mut writer, 2);
    let wide_stem = stem(&mut writer, 3);
    let residual = {
        let mut segment = Builder::new(&mut writer, SegmentKind::Block, 3, 4);
        // Two of its four rows at a time.
        let rows = segment.tensor([2, 4, 8]);
        segment.conv(0, rows, [3, 3], 1).flags = STREAMED;
        segment.add(0, rows, 1);
        segment.finish(&[rows])
    };
    let wide_head = head(&mut writer, 4);
    let stitch = {
        let mut segment = Builder::new(&mut writer, SegmentKind::Stitch, 2, 3);
        segment.conv(0, 1, [1, 1], 0);
        segment.finish(&[])
    };
    let overlay = {
        let op = OpId(writer.segments[residual.index()].first_op);
        let bias: Vec<u8> = (0..8i32).flat_map(|channel| (channel * 9 - 40).to_le_bytes()).collect();
        let bias = writer.put(&bias).offset;
        vec![Overlay { op, step: 2, bias }]
    };
    config(&mut writer, 6_000, &[tiny_stem, tiny_head], &[]);
    config(&mut writer, 8_000, &[wide_stem, residual, wide_head], &[]);
    config(&mut writer, 7_000, &[tiny_stem, stitch, residual, wide_head], &overlay);
    writer.meta.name = writer.put(b"sample");
    let name = writer.put(b"none");
    writer.targets.push(Target { name, ticks_per_second: 1_000_000, switch_ticks: 1 });
    writer.costs = vec![COST; writer.segments.len()];
    writer.meta.labels = writer.put(b"left\nright");
    writer.meta.anchor_names = writer.put(b"tiny\nwide");
    let table: Vec<u8> = (0..3 * 256u32).map(|pixel| ((pixel % 256) as u8).wrapping_sub(128)).collect();
    writer.meta.preprocess = writer.put(&table);
    writer.meta.test_input = writer.put(&painted(48));
    writer.meta.test_outputs = writer.put(&[0; 6]);
    writer.meta.arena_bytes = writer.configs.iter().map(|config| config.arena_bytes).max().unwrap_or_default();
    writer
}

/// Bytes with a period of 251, the largest prime below 256, so that swapped parts cannot cancel.
fn painted(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 % 251) as u8).collect()
}

fn config(writer: &mut ImageWriter, score: u16, path: &[SegmentId], overlays: &[Overlay]) {
    let peaks = path.iter().map(|id| writer.segments[id.index()].peak_bytes);
    let arena_bytes = peaks.max().unwrap_or_default();
    let first_run = writer.put_path(path);
    writer.configs.push(Config {
        first_run,
        segments: path.len() as u16,
        first_overlay: writer.overlays.len() as u16,
        overlays: overlays.len() as u16,
        arena_bytes,
        score,
        float_score: score,
    });
    writer.overlays.extend_from_slice(overlays);
}

/// One segment under construction. Tensor 0 is its input, 1 its output.
struct Builder<'a> {
    writer: &'a mut ImageWriter,
    segment: Segment,
}

impl<'a> Builder<'a> {
    fn new(writer: &'a mut ImageWriter, kind: SegmentKind, from: u16, to: u16) -> Self {
        let first_tensor = writer.tensors.len() as u16;
        let segment = Segment {
            kind,
            reserved: 0,
            from: CutId(from),
            to: CutId(to),
            first_op: writer.ops.len() as u16,
            ops: 0,
            first_tensor,
            tensors: 0,
            input: TensorId(first_tensor),
            output: TensorId(first_tensor + 1),
            keeps: 0,
            takes: 0,
            peak_bytes: 0,
            flash_bytes: 0,
            macs: 0,
            live_bytes: 0,
        };
        let mut builder = Self { writer, segment };
        for cut in [from, to] {
            let shape = builder.writer.cuts[usize::from(cut)].shape;
            builder.tensor(shape);
        }
        builder
    }

    fn tensor(&mut self, shape: [u16; 3]) -> u16 {
        self.writer.tensors.push(Tensor {
            shape,
            zero_point: -3,
            element: Element::Int8,
            offset: 0,
            scale_bits: SCALE_BITS,
        });
        self.segment.tensors += 1;
        self.segment.tensors - 1
    }

    fn shape(&self, local: u16) -> [u16; 3] {
        self.writer.tensors[usize::from(self.segment.first_tensor + local)].shape
    }

    fn op(&mut self, kind: OpKind, input: u16, output: u16) -> &mut Op {
        let id = |local| TensorId(self.segment.first_tensor + local);
        self.segment.ops += 1;
        self.writer.ops.push(Op { kind, input: id(input), output: id(output), ..Op::EMPTY });
        self.writer.ops.last_mut().expect("one was pushed")
    }

    fn conv(&mut self, input: u16, output: u16, kernel: [u8; 2], pad: u8) -> &mut Op {
        let (inputs, outputs) = (self.shape(input)[2], self.shape(output)[2]);
        let row = (usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(inputs)).next_multiple_of(4);
        let weights = self.writer.put(&painted(row * usize::from(outputs)));
        let words =
            |value: i32| core::iter::repeat_n(value.to_le_bytes(), usize::from(outputs)).flatten().collect::<Vec<u8>>();
        let bias = self.writer.put(&words(100));
        let multiplier = self.writer.put(&words(1 << 30));
        let shifts = self.writer.put(&vec![40; usize::from(outputs)]);
        let scratch = TensorId(self.segment.first_tensor + self.tensor([1, 1, SCRATCH]));
        self.segment.flash_bytes += weights.len + bias.len + multiplier.len + shifts.len;
        self.segment.macs += row as u64 * u64::from(outputs);
        let op = self.op(OpKind::Conv, input, output);
        (op.kernel, op.stride, op.pad, op.groups, op.scratch) = (kernel, [1, 1], [pad; 4], 1, scratch);
        (op.weights, op.bias, op.multiplier, op.shifts) =
            (weights.offset, bias.offset, multiplier.offset, shifts.offset);
        op
    }

    fn mean(&mut self, input: u16, output: u16) {
        let [height, width, _] = self.shape(input).map(|side| side as u8);
        let op = self.op(OpKind::AveragePool, input, output);
        (op.kernel, op.stride) = ([height, width], [1, 1]);
        (op.factors, op.shift) = ([1 << 30, 0], 34);
    }

    fn add(&mut self, a: u16, b: u16, output: u16) {
        let second = TensorId(self.segment.first_tensor + b);
        let op = self.op(OpKind::Add, a, output);
        (op.input2, op.factors, op.shift, op.constant) = (second, [16_384; 2], 15, 16_384);
    }

    /// Places the input, `inner` and all scratch one after another, and the output behind them.
    fn finish(mut self, inner: &[u16]) -> SegmentId {
        let first = usize::from(self.segment.first_tensor);
        let own = &mut self.writer.tensors[first..];
        let order = core::iter::once(0).chain(inner.iter().map(|&local| usize::from(local)));
        let scratch = (2..own.len()).filter(|&local| !inner.contains(&(local as u16)));
        let mut end = 0;
        for local in order.chain(scratch).chain([1]).collect::<Vec<_>>() {
            own[local].offset = end;
            end += (own[local].bytes() as u32).next_multiple_of(ARENA_ALIGN);
        }
        self.segment.peak_bytes = end;
        self.segment.tensors = own.len() as u16;
        self.writer.segments.push(self.segment);
        SegmentId(self.writer.segments.len() as u16 - 1)
    }
}
