//! Each rule of `docs/image-format.md` is broken alone, in an image that is otherwise good, and must be the one
//! that is reported.

use plan::layout::{HEADER_LEN, IN_BLOCKS, NO_TENSOR, SECTION_ENTRY_LEN, STREAMED};
use plan::{
    Attention, Config, Cut, CutId, Element, Image, ImageWriter, Op, OpId, OpKind, Rule, Run, SegmentId, SegmentKind,
    Target, Tensor, TensorId, sample, seal,
};

/// Breaks a rule in the parts, before they become bytes.
type BreakParts = fn(&mut ImageWriter);
/// Breaks a rule in the bytes; the checksum is renewed afterwards.
type BreakBytes = fn(&mut Vec<u8>);

fn refused(bytes: &[u8]) -> Option<Rule> {
    Image::parse(bytes).err().map(|error| error.rule)
}

#[test]
fn the_sample_is_an_image() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample obeys every rule");
    assert_eq!(image.configs(), 3);
    assert_eq!(image.text(image.meta().name), "sample");
    assert_eq!(image.label(1), "right");
    assert_eq!(image.path(&image.config(plan::ConfigId(2))).count(), 4);
    assert_eq!(image.test_output(plan::ConfigId(2)).len(), 2);
}

#[test]
fn an_image_taken_apart_and_written_again_is_the_same() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample obeys every rule");
    assert_eq!(ImageWriter::of(&image).finish(), bytes);
}

fn set_word(w: &mut ImageWriter, at: u32, value: i32) {
    w.data[at as usize..][..4].copy_from_slice(&value.to_le_bytes());
}

fn segment_without_ops(w: &mut ImageWriter) {
    let gone = w.segments[0].ops;
    w.ops.drain(..usize::from(gone));
    w.segments[0].ops = 0;
    for segment in &mut w.segments[1..] {
        segment.first_op -= gone;
    }
}

fn name_shared_by_many_targets(w: &mut ImageWriter) {
    let name = w.put(&[b'a'; 10_000]);
    let (target, costs) = (Target { name, ..w.targets[0] }, w.costs.clone());
    for _ in 0..20 {
        w.targets.push(target);
        w.costs.extend_from_slice(&costs);
    }
}

fn path_in_more_runs_than_needed(w: &mut ImageWriter) {
    // The first path is one run of two segments.
    w.path[0].segments = 1;
    w.path.insert(1, Run { first: SegmentId(1), segments: 1 });
    w.configs[1].first_run += 1;
    w.configs[2].first_run += 1;
}

fn tables_shared_by_many_convolutions(w: &mut ImageWriter) {
    // The stitch computes many wide maps that nobody reads, one over the other, between scratch and output.
    let conv = *w.ops.last().unwrap();
    let table = w.put(&[1; 4 * 500]).offset;
    let (weights, bias, multiplier, shifts) = (table, table, table, table);
    let wide = Tensor { shape: [4, 4, 500], ..w.tensors[conv.output.index()] };
    for _ in 0..200 {
        let output = TensorId(w.tensors.len() as u16);
        w.tensors.push(wide);
        w.ops.push(Op { output, weights, bias, multiplier, shifts, ..conv });
    }
    let segment = w.segments.last_mut().unwrap();
    segment.ops += 200;
    segment.tensors += 200;
    segment.peak_bytes += 4 * 4 * 500;
    w.tensors[conv.output.index()].offset += 4 * 4 * 500;
    w.configs[2].arena_bytes = segment.peak_bytes;
    w.meta.arena_bytes = segment.peak_bytes;
}

fn tensor_over_a_half_written_one(w: &mut ImageWriter) {
    let stitch = w.segments.len() - 1;
    let first = w.segments[stitch].first_tensor;
    let [input, half, other] = [0, 2, 3].map(|local| TensorId(first + local));
    w.tensors[half.index()].shape = [4, 4, 8];
    let mut over = w.tensors[half.index()];
    over.shape = [4, 4, 4];
    w.tensors.push(over);
    let mut conv = w.ops.pop().unwrap();
    conv.scratch = TensorId(NO_TENSOR);
    let moved = |input, output, first_channel| {
        let op = Op { kind: OpKind::Move, groups: 4, step: [1; 2], repeat: [1; 2], ..conv };
        Op { input, output, first_channel, ..op }
    };
    w.ops.extend([moved(input, half, 0), moved(input, other, 0), moved(other, half, 4), conv]);
    w.segments[stitch].tensors += 1;
    w.segments[stitch].ops += 3;
}

