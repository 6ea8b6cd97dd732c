//! Gradients against candle's own convolution and against differences; trainings of small families.

use candle_core::{DType, Device, Tensor, Var};

use super::ops::{Add, Conv, Gather};
use super::*;
use crate::graph::{Clamp, Op, PoolKind, Window};
use crate::learn::tests::{OPTIONS as EXACT, Random, anchor, family, follow, images};
use crate::learn::{learn, learned, random as random_family};
use crate::network::{Kind, Segment};

const RELU6: Clamp = Clamp { min: 0.0, max: 6.0 };

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.contiguous().and_then(|tensor| tensor.flatten_all()?.to_vec1()).expect("values")
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims());
    for (index, (found, expected)) in values(found).into_iter().zip(values(expected)).enumerate() {
        assert!((found - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{index}: {found} {expected}");
    }
}

/// Candle's convolution, channels first, and its gradients by input, weights and bias of `Σ result²/2`.
fn judged(op: &Conv, input: &Tensor, weights: &Tensor, bias: &Tensor) -> candle_core::Result<[Tensor; 4]> {
    let [rows, columns] = op.window.kernel;
    let channels = op.input[2] / op.groups;
    let [input, weights, bias] = [Var::from_tensor(input)?, Var::from_tensor(weights)?, Var::from_tensor(bias)?];
    let filters = weights.reshape((op.output[2], rows, columns, channels))?.permute((0, 3, 1, 2))?.contiguous()?;
    let [pad, stride] = [op.window.pad[0], op.window.stride[0]];
    let maps = input.permute((0, 3, 1, 2))?.contiguous()?.conv2d(&filters, pad, stride, 1, op.groups)?;
    let mut result = maps.permute((0, 2, 3, 1))?.broadcast_add(&bias)?;
    if op.clamp == Clamp::RELU {
        result = result.relu()?;
    }
    let gradients = (result.sqr()?.sum_all()? / 2.0)?.backward()?;
    let of = |var: &Var| gradients.get(var.as_tensor()).cloned().ok_or(candle_core::Error::Msg("no gradient".into()));
    let of = [of(&input)?, of(&weights)?, of(&bias)?];
    let [a, b, c] = of;
    Ok([result, a, b, c])
}

#[test]
fn convolutions_equal_candles_own() {
    // [side, kernel, stride, pad], channels in, out, groups.
    let cases = [
        ([7, 3, 1, 1], 4, 6, 1, Clamp::RELU),
        ([8, 3, 2, 1], 3, 5, 1, Clamp::NONE),
        ([5, 1, 1, 0], 6, 4, 1, Clamp::NONE),
        ([6, 1, 2, 0], 2, 4, 1, Clamp::RELU),
        ([6, 6, 1, 0], 3, 10, 1, Clamp::NONE),
        ([6, 3, 1, 1], 4, 8, 2, Clamp::NONE),
        ([6, 3, 2, 1], 4, 4, 4, Clamp::RELU),
        ([40, 5, 1, 2], 2, 3, 1, Clamp::NONE),
    ];
    for (number, ([side, kernel, stride, pad], from, to, groups, clamp)) in cases.into_iter().enumerate() {
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] };
        let [height, width] = window.output(side, side).expect("a map");
        let op = Conv { input: [side, side, from], output: [height, width, to], window, groups, clamp };
        let seed = 10 * number as u64;
        let input = random(&[3, side, side, from], seed + 1);
        let weights = random(&[to, kernel * kernel * from / groups], seed + 2);
        let bias = random(&[to], seed + 3);
        let expected = judged(&op, &input, &weights, &bias).expect("judged");
        let [input, weights, bias] =
            [&input, &weights, &bias].map(|tensor| Var::from_tensor(tensor).expect("a variable"));
        let portable = portable::conv(&op, &input, &weights, &bias).expect("convolved");
        let result = input.apply_op3(&weights, &bias, op).expect("convolved");
        for result in [result, portable] {
            let loss = result.sqr().and_then(|squares| squares.sum_all()? / 2.0).expect("a loss");
            let gradients = loss.backward().expect("gradients");
            assert_close(&result, &expected[0]);
            for (var, expected) in [&input, &weights, &bias].into_iter().zip(&expected[1..]) {
                assert_close(gradients.get(var.as_tensor()).expect("a gradient"), expected);
            }
        }
    }
}

