use std::time::Instant;

use ndarray::Array4;

use crate::cost::CostModel;
use crate::cut::{self, Blocks, Pair};
use crate::emit::{self, Labels, Measured};
use crate::family::Packing;
use crate::family::{Space, StitchSpec, WindowSpec};
use crate::graph::{Clamp, Graph, Node, Op, PoolKind, Window};
use crate::network::{Calibrated, Extent};
use crate::quantize::Pixels;
use crate::{cut::Direction, learn, place, quantize};

/// A residual network on maps of 8×8 and, stage by stage, half of it: stem, blocks, mean, dense layer of 4 outputs. The
/// first block of every stage but the first has a stride. Cuts: input, stem, blocks, output.
fn network(name: &str, channels: usize, depths: &[usize]) -> Graph {
    let (mut tensors, mut nodes): (Vec<[usize; 3]>, Vec<Node>) = (vec![[8, 8, 3]], vec![]);
    let mut push = |tensors: &mut Vec<[usize; 3]>, op: Op, inputs: Vec<usize>, shape| {
        nodes.push(Node { name: format!("node{}", nodes.len()), op, inputs, output: tensors.len() });
        tensors.push(shape);
        tensors.len() - 1
    };
    let conv = |from: usize, to: usize, side: usize, stride: usize| Op::Conv {
        weights: Array4::from_elem([to, side, side, from], 0.1),
        bias: vec![0.0; to],
        window: Window { kernel: [side; 2], stride: [stride; 2], pad: [side / 2; 4] },
        groups: 1,
        clamp: Clamp::RELU,
    };
    let mut map = push(&mut tensors, conv(3, channels, 3, 1), vec![0], [8, 8, channels]);
    for (stage, &depth) in depths.iter().enumerate() {
        let side = 8 >> stage;
        for block in 0..depth {
            let stride = 1 + usize::from(stage > 0 && block == 0);
            let shape = [side, side, channels];
            let left = push(&mut tensors, conv(channels, channels, 3, stride), vec![map], shape);
            let right = if stride == 1 {
                map
            } else {
                push(&mut tensors, conv(channels, channels, 1, stride), vec![map], shape)
            };
            map = push(&mut tensors, Op::Add { clamp: Clamp::RELU }, vec![left, right], shape);
        }
    }
    let side = 8 >> (depths.len() - 1);
    let window = Window { kernel: [side; 2], stride: [side; 2], pad: [0; 4] };
    let mean = Op::Pool { kind: PoolKind::Average, window, clamp: Clamp::NONE };
    let mean = push(&mut tensors, mean, vec![map], [1, 1, channels]);
    let output = push(&mut tensors, conv(channels, 4, 1, 1), vec![mean], [1, 1, 4]);
    Graph { name: name.into(), tensors, nodes, input: 0, output, taps: vec![] }
}

fn cuts(blocks: &Blocks) -> Vec<[usize; 5]> {
    let pair = |pair: &Pair| [pair.front, pair.front_cut, pair.back, pair.back_cut, pair.layer];
    blocks.pairs.iter().map(pair).collect()
}