fn path_that_runs_a_segment_twice(w: &mut ImageWriter) {
    // The residual segment leads back to where it starts.
    w.segments[3].to = w.segments[3].from;
    w.segments[4].from = w.segments[3].from;
    let wide = usize::from(w.configs[1].first_run);
    let run = |first, segments| Run { first: SegmentId(first), segments };
    w.path.splice(wide..=wide, [run(2, 2), run(3, 2)]);
    w.configs[1].segments += 1;
    w.configs[2].first_run += 1;
}

const IN_PARTS: &[(Rule, &str, BreakParts)] = &[
    (Rule::RecordCount, "a segment without ops", segment_without_ops),
    (Rule::KindKnown, "an unknown op", |w| w.ops[0].kind = OpKind::Invalid(99)),
    (Rule::KindKnown, "an unknown segment kind", |w| w.segments[0].kind = SegmentKind::Invalid(9)),
    (Rule::KindKnown, "an unknown flag", |w| w.ops[1].flags = 2),
    (Rule::KindKnown, "a reserved field of meta", |w| w.meta.reserved[9] = 1),
    (Rule::Reference, "weights behind the data", |w| w.ops[0].weights = u32::MAX),
    (Rule::Reference, "a tensor of another segment", |w| w.ops[0].input = TensorId(5)),
    (Rule::Reference, "a cut that is not there", |w| w.segments[0].to = CutId(77)),
    (Rule::Reference, "a segment that is not there", |w| w.path[0].first = SegmentId(77)),
    (Rule::Reference, "a name behind the data", |w| w.meta.name.offset = u32::MAX),
    (Rule::Reference, "a second operand of a convolution", |w| w.ops[0].input2 = w.ops[0].input),
    (Rule::Reference, "a long name that many targets share", name_shared_by_many_targets),
    (Rule::Reference, "tables that many convolutions share", tables_shared_by_many_convolutions),
    (Rule::TensorShape, "an empty tensor", |w| w.tensors[0].shape[1] = 0),
    (Rule::TensorShape, "an empty cut", |w| w.cuts[0].shape[1] = 0),
    (Rule::TensorShape, "a cut that no segment reaches, of 2^48 elements", |w| {
        w.cuts.push(Cut { shape: [u16::MAX; 3], ..w.cuts[0] });
    }),
    (Rule::Partition, "ops shared by two segments", |w| w.segments[1].first_op = 0),
    (Rule::Partition, "tensors left over", |w| {
        let copy = w.tensors[0];
        w.tensors.push(copy);
    }),
    (Rule::Partition, "paths that overlap", |w| w.configs[1].first_run = 0),
    (Rule::Geometry, "a window that gives another size", |w| w.ops[0].pad = [0; 4]),
    (Rule::Geometry, "a step of nothing", |w| w.ops[0].stride = [0; 2]),
    (Rule::Geometry, "groups that do not divide", |w| w.ops[0].groups = 2),
    (Rule::Geometry, "blocks of weights for other outputs than sixteens", |w| w.ops[0].flags = IN_BLOCKS),
    (Rule::Geometry, "more classes than scores", |w| w.meta.classes = 3),
    (Rule::Numeric, "a bias that could overflow", |w| set_word(w, w.ops[0].bias, i32::MAX)),
    (Rule::Numeric, "a negative multiplier", |w| set_word(w, w.ops[0].multiplier, -1)),
    (Rule::Numeric, "a shift by everything", |w| {
        let at = w.ops[0].shifts as usize;
        w.data[at] = 63;
    }),
    (Rule::Numeric, "an empty clamp", |w| (w.ops[0].min, w.ops[0].max) = (5, 4)),
    (Rule::WriteBeforeRead, "a tensor that nobody wrote", |w| w.ops[5].input = w.ops[5].output),
    (Rule::WriteBeforeRead, "an output written twice", |w| w.ops[4].output = w.ops[4].input),
    (Rule::Placement, "scratch over the input", |w| {
        let scratch = w.ops[0].scratch.index();
        w.tensors[scratch].offset = 0;
    }),
    (Rule::Placement, "an offset that is not aligned", |w| w.tensors[2].offset += 1),
    (Rule::Placement, "more bytes alive than it needs", |w| w.segments[0].live_bytes = w.segments[0].peak_bytes + 1),
    (Rule::Placement, "a tensor behind the peak", |w| w.tensors[2].offset += 4096),
    (Rule::Placement, "a tensor over one that is half written and never read", tensor_over_a_half_written_one),
    (Rule::SegmentEnds, "an input that is not at its end", |w| {
        w.tensors[0].offset = 16;
    }),
    (Rule::SegmentEnds, "another zero point than the cut's", |w| w.tensors[0].zero_point = 7),
    (Rule::Path, "a path that jumps", |w| w.path[0].first = SegmentId(1)),
    (Rule::Path, "a run of nothing", |w| w.path[0].segments = 0),
    (Rule::Path, "a path in more runs than it needs", path_in_more_runs_than_needed),
    (Rule::Partition, "a run that is longer than its path", |w| w.path[0].segments += 1),
    (Rule::Path, "a path that runs a segment twice", path_that_runs_a_segment_twice),
    (Rule::Costs, "a cost too few", |w| w.costs.truncate(5)),
    (Rule::Costs, "a second without ticks", |w| w.targets[0].ticks_per_second = 0),
    (Rule::Costs, "a bound below its prediction", |w| w.costs[2].bound_ticks = 9),
    (Rule::Costs, "an energy bound below its prediction", |w| w.costs[4].bound_energy_uj = 3),
    (Rule::Text, "a target's name that is no text", |w| {
        let name = w.targets[0].name.offset as usize;
        w.data[name] = 0xff;
    }),
    (Rule::RecordCount, "no target", |w| w.targets.clear()),
    (Rule::RecordCount, "more segments in paths than anybody needs", |w| {
        w.configs = vec![Config { segments: 255, ..w.configs[0] }; 4200];
    }),
    (Rule::ConfigCost, "another arena than that of its segments", |w| w.configs[1].arena_bytes -= 16),
    (Rule::ConfigCost, "an arena too small", |w| w.meta.arena_bytes -= 16),
    (Rule::ConfigCost, "a score over 100 %", |w| w.configs[0].score = 10_001),
    (Rule::OverlayOrder, "an overlay of another path", |w| w.overlays[0].op = OpId(1)),
    (Rule::OverlayOrder, "an overlay of an addition", |w| w.overlays[0].op = OpId(w.overlays[0].op.0 + 1)),
    (Rule::OverlayOrder, "an overlay of another step", |w| w.overlays[0].step -= 1),
    (Rule::SelfTest, "no self-test input", |w| w.meta.test_input.len = 0),
    (Rule::Text, "a name that is not UTF-8", |w| {
        let at = w.meta.name.offset as usize;
        w.data[at] = 0xff;
    }),
    (Rule::Text, "a label too few", |w| w.meta.labels.len = 4),
];