/// Gradient of `Σ weight·f(input)` by differences, in f64.
fn differences(input: &Tensor, weights: &[f32], f: &dyn Fn(&Tensor) -> Tensor) -> Vec<f64> {
    const STEP: f32 = 1e-2;
    let base = values(input);
    let at = |index: usize, step: f32| -> f64 {
        let mut moved = base.clone();
        moved[index] += step;
        let result = values(&f(&Tensor::from_vec(moved, input.shape(), &Device::Cpu).expect("a tensor")));
        result.iter().zip(weights).map(|(value, weight)| f64::from(*value) * f64::from(*weight)).sum()
    };
    (0..base.len()).map(|index| (at(index, STEP) - at(index, -STEP)) / f64::from(2.0 * STEP)).collect()
}

#[test]
fn gradients_of_the_other_ops_are_those_of_differences() {
    let shape = [4, 6, 3];
    let window = Window { kernel: [2, 3], stride: [2, 2], pad: [0, 1, 0, 1] };
    let pooled = [2, 3, 3];
    let other = random(&[2, 4, 6, 3], 8);
    type Function = Box<dyn Fn(&Tensor) -> Tensor>;
    let gather =
        |make: Box<dyn Fn() -> Gather>| -> Function { Box::new(move |x| x.apply_op1(make()).expect("gathered")) };
    let (around, second) = ([1, 1], other.clone());
    let functions: [Function; 10] = [
        gather(Box::new(move || Gather::pool(PoolKind::Average, &window, shape, pooled, Clamp::NONE))),
        gather(Box::new(move || Gather::pool(PoolKind::Max, &window, shape, pooled, Clamp::NONE))),
        gather(Box::new(move || Gather::moved(shape, [2, 3, 5], [0, 1, -1], [2, 2], [1, 1], Clamp::RELU))),
        gather(Box::new(move || Gather::moved(shape, [8, 12, 3], [0, 0, 0], [1, 1], [2, 2], Clamp::NONE))),
        Box::new(move |x| x.apply_op2(&other, Add(RELU6)).expect("added")),
        // The same for other devices than the CPU, in the same order.
        Box::new(move |x| portable::pool(x, PoolKind::Average, &window, pooled, Clamp::NONE).expect("pooled")),
        Box::new(move |x| portable::pool(x, PoolKind::Max, &window, pooled, Clamp::NONE).expect("pooled")),
        Box::new(move |x| portable::moved(x, [2, 3, 5], [0, 1, -1], [2, 2], around, Clamp::RELU).expect("moved")),
        Box::new(move |x| portable::moved(x, [8, 12, 3], [0, 0, 0], around, [2, 2], Clamp::NONE).expect("moved")),
        Box::new(move |x| portable::clamped(&(x + &second).expect("added"), RELU6).expect("clamped")),
    ];
    // Values far from one another and from the bounds, so that no difference steps over a kink.
    let spread: Vec<f32> = (0..144).map(|index| ((index * 59) % 144) as f32 / 16.0 - 4.0 + 0.03).collect();
    let input = Tensor::from_vec(spread, (2, 4, 6, 3), &Device::Cpu).expect("a tensor");
    for (number, function) in functions.iter().enumerate() {
        let var = Var::from_tensor(&input).expect("a variable");
        let result = function(var.as_tensor());
        assert_close(&result, &functions[number % 5](var.as_tensor()));
        let weights = random(result.dims(), 5);
        let loss = (&result * &weights).and_then(|product| product.sum_all()).expect("a loss");
        let gradients = loss.backward().expect("gradients");
        let found = values(gradients.get(var.as_tensor()).expect("a gradient"));
        let expected = differences(&input, &values(&weights), &|x| function(x));
        let off = found.iter().zip(&expected).position(|(a, b)| (f64::from(*a) - b).abs() > 2e-2);
        assert_eq!(off, None, "function {number}: {:?}", off.map(|i| (found[i], expected[i])));
    }
}

