//! A detector of one anchor with every op of a head: 8×8 pixels, a lead of two segments, kept maps of 8×8 and 4×4, at most two
//! patches and four boxes.

use alloc::vec::Vec;

use super::{COST, EMPTY, SCALE_BITS, painted};
use crate::layout::{
    ARENA_ALIGN, AT_PATCHES, IF_PATCHES, KEPT, NO_TENSOR, PER_BOX, PER_PATCH, REFINES, SHARED, WITH_BIAS_MAP,
};
use crate::record::{
    Attention, Config, Cut, CutId, Element, Generator, Meta, Mixing, Op, OpKind, Sampling, Segment, SegmentId,
    SegmentKind, Target, Tensor, TensorId,
};
use crate::write::ImageWriter;

/// Scratch of an op, ample for every kernel.
const SCRATCH: u16 = 2048;
/// Most patches, most boxes.
const PATCHES: u16 = 2;
const BOXES: u16 = 12;
/// Detections at most.
const ROOM: u16 = 6;

const NONE: TensorId = TensorId(NO_TENSOR);

/// The parts of the image. The ops of its head are the last ones, in the order of `docs/detector.md`.
#[must_use]
pub fn detector() -> ImageWriter {
    with(head)
}

/// The same with a head whose cells answer for boxes.
#[must_use]
pub fn dense() -> ImageWriter {
    with(dense_head)
}

fn with(head: fn(&mut ImageWriter)) -> ImageWriter {
    let mut writer = ImageWriter::new(Meta {
        name: EMPTY,
        labels: EMPTY,
        preprocess: EMPTY,
        test_input: EMPTY,
        test_outputs: EMPTY,
        input: CutId(0),
        output: CutId(2),
        classes: 2,
        anchors: 1,
        arena_bytes: 0,
        score_images: 100,
        anchor_names: EMPTY,
        patches: PATCHES,
        boxes: BOXES,
        lead: 2,
        reserved: [0; 10],
    });
    for (position, shape) in [[8, 8, 3], [2, 2, 8], [ROOM + 1, 1, 12], [8, 8, 16], [8, 8, 4]].into_iter().enumerate() {
        let cut = Cut {
            shape,
            zero_point: 0,
            element: Element::Int8,
            scale_bits: SCALE_BITS,
            anchor: SHARED,
            position: position as u16,
        };
        writer.cuts.push(cut);
    }
    let mut offset = 0;
    for shape in [[8, 8, 8], [4, 4, 8]] {
        let map = Tensor { shape, zero_point: 0, element: Element::Int8, offset, scale_bits: SCALE_BITS };
        offset += (map.bytes() as u32).next_multiple_of(ARENA_ALIGN);
        writer.kept.push(map);
    }
    lead(&mut writer);
    backbone(&mut writer);
    head(&mut writer);
    let first_run = writer.put_path(&[0, 1, 2, 3].map(SegmentId));
    let peak = |segments: &[Segment]| segments.iter().map(|segment| segment.peak_bytes).max().unwrap_or_default();
    let (lead, rest) = writer.segments.split_at(2);
    let arena_bytes = peak(lead).max(peak(rest) + offset);
    writer.configs.push(Config {
        first_run,
        segments: 4,
        first_overlay: 0,
        overlays: 0,
        arena_bytes,
        score: 5_000,
        float_score: 5_000,
    });
    writer.meta.arena_bytes = arena_bytes;
    writer.meta.name = writer.put(b"detector");
    let name = writer.put(b"none");
    writer.targets.push(Target { name, ticks_per_second: 1_000_000, switch_ticks: 1 });
    writer.costs = [COST; 4].to_vec();
    writer.meta.labels = writer.put(b"left\nright");
    writer.meta.anchor_names = writer.put(b"only");
    let table: Vec<u8> = (0..3 * 256u32).map(|pixel| ((pixel % 256) as u8).wrapping_sub(128)).collect();
    writer.meta.preprocess = writer.put(&table);
    writer.meta.test_input = writer.put(&painted(8 * 8 * 3));
    writer.meta.test_outputs = writer.put(&[0; 12 * (ROOM as usize + 1)]);
    writer
}