/// The convolution of the sample that hands two of its rows at a time to a sum.
const STREAM: usize = 4;

/// The same without a stream, the sum where its second operand is.
fn sum_in_place(w: &mut ImageWriter) {
    let (rows, sum) = (w.ops[STREAM].output.index(), w.ops[STREAM + 1].output.index());
    w.ops[STREAM].flags = 0;
    w.tensors[rows].shape = w.tensors[sum].shape;
    w.tensors[rows].offset = w.tensors[sum].offset;
}

/// The sum over the input of its segment, which the convolution reads too, with a padding.
fn sum_over_the_input(w: &mut ImageWriter, pad: [u8; 4]) {
    let (sum, input) = (w.ops[STREAM + 1].output.index(), w.ops[STREAM].input.index());
    w.ops[STREAM].pad = pad;
    w.tensors[sum].offset = w.tensors[input].offset;
}

fn swap_operands(w: &mut ImageWriter) {
    let sum = &mut w.ops[STREAM + 1];
    (sum.input, sum.input2) = (sum.input2, sum.input);
}

const OF_STREAMS: &[(Rule, &str, BreakParts)] = &[
    (Rule::WriteBeforeRead, "a stream that nobody takes up", |w| w.ops[STREAM + 1].flags = STREAMED),
    (Rule::WriteBeforeRead, "a stream that is read twice", |w| w.ops[STREAM + 1].input = w.ops[STREAM].output),
    (Rule::Geometry, "a stream into an op that needs the whole map", |w| w.ops[STREAM + 1].kind = OpKind::Roll),
    (Rule::Geometry, "fewer rows than a window", |w| {
        let sum = w.ops[STREAM + 1];
        let (input, input2) = (sum.input2, TensorId(NO_TENSOR));
        let (kernel, stride, pad) = ([3; 2], [1; 2], [1; 4]);
        w.ops[STREAM + 1] = Op { kind: OpKind::MaxPool, input, input2, kernel, stride, pad, ..sum };
    }),
    (Rule::Geometry, "more rows than there are", |w| {
        let rows = w.ops[STREAM].output.index();
        w.tensors[rows].shape[0] = 5;
    }),
    (Rule::Geometry, "a sum of maps of different heights", |w| w.ops[STREAM].pad = [0, 1, 0, 1]),
    (Rule::Placement, "rows over a map that the sum reads", |w| {
        let rows = w.ops[STREAM].output.index();
        w.tensors[rows].offset = 0;
    }),
    (Rule::Placement, "scratch over a map that is written in turn", |w| {
        let (scratch, sum) = (w.ops[STREAM].scratch.index(), w.ops[STREAM + 1].output.index());
        w.tensors[scratch].offset = w.tensors[sum].offset;
        w.tensors[scratch].shape[2] = 16;
    }),
    (Rule::Placement, "a sum over its second operand", sum_in_place),
    (Rule::Placement, "a sum over an input that windows still reach back to", |w| sum_over_the_input(w, [1; 4])),
    (Rule::Path, "an output that stays, in the lead", |w| {
        sum_over_the_input(w, [0, 1, 2, 1]);
        w.meta.lead = 2;
    }),
];