const MEAN: [f32; 3] = [0.5; 3];
const STD: [f32; 3] = [0.25; 3];

fn pixels(values: &[u8]) -> Pixels<'_> {
    Pixels { values, shape: [6, 6, 3], mean: &MEAN, std: &STD }
}

fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count * 6 * 6 * 3).map(|_| (random.next() * 127.0 + 128.0) as u8).collect()
}

fn fitted() -> Stitched {
    let blocks = family(anchor("a", 3, 2), anchor("b", 7, 3));
    learn(&blocks, &images(40), EXACT, &|| ()).expect("fitted").stitched
}

const OPTIONS: Options = Options {
    what: What::All,
    only: Vec::new(),
    rank: None,
    steps: 40,
    batch: 40,
    configs: 2,
    rate: 1e-2,
    anchor_rate: 1e-3,
    seed: 7,
};

fn trained(options: Options, steps: u64) -> Training {
    let mut training = Training::new(fitted(), fitted(), options, Device::Cpu).expect("a training");
    let seen = bytes(64, 1);
    for _ in 0..steps {
        training.step(&pixels(&seen)).expect("a step");
    }
    training
}

/// Every number of a family.
fn numbers(stitched: &Stitched, kind: Kind) -> Vec<f32> {
    let segments = stitched.segments.iter().filter(|segment| segment.kind == kind);
    let convs = segments.flat_map(|segment| &segment.nodes).filter_map(|node| match &node.op {
        Op::Conv { weights, bias, .. } => Some(weights.iter().chain(bias).copied()),
        _ => None,
    });
    convs.flatten().collect()
}

#[test]
fn a_path_answers_as_the_float_path_does() {
    let stitched = fitted();
    let net = Net::frozen(stitched.clone());
    let images = images(3);
    let batch = images_tensor(&images.concat(), [6, 6, 3], &Device::Cpu).expect("a batch");
    for path in 0..stitched.paths.len() {
        let found = net.answers(path, &net.tensors(&Device::Cpu).expect("tensors"), &batch).expect("answers");
        let expected: Vec<f32> = images.iter().flat_map(|image| follow(&stitched, path, image)).collect();
        assert_close(&found, &Tensor::from_vec(expected, (3, 4), &Device::Cpu).expect("a tensor"));
    }
}

#[test]
fn training_brings_paths_nearer_to_the_teacher_and_keeps_the_best() {
    let unseen = bytes(24, 2);
    for (what, rank) in [(What::All, None), (What::Stitches, None), (What::Stitches, Some(1))] {
        let start = fitted();
        let mut training = Training::new(start.clone(), start.clone(), Options { what, rank, ..OPTIONS }, Device::Cpu)
            .expect("a training");
        let Verdict::Best(before) = training.measure(&pixels(&unseen)).expect("measured") else { panic!("no start") };
        assert_eq!(training.family().expect("a family").segments.len(), start.segments.len());
        let seen = bytes(64, 1);
        for _ in 0..OPTIONS.steps {
            training.step(&pixels(&seen)).expect("a step");
        }
        let Verdict::Best(after) = training.measure(&pixels(&unseen)).expect("measured") else { panic!("no better") };
        // Most of the loss is the small anchor's, which only `All` changes.
        let most = if what == What::All { 0.8 } else { 0.95 };
        assert!(after < most * before, "{what:?} {rank:?}: {before} to {after}");
        let family = training.family().expect("a family");
        assert_ne!(numbers(&family, Kind::Stitch), numbers(&start, Kind::Stitch));
        let kept = numbers(&family, Kind::Block) == numbers(&start, Kind::Block);
        assert_eq!(kept, what == What::Stitches, "{what:?}");
    }
}