fn op(kind: OpKind, operands: [TensorId; 4], output: TensorId, flags: u16) -> Op {
    let [input, input2, third, fourth] = operands;
    let mut op = Op { kind, input, input2, output, flags, ..Op::EMPTY };
    if third != NONE {
        op.first_channel = third.0;
    }
    if fourth != NONE {
        op.groups = fourth.0;
    }
    op
}

/// A segment under construction.
struct Parts<'a> {
    writer: &'a mut ImageWriter,
    segment: Segment,
    /// First byte that no tensor has.
    end: u32,
}

impl<'a> Parts<'a> {
    fn new(writer: &'a mut ImageWriter, from: u16, to: u16) -> Self {
        let first_tensor = writer.tensors.len() as u16;
        let segment = Segment {
            kind: SegmentKind::Block,
            reserved: 0,
            from: CutId(from),
            to: CutId(to),
            first_op: writer.ops.len() as u16,
            ops: 0,
            first_tensor,
            tensors: 0,
            input: TensorId(first_tensor),
            output: TensorId(first_tensor),
            keeps: 0,
            takes: 0,
            peak_bytes: 0,
            flash_bytes: 0,
            macs: 1,
            live_bytes: 0,
        };
        let mut parts = Self { writer, segment, end: 0 };
        let shape = parts.writer.cuts[usize::from(from)].shape;
        parts.tensor(shape, Element::Int8);
        parts
    }

    fn push_tensor(&mut self, tensor: Tensor) -> TensorId {
        self.writer.tensors.push(tensor);
        self.segment.tensors += 1;
        TensorId(self.writer.tensors.len() as u16 - 1)
    }

    fn tensor(&mut self, shape: [u16; 3], element: Element) -> TensorId {
        let tensor = Tensor { shape, zero_point: 0, element, offset: self.end, scale_bits: SCALE_BITS };
        self.end += (tensor.bytes() as u32).next_multiple_of(ARENA_ALIGN);
        self.push_tensor(tensor)
    }

    fn kept(&mut self, map: u32) -> TensorId {
        let tensor = Tensor { offset: KEPT | map, ..self.writer.kept[map as usize] };
        self.push_tensor(tensor)
    }

    fn push(&mut self, op: Op) {
        self.writer.ops.push(op);
        self.segment.ops += 1;
    }

