//! Small families whose networks do almost nothing and whose costs are whatever a test wants: what the policy needs.
//!
//! ```text
//! input ─► a0.0 ─► a0.1 ─► a0.2 ─► output      anchors of equal depth; every cut is 1x1x4
//!            │  ▲     │
//!            ▼  │     ▼                          stitches where two anchors have the same position
//! input ─► a1.0 ─► a1.1 ─► a1.2 ─► output
//! ```

use plan::layout::SHARED;
use plan::{
    Config, Cost, Cut, CutId, Element, ImageWriter, Meta, Op, OpKind, Range, Segment, SegmentId, SegmentKind, Target,
    Tensor, TensorId,
};

use crate::random::Random;

/// What a ladder looks like.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    /// Anchors.
    pub anchors: u16,
    /// Cuts of each, besides input and output.
    pub depth: u16,
    /// Stitches of one path at most.
    pub hops: u16,
    /// Configs at most, anchors included.
    pub configs: usize,
    /// Stitches lead down, too.
    pub both_ways: bool,
}

const CHANNELS: u16 = 4;
const EMPTY: Range = Range { offset: 0, len: 0 };

/// The image of a ladder. `cost` gives each segment's; scores are drawn, better for later anchors.
pub fn image(ladder: Ladder, random: &mut Random, mut cost: impl FnMut(&mut Random) -> Cost) -> Vec<u8> {
    let mut writer = ImageWriter::new(Meta {
        name: EMPTY,
        labels: EMPTY,
        preprocess: EMPTY,
        test_input: EMPTY,
        test_outputs: EMPTY,
        input: CutId(0),
        output: CutId(1),
        classes: CHANNELS,
        anchors: ladder.anchors,
        arena_bytes: 0,
        score_images: 1,
        anchor_names: EMPTY,
        patches: 0,
        boxes: 0,
        lead: 0,
        reserved: [0; 10],
    });
    let cut = |anchor, position| Cut {
        shape: [1, 1, CHANNELS],
        zero_point: 0,
        element: Element::Int8,
        scale_bits: 0,
        anchor,
        position,
    };
    writer.cuts.extend([cut(SHARED, 0), cut(SHARED, 0)]);
    for anchor in 0..ladder.anchors {
        writer.cuts.extend((0..ladder.depth).map(|position| cut(anchor, position + 1)));
    }
    let at = |anchor: u16, position: u16| CutId(2 + anchor * ladder.depth + position);
    let mut edges: Vec<(SegmentKind, CutId, CutId)> = vec![];
    for anchor in 0..ladder.anchors {
        edges.push((SegmentKind::Block, CutId(0), at(anchor, 0)));
        edges.extend((1..ladder.depth).map(|p| (SegmentKind::Block, at(anchor, p - 1), at(anchor, p))));
        edges.push((SegmentKind::Block, at(anchor, ladder.depth - 1), CutId(1)));
    }
    for (from, to) in (0..ladder.anchors).flat_map(|a| (0..ladder.anchors).map(move |b| (a, b))) {
        if from.abs_diff(to) == 1 && (from < to || ladder.both_ways) {
            edges.extend((0..ladder.depth).map(|p| (SegmentKind::Stitch, at(from, p), at(to, p))));
        }
    }
    for &(kind, from, to) in &edges {
        // Arenas differ: the later the anchor, the more scratch.
        segment(&mut writer, random, kind, from, to);
    }
    writer.costs = edges.iter().map(|_| cost(random)).collect();
    let name = writer.put(b"ladder");
    writer.targets.push(Target { name, ticks_per_second: 1000, switch_ticks: (random.below(3)) as u32 });
    let mut paths: Vec<Vec<u16>> = vec![];
    walk(&edges, ladder, CutId(0), 0, &mut vec![], &mut paths);
    let straight = |path: &Vec<u16>| path.iter().all(|&edge| edges[usize::from(edge)].0 == SegmentKind::Block);
    let (mut chosen, mut rest): (Vec<_>, Vec<_>) = paths.into_iter().partition(straight);
    while chosen.len() < ladder.configs && !rest.is_empty() {
        chosen.push(rest.swap_remove(random.below(rest.len())));
    }
    for path in &chosen {
        let score = 5000 + random.below(5000) as u16;
        config(&mut writer, path, score);
    }
    finish(writer)
}

