//! Families made in code: a stem, two residual blocks, mean, dense.

use super::*;
use crate::cut;
use crate::graph::{Graph, PoolKind};

pub(crate) struct Random(pub u64);

impl Random {
    /// In -1..1; Knuth's MMIX constants.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Input `[6, 6, 3]`, output `[1, 1, 4]`; cuts: input, stem, block, block, output.
pub(crate) fn anchor(name: &str, channels: usize, seed: u64) -> Graph {
    let mut random = Random(seed);
    let mut conv = |from: usize, to: usize, side: usize, clamp: Clamp| {
        let gain = 1.5 / ((side * side * from) as f32).sqrt();
        let weights = Array4::from_shape_simple_fn([to, side, side, from], || random.next() * gain);
        let bias = (0..to).map(|_| random.next() * 0.2).collect();
        let window = Window { kernel: [side; 2], stride: [1; 2], pad: [side / 2; 4] };
        Op::Conv { weights, bias, window, groups: 1, clamp }
    };
    let window = Window { kernel: [6; 2], stride: [6; 2], pad: [0; 4] };
    let ops = [
        (conv(3, channels, 3, Clamp::RELU), vec![0]),
        (conv(channels, channels, 3, Clamp::RELU), vec![1]),
        (conv(channels, channels, 3, Clamp::NONE), vec![2]),
        (Op::Add { clamp: Clamp::RELU }, vec![3, 1]),
        (conv(channels, channels, 3, Clamp::RELU), vec![4]),
        (conv(channels, channels, 3, Clamp::NONE), vec![5]),
        (Op::Add { clamp: Clamp::RELU }, vec![6, 4]),
        (Op::Pool { kind: PoolKind::Average, window, clamp: Clamp::NONE }, vec![7]),
        (conv(channels, 4, 1, Clamp::NONE), vec![8]),
    ];
    let mut tensors = vec![[6, 6, channels]; 10];
    (tensors[0], tensors[8], tensors[9]) = ([6, 6, 3], [1, 1, channels], [1, 1, 4]);
    let nodes = ops
        .into_iter()
        .enumerate()
        .map(|(position, (op, inputs))| Node { name: format!("node{position}"), op, inputs, output: position + 1 })
        .collect();
    Graph { name: name.into(), tensors, nodes, input: 0, output: 9, taps: vec![] }
}

pub(crate) fn images(count: usize) -> Vec<Vec<f32>> {
    let mut random = Random(99);
    (0..count).map(|_| (0..6 * 6 * 3).map(|_| random.next()).collect()).collect()
}

/// Two anchors, one stitch from cut 2 to cut 2.
pub(crate) fn family(front: Graph, back: Graph) -> Blocks {
    let mut blocks = cut::cut(vec![front, back], &crate::family::StitchSpec::default()).expect("a family");
    assert_eq!(blocks.anchors[0].cuts.len(), 5);
    blocks.pairs = vec![Pair { front: 0, front_cut: 2, back: 1, back_cut: 2, layer: 0 }];
    blocks.paths = vec![vec![0]];
    blocks
}

/// Exact: nothing is rounded.
pub(crate) const OPTIONS: Options =
    Options { start: Start::LeastSquares, ridge: Some(1e-9), rounded: false, corrections: true };

/// Output of one path for one image.
pub(crate) fn follow(stitched: &Stitched, path: usize, image: &[f32]) -> Vec<f32> {
    let path = &stitched.paths[path];
    path.segments.iter().fold(image.to_vec(), |values, &number| {
        let segment = &stitched.segments[number];
        let mut nodes = segment.nodes.clone();
        for correction in path.corrections.iter().filter(|correction| correction.segment == number) {
            if let Op::Conv { bias, .. } = &mut nodes[correction.node].op {
                bias.clone_from(&correction.bias);
            }
        }
        float::run(&nodes, &segment.tensors, segment.input, &values).swap_remove(segment.output)
    })
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[test]
fn a_stitch_to_the_same_weights_is_the_identity() {
    let blocks = family(anchor("a", 5, 1), anchor("b", 5, 1));
    let images = images(40);
    let stitched = learn(&blocks, &images, OPTIONS, &|| ()).expect("learned").stitched;
    let names: Vec<&str> = stitched.paths.iter().map(|path| path.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a.2>b.2"]);
    let stitch = &stitched.segments[stitched.paths[2].segments[2]];
    assert_eq!(stitch.kind, Kind::Stitch);
    let Op::Conv { weights, bias, .. } = &stitch.nodes[0].op else { panic!("{:?}", stitch.nodes) };
    // A channel of the anchor that never fires has no weight to recover.
    for image in &images {
        assert!(distance(&follow(&stitched, 2, image), &follow(&stitched, 1, image)) < 1e-8);
    }
    assert!(weights.iter().chain(bias).all(|value| value.is_finite()));
    for ((output, _, _, input), &weight) in weights.indexed_iter() {
        let expected = f32::from(u8::from(output == input));
        assert!(
            (weight - expected).abs() < 1e-4 || weights[[output, 0, 0, output]] == 0.0,
            "{output} {input} {weight}"
        );
    }
    assert!(stitched.paths.iter().all(|path| path.corrections.is_empty()));
}

#[test]
fn a_path_of_two_stitches_to_the_same_weights_is_the_anchor() {
    let graphs = ["a", "b", "c"].map(|name| anchor(name, 5, 1));
    let mut blocks = cut::cut(graphs.into(), &crate::family::StitchSpec::default()).expect("a family");
    let pair = |front: usize, cut: usize| Pair { front, front_cut: cut, back: front + 1, back_cut: cut, layer: front };
    blocks.pairs = vec![pair(0, 1), pair(1, 2)];
    blocks.paths = vec![vec![0], vec![0, 1]];
    let images = images(40);
    let stitched = learn(&blocks, &images, OPTIONS, &|| ()).expect("learned").stitched;
    let names: Vec<&str> = stitched.paths.iter().map(|path| path.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "a.1>b.1", "a.1>b.1-2>c.2"]);
    let path = stitched.paths[4].segments.iter().map(|&segment| stitched.segments[segment].name.as_str());
    assert_eq!(path.collect::<Vec<_>>(), ["a.0", "a.1>b.1", "b.1", "b.2>c.2", "c.2", "c.3"]);
    for image in &images {
        assert!(distance(&follow(&stitched, 4, image), &follow(&stitched, 2, image)) < 1e-8);
    }
}

#[test]
fn both_legs_behind_a_stitch_get_the_means_of_their_anchors() {
    let graphs = [anchor("a", 3, 4), anchor("b", 8, 5), anchor("c", 8, 6)];
    let mut blocks = cut::cut(graphs.into(), &crate::family::StitchSpec::default()).expect("a family");
    let pair = |front: usize, cut: usize| Pair { front, front_cut: cut, back: front + 1, back_cut: cut, layer: front };
    (blocks.pairs, blocks.paths) = (vec![pair(0, 1), pair(1, 2)], vec![vec![0, 1]]);
    let images = images(64);
    let stitched = learn(&blocks, &images, OPTIONS, &|| ()).expect("learned").stitched;
    let corrected: Vec<&str> =
        stitched.paths[3].corrections.iter().map(|of| stitched.segments[of.segment].name.as_str()).collect();
    assert!(corrected.contains(&"b.1") && corrected.contains(&"c.2"), "{corrected:?}");
    let means = |path: usize| {
        let outputs: Vec<Vec<f32>> = images.iter().map(|image| follow(&stitched, path, image)).collect();
        channel_means(&outputs, 4)
    };
    for (found, expected) in means(3).iter().zip(means(2)) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// Normal equations of the two problems together: what is left over is orthogonal to the inputs, and sums to 0.
#[test]
fn a_shared_layer_solves_the_problems_of_all_its_pairs_together() {
    let mut blocks = family(anchor("a", 3, 4), anchor("b", 4, 5));
    let pair = |front_cut: usize, back_cut: usize| Pair { front: 0, front_cut, back: 1, back_cut, layer: 0 };
    (blocks.pairs, blocks.paths) = (vec![pair(1, 2), pair(2, 3)], vec![vec![0], vec![1]]);
    let images = images(20);
    let stitched = learn(&blocks, &images, Options { ridge: Some(0.0), corrections: false, ..OPTIONS }, &|| ())
        .expect("learned")
        .stitched;
    let stitches: Vec<&Segment> = stitched.segments.iter().filter(|segment| segment.kind == Kind::Stitch).collect();
    assert_eq!(stitches.len(), 2, "a segment per pair of cuts");
    assert_eq!(stitches[0].nodes[0].op, stitches[1].nodes[0].op);
    assert_ne!(stitches[0].from, stitches[1].from);
    let at = |anchor: usize, cut: usize, image: &[f32]| {
        stitched.paths[anchor].segments[..cut].iter().fold(image.to_vec(), |values, &number| {
            let segment = &stitched.segments[number];
            float::run(&segment.nodes, &segment.tensors, segment.input, &values).swap_remove(segment.output)
        })
    };
    // Per pair: the products of residuals with inputs and with 1, and their sizes.
    let mut sums = [[[0.0f64; 4]; 4]; 2];
    let mut size = 0.0;
    for image in &images {
        for (pair, stitch) in stitches.iter().enumerate() {
            let (x, y) = (at(0, pair + 1, image), at(1, pair + 2, image));
            let found = float::run(&stitch.nodes, &stitch.tensors, 0, &x).swap_remove(1);
            for (pixel, x) in x.chunks(3).enumerate() {
                for channel in 0..4 {
                    let residual = f64::from(y[pixel * 4 + channel] - found[pixel * 4 + channel]);
                    for (input, x) in x.iter().chain([&1.0]).enumerate() {
                        sums[pair][channel][input] += residual * f64::from(*x);
                        size += (residual * f64::from(*x)).abs();
                    }
                }
            }
        }
    }
    let most = |sums: &[[f64; 4]; 4]| sums.iter().flatten().fold(0.0f64, |most, sum| most.max(sum.abs())) / size;
    let mut together = sums[0];
    together.iter_mut().flatten().zip(sums[1].iter().flatten()).for_each(|(sum, other)| *sum += other);
    assert!(most(&together) < 1e-6 && most(&sums[0]) > 1e-3, "{} {}", most(&together), most(&sums[0]));
}

#[test]
fn blocks_of_an_anchor_compute_the_anchor() {
    let blocks = family(anchor("a", 3, 2), anchor("b", 7, 3));
    let images = images(16);
    let stitched = learn(&blocks, &images, OPTIONS, &|| ()).expect("learned").stitched;
    for (path, anchor) in blocks.anchors.iter().enumerate() {
        assert_eq!(follow(&stitched, path, &images[0]), float::output(&anchor.graph, &images[0]));
    }
    assert_eq!(stitched.segments[stitched.paths[2].segments[2]].macs, 36 * 3 * 7);
}

#[test]
fn corrections_restore_the_mean_of_the_output() {
    let blocks = family(anchor("a", 3, 4), anchor("b", 8, 5));
    let images = images(64);
    let stitched = learn(&blocks, &images, OPTIONS, &|| ()).expect("learned").stitched;
    assert!(!stitched.paths[2].corrections.is_empty());
    let means = |path: usize| -> Vec<f64> {
        let outputs: Vec<Vec<f32>> = images.iter().map(|image| follow(&stitched, path, image)).collect();
        channel_means(&outputs, 4)
    };
    for (found, expected) in means(2).iter().zip(means(1)) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
    let without = Options { corrections: false, ..OPTIONS };
    let plain = learn(&blocks, &images, without, &|| ()).expect("learned").stitched;
    assert!(plain.paths[2].corrections.is_empty());
    // Unseen images.
    let mut random = Random(7);
    let unseen: Vec<Vec<f32>> = (0..64).map(|_| (0..108).map(|_| random.next()).collect()).collect();
    let error = |family: &Stitched| -> f32 {
        unseen.iter().map(|image| distance(&follow(family, 2, image), &follow(family, 1, image))).sum()
    };
    assert!(error(&stitched) <= error(&plain) * 1.05, "{} {}", error(&stitched), error(&plain));
}

#[test]
fn survives_dead_and_doubled_channels() {
    let mut front = anchor("a", 4, 6);
    // Channel 0 is dead, channel 2 doubles channel 1, at the stem and everywhere after.
    for node in &mut front.nodes {
        let Op::Conv { weights, bias, .. } = &mut node.op else { continue };
        if bias.len() != 4 || node.name == "node8" {
            continue;
        }
        weights.index_axis_mut(ndarray::Axis(0), 0).fill(0.0);
        bias[0] = 0.0;
        let copy = weights.index_axis(ndarray::Axis(0), 1).to_owned();
        weights.index_axis_mut(ndarray::Axis(0), 2).assign(&copy);
        bias[2] = bias[1];
    }
    for ridge in [0.0, 1e-6] {
        let blocks = family(front.clone(), anchor("b", 6, 7));
        let stitched =
            learn(&blocks, &images(20), Options { ridge: Some(ridge), ..OPTIONS }, &|| ()).expect("learned").stitched;
        let output = follow(&stitched, 2, &images(1)[0]);
        assert!(output.iter().all(|value| value.is_finite()), "{output:?}");
    }
}

#[test]
fn says_how_many_images_it_needs() {
    let blocks = family(anchor("a", 3, 1), anchor("b", 4, 2));
    let error = learn(&blocks, &images(5), OPTIONS, &|| ()).expect_err("too few");
    assert_eq!(error.to_string(), "learn: 5 images, at least 16 are needed");
}

#[test]
fn names_the_node_that_is_not_finite() {
    let mut back = anchor("b", 4, 2);
    if let Op::Conv { bias, .. } = &mut back.nodes[4].op {
        bias[1] = f32::NAN;
    }
    let error = learn(&family(anchor("a", 3, 1), back), &images(16), OPTIONS, &|| ()).expect_err("not finite");
    assert_eq!(error.to_string(), "learn: b: node `node4` computes values that are not finite");
}

#[test]
fn threads_change_nothing() {
    let blocks = family(anchor("a", 3, 1), anchor("b", 6, 2));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| learn(&blocks, &images(33), OPTIONS, &|| ()).expect("learned").stitched)
    };
    let one = with(1);
    for threads in [2, 5] {
        let many = with(threads);
        for (a, b) in one.segments.iter().zip(&many.segments) {
            assert_eq!(a.nodes, b.nodes, "{threads} threads");
        }
        for (a, b) in one.paths.iter().zip(&many.paths) {
            assert_eq!(a.corrections, b.corrections, "{threads} threads");
        }
    }
}

#[test]
fn rounded_inputs_are_what_the_normal_equations_hold_for() {
    let blocks = family(anchor("a", 3, 4), anchor("b", 4, 5));
    let images = images(40);
    let options = Options { ridge: Some(0.0), corrections: false, rounded: true, ..OPTIONS };
    let stitched = learn(&blocks, &images, options, &|| ()).expect("learned").stitched;
    let stitch = stitched.segments.last().expect("a stitch");
    let at = |anchor: usize, image: &[f32]| {
        stitched.paths[anchor].segments[..2].iter().fold(image.to_vec(), |values, &number| {
            let segment = &stitched.segments[number];
            float::run(&segment.nodes, &segment.tensors, segment.input, &values).swap_remove(segment.output)
        })
    };
    let inputs: Vec<Vec<f32>> = images.iter().map(|image| at(0, image)).collect();
    // Of 40 images, those below the 37th largest maximum set the range (a ReLU's least is 0).
    let mut most: Vec<f32> = inputs.iter().map(|x| x.iter().copied().fold(0.0, f32::max)).collect();
    most.sort_by(f32::total_cmp);
    let step = f64::from(most[37]) / 255.0;
    let rounded = |value: f32| (f64::from(value) / step).round().min(255.0) * step;
    let product = |number: &dyn Fn(f32) -> f64| {
        let (mut sum, mut size) = ([0.0; 4], 0.0);
        for (x, image) in inputs.iter().zip(&images) {
            let x: Vec<f32> = x.iter().map(|&value| number(value) as f32).collect();
            let found = float::run(&stitch.nodes, &stitch.tensors, 0, &x).swap_remove(1);
            for (position, (y, found)) in at(1, image).chunks(4).zip(found.chunks(4)).enumerate() {
                for channel in 0..4 {
                    let of = f64::from(y[channel] - found[channel]) * f64::from(x[3 * position]);
                    (sum[channel], size) = (sum[channel] + of, size + of.abs());
                }
            }
        }
        sum.into_iter().fold(0.0f64, |most, sum| most.max(sum.abs())) / size
    };
    let (on_rounded, on_exact) = (product(&rounded), product(&|value| f64::from(value)));
    assert!(on_rounded < 1e-6 && on_exact > 10.0 * on_rounded, "{on_rounded} {on_exact}");
}

#[test]
fn the_ridge_is_the_one_with_the_least_error_on_held_out_images() {
    // Sixteen images: so few that a wide stitch would fit noise.
    let blocks = family(anchor("a", 24, 4), anchor("b", 6, 5));
    let images = images(16);
    let of = |ridge| {
        let options = Options { ridge, rounded: true, ..OPTIONS };
        learn(&blocks, &images, options, &|| ()).expect("learned").fits.remove(0)
    };
    let chosen = of(None);
    let tried: Vec<fit::Fit> = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1].map(|ridge| of(Some(ridge))).into();
    let best = tried.iter().min_by(|a, b| a.held_out_error.total_cmp(&b.held_out_error)).expect("some");
    assert_eq!(&chosen, best);
    assert!(tried.iter().any(|other| other.held_out_error > 1.001 * chosen.held_out_error), "{tried:?}");
    assert_eq!(chosen.stitches, ["a.2>b.2"]);
    assert!((0.0..1.0).contains(&chosen.held_out_error), "{chosen:?}");
}