#[test]
fn low_rank_changes_weights_by_a_matrix_of_that_rank() {
    let start = fitted();
    let family = trained(Options { what: What::Stitches, rank: Some(1), ..OPTIONS }, 5).family().expect("a family");
    let weights = |stitched: &Stitched| {
        let stitch = stitched.segments.iter().find(|segment| segment.kind == Kind::Stitch).expect("a stitch");
        let Op::Conv { weights, .. } = &stitch.nodes[0].op else { panic!("{:?}", stitch.nodes) };
        weights.clone()
    };
    let change = weights(&family) - weights(&start);
    let at = |o: usize, i: usize| change[[o, 0, 0, i]];
    assert!(change.iter().any(|value| value.abs() > 1e-4));
    // All minors of order 2 vanish.
    for (o, i) in (1..7).flat_map(|o| (1..3).map(move |i| (o, i))) {
        assert!((at(0, 0) * at(o, i) - at(0, i) * at(o, 0)).abs() < 1e-6, "{o} {i}");
    }
}

/// A window's two pairs of cuts, one layer.
fn shared() -> Stitched {
    let mut blocks = family(anchor("a", 3, 2), anchor("b", 7, 3));
    let pair = |front_cut, back_cut| crate::cut::Pair { front: 0, front_cut, back: 1, back_cut, layer: 0 };
    (blocks.pairs, blocks.paths) = (vec![pair(1, 2), pair(2, 3)], vec![vec![0], vec![1]]);
    learn(&blocks, &images(40), EXACT, &|| ()).expect("fitted").stitched
}

#[test]
fn stitches_of_one_layer_stay_equal() {
    for rank in [None, Some(1)] {
        let options = Options { what: What::Stitches, rank, configs: 1, ..OPTIONS };
        let mut training = Training::new(shared(), shared(), options, Device::Cpu).expect("a training");
        for _ in 0..10 {
            training.step(&pixels(&bytes(64, 1))).expect("a step");
        }
        let family = training.family().expect("a family");
        let stitches: Vec<&Segment> = family.segments.iter().filter(|found| found.kind == Kind::Stitch).collect();
        assert_eq!(stitches.len(), 2);
        assert_eq!(stitches[0].nodes[0].op, stitches[1].nodes[0].op, "{rank:?}");
        assert_ne!(numbers(&family, Kind::Stitch), numbers(&shared(), Kind::Stitch), "{rank:?}");
    }
}

#[test]
fn only_the_paths_that_were_asked_for_change() {
    let mut blocks = family(anchor("a", 3, 2), anchor("b", 7, 3));
    let pair = |cut, layer| crate::cut::Pair { front: 0, front_cut: cut, back: 1, back_cut: cut, layer };
    (blocks.pairs, blocks.paths) = (vec![pair(1, 0), pair(2, 1)], vec![vec![0], vec![1]]);
    let start = learn(&blocks, &images(40), EXACT, &|| ()).expect("fitted").stitched;
    let options = Options { what: What::Stitches, only: vec![3], ..OPTIONS };
    let mut training = Training::new(start.clone(), start.clone(), options, Device::Cpu).expect("a training");
    let changed = |training: &Training| -> Vec<bool> {
        let family = training.net.family().expect("a family");
        [2, 3].map(|path| follow(&family, path, &images(1)[0]) != follow(&start, path, &images(1)[0])).into()
    };
    assert_eq!(changed(&training), [false, false]);
    training.step(&pixels(&bytes(64, 1))).expect("a step");
    training.step(&pixels(&bytes(64, 1))).expect("a step");
    assert_eq!(changed(&training), [false, true]);
    // Anchors that stay as they are leave nothing to train.
    let none = Options { what: What::Stitches, only: vec![0, 1], ..OPTIONS };
    assert!(Training::new(start.clone(), start, none, Device::Cpu).is_err());
}