#[test]
fn the_rules_of_streams_are_enforced() {
    for (rule, what, break_it) in OF_STREAMS {
        let mut writer = sample::writer();
        break_it(&mut writer);
        assert_eq!(refused(&writer.finish()), Some(*rule), "{what}");
    }
    let mut writer = sample::writer();
    sum_in_place(&mut writer);
    swap_operands(&mut writer);
    assert_eq!(refused(&writer.finish()), None, "a sum may lie where its first operand does");
    // Windows that do not reach back.
    let mut writer = sample::writer();
    sum_over_the_input(&mut writer, [0, 1, 2, 1]);
    assert_eq!(refused(&writer.finish()), None, "a sum may lie where a first op that is ahead reads");
}

/// Breaks a rule in op number `from the end` of the sample with transformer ops.
fn last(w: &mut ImageWriter, from_the_end: usize) -> &mut Op {
    let at = w.ops.len() - 1 - from_the_end;
    &mut w.ops[at]
}

fn set_attention(w: &mut ImageWriter, change: fn(&mut Attention)) {
    let image = w.clone().finish();
    let image = Image::parse(&image).expect("the sample obeys every rule");
    let op = *last(w, 2);
    let mut record = image.attention(&op);
    change(&mut record);
    w.data[op.weights as usize..][..48].copy_from_slice(&record.to_bytes());
}

const OF_TRANSFORMERS: &[(Rule, &str, BreakParts)] = &[
    (Rule::KindKnown, "an unknown element", |w| w.tensors[0].element = Element::Invalid(2)),
    (Rule::KindKnown, "an unknown element of a cut", |w| w.cuts[4].element = Element::Invalid(2)),
    (Rule::KindKnown, "int16 with a zero point", |w| {
        let wide = last(w, 8).output.index();
        w.tensors[wide].zero_point = 1;
    }),
    (Rule::KindKnown, "an unknown flag of an attention", |w| set_attention(w, |a| a.flags = 4)),
    (Rule::KindKnown, "a reserved field of an attention", |w| set_attention(w, |a| a.reserved = 1)),
    (Rule::KindKnown, "a curve behind an op that has none", |w| last(w, 3).flags = 1),
    (Rule::SegmentEnds, "another element than the cut's", |w| {
        w.cuts[2].element = Element::Int16;
        w.cuts[2].zero_point = 0;
        w.tensors.iter_mut().filter(|tensor| tensor.shape == [4, 4, 4]).for_each(|tensor| tensor.zero_point = 0);
    }),
    (Rule::Reference, "an attention behind the data", |w| last(w, 2).weights = u32::MAX - 48),
    (Rule::Reference, "a mask behind the data", |w| set_attention(w, |a| a.mask = 1 << 30)),
    (Rule::Reference, "a bias behind the data", |w| set_attention(w, |a| a.bias = 1 << 30)),
    (Rule::Reference, "a table behind the data", |w| last(w, 6).weights = u32::MAX),
    (Rule::Reference, "a table of a convolution behind the data", |w| last(w, 0).constant = -1),
    (Rule::Reference, "tokens behind the data", |w| last(w, 3).weights = u32::MAX),
    (Rule::Reference, "a constant operand behind the data", |w| last(w, 4).weights = u32::MAX),
    (Rule::Reference, "a second operand of a LayerNorm", |w| last(w, 7).input2 = last(w, 7).input),
    (Rule::Geometry, "a LayerNorm of bytes", |w| last(w, 7).input = last(w, 6).input),
    (Rule::Geometry, "a convolution of int16", |w| last(w, 0).input = last(w, 7).input),
    (Rule::Geometry, "a roll of everything", |w| last(w, 5).origin[0] = 4),
    (Rule::Geometry, "a roll backwards", |w| last(w, 5).origin[1] = -1),
    (Rule::Geometry, "a token too many", |w| last(w, 3).groups = 2),
    (Rule::Geometry, "no head", |w| set_attention(w, |a| a.heads = 0)),
    (Rule::Geometry, "queries outside their map", |w| set_attention(w, |a| a.query_first = 1)),
    (Rule::Geometry, "keys outside their map", |w| set_attention(w, |a| a.key_per_head = 1)),
    (Rule::Geometry, "values outside their map", |w| set_attention(w, |a| a.value_first = 9)),
    (Rule::Geometry, "values of another width", |w| set_attention(w, |a| a.value_width = 1)),
    (Rule::Geometry, "a window that does not divide", |w| set_attention(w, |a| a.query_window = [3, 4])),
    (Rule::Geometry, "another number of windows", |w| set_attention(w, |a| a.key_window = [4, 4])),
    (Rule::Numeric, "a shift of no bit", |w| set_attention(w, |a| a.logit_shift = 0)),
    (Rule::Numeric, "a negative multiplier of an attention", |w| set_attention(w, |a| a.multiplier = -1)),
    (Rule::Numeric, "keys with a zero point", |w| {
        let norm = last(w, 2).input.index();
        w.tensors[norm].zero_point = 1;
    }),
    (Rule::Numeric, "a sum of int16 that overflows", |w| {
        (last(w, 4).factors, last(w, 4).constant) = ([32_767; 2], 1 << 17);
    }),
    (Rule::Numeric, "fraction bits that no factor has", |w| last(w, 7).shift = 16),
    (Rule::Numeric, "an epsilon that overflows", |w| last(w, 7).factors[1] = -1),
    (Rule::Numeric, "a clamp of int16", |w| last(w, 8).max = 5),
];

