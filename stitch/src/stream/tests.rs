use std::collections::BTreeMap;

use plan::{ConfigId, Image, TensorId};
use runtime::Engine;

use super::*;
use crate::emit::Measured;
use crate::emit::tests::image;
use crate::network::{ConvWeights, Cut, IntegerPath, Kind, Quant};
use crate::place::place;

/// Knuth's MMIX constants.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.below(256) as u8 as i8).collect()
    }
}

/// Ops one after another, some of which also read the output of an earlier one; of one row if `tokens`.
struct Builder {
    random: Random,
    tokens: bool,
    tensors: Vec<[usize; 3]>,
    ops: Vec<IntegerOp>,
}

impl Builder {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let tokens = random.below(4) == 0;
        let height = if tokens { 1 } else { 5 + random.below(8) };
        let input = [height, 5 + random.below(8), 1 + random.below(6)];
        Self { random, tokens, tensors: vec![input], ops: vec![] }
    }

    fn push(&mut self, record: plan::Op, output: [usize; 3], weights: Option<ConvWeights>) {
        let record = plan::Op { output: TensorId(self.tensors.len() as u16), ..record };
        let inputs = self.tensors[record.input.index()][2];
        let scratch_bytes = match record.kind {
            OpKind::Conv => kernels::conv_scratch(record.kernel, inputs as u16, output[0] * output[1]),
            _ => 0,
        };
        self.tensors.push(output);
        self.ops.push(IntegerOp { record, weights, constants: Constants::Nothing, scratch_bytes, macs: 1 });
    }

    /// A convolution, a depthwise one or a pool, whose window lies on the map; with `same`, of the input's shape.
    fn windowed(&mut self, input: usize, kind: OpKind, same: bool) {
        let shape = self.tensors[input];
        let mut side = |length: usize, fixed: bool| {
            let kernel = if fixed { 1 } else { 1 + self.random.below(3.min(length)) };
            let before = self.random.below(kernel);
            let pad = [before, if same { kernel - 1 - before } else { self.random.below(kernel) }];
            let stride = if fixed || same { 1 } else { 1 + self.random.below(2) };
            (kernel, stride, pad, (length + pad[0] + pad[1] - kernel) / stride + 1)
        };
        let (rows, columns) = (side(shape[0], self.tokens), side(shape[1], false));
        let outputs = if kind == OpKind::Conv && !same { 1 + self.random.below(7) } else { shape[2] };
        let byte = |value: usize| value as u8;
        let record = plan::Op {
            kind,
            input: TensorId(input as u16),
            kernel: [byte(rows.0), byte(columns.0)],
            stride: [byte(rows.1), byte(columns.1)],
            pad: [byte(rows.2[0]), byte(columns.2[0]), byte(rows.2[1]), byte(columns.2[1])],
            groups: if kind == OpKind::Conv { 1 } else { shape[2] as u16 },
            ..plan::Op::EMPTY
        };
        let terms = rows.0 * columns.0;
        let (record, weights) = match kind {
            OpKind::Conv | OpKind::Depthwise => {
                let row = if kind == OpKind::Conv {
                    (terms * shape[2]).next_multiple_of(4) * outputs
                } else {
                    terms * outputs
                };
                let weights = ConvWeights {
                    weights: self.random.bytes(row),
                    bias: self.random.bytes(outputs).into_iter().map(|bias| i32::from(bias) * 50).collect(),
                    multiplier: vec![1 << 30; outputs],
                    shift: vec![39; outputs],
                    curve: if kind == OpKind::Conv && self.random.below(4) == 0 {
                        self.random.bytes(256)
                    } else {
                        vec![]
                    },
                };
                (record, Some(weights))
            }
            _ => (plan::Op { groups: 0, factors: [1 << 30, 0], shift: 32, ..record }, None),
        };
        self.push(record, [rows.3, columns.3, outputs], weights);
    }

    /// The sum of the last map and an earlier one of its shape, if there is one.
    fn sum(&mut self) -> bool {
        let last = self.tensors.len() - 1;
        let earlier: Vec<usize> = (0..last).filter(|&other| self.tensors[other] == self.tensors[last]).collect();
        let Some(&other) = earlier.get(self.random.below(earlier.len())) else { return false };
        self.sum_with(other);
        true
    }

    fn sum_with(&mut self, other: usize) {
        let last = self.tensors.len() - 1;
        let mut operands = [last, other].map(|tensor| TensorId(tensor as u16));
        if self.random.below(2) == 0 {
            operands.reverse();
        }
        let record = plan::Op {
            kind: OpKind::Add,
            input: operands[0],
            input2: operands[1],
            factors: [11_000, 20_000],
            shift: 15,
            constant: 16_384,
            ..plan::Op::EMPTY
        };
        self.push(record, self.tensors[last], None);
    }

    fn build(mut self) -> Quantized {
        const KINDS: [OpKind; 7] = [
            OpKind::Conv,
            OpKind::Conv,
            OpKind::Conv,
            OpKind::Depthwise,
            OpKind::Depthwise,
            OpKind::AveragePool,
            OpKind::MaxPool,
        ];
        // A residual block, or anything.
        let same = self.random.below(3) == 0;
        for _ in 0..if same { 1 + self.random.below(3) } else { 3 + self.random.below(5) } {
            let last = self.tensors.len() - 1;
            let input = if !same && self.random.below(5) == 0 { self.random.below(last + 1) } else { last };
            if same || self.random.below(3) > 0 || !self.sum() {
                let kind = KINDS[self.random.below(KINDS.len())];
                self.windowed(input, kind, same);
            }
        }
        if same {
            self.sum_with(0);
        }
        let quant = Quant { scale: 1.0, zero_point: 0, element: Element::Int8 };
        let quants = self.tensors.iter().map(|&shape| (shape, quant)).collect();
        let cut = |shape: [usize; 3]| (Cut { shape, anchor: None, position: 0 }, quant);
        let (first, last) = (self.tensors[0], self.tensors[self.tensors.len() - 1]);
        let segment = IntegerSegment {
            kind: Kind::Block,
            name: "a.0".into(),
            from: 0,
            to: 1,
            tensors: quants,
            held: BTreeMap::new(),
            in_place: vec![],
            stands_for: vec![None; self.tensors.len()],
            ops: self.ops,
            input: 0,
            output: self.tensors.len() - 1,
            keeps: vec![],
        };
        Quantized {
            anchors: vec!["a".into()],
            cuts: vec![cut(first), cut(last)],
            segments: vec![segment],
            paths: vec![IntegerPath { name: "a".into(), segments: vec![0], corrections: vec![] }],
            preprocess: vec![[0; 256]; first[2]],
            kept: vec![],
            output: 1,
            caps: [0; 2],
        }
    }
}

