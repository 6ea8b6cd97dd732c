use super::*;
use crate::network::{IntegerOp, Kind, Quant};
use plan::TensorId;
use plan::layout::NO_TENSOR;

struct Random(u64);

impl Random {
    /// Below `bound`; Knuth's MMIX constants.
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as usize
    }
}

/// Ops in a chain, each with perhaps a second operand from earlier and scratch; sizes in bytes.
fn segment(sizes: &[usize], second: &[Option<usize>], scratch: &[usize]) -> IntegerSegment {
    let op = |number: usize| IntegerOp {
        record: plan::Op {
            input: TensorId(number as u16),
            input2: TensorId(second[number].map_or(NO_TENSOR, |tensor| tensor as u16)),
            output: TensorId(number as u16 + 1),
            ..plan::Op::EMPTY
        },
        weights: None,
        constants: crate::network::Constants::Nothing,
        scratch_bytes: scratch[number],
        macs: 0,
    };
    IntegerSegment {
        kind: Kind::Block,
        name: "test".into(),
        from: 0,
        to: 1,
        tensors: sizes
            .iter()
            .map(|&bytes| ([1, 1, bytes], Quant { scale: 1.0, zero_point: 0, element: plan::Element::Int8 }))
            .collect(),
        held: std::collections::BTreeMap::new(),
        in_place: vec![],
        stands_for: vec![None; sizes.len()],
        ops: (0..second.len()).map(op).collect(),
        keeps: vec![],
        input: 0,
        output: sizes.len() - 1,
    }
}

/// The smallest peak for which the judge accepts any placement at all: every offset of everything is tried.
fn smallest_peak(segment: &IntegerSegment) -> u32 {
    let free: Vec<usize> = (1..segment.tensors.len() - 1).collect();
    let scratch: Vec<usize> = (0..segment.ops.len()).filter(|&op| segment.ops[op].scratch_bytes > 0).collect();
    let places = free.len() + scratch.len();
    for peak in (0..).map(|blocks| blocks * ARENA_ALIGN) {
        let blocks = (peak / ARENA_ALIGN) as usize;
        let bytes: usize = segment.tensors[segment.output].0.iter().product();
        let Some(output) = blocks.checked_sub(bytes.div_ceil(16)) else { continue };
        for choice in 0..blocks.pow(places as u32) {
            let at = |place: usize| (choice / blocks.pow(place as u32) % blocks) as u32 * ARENA_ALIGN;
            let mut offsets = vec![0; segment.tensors.len()];
            offsets[segment.output] = output as u32 * ARENA_ALIGN;
            for (place, &tensor) in free.iter().enumerate() {
                offsets[tensor] = at(place);
            }
            let mut parts = vec![None; segment.ops.len()];
            for (place, &op) in scratch.iter().enumerate() {
                parts[op] = Some(at(free.len() + place));
            }
            let placement = Placement { offsets, scratch: parts, peak_bytes: peak, live_bytes: 0 };
            if check::check(segment, &placement).is_ok() {
                return peak;
            }
        }
    }
    unreachable!("some peak is enough")
}

#[test]
fn no_placement_is_smaller() {
    let seed = std::env::var("STITCHNET_SEED").map_or(1, |text| text.parse().expect("STITCHNET_SEED is a number"));
    println!("STITCHNET_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..150 {
        let ops = 2 + random.below(2);
        let sizes: Vec<usize> = (0..=ops).map(|_| 1 + random.below(48)).collect();
        let second: Vec<Option<usize>> =
            (0..ops).map(|op| (random.below(2) == 0).then(|| random.below(op as u64 + 1))).collect();
        let scratch: Vec<usize> = (0..ops).map(|_| random.below(2) * random.below(30)).collect();
        let segment = segment(&sizes, &second, &scratch);
        let found = segment_placement(&segment, EFFORT).expect("placed");
        let problem = format!("{sizes:?} {second:?} {scratch:?}: {found:?}");
        assert_eq!(check::check(&segment, &found), Ok(()), "{problem}");
        assert_eq!(found.peak_bytes, smallest_peak(&segment), "{problem}");
        assert!(found.live_bytes <= found.peak_bytes, "{problem}");
    }
}

#[test]
fn the_judge_refuses() {
    struct Case {
        offsets: [u32; 3],
        scratch: [Option<u32>; 2],
        because: &'static str,
    }
    // 16 → 16 → 16 bytes, the second op also reads the input; the first has scratch.
    let segment = segment(&[16, 16, 16], &[None, Some(0)], &[16, 0]);
    let case = |offsets, scratch, because| Case { offsets, scratch: [scratch, None], because };
    let cases = [
        case([0, 16, 32], Some(32), ""),
        case([16, 0, 32], Some(32), "two ends"),
        case([0, 16, 16], Some(32), "two ends"),
        case([0, 8, 32], Some(32), "not aligned"),
        case([0, 16, 32], Some(40), "scratch of op 0"),
        case([0, 48, 32], Some(32), "outside"),
        case([0, 16, 32], Some(48), "outside"),
        case([0, 16, 32], Some(16), "scratch where its output is"),
        case([0, 16, 32], Some(0), "reads tensor 0"),
        case([0, 0, 32], Some(16), "reads tensor 0"),
        case([0, 32, 32], Some(16), "reads tensor 1"),
    ];
    for Case { offsets, scratch, because } in cases {
        let placement =
            Placement { offsets: offsets.to_vec(), scratch: scratch.to_vec(), peak_bytes: 48, live_bytes: 48 };
        match check::check(&segment, &placement) {
            Ok(()) => assert_eq!(because, "", "{offsets:?} {scratch:?} was accepted"),
            Err(error) => assert!(!because.is_empty() && error.contains(because), "{offsets:?} {scratch:?}: {error}"),
        }
    }
}