#[test]
fn the_rules_of_transformer_ops_are_enforced() {
    let good = sample::transformer().finish();
    Image::parse(&good).unwrap_or_else(|error| panic!("{error}"));
    for (rule, what, break_it) in OF_TRANSFORMERS {
        let mut writer = sample::transformer();
        break_it(&mut writer);
        assert_eq!(refused(&writer.finish()), Some(*rule), "{what}");
    }
}

/// The first op of a kind in the sample of a detector.
fn first(w: &mut ImageWriter, kind: OpKind) -> &mut Op {
    w.ops.iter_mut().find(|op| op.kind == kind).expect("the sample has it")
}

macro_rules! change_record {
    ($w:ident, $kind:ident, $read:ident, |$record:ident| $change:expr) => {{
        let image = $w.clone().finish();
        let op = *first($w, OpKind::$kind);
        let mut $record = Image::parse(&image).expect("the sample obeys every rule").$read(&op);
        $change;
        let bytes = $record.to_bytes();
        $w.data[op.weights as usize..][..bytes.len()].copy_from_slice(&bytes);
    }};
}

const OF_DETECTORS: &[(Rule, &str, BreakParts)] = &[
    (Rule::RecordCount, "nine kept maps", |w| {
        for _ in 0..7 {
            let mut map = w.kept[1];
            map.offset = w.kept.last().map_or(0, |last| last.offset + 128);
            w.kept.push(map);
        }
    }),
    (Rule::Placement, "kept maps that overlap", |w| w.kept[1].offset -= 16),
    (Rule::TensorShape, "a kept map without a byte", |w| w.kept[0].shape[0] = 0),
    (Rule::Reference, "a kept map that is not there", |w| {
        w.kept.pop();
    }),
    (Rule::Placement, "a kept map of another shape", |w| {
        let tensor = w.tensors.iter_mut().find(|tensor| tensor.kept() == Some(1)).expect("it is kept");
        tensor.shape = [2, 8, 8];
    }),
    (Rule::Reference, "one kept map as two tensors", |w| {
        let tensor = w.tensors.iter_mut().find(|tensor| tensor.kept() == Some(1)).expect("it is kept");
        (tensor.offset, tensor.shape) = (plan::layout::KEPT, [8, 8, 8]);
    }),
    (Rule::Reference, "a segment that both keeps and takes", |w| w.segments[2].takes = 1),
    (Rule::Reference, "a segment that says nothing of its kept map", |w| w.segments[3].takes = 1),
    (Rule::WriteBeforeRead, "a map that is said to be kept, and is not written", |w| {
        (w.segments[3].takes, w.segments[3].keeps) = (1, 2);
    }),
    (Rule::Path, "a map that is taken before it is kept", |w| {
        // Reads what it wrote: then nothing has kept it for the head.
        (w.segments[2].keeps, w.segments[2].takes) = (1, 0);
        let (first, map) = (w.segments[2].first_tensor, w.kept[1]);
        let at = (0..w.segments[2].tensors).find(|&at| w.tensors[usize::from(first + at)].kept() == Some(1));
        let peak = w.segments[2].peak_bytes;
        let moved = (map.bytes() as u32).next_multiple_of(16);
        let output = w.segments[2].output.index();
        w.tensors[usize::from(first + at.expect("it is kept"))].offset = peak - 32;
        w.tensors[output].offset = peak - 32 + moved;
        w.segments[2].peak_bytes = peak + moved;
        let most = w.segments.iter().map(|segment| segment.peak_bytes).max().unwrap_or(0);
        w.configs[0].arena_bytes = most + 640;
        w.meta.arena_bytes = most + 640;
    }),
    (Rule::Path, "an odd lead", |w| w.meta.lead = 1),
    (Rule::Path, "a lead that keeps a map", |w| w.meta.lead = 4),
    (Rule::ConfigCost, "another lead, with the arena as it was", |w| {
        // The large map of the lead is then beside the kept ones.
        w.segments[0].peak_bytes += 65_536;
        let output = w.segments[0].output.index();
        w.tensors[output].offset += 65_536;
        (w.configs[0].arena_bytes, w.meta.arena_bytes) = (w.segments[0].peak_bytes, w.segments[0].peak_bytes);
        w.meta.lead = 0;
    }),
    (Rule::ConfigCost, "an arena without the kept maps", |w| w.configs[0].arena_bytes -= 640),
    (Rule::Numeric, "too many boxes", |w| w.meta.boxes = 65),
    (Rule::Numeric, "too many patches", |w| w.meta.patches = 17),
    (Rule::KindKnown, "two kinds of rows", |w| first(w, OpKind::Rescale).flags = 12),
    (Rule::KindKnown, "a flag of another op", |w| first(w, OpKind::Select).flags = 8),
    (Rule::KindKnown, "windows at patches, whatever their number", |w| {
        w.ops.iter_mut().filter(|op| op.flags & 128 != 0).for_each(|op| op.flags = 128);
    }),
    (Rule::Geometry, "a row too few for each box", |w| {
        w.meta.boxes = 3;
    }),
    (Rule::Geometry, "windows of another size", |w| first(w, OpKind::Windows).kernel = [2, 3]),
    (Rule::Reference, "corners behind the data", |w| first(w, OpKind::Windows).weights = u32::MAX - 8),
    (Rule::Reference, "a record behind the data", |w| first(w, OpKind::Pool).weights = u32::MAX - 8),
    (Rule::Reference, "a third operand of another segment", |w| first(w, OpKind::Pool).first_channel = 0),
    (Rule::Reference, "a fourth operand that is not there", |w| first(w, OpKind::Sample).groups = 60_000),
    (Rule::Reference, "one map as two operands", |w| {
        first(w, OpKind::Sample).groups = first(w, OpKind::Sample).first_channel
    }),
    (Rule::Reference, "one prediction alone", |w| first(w, OpKind::Select).input2 = TensorId(0xffff)),
    (Rule::Geometry, "anchors of another number", |w| change_record!(w, Select, generator, |g| g.base_anchors = 1)),
    (Rule::Geometry, "probed anchors of another number", |w| {
        change_record!(w, Pool, generator, |g| g.probe_anchors = 2);
    }),
    (Rule::Reference, "regions behind the data", |w| change_record!(w, Select, generator, |g| g.regions = 1 << 30)),
    (Rule::Numeric, "a patch of 4096 pixels", |w| change_record!(w, Select, generator, |g| g.patch = 1024)),
    (Rule::Geometry, "a map smaller than a patch", |w| change_record!(w, Select, generator, |g| g.cells = [1, 8])),
    (Rule::Numeric, "a stride of 256", |w| change_record!(w, Pool, generator, |g| g.strides[2] = 8)),
    (Rule::Numeric, "a negative picture", |w| change_record!(w, Pool, generator, |g| g.size[1] = -1)),
    (Rule::Numeric, "a shift of 63", |w| change_record!(w, Pool, generator, |g| g.shifts[1] = 63)),
    (Rule::Geometry, "no bin", |w| change_record!(w, Pool, generator, |g| g.bins = 0)),
    (Rule::KindKnown, "a reserved field of a generator", |w| change_record!(w, Pool, generator, |g| g.reserved2 = 1)),
    (Rule::Numeric, "a layer on more than a reduction", |w| change_record!(w, Pool, generator, |g| g.bins = 255)),
    (Rule::Reference, "a layer behind the data", |w| change_record!(w, Pool, generator, |g| g.weights = 1 << 30)),
    (Rule::Numeric, "a bias of a pool", |w| {
        let at = first(w, OpKind::Pool).bias as usize;
        w.data[at + 3] = 0x7f;
    }),
    (Rule::Geometry, "an overlap of bytes", |w| {
        let bias = first(w, OpKind::Overlap).output.index();
        w.tensors[bias].element = Element::Int8;
    }),
    (Rule::Reference, "taus behind the data", |w| first(w, OpKind::Overlap).weights = u32::MAX),
    (Rule::Reference, "rates behind the data", |w| first(w, OpKind::Position).weights = u32::MAX),
    (Rule::KindKnown, "a bias of flash and of the arena", |w| change_record!(w, Attention, attention, |a| a.flags = 1)),
    (Rule::Geometry, "no point", |w| change_record!(w, Sample, sampling, |s| s.points = 0)),
    (Rule::Geometry, "groups that do not divide", |w| change_record!(w, Sample, sampling, |s| s.groups = 3)),
    (Rule::Reference, "weights of maps behind the data", |w| change_record!(w, Sample, sampling, |s| s.steps = 60_000)),
    (Rule::Numeric, "a first step far away", |w| change_record!(w, Sample, sampling, |s| s.first = i32::MIN)),
    (Rule::Geometry, "an odd number of points", |w| change_record!(w, Mix, mixing, |m| m.points_out = 1)),
    (Rule::Numeric, "fraction bits of a mixing", |w| change_record!(w, Mix, mixing, |m| m.inner_bits = 16)),
    (Rule::Numeric, "an offset of a mixing", |w| change_record!(w, Mix, mixing, |m| m.outer_offset = i32::MIN)),
    (Rule::Reference, "matrices behind the data", |w| change_record!(w, Mix, mixing, |m| m.weights = 1 << 30)),
    (Rule::Numeric, "a multiplier of a mixing", |w| {
        let at = first(w, OpKind::Mix).multiplier as usize;
        w.data[at + 3] = 0xff;
    }),
    (Rule::WriteBeforeRead, "all rows of what was written for the boxes that there are", |w| {
        let of_boxes = |op: &&mut Op| op.kind == OpKind::LayerNorm && op.flags == plan::layout::PER_BOX;
        w.ops.iter_mut().find(of_boxes).expect("the sample has it").flags = 0;
    }),
    (Rule::Geometry, "a window on the rows of another patch", |w| {
        let of_patches = |op: &&Op| op.kind == OpKind::Windows && op.flags == plan::layout::PER_PATCH;
        let at = w.ops.iter().find(of_patches).expect("the sample has it").weights as usize;
        w.data[at + 4..at + 6].fill(0);
    }),
    (Rule::Numeric, "a picture without a side", |w| first(w, OpKind::Detect).factors[0] = 0),
    (Rule::Geometry, "classes of another number", |w| {
        (w.meta.classes, w.meta.labels.len) = (1, 4);
    }),
    (Rule::Geometry, "room for no detection", |w| {
        w.tensors.iter_mut().filter(|tensor| tensor.shape == [7, 1, 12]).for_each(|tensor| tensor.shape[0] = 1);
        w.cuts[2].shape[0] = 1;
        let output = w.segments[3].output.index();
        let (old, peak) = (w.tensors[output].offset, w.segments[3].peak_bytes);
        w.tensors[output].offset = old + (peak - old) - 16;
    }),
];