/// What an image computes on an input with the fastest kernels of this machine, in an arena with `room` for 16 bytes so many times more
/// than it needs; and what it needs.
fn output(quantized: Quantized, input: &[i8], room: usize) -> (Vec<i8>, u32) {
    let placed = place(quantized).expect("placed");
    let bytes = image(&placed, &Measured::default());
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}: {placed:?}"));
    // Garbage, as an arena has it that was used before.
    let mut arena = vec![85; image.meta().arena_bytes as usize + 16 * room];
    let output = kernels::with_isa!(kernels::Level::best(), |isa| {
        let mut engine = Engine::new(isa, image, &mut arena).expect("an engine");
        engine.input_mut().copy_from_slice(input);
        engine.run_config(ConfigId(0)).expect("runs").to_vec()
    });
    (output, image.meta().arena_bytes)
}

/// Makes a run of ops drawn at random a stream, if it can be one.
fn draw(quantized: &mut Quantized, random: &mut Random) -> bool {
    let segment = &mut quantized.segments[0];
    let first = random.below(segment.ops.len());
    let last = first + 1 + random.below(4);
    if last >= segment.ops.len() || (first..last).any(|op| reader(segment, op) != Some(op + 1)) {
        return false;
    }
    let strip = 1 + random.below(3);
    let found = run(segment, first, last, strip);
    found.map(|run| set(segment, &run)).is_some()
}