fn finish(mut writer: ImageWriter) -> Vec<u8> {
    writer.meta.name = writer.put(b"ladder");
    writer.meta.labels = writer.put(b"a\nb\nc\nd");
    let anchors: Vec<String> = (0..writer.meta.anchors).map(|anchor| format!("a{anchor}")).collect();
    writer.meta.anchor_names = writer.put(anchors.join("\n").as_bytes());
    let table: Vec<u8> = (0..256 * usize::from(CHANNELS)).map(|pixel| (pixel % 256) as u8).collect();
    writer.meta.preprocess = writer.put(&table);
    writer.meta.test_input = writer.put(&[3, 250, 17, 90]);
    writer.meta.test_outputs = writer.put(&vec![0; usize::from(CHANNELS) * writer.configs.len()]);
    writer.meta.arena_bytes = writer.configs.iter().map(|config| config.arena_bytes).max().unwrap_or_default();
    writer.finish()
}

/// Every path to the output: a stitch is followed by a block.
fn walk(
    edges: &[(SegmentKind, CutId, CutId)],
    ladder: Ladder,
    from: CutId,
    hops: u16,
    path: &mut Vec<u16>,
    paths: &mut Vec<Vec<u16>>,
) {
    if from == CutId(1) {
        paths.push(path.clone());
        return;
    }
    let stitched = path.last().is_some_and(|&last| edges[usize::from(last)].0 == SegmentKind::Stitch);
    for (edge, &(kind, start, to)) in (0u16..).zip(edges) {
        let hop = u16::from(kind == SegmentKind::Stitch);
        if start == from && hops + hop <= ladder.hops && !(stitched && hop == 1) {
            path.push(edge);
            walk(edges, ladder, to, hops + hop, path, paths);
            path.pop();
        }
    }
}

/// One 1x1 convolution with drawn weights.
fn segment(writer: &mut ImageWriter, random: &mut Random, kind: SegmentKind, from: CutId, to: CutId) {
    let first_tensor = writer.tensors.len() as u16;
    let scratch = 64 + 16 * random.below(4) as u16;
    let tensor = |shape, offset| Tensor { shape, zero_point: 0, element: Element::Int8, offset, scale_bits: 0 };
    let peak_bytes = 32 + u32::from(scratch);
    writer.tensors.extend([
        tensor([1, 1, CHANNELS], 0),
        tensor([1, 1, CHANNELS], peak_bytes - 16),
        tensor([1, 1, scratch], 16),
    ]);
    let words = |value: i32| std::iter::repeat_n(value.to_le_bytes(), 4).flatten().collect::<Vec<u8>>();
    let weights: Vec<u8> = (0..16).map(|_| random.next() as u8).collect();
    let weights = writer.put(&weights).offset;
    let [bias, multiplier] = [random.below(99) as i32, 1 << 30].map(|value| writer.put(&words(value)).offset);
    let shifts = writer.put(&[36; 4]).offset;
    writer.ops.push(Op {
        kind: OpKind::Conv,
        input: TensorId(first_tensor),
        output: TensorId(first_tensor + 1),
        scratch: TensorId(first_tensor + 2),
        kernel: [1; 2],
        stride: [1; 2],
        groups: 1,
        weights,
        bias,
        multiplier,
        shifts,
        ..Op::EMPTY
    });
    writer.segments.push(Segment {
        kind,
        reserved: 0,
        from,
        to,
        first_op: writer.ops.len() as u16 - 1,
        ops: 1,
        first_tensor,
        tensors: 3,
        input: TensorId(first_tensor),
        output: TensorId(first_tensor + 1),
        keeps: 0,
        takes: 0,
        peak_bytes,
        flash_bytes: 52,
        macs: 16,
        live_bytes: peak_bytes,
    });
}

fn config(writer: &mut ImageWriter, path: &[u16], score: u16) {
    let peaks = path.iter().map(|&segment| writer.segments[usize::from(segment)].peak_bytes);
    let arena_bytes = peaks.max().unwrap_or_default();
    let segments: Vec<SegmentId> = path.iter().map(|&segment| SegmentId(segment)).collect();
    let first_run = writer.put_path(&segments);
    let segments = path.len() as u16;
    writer.configs.push(Config {
        first_run,
        segments,
        first_overlay: 0,
        overlays: 0,
        arena_bytes,
        score,
        float_score: score,
    });
}