const OF_DENSE_HEADS: &[(Rule, &str, BreakParts)] = &[
    (Rule::Geometry, "another number of classes than its maps have", |w| {
        (w.meta.classes, w.meta.labels.len) = (1, 4);
    }),
    (Rule::Geometry, "a stride that is no power of two", |w| first(w, OpKind::Suppress).factors = [24 * 16; 2]),
    (Rule::Geometry, "another stride down than across", |w| first(w, OpKind::Suppress).factors = [512, 256]),
    (Rule::Geometry, "a picture that the maps do not cover", |w| first(w, OpKind::Suppress).factors = [513, 512]),
    (Rule::Numeric, "no picture", |w| first(w, OpKind::Suppress).factors = [0, 512]),
    (Rule::Numeric, "no overlap that would do", |w| first(w, OpKind::Suppress).origin[1] = 0),
    (Rule::Geometry, "a third number", |w| first(w, OpKind::Suppress).origin[2] = 1),
    (Rule::KindKnown, "rows of boxes", |w| first(w, OpKind::Suppress).flags = plan::layout::PER_BOX),
    (Rule::WriteBeforeRead, "rows of patches that nobody counts", |w| {
        let conv = w.ops.iter_mut().rev().find(|op| op.kind == OpKind::Conv).expect("the sample has it");
        conv.flags = plan::layout::PER_PATCH;
    }),
    (Rule::Reference, "no third map", |w| first(w, OpKind::Suppress).first_channel = plan::layout::NO_TENSOR),
    (Rule::Reference, "no second map", |w| first(w, OpKind::Suppress).input2 = TensorId(plan::layout::NO_TENSOR)),
    (Rule::Reference, "one map twice", |w| {
        let op = first(w, OpKind::Suppress);
        op.first_channel = op.input.0;
    }),
];