#[test]
fn streams_change_no_byte() {
    let seed = std::env::var("STITCHNET_SEED").map_or(1, |text| text.parse().expect("STITCHNET_SEED is a number"));
    println!("STITCHNET_SEED={seed}");
    let [mut drawn, mut chosen, mut smaller, mut stayed] = [0; 4];
    for case in 0..1_500u64 {
        let quantized = Builder::new(seed * 1_000_003 + case).build();
        if quantized.cuts[1].0.shape.iter().product::<usize>() < 4 {
            // Fewer values than labels.
            continue;
        }
        let mut random = Random(case);
        let input = random.bytes(quantized.cuts[0].0.shape.iter().product());
        let (expected, whole) = output(quantized.clone(), &input, 0);
        let mut tried = quantized.clone();
        if draw(&mut tried, &mut random) {
            drawn += 1;
            add_in_place(&mut tried.segments[0], true);
            stayed += usize::from(tried.segments[0].stays());
            assert_eq!(
                output(tried.clone(), &input, random.below(3)).0,
                expected,
                "case {case}: {:?}",
                tried.segments[0]
            );
        }
        let streamed = stream(quantized, true).expect("streamed");
        chosen += usize::from(!streamed.segments[0].held.is_empty());
        let (found, arena) = output(streamed.clone(), &input, random.below(3));
        assert_eq!(found, expected, "case {case}: {:?}", streamed.segments[0]);
        stayed += usize::from(streamed.segments[0].stays());
        smaller += usize::from(arena < whole);
    }
    let found =
        format!("{drawn} drawn, {chosen} chosen, {smaller} with a smaller arena, {stayed} at the end of their input");
    println!("{found}");
    assert!(drawn > 100 && chosen > 100 && smaller > 100 && stayed > 20, "{found}");
}

/// Segments of three families on three paths, of which the third segment may read a kept map.
fn family(case: u64, kept: bool) -> Quantized {
    let mut families = (0..3).map(|number| Builder::new(3 * case + number).build());
    let mut family = families.next().expect("three");
    family.segments.extend(families.map(|mut other| other.segments.remove(0)));
    let path = |segments: &[usize]| IntegerPath { segments: segments.to_vec(), ..family.paths[0].clone() };
    family.paths = [&[0, 1, 2][..], &[1, 0, 2], if kept { &[0, 1, 2] } else { &[1] }].map(path).to_vec();
    if kept {
        let map = family.segments[2].input;
        family.kept = vec![family.segments[2].tensors[map]];
        family.segments[2].keeps = vec![(0, map)];
    }
    family
}

#[test]
fn strips_are_longer_only_where_a_path_needs_more_anyway() {
    let [mut longer, mut whole_again] = [0; 2];
    for case in 0..1_000 {
        let kept = case % 2 == 1;
        let whole = family(case, kept);
        let peaks = |family: &Quantized| -> Vec<u32> {
            family.segments.iter().map(|segment| peak_bytes(segment).expect("placed")).collect()
        };
        let best = |segment| best(segment, !kept, 0).expect("placed").map_or(u32::MAX, |streams| streams.peak);
        let least: Vec<u32> =
            whole.segments.iter().zip(peaks(&whole)).map(|(segment, peak)| peak.min(best(segment))).collect();
        let streamed = stream(whole.clone(), true).expect("streamed");
        let found = peaks(&streamed);
        for part in whole.paths.iter().flat_map(|path| parts(&whole, path)).filter(|part| !part.is_empty()) {
            let most = |peaks: &[u32]| part.iter().map(|&segment| peaks[segment]).max();
            assert_eq!(most(&found), most(&least), "case {case}, {part:?}: {found:?} of {least:?}");
        }
        for (segment, (found, least)) in streamed.segments.iter().zip(found.iter().zip(&least)) {
            let more = usize::from(found > least);
            (whole_again, longer) =
                if segment.held.is_empty() { (whole_again + more, longer) } else { (whole_again, longer + more) };
        }
    }
    assert!(
        longer > 5 && whole_again > 50,
        "{longer} with longer strips than the least arena has, {whole_again} whole"
    );
}