fn cut(networks: &[Graph], spec: &StitchSpec) -> Blocks {
    cut::cut(networks.to_vec(), spec).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn without_a_space_every_block_but_a_stages_first_is_entered_once() {
    let networks = [network("a", 4, &[1, 2]), network("b", 8, &[2, 2])];
    let blocks = cut(&networks, &StitchSpec { direction: Direction::Both, ..StitchSpec::default() });
    // Cuts of `a`: 1 stem, 2 | 3, 4; of `b`: 1 stem, 2, 3 | 4, 5.
    let expected = [[0, 2, 1, 2, 0], [0, 4, 1, 4, 1], [1, 5, 0, 3, 2]];
    assert_eq!(cuts(&blocks), expected);
    assert_eq!(blocks.paths, [[0], [1], [2]]);
}

#[test]
fn stitches_can_be_named() {
    let networks = [network("a", 4, &[1, 2]), network("b", 8, &[2, 2])];
    let all = StitchSpec { direction: Direction::Both, ..StitchSpec::default() };
    let only = |names: &[&str]| Some(names.iter().map(|&name| name.into()).collect());
    let blocks = cut(&networks, &StitchSpec { only: only(&["b.5>a.3", "a.2>b.2"]), ..all.clone() });
    assert_eq!(cuts(&blocks), [[0, 2, 1, 2, 0], [1, 5, 0, 3, 1]]);
    assert_eq!(blocks.paths, [[0], [1]]);
    let refused = |names| match cut::cut(networks.to_vec(), &StitchSpec { only: only(names), ..all.clone() }) {
        Ok(_) => panic!("accepted {names:?}"),
        Err(error) => error.to_string(),
    };
    let unknown = "family: stitch.only names `a.9>b.2`; the space has a.2>b.2, a.4>b.4, b.5>a.3";
    assert_eq!(refused(&["a.9>b.2"]), unknown);
    let none = r#"family: stitch.only = ["b.5>a.3"] leaves no stitch from `a` to `b`; name others, or none for all"#;
    assert_eq!(refused(&["b.5>a.3"]), none);
}

#[test]
fn a_window_shares_layers_and_enters_only_where_there_is_a_cut() {
    let networks = [network("a", 4, &[2, 2]), network("b", 8, &[2, 2])];
    let blocks = cut(&networks, &StitchSpec { space: Space::V1, ..StitchSpec::default() });
    // Stage 0 has its stem as a cut before block 0; block 0 of stage 1 changes the map, so nothing enters before it.
    let expected =
        [[0, 2, 1, 1, 0], [0, 2, 1, 2, 0], [0, 3, 1, 1, 0], [0, 3, 1, 2, 0], [0, 4, 1, 4, 1], [0, 5, 1, 4, 1]];
    assert_eq!(cuts(&blocks), expected);
    assert_eq!(blocks.paths.len(), 6);
    let advancing = StitchSpec { space: Space::V1, advancing: true, stages: Some(vec![1]), ..StitchSpec::default() };
    assert_eq!(cuts(&cut(&networks, &advancing)), [[0, 4, 1, 4, 0]]);
}

#[test]
fn two_way_stitches_at_the_ends_of_stages_too() {
    let networks = [network("a", 4, &[1, 2]), network("b", 8, &[2, 2])];
    let blocks = cut(&networks, &StitchSpec { space: Space::V2, ..StitchSpec::default() });
    let names: Vec<String> = blocks.paths.iter().map(|path| blocks.path_name(path)).collect();
    assert_eq!(names, ["a.2>b.3", "a.3>b.4", "b.3>a.2", "b.4>a.3", "b.3>a.2-3>b.4", "a.2>b.3-4>a.3"]);
}

#[test]
fn what_a_description_leaves_out_is_left_out_or_refused() {
    let networks = ["a", "b", "c"].map(|name| network(name, 4, &[4]));
    let general = StitchSpec { space: Space::General, ..StitchSpec::default() };
    let all = cut(&networks, &general);
    let count = |hops: usize| all.paths.iter().filter(|path| path.len() == hops).count();
    assert_eq!((count(1), all.more), (2 * 10, false));
    let few = cut(&networks, &StitchSpec { max_configs: 10, ..general.clone() });
    assert_eq!((&few.paths[..], few.more), (&all.paths[..7], true));
    assert_eq!(few.pairs, all.pairs[..7]);
    // Room for one stitch of 8x8 pixels, four channels to four, on top of an anchor: those from a block to the next.
    let light = cut(&networks, &StitchSpec { max_macs: Some(networks[0].macs() + 64 * 4 * 4), ..general.clone() });
    let names: Vec<String> = light.paths.iter().map(|path| light.path_name(path)).collect();
    assert_eq!(names, ["a.2>b.2", "a.3>b.3", "a.4>b.4", "b.2>c.2", "b.3>c.3", "b.4>c.4"]);
    let refused = |spec: StitchSpec| cut::cut(networks.to_vec(), &spec).expect_err("refused").to_string();
    assert_eq!(
        refused(StitchSpec { max_flash_bytes: Some(1), ..general.clone() }),
        "family: [stitch]: no stitched config is within its limits; widen them"
    );
    assert_eq!(
        refused(StitchSpec { stages: Some(vec![3]), ..general }),
        "family: stitch.stages = [3] leaves no stitch from `a` to `b`; name others, or none for all"
    );
}

#[test]
fn anchors_that_nothing_joins_are_named_with_their_maps() {
    let networks = [network("a", 4, &[2]), network("b", 4, &[2, 2]), network("c", 4, &[1, 2])];
    let spec = StitchSpec { space: Space::V1, all_pairs: true, advancing: true, ..StitchSpec::default() };
    let blocks = cut(&networks, &spec);
    assert_eq!(blocks.unmatched(), [(0, 2)]);
    assert!(
        blocks.mismatch(0, 2).ends_with("`a` has cuts 1..=3 of 8x8x4; `c` has cuts 1..=2 of 8x8x4, 3..=4 of 4x4x4")
    );
}

/// 2,000 configs of three anchors of 12 blocks, from the list to the bytes.
#[test]
fn two_thousand_configs_are_listed_costed_and_placed_in_five_seconds() {
    let networks = ["a", "b", "c"].map(|name| network(name, 8, &[12]));
    let spec = StitchSpec {
        space: Space::General,
        window: Some(WindowSpec { kernel: 4, stride: 1 }),
        all_pairs: true,
        max_configs: 2_000,
        ..StitchSpec::default()
    };
    let begin = Instant::now();
    let blocks = cut(&networks, &spec);
    let listed = begin.elapsed();
    assert_eq!((blocks.anchors.len() + blocks.paths.len(), blocks.more), (2_000, true));

    let images: Vec<Vec<f32>> = (0..16).map(|image| vec![image as f32 / 16.0; 8 * 8 * 3]).collect();
    let options = learn::Options { ridge: Some(1e-3), corrections: false, ..learn::tests::OPTIONS };
    let learned = learn::learn(&blocks, &images, options, &|| ());
    let learn::Learned { stitched, .. } = learned.unwrap_or_else(|error| panic!("{error}"));
    let range = Extent { min: 0.0, max: 1.0 };
    let tensors = stitched.segments.iter().map(|segment| vec![range; segment.tensors.len()]).collect();
    let of_tensor = |[_, _, channels]: &[usize; 3]| vec![1.0; *channels];
    let channels = stitched.segments.iter().map(|segment| segment.tensors.iter().map(of_tensor).collect()).collect();
    let cuts = vec![range; stitched.cuts.len()];
    let pixels = Pixels { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let quantized = quantize::quantize(&Calibrated { stitched, tensors, channels, cuts }, &pixels, &[]);

    let begin = Instant::now();
    let mut placed = place::place(quantized.unwrap_or_else(|error| panic!("{error}"))).expect("it fits an arena");
    let labels = Labels {
        family: "scale".into(),
        classes: ["0", "1", "2", "3"].map(String::from).into(),
        packing: Packing::Rows,
    };
    let bytes = |placed: &_| emit::emit(placed, &labels, &CostModel::cortex_m4f(), &Measured::default());
    let all = bytes(&placed).expect("an image");
    let placed_in = begin.elapsed();
    println!("listed in {listed:?}, placed, costed and written in {placed_in:?}");
    assert!((listed + placed_in).as_secs_f64() <= 5.0, "{listed:?} {placed_in:?}");

    let image = plan::Image::parse(&all).expect("the compiler writes valid images");
    assert_eq!(image.configs(), 2_000);
    // 16 of the record, four per run of segments, one per class of the self test.
    let added = |number: u16| {
        let id = plan::ConfigId(number);
        image.record_bytes(&image.config(id)) as usize + image.test_output(id).len()
    };
    let names = blocks.paths.iter().map(|path| blocks.path_name(path));
    assert!(names.eq((3..2_000).map(|number| image.config_name(plan::ConfigId(number)).to_string())));
    let expected: usize = (3..2_000).map(added).sum();
    placed.quantized.paths.truncate(3);
    let grown = all.len() - bytes(&placed).expect("an image").len();
    println!("{:.1} bytes per config", grown as f64 / 1_997.0);
    assert!(grown <= expected + 8 && grown <= 1_997 * 64, "{grown} {expected}");
}