#[test]
fn anchors_are_pulled_back_and_stitches_are_not() {
    let (start, mut family) = (fitted(), trained(OPTIONS, 5).family().expect("a family"));
    let learned = family.clone();
    learned::pull_back(&mut family, &start, 0.25);
    assert_eq!(numbers(&family, Kind::Stitch), numbers(&learned, Kind::Stitch));
    let [now, first, last] = [&family, &start, &learned].map(|stitched| numbers(stitched, Kind::Block));
    assert_ne!(first, last);
    for ((now, first), last) in now.iter().zip(&first).zip(&last) {
        assert!((now - (0.75 * first + 0.25 * last)).abs() < 1e-6, "{first} to {last}: {now}");
    }
    learned::pull_back(&mut family, &start, 0.0);
    assert_eq!(numbers(&family, Kind::Block), first);
}

#[test]
fn the_teacher_is_the_anchor_that_was_given() {
    // Starting from its own largest anchor, that anchor has nothing to learn; from another, it has.
    let loss = |teacher: Stitched| {
        let options = Options { only: vec![1], ..OPTIONS };
        let mut training = Training::new(fitted(), teacher, options, Device::Cpu).expect("a training");
        training.step(&pixels(&bytes(64, 1))).expect("a step")
    };
    assert!(loss(fitted()).abs() < 1e-4);
    let other = random_family(&family(anchor("a", 3, 2), anchor("b", 7, 9)), 0);
    assert!(loss(other) > 1e-3);
}