#[test]
fn a_singular_system_is_told_with_its_stitch() {
    let mut front = anchor("a", 4, 6);
    // Channel 0 is dead where the stitch leaves, as ReLUs leave channels.
    for node in &mut front.nodes[..4] {
        if let Op::Conv { weights, bias, .. } = &mut node.op {
            weights.index_axis_mut(ndarray::Axis(0), 0).fill(0.0);
            bias[0] = 0.0;
        }
    }
    let note = |front: Graph, ridge| {
        let options = Options { ridge, ..OPTIONS };
        learn(&family(front, anchor("b", 6, 7)), &images(20), options, &|| ()).expect("learned").fits[0].note()
    };
    let told = "stitch a.2>b.2: singular, 1 of 4 inputs are idle or follow from others;";
    assert_eq!(note(front.clone(), Some(1e-3)), Some(format!("{told} solved with ridge 1e-3")));
    assert_eq!(note(front, Some(0.0)), Some(format!("{told} left out with weight 0")));
    assert_eq!(note(anchor("a", 4, 1), None), None);
}

#[test]
fn relative_maps_join_equal_anchors_as_the_identity_does() {
    // The same network with its channels in another order: cosines are equal, so the map is the order.
    let (front, mut back) = (anchor("a", 5, 1), anchor("b", 5, 1));
    let order = [3, 0, 4, 1, 2];
    for (position, node) in back.nodes.iter_mut().enumerate() {
        let Op::Conv { weights, bias, .. } = &mut node.op else { continue };
        if position > 0 {
            *weights = weights.select(ndarray::Axis(3), &order);
        }
        if bias.len() == 5 {
            *weights = weights.select(ndarray::Axis(0), &order);
            *bias = order.iter().map(|&channel| bias[channel]).collect();
        }
    }
    let images = images(40);
    let options = Options { start: Start::Relative, corrections: false, ..OPTIONS };
    let found = learn(&family(front, back), &images, options, &|| ()).expect("learned");
    assert!(found.fits.is_empty());
    for image in &images {
        let (path, anchor) = (follow(&found.stitched, 2, image), follow(&found.stitched, 1, image));
        assert!(distance(&path, &anchor) < 1e-3, "{path:?} {anchor:?}");
    }
}

#[test]
fn more_images_than_a_batch_are_one_problem() {
    let blocks = family(anchor("a", 3, 4), anchor("b", 4, 5));
    let images = images(BATCH + 40);
    let options = Options { ridge: Some(0.0), corrections: false, ..OPTIONS };
    let whole = learn(&blocks, &images, options, &|| ()).expect("learned").stitched;
    let reversed: Vec<Vec<f32>> = images.into_iter().rev().collect();
    let other = learn(&blocks, &reversed, options, &|| ()).expect("learned").stitched;
    let weights = |stitched: &Stitched| match &stitched.segments.last().expect("a stitch").nodes[0].op {
        Op::Conv { weights, .. } => weights.clone(),
        op => panic!("{op:?}"),
    };
    for (a, b) in weights(&whole).iter().zip(&weights(&other)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}