    fn shape(&self, id: TensorId) -> [u16; 3] {
        self.writer.tensors[id.index()].shape
    }

    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.writer.put(bytes).offset
    }

    /// Bias, multiplier, shift of each channel.
    fn requantised(&mut self, mut op: Op, channels: usize) -> Op {
        let words = |value: i32| core::iter::repeat_n(value.to_le_bytes(), channels).flatten().collect::<Vec<u8>>();
        op.bias = self.put(&words(300));
        op.multiplier = self.put(&words(1 << 30));
        op.shifts = self.put(&painted(channels).iter().map(|value| 34 + value % 3).collect::<Vec<u8>>());
        op
    }

    fn conv(&mut self, input: TensorId, output: TensorId, kernel: u8, pad: [u8; 4], flags: u16) {
        let (inputs, outputs) = (self.shape(input)[2], self.shape(output)[2]);
        let row = (usize::from(kernel) * usize::from(kernel) * usize::from(inputs)).next_multiple_of(4);
        let mut conv = op(OpKind::Conv, [input, NONE, NONE, NONE], output, flags);
        conv = self.requantised(conv, outputs.into());
        conv.weights = self.put(&painted(row * usize::from(outputs)));
        (conv.kernel, conv.stride, conv.pad, conv.groups) = ([kernel; 2], [1; 2], pad, 1);
        conv.scratch = self.tensor([1, 1, SCRATCH], Element::Int8);
        self.push(conv);
    }

    /// A 1×1 convolution to a tensor of its own.
    fn linear(&mut self, input: TensorId, channels: u16, element: Element, flags: u16) -> TensorId {
        let [height, width, _] = self.shape(input);
        let output = self.tensor([height, width, channels], element);
        self.conv(input, output, 1, [0; 4], flags);
        output
    }

    fn norm(&mut self, input: TensorId, flags: u16) -> TensorId {
        let shape = self.shape(input);
        let output = self.tensor(shape, Element::Int8);
        let channels = usize::from(shape[2]);
        let weights = self.put(&painted(2 * channels));
        let bias = self.put(&core::iter::repeat_n(300i32.to_le_bytes(), channels).flatten().collect::<Vec<u8>>());
        let norm = op(OpKind::LayerNorm, [input, NONE, NONE, NONE], output, flags);
        self.push(Op { shift: 8, weights, bias, factors: [90, 0], ..norm });
        output
    }

    /// Squares of a side, at corners or at patches; `[count·rows, columns, C]` or one row each.
    fn windows(&mut self, input: TensorId, side: u8, corners: &[[i16; 2]], whole: bool, flags: u16) -> TensorId {
        let (channels, element) = (self.shape(input)[2], self.writer.tensors[input.index()].element);
        let (count, wide) = (corners.len() as u16, u16::from(side));
        let shape = if whole { [count * wide, wide, channels] } else { [count, 1, wide * wide * channels] };
        let output = self.tensor(shape, element);
        let table: Vec<u8> = corners.iter().flatten().flat_map(|corner| corner.to_le_bytes()).collect();
        let weights = if flags & AT_PATCHES == 0 { self.put(&table) } else { 0 };
        let origin = if flags & AT_PATCHES == 0 { [0; 3] } else { [-1, -1, 0] };
        let windows = op(OpKind::Windows, [input, NONE, NONE, NONE], output, flags);
        self.push(Op { kernel: [side; 2], groups: count, weights, origin, ..windows });
        output
    }

    /// The output, at the far end.
    fn output(&mut self) -> TensorId {
        let shape = self.writer.cuts[self.segment.to.index()].shape;
        self.segment.output = self.tensor(shape, Element::Int8);
        self.segment.output
    }

    /// Brings the output behind what was added since.
    fn finish(mut self) {
        let output = &mut self.writer.tensors[self.segment.output.index()];
        output.offset = self.end;
        self.segment.peak_bytes = self.end + (output.bytes() as u32).next_multiple_of(ARENA_ALIGN);
        self.writer.segments.push(self.segment);
    }
}

/// Two segments that lie where the kept maps will be too.
fn lead(writer: &mut ImageWriter) {
    for (from, to) in [(0, 3), (3, 4)] {
        let mut parts = Parts::new(writer, from, to);
        let (input, output) = (parts.segment.input, parts.output());
        parts.conv(input, output, 3, [1; 4], 0);
        parts.finish();
    }
}

fn backbone(writer: &mut ImageWriter) {
    let mut parts = Parts::new(writer, 4, 1);
    parts.segment.keeps = 0b11;
    let (fine, middle) = (parts.kept(0), parts.kept(1));
    let input = parts.segment.input;
    parts.conv(input, fine, 3, [1; 4], 0);
    let output = parts.output();
    for (from, to) in [(fine, middle), (middle, output)] {
        let half = op(OpKind::AveragePool, [from, NONE, NONE, NONE], to, 0);
        parts.push(Op { kernel: [2; 2], stride: [2; 2], factors: [1 << 30, 0], shift: 32, ..half });
    }
    parts.finish();
}