#[test]
fn the_rules_of_dense_heads_are_enforced() {
    Image::parse(&sample::dense().finish()).unwrap_or_else(|error| panic!("{error}"));
    for (rule, what, break_it) in OF_DENSE_HEADS {
        let mut writer = sample::dense();
        break_it(&mut writer);
        assert_eq!(refused(&writer.finish()), Some(*rule), "{what}");
    }
}

#[test]
fn the_rules_of_heads_are_enforced() {
    let good = sample::detector().finish();
    Image::parse(&good).unwrap_or_else(|error| panic!("{error}"));
    for (rule, what, break_it) in OF_DETECTORS {
        let mut writer = sample::detector();
        break_it(&mut writer);
        assert_eq!(refused(&writer.finish()), Some(*rule), "{what}");
    }
}

const IN_BYTES: &[(Rule, &str, BreakBytes)] = &[
    (Rule::Magic, "another file", |b| b[0] = b'X'),
    (Rule::Version, "a later major version", |b| b[4] += 1),
    (Rule::Length, "cut short", |b| {
        b.pop();
    }),
    (Rule::TargetClass, "another weight layout", |b| b[16] = 1),
    (Rule::SectionTable, "too many sections", |b| b[18] = 33),
    (Rule::SectionKnown, "a section from the future", |b| b[HEADER_LEN] = 200),
    (Rule::SectionOnce, "a section twice", |b| b[HEADER_LEN + 6 * SECTION_ENTRY_LEN] = 9),
    (Rule::SectionPlace, "a section outside", |b| b[HEADER_LEN + 7] = 0x7f),
    (Rule::SectionPlace, "half a record", |b| b[HEADER_LEN + SECTION_ENTRY_LEN + 8] -= 4),
    (Rule::RecordCount, "no cuts", |b| {
        b[HEADER_LEN + SECTION_ENTRY_LEN + 8..HEADER_LEN + SECTION_ENTRY_LEN + 12].fill(0);
    }),
];

