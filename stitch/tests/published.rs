//! Number, multiply-accumulates and parameters of the published configs, counted on imported files and compared with the
//! published tables. The files are made by `models/recipe/structures.py`, which needs Python; so these tests run when asked for:
//! `STRUCTURES=folder cargo test --release --workspace --test published -- --ignored`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use stitch::cut::Blocks;
use stitch::evaluate::FloatPaths;
use stitch::family::{Space, StitchSpec};
use stitch::graph::{Graph, Node, Op, PoolKind};
use stitch::network::Kind;
use stitch::{cut, import, learn, simplify};

fn anchor(name: &str) -> Graph {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/recipe/cache/structures");
    let folder = std::env::var_os("STRUCTURES").map_or(default, PathBuf::from);
    let path = folder.join(format!("{name}.onnx"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    import::import(name, &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"))
}

/// What the published tables count, as `[multiply-accumulates, parameters]`.
type Count = [u64; 2];

fn sum(counts: impl IntoIterator<Item = Count>) -> Count {
    counts.into_iter().fold([0; 2], |[a, b], [c, d]| [a + c, b + d])
}

/// What the tables count of some blocks of an anchor, by the rule of the tables (`fvcore`): ours, and 5 per element of a
/// layer norm, 2 per element and two parameters a channel of a batch norm (which is in a bias here), 1 per element that a
/// mean reads (not for transformers), and tables of positions as the files of PyTorch have them.
fn counted(anchor: &cut::AnchorBlocks, blocks: std::ops::Range<usize>) -> Count {
    let graph = &anchor.graph;
    let name = &graph.name[..];
    let batch_norms = name.starts_with("resnet") || name.starts_with("levit");
    let elements = |tensor: usize| graph.tensors[tensor].iter().product::<usize>() as u64;
    let node = |node: &Node, head: bool| -> Count {
        let (macs, mut parameters) = (node.macs(&graph.tensors), node.op.parameters() as u64);
        if let Op::Conv { bias, .. } = &node.op
            && bias.iter().all(|&bias| bias == 0.0)
        {
            // A layer without biases; those of the files are noise.
            parameters -= bias.len() as u64;
        }
        let channels = graph.tensors[node.output][2] as u64;
        match &node.op {
            // The mean of LeViT's two heads.
            Op::Conv { groups, .. } if head && *groups > 1 => [0; 2],
            Op::Conv { .. } if head && name.starts_with("levit") => {
                let features = elements(node.inputs[0]);
                [macs + 2 * features, parameters + 2 * features]
            }
            Op::Conv { .. } if batch_norms && !head => [macs + 2 * elements(node.output), parameters + channels],
            Op::Conv { .. } => [macs, parameters],
            // Here the norm is computed of the class token alone.
            Op::LayerNorm { .. } if head && name.starts_with("deit") => [5 * 197 * channels, parameters],
            Op::LayerNorm { .. } => [5 * elements(node.output), parameters],
            Op::Pool { kind: PoolKind::Average, .. } if name.starts_with("resnet") => [elements(node.inputs[0]), 0],
            Op::Attention(attention) if attention.bias.is_empty() => [macs, 0],
            Op::Attention(attention) if name.starts_with("levit") => {
                [macs, (attention.heads * attention.keys()) as u64]
            }
            Op::Attention(attention) => [macs, 169 * attention.heads as u64],
            _ => [macs, parameters],
        }
    };
    let last = anchor.blocks.len() - 1;
    sum(blocks
        .flat_map(|block| anchor.blocks[block].iter().map(move |&at| (at, block == last)))
        .map(|(at, head)| node(&graph.nodes[at], head)))
}

/// The layer of a pair.
fn layer(blocks: &Blocks, pair: &cut::Pair) -> Count {
    let shape = |anchor: usize, cut: usize| blocks.anchors[anchor].cuts[cut].shape.map(|side| side as u64);
    let [height, width, from] = shape(pair.front, pair.front_cut);
    let to = shape(pair.back, pair.back_cut)[2];
    [height * width * from * to, from * to + to]
}

/// Configs of a family by the published rule, with what the tables count of each.
fn configs(names: &[&str], stages: Option<&[usize]>) -> (Blocks, Vec<Count>) {
    let stages = stages.map(<[usize]>::to_vec);
    let advancing = stages.is_some();
    let spec = StitchSpec { space: Space::V1, advancing, stages, ..StitchSpec::default() };
    let anchors = names.iter().map(|name| anchor(name)).collect();
    let blocks = cut::cut(anchors, &spec).unwrap_or_else(|error| panic!("{error}"));
    let whole = |anchor: &cut::AnchorBlocks| counted(anchor, 0..anchor.blocks.len());
    let mut counts: Vec<Count> = blocks.anchors.iter().map(whole).collect();
    for path in &blocks.paths {
        let [pair] = path[..] else { panic!("one stitch") };
        let pair = &blocks.pairs[pair];
        let (front, back) = (&blocks.anchors[pair.front], &blocks.anchors[pair.back]);
        let parts = [counted(front, 0..pair.front_cut), counted(back, pair.back_cut..back.blocks.len())];
        counts.push(sum(parts.into_iter().chain([layer(&blocks, pair)])));
    }
    (blocks, counts)
}

fn macs(counts: &[Count]) -> Vec<u64> {
    counts.iter().map(|[macs, _]| *macs).collect()
}

/// Parameters of all anchors and of every layer once.
fn parameters(blocks: &Blocks, counts: &[Count]) -> u64 {
    let layers: BTreeMap<usize, u64> = blocks.pairs.iter().map(|pair| (pair.layer, layer(blocks, pair)[1])).collect();
    counts[..blocks.anchors.len()].iter().map(|[_, parameters]| parameters).sum::<u64>() + layers.values().sum::<u64>()
}

/// Two columns of a table of `tests/golden/sn-net`.
fn table(text: &str, columns: &[&str]) -> Vec<Vec<u64>> {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a header");
    let places: Vec<usize> =
        columns.iter().map(|column| names.iter().position(|name| name == column).expect("a column")).collect();
    lines.map(|line| places.iter().map(|&place| line[place].parse().expect("a number")).collect()).collect()
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only deit"]
fn deits_have_the_71_published_configs() {
    let (blocks, mut counts) = configs(&["deit-ti", "deit-s", "deit-b"], None);
    for (count, path) in counts[3..].iter_mut().zip(&blocks.paths) {
        let pair = &blocks.pairs[path[0]];
        // The published stitched networks leave out the last norm and do not count tokens and positions (SN-Net 2.4).
        let [front, back] = [pair.front, pair.back].map(|anchor| blocks.anchors[anchor].cuts[1].shape[2] as u64);
        count[0] -= 5 * 197 * back;
        count[1] -= (1 + 197) * front;
    }
    let expected = table(include_str!("../../tests/golden/sn-net/deit_ti_s_b.csv"), &["flops", "params"]);
    assert_eq!(counts.len(), 71);
    for (id, (found, expected)) in counts.iter().zip(&expected).enumerate() {
        assert_eq!(found[..], expected[..], "id {id}");
    }
    assert_eq!(parameters(&blocks, &counts), 118_403_448);
    println!("71 configs, 118,403,448 parameters: equal to the table");
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only swin"]
fn swins_have_the_41_published_configs() {
    let (blocks, counts) = configs(&["swin-t", "swin-s", "swin-b"], Some(&[0, 1, 2]));
    // SN-Net 8.2, per stage `s` of width `c`: a block, what opens the stage, the head.
    let side = |s: u32| (56u64 >> s).pow(2);
    let block = |e: u64, s: u32| {
        let (l, c) = (side(s), e << s);
        12 * l * c * c + 2 * l * 49 * c + 10 * l * c
    };
    let opening = |e: u64, s: u32| match s {
        0 => 3136 * 48 * e + 5 * 3136 * e,
        _ => side(s) * 8 * (e << (s - 1)).pow(2) + 5 * side(s) * 4 * (e << (s - 1)),
    };
    let anchors = [(96u64, [2u64, 2, 6, 2]), (96, [2, 2, 18, 2]), (128, [2, 2, 18, 2])];
    let stages = |(e, depths): (u64, [u64; 4]), from: u32| -> u64 {
        (from..4).map(|s| opening(e, s) + depths[s as usize] * block(e, s)).sum::<u64>() + 5 * 49 * 8 * e + 8000 * e
    };
    let mut expected: Vec<u64> = anchors.iter().map(|&anchor| stages(anchor, 0)).collect();
    assert_eq!(expected, [4_509_194_496, 8_768_534_784, 15_467_826_176]);
    for stage in 0..3 {
        for pair in anchors.windows(2) {
            let [(from, shallow), (to, deep)] = [pair[0], pair[1]];
            let (d1, d2) = (shallow[stage as usize], deep[stage as usize]);
            for b in 1..d2 {
                let a = if d1 == d2 { b - 1 } else { b * d1 / d2 };
                let before: u64 = (0..=stage).map(|s| opening(from, s)).sum::<u64>()
                    + (0..stage).map(|s| shallow[s as usize] * block(from, s)).sum::<u64>();
                let stitch = side(stage) * (from << stage) * (to << stage);
                let rest = stages((to, deep), stage + 1) + (d2 - b) * block(to, stage);
                expected.push(before + (a + 1) * block(from, stage) + stitch + rest);
            }
        }
    }
    assert_eq!(expected.len(), 41);
    assert_eq!(macs(&counts), expected);
    assert_eq!(parameters(&blocks, &counts), 170_009_108);
    println!("41 configs, 170,009,108 parameters: equal to the rule");
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only resnet, and --only resnet-swin"]
fn resnets_have_the_10_published_configs_and_8_with_a_swin() {
    let (blocks, counts) = configs(&["resnet18", "resnet50"], Some(&[1, 2]));
    let expected = table(include_str!("../../tests/golden/sn-net/resnet18_50.csv"), &["flops"]);
    assert_eq!(macs(&counts), expected.concat());
    assert_eq!((counts.len(), parameters(&blocks, &counts)), (10, 37_904_976));
    println!("10 configs, 37,904,976 parameters: equal to the table");

    let (blocks, counts) = configs(&["resnet18", "swin-t"], Some(&[1, 2]));
    #[rustfmt::skip]
    let expected = [
        1_819_065_856, 4_509_194_496, 4_095_543_552, 3_730_713_856,
        3_375_768_832, 3_252_235_520, 2_897_290_496, 2_542_345_472,
    ];
    assert_eq!(macs(&counts), expected);
    assert_eq!(parameters(&blocks, &counts), 40_200_010);
    println!("8 configs, 40,200,010 parameters: equal to the table");
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only levit"]
fn levits_have_the_8_published_configs() {
    let (blocks, counts) = configs(&["levit-192", "levit-256"], Some(&[0, 1]));
    #[rustfmt::skip]
    let expected = [
        661_663_808, 1_133_412_864, 1_020_918_272, 977_741_824, 934_565_376, 812_300_576, 791_247_040, 770_193_504,
    ];
    assert_eq!(macs(&counts), expected);
    assert_eq!(parameters(&blocks, &counts), 30_322_097);
    println!("8 configs, 30,322,097 parameters: equal to the table");
}

/// All configs of a family, each shared start once against every config alone: the same bits, and the time.
fn shared_starts(names: &[&str], stages: Option<&[usize]>, blocks_run: [usize; 2], bar: f64) {
    let (blocks, _) = configs(names, stages);
    let stitched = learn::random(&blocks, 0);
    let paths = FloatPaths::new(&stitched);
    let block = |path: usize, done: usize| {
        let segment = &stitched.segments[stitched.paths[path].segments[done]];
        // As published: without stems and heads, which segments have beside the blocks next to them or alone.
        segment.kind == Kind::Block && segment.from != 0 && segment.to != 1
    };
    let tree = paths.tree.steps.iter().filter(|step| block(step.path, step.done)).count();
    let all = stitched.paths.iter().map(|path| path.segments.len()).enumerate();
    let alone: usize = all.map(|(path, length)| (0..length).filter(|&done| block(path, done)).count()).sum();
    println!("{}: {} configs, {tree} of {alone} blocks", names.join(", "), stitched.paths.len());
    assert_eq!([tree, alone], blocks_run);
    let size = stitched.cuts[0].shape.iter().product();
    let image: Vec<f32> = support::onnx::noise(size, 1);
    let time = |run: &dyn Fn() -> Vec<Vec<f32>>| {
        let begin = Instant::now();
        let outputs = run();
        (outputs, begin.elapsed().as_secs_f64())
    };
    let shared = || time(&|| paths.outputs(&image));
    let single = || time(&|| (0..stitched.paths.len()).map(|path| paths.output(path, &image)).collect());
    // In turns, so that a busy moment hits both.
    let (first, second, third, fourth) = (shared(), single(), single(), shared());
    assert_eq!(first.0, second.0);
    let ratio = (first.1 + fourth.1) / (second.1 + third.1);
    println!("{:.1} s and {:.1} s shared, {:.1} s and {:.1} s alone: {ratio:.3}", first.1, fourth.1, second.1, third.1);
    assert!(ratio <= bar, "{ratio:.3}, at most {bar}");
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only deit"]
fn deits_evaluate_in_less_time_through_shared_starts() {
    shared_starts(&["deit-ti", "deit-s", "deit-b"], None, [478, 920], 0.85);
}

#[test]
#[ignore = "needs the files of models/recipe/structures.py --only swin"]
fn swins_evaluate_in_less_time_through_shared_starts() {
    shared_starts(&["swin-t", "swin-s", "swin-b"], Some(&[0, 1, 2]), [522, 881], 0.72);
}