fn head(writer: &mut ImageWriter) {
    let mut parts = Parts::new(writer, 1, 2);
    parts.segment.takes = 0b11;
    let (fine, middle, coarse) = (parts.kept(0), parts.kept(1), parts.segment.input);
    let maps = [fine, middle, coarse];
    let generator = generator(&mut parts);
    let raw = anchors(&mut parts, maps, generator);
    let inside = parts.tensor([BOXES, 1, 8], Element::Int16);
    let scratch = parts.tensor([1, 1, SCRATCH], Element::Int8);
    let pool = parts.requantised(op(OpKind::Pool, [raw, fine, middle, coarse], inside, 0), 8);
    parts.push(Op { weights: generator, scratch, ..pool });
    let content = parts.norm(inside, PER_BOX);
    let attended = attention(&mut parts, content);
    let deltas = parts.linear(attended, 4, Element::Int16, PER_BOX);
    let code = parts.tensor([BOXES, 1, 8], Element::Int16);
    let rates = parts.put(&painted(16));
    parts.push(Op { weights: rates, ..op(OpKind::Position, [deltas, NONE, NONE, NONE], code, REFINES) });
    let mixed = mixing(&mut parts, maps, attended);
    let logits = parts.linear(mixed, 2, Element::Int16, PER_BOX);
    let output = parts.output();
    parts.push(Op { factors: [512; 2], ..op(OpKind::Detect, [deltas, logits, NONE, NONE], output, 0) });
    parts.finish();
}

fn dense_head(writer: &mut ImageWriter) {
    let mut parts = Parts::new(writer, 1, 2);
    parts.segment.takes = 0b11;
    let maps = [parts.kept(0), parts.kept(1), parts.segment.input];
    let [fine, middle, coarse] = maps.map(|map| parts.linear(map, 6, Element::Int16, 0));
    let scratch = parts.tensor([1, 1, SCRATCH], Element::Int8);
    let output = parts.output();
    let suppress = op(OpKind::Suppress, [fine, middle, coarse, NONE], output, 0);
    parts.push(Op { scratch, factors: [512; 2], origin: [-9_000, 19_661, 0], groups: 0, ..suppress });
    parts.finish();
}

fn generator(parts: &mut Parts<'_>) -> u32 {
    let regions = [[0i16, 0, 256, 256], [256, 0, 256, 256], [0, 256, 256, 256], [256, 256, 256, 256], [0, 0, 512, 512]];
    let regions = parts.put(&regions.iter().flatten().flat_map(|side| side.to_le_bytes()).collect::<Vec<u8>>());
    let weights = parts.put(&painted(32 * 8));
    let record = Generator {
        size: [512; 2],
        smallest: 16,
        base_anchors: 2,
        probe_anchors: 1,
        low: -20_000,
        high: 20_000,
        side: 400,
        patch: 2,
        keep: -9_000,
        least: 2,
        bins: 2,
        strides: [2, 3, 4],
        sides: [100, 200],
        shifts: [46; 3],
        zero_point: -3,
        reserved: 0,
        multipliers: [1 << 30; 3],
        regions,
        cells: [8; 2],
        weights,
        reserved2: 0,
    };
    parts.put(&record.to_bytes())
}

/// The predictions of the probed patches.
fn anchors(parts: &mut Parts<'_>, [fine, middle, _]: [TensorId; 3], generator: u32) -> TensorId {
    let squeezed = parts.linear(middle, 2, Element::Int16, 0);
    let mut raw = [NONE; 2];
    for (raw, corners) in raw.iter_mut().zip([&[[0, 0], [0, 2], [2, 0], [2, 2]][..], &[[1, 1]]]) {
        let tokens = parts.windows(squeezed, 2, corners, false, 0);
        let tokens = parts.norm(tokens, 0);
        *raw = parts.linear(tokens, 10, Element::Int16, 0);
    }
    let corners = parts.tensor([PATCHES, 1, 4], Element::Int8);
    let select = op(OpKind::Select, [raw[0], raw[1], NONE, NONE], corners, 0);
    parts.push(Op { weights: generator, ..select });
    let squeezed = parts.linear(fine, 4, Element::Int8, IF_PATCHES);
    let stack = parts.windows(squeezed, 4, &[[0; 2]; PATCHES as usize], true, PER_PATCH | AT_PATCHES);
    let cells = parts.tensor([4 * PATCHES, 2, 2], Element::Int16);
    parts.conv(stack, cells, 3, [0, 0, 2, 0], PER_PATCH);
    let tokens = parts.windows(cells, 2, &[[0, 0], [4, 0]], false, PER_PATCH);
    let tokens = parts.norm(tokens, PER_PATCH);
    parts.linear(tokens, 5, Element::Int16, PER_PATCH)
}