#[test]
fn every_rule_is_enforced() {
    for (rule, what, break_it) in IN_PARTS {
        let mut writer = sample::writer();
        break_it(&mut writer);
        assert_eq!(refused(&writer.finish()), Some(*rule), "{what}");
    }
    for (rule, what, break_it) in IN_BYTES {
        let mut bytes = sample::writer().finish();
        break_it(&mut bytes);
        seal(&mut bytes);
        assert_eq!(refused(&bytes), Some(*rule), "{what}");
    }
    let tested: Vec<Rule> = IN_PARTS.iter().map(|case| case.0).chain(IN_BYTES.iter().map(|case| case.0)).collect();
    for rule in Rule::ALL {
        assert!(tested.contains(rule) || *rule == Rule::Checksum, "no case breaks {rule:?}");
    }
}

#[test]
fn a_change_of_any_byte_is_refused() {
    let good = sample::writer().finish();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(Image::parse(&bytes).is_err(), "byte {at}");
    }
    let mut bytes = good.clone();
    bytes[200] ^= 1;
    assert_eq!(refused(&bytes), Some(Rule::Checksum));
}

#[test]
fn an_image_cut_short_anywhere_is_refused() {
    let good = sample::writer().finish();
    for len in 0..good.len() {
        assert!(Image::parse(&good[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn an_optional_section_of_a_later_minor_version_is_skipped() {
    let good = sample::writer().finish();
    let sections = usize::from(good[18]);
    let table_end = HEADER_LEN + sections * SECTION_ENTRY_LEN;
    let mut bytes = good[..table_end].to_vec();
    bytes.extend_from_slice(&[0; SECTION_ENTRY_LEN]);
    bytes.extend_from_slice(&good[table_end..]);
    for section in 0..sections {
        let at = HEADER_LEN + section * SECTION_ENTRY_LEN + 4;
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + SECTION_ENTRY_LEN as u32;
        bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let end = bytes.len() as u32;
    bytes.extend_from_slice(b"new!");
    bytes[table_end..table_end + 2].copy_from_slice(&200u16.to_le_bytes());
    bytes[table_end + 2] = 1;
    bytes[table_end + 4..table_end + 8].copy_from_slice(&end.to_le_bytes());
    bytes[table_end + 8] = 4;
    bytes[5] += 1;
    bytes[18] += 1;
    let len = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    seal(&mut bytes);
    assert!(Image::parse(&bytes).is_ok());
}