#[test]
fn a_training_that_goes_on_after_a_break_takes_the_same_steps() {
    let folder = std::env::temp_dir().join(format!("stitchnet-state-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("state.safetensors");
    let whole = trained(OPTIONS, 6);
    let mut first = trained(OPTIONS, 3);
    let unseen = bytes(24, 2);
    first.measure(&pixels(&unseen)).expect("measured");
    state::write(&file, &first).expect("written");
    let mut second = Training::new(fitted(), fitted(), OPTIONS, Device::Cpu).expect("a training");
    state::read(&file, &mut second).expect("read");
    assert_eq!((second.step, &second.best), (3, &first.best));
    second.best = None;
    for _ in 0..3 {
        second.step(&pixels(&bytes(64, 1))).expect("a step");
    }
    let all = |training: &Training| training.net.parameters.iter().flat_map(|p| p.values.clone()).collect::<Vec<f32>>();
    assert_eq!(all(&second), all(&whole));
    let mut other =
        Training::new(fitted(), fitted(), Options { batch: 41, ..OPTIONS }, Device::Cpu).expect("a training");
    let error = state::read(&file, &mut other).expect_err("other options").to_string();
    assert!(error.contains("batch: 40") && error.contains("batch: 41"), "{error}");
    let begun = trained(OPTIONS, 5).family().expect("a family");
    let mut other = Training::new(begun, fitted(), OPTIONS, Device::Cpu).expect("a training");
    let error = state::read(&file, &mut other).expect_err("another start").to_string();
    assert!(error.contains("at first of checksum"), "{error}");
    std::fs::write(&file, b"nothing").expect("written");
    assert!(state::read(&file, &mut second).is_err());
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_diverging_training_is_told_and_the_best_state_kept() {
    let mut training =
        Training::new(fitted(), fitted(), Options { rate: 1e6, ..OPTIONS }, Device::Cpu).expect("a training");
    let unseen = bytes(24, 2);
    assert!(matches!(training.measure(&pixels(&unseen)), Ok(Verdict::Best(_))));
    let before = training.family().expect("a family");
    for _ in 0..5 {
        training.step(&pixels(&bytes(64, 1))).expect("a step");
    }
    assert!(matches!(training.measure(&pixels(&unseen)), Ok(Verdict::Diverged(_))));
    let after = training.family().expect("a family");
    assert_eq!(numbers(&after, Kind::Stitch), numbers(&before, Kind::Stitch));
    assert_eq!(numbers(&after, Kind::Block), numbers(&before, Kind::Block));
}

#[test]
fn what_was_learned_is_read_back_and_meets_only_its_own_family() {
    let folder = std::env::temp_dir().join(format!("stitchnet-learned-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("learned.safetensors");
    let family = trained(OPTIONS, 5).family().expect("a family");
    learned::write(&file, &family, 77).expect("written");
    let mut read = fitted();
    learned::read(&file, &mut read, 77).expect("read");
    for kind in [Kind::Block, Kind::Stitch] {
        for (found, expected) in numbers(&read, kind).into_iter().zip(numbers(&family, kind)) {
            assert!((found - expected).abs() <= expected.abs() / 1024.0 + 1e-7, "{found} {expected}");
        }
    }
    let places = |stitched: &Stitched| -> Vec<(usize, usize)> {
        stitched.paths.iter().flat_map(|path| path.corrections.iter().map(|own| (own.segment, own.node))).collect()
    };
    assert_eq!(places(&read), places(&family));
    let error =
        |stitched: &mut Stitched, anchors| learned::read(&file, stitched, anchors).expect_err("refused").to_string();
    assert!(error(&mut read, 78).contains("the anchors are not those"));
    let mut wider =
        learn(&super::super::tests::family(anchor("a", 3, 2), anchor("b", 8, 3)), &images(40), EXACT, &|| ())
            .expect("fitted")
            .stitched;
    assert!(error(&mut wider, 77).contains("is expected"));
    let mut fewer = fitted();
    fewer.paths.truncate(2);
    fewer.segments.pop();
    assert!(error(&mut fewer, 77).contains("belongs to no segment"));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_file_of_stitches_alone_leaves_the_anchors_as_they_are() {
    let folder = std::env::temp_dir().join(format!("stitchnet-stitches-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("learned.safetensors");
    let family = trained(OPTIONS, 5).family().expect("a family");
    let mut stitches = family.clone();
    stitches.segments.retain(|segment| segment.kind == Kind::Stitch);
    stitches.paths.clear();
    learned::write(&file, &stitches, 77).expect("written");
    let mut read = fitted();
    learned::read(&file, &mut read, 77).expect("read");
    assert_eq!(numbers(&read, Kind::Block), numbers(&fitted(), Kind::Block));
    for (found, expected) in numbers(&read, Kind::Stitch).into_iter().zip(numbers(&family, Kind::Stitch)) {
        assert!((found - expected).abs() <= expected.abs() / 1024.0 + 1e-7, "{found} {expected}");
    }
    stitches.segments.clear();
    learned::write(&file, &stitches, 77).expect("written");
    let error = learned::read(&file, &mut read, 77).expect_err("no stitches").to_string();
    assert!(error.contains("/0/weights` is missing"), "{error}");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn loss_is_zero_where_answers_agree_and_its_scale_is_the_divergence() {
    let answers = random(&[2, 5], 3);
    let goal = log_softmax(&(&answers / TEMPERATURE).expect("divided")).and_then(|logs| logs.exp()).expect("a goal");
    let at = |answers: &Tensor| distance(answers, &goal).and_then(|loss| loss.to_scalar::<f32>()).expect("a loss");
    assert!(at(&answers).abs() < 1e-5);
    let flat = answers.zeros_like().and_then(|zeros| zeros.to_dtype(DType::F32)).expect("zeros");
    let goals = values(&goal);
    let expected: f32 = goals.iter().map(|goal| 16.0 * goal * (goal * 5.0).ln()).sum();
    assert!((at(&flat) - expected).abs() < 1e-4, "{} {expected}", at(&flat));
}