/// Content with its place, and attention over it: two heads of four channels.
fn attention(parts: &mut Parts<'_>, content: TensorId) -> TensorId {
    let code = parts.tensor([BOXES, 1, 8], Element::Int16);
    let rates = parts.put(&painted(16));
    parts.push(Op { weights: rates, ..op(OpKind::Position, [content, NONE, NONE, NONE], code, 0) });
    let sum = parts.tensor([BOXES, 1, 8], Element::Int16);
    let add = op(OpKind::Add, [content, code, NONE, NONE], sum, PER_BOX);
    parts.push(Op { factors: [16_384, 8_192], shift: 10, constant: 512, ..add });
    let narrow = parts.tensor([BOXES, 1, 8], Element::Int8);
    let rescale = op(OpKind::Rescale, [sum, NONE, NONE, NONE], narrow, PER_BOX);
    let rescale = parts.requantised(rescale, 8);
    parts.push(rescale);
    let qkv = parts.linear(narrow, 24, Element::Int8, PER_BOX);
    let bias = parts.tensor([2, BOXES, BOXES], Element::Int16);
    let tau = parts.put(&[0, 8, 0, 2]);
    parts.push(Op { weights: tau, ..op(OpKind::Overlap, [code, NONE, NONE, NONE], bias, 0) });
    let output = parts.tensor([BOXES, 1, 8], Element::Int8);
    let record = Attention {
        heads: 2,
        query_first: 0,
        query_per_head: 4,
        query_width: 4,
        key_first: 8,
        key_per_head: 4,
        value_first: 16,
        value_per_head: 4,
        value_width: 4,
        query_window: [BOXES, 1],
        key_window: [BOXES, 1],
        logit_shift: 36,
        shift: 45,
        logit_multiplier: 1 << 30,
        multiplier: 1 << 30,
        bias: 0,
        mask: 0,
        flags: 0,
        reserved: 0,
    };
    let weights = parts.put(&record.to_bytes());
    let scratch = parts.tensor([1, 1, SCRATCH], Element::Int8);
    let attention = op(OpKind::Attention, [qkv, NONE, bias, NONE], output, PER_BOX | WITH_BIAS_MAP);
    parts.push(Op { weights, scratch, ..attention });
    output
}

/// Two groups of four channels, four points in, two out.
fn mixing(parts: &mut Parts<'_>, [fine, middle, coarse]: [TensorId; 3], content: TensorId) -> TensorId {
    let offsets = parts.linear(content, 24, Element::Int16, PER_BOX);
    let samples = parts.tensor([BOXES, 1, 32], Element::Int8);
    let weights = parts.put(&painted(6 * 5));
    let sampling = Sampling {
        groups: 2,
        points: 4,
        first: -8_192,
        steps: 5,
        strides: [2, 3, 4],
        shift: 30,
        reserved: 0,
        weights,
        reserved2: 0,
    };
    let weights = parts.put(&sampling.to_bytes());
    parts.push(Op { weights, ..op(OpKind::Sample, [offsets, fine, middle, coarse], samples, 0) });
    let mixed = parts.tensor([BOXES, 1, 16], Element::Int8);
    let weights = parts.put(&painted(8 * 48));
    let record = Mixing {
        groups: 2,
        width: 4,
        points_in: 4,
        points_out: 2,
        inner_factor: 20_000,
        inner_bits: 10,
        outer_bits: 10,
        outer_factor: 30_000,
        reserved: 0,
        inner_offset: 32,
        outer_offset: 32,
        weights,
        reserved2: 0,
    };
    let weights = parts.put(&record.to_bytes());
    let scratch = parts.tensor([1, 1, SCRATCH], Element::Int8);
    let mix = op(OpKind::Mix, [content, samples, NONE, NONE], mixed, 0);
    let mix = parts.requantised(mix, 48);
    parts.push(Op { weights, scratch, ..mix });
    mixed
}
