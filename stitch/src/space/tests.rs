//! The published spaces, against the tables in `tests/golden/sn-net` and the numbers of SN-Net §8.

mod architectures;

use std::collections::{BTreeMap, BTreeSet};

use super::window::{Rule, answer, paired, stitches};
use super::*;
use architectures::{deit, deit_anchor_only, deit3, levit, resnet, swin};

const DEIT: &str = include_str!("../../../tests/golden/sn-net/deit_ti_s_b.csv");
const RESNET: &str = include_str!("../../../tests/golden/sn-net/resnet18_50.csv");
const TWO_WAY: &str = include_str!("../../../tests/golden/sn-net/snnetv2_deit3_s_l.csv");

/// Rows of a table as column → text.
fn rows(table: &str) -> Vec<BTreeMap<String, String>> {
    // The one comma that separates nothing stands between quotes.
    let table = table.replace("\"small->large (degenerate, unused)\"", "idle");
    let mut lines = table.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let names = lines.next().expect("a header");
    lines.map(|line| names.iter().cloned().zip(line).collect()).collect()
}

fn version_1(anchors: &[Anchor], rule: &Rule, hops: usize) -> Vec<Path> {
    general(anchors, &stitches(anchors, rule), hops, Limits::default()).collect()
}

fn deits() -> Vec<Anchor> {
    vec![deit("DeiT-Ti", 192), deit("DeiT-S", 384), deit("DeiT-B", 768)]
}

fn swins() -> Vec<Anchor> {
    vec![swin("T", 96, [2, 2, 6, 2]), swin("S", 96, [2, 2, 18, 2]), swin("B", 128, [2, 2, 18, 2])]
}

fn resnets() -> Vec<Anchor> {
    vec![resnet("ResNet-18", false, [2; 4]), resnet("ResNet-50", true, [3, 4, 6, 3])]
}

fn levits() -> Vec<Anchor> {
    vec![levit("LeViT-192", [192, 288, 384], [3, 5, 6]), levit("LeViT-256", [256, 384, 512], [4, 6, 8])]
}

/// The published rule for networks of several stages.
fn staged(stages: &[usize]) -> Rule {
    Rule { advancing: true, stages: Some(stages.to_vec()), shifted_layers: true, ..Rule::default() }
}

fn macs(anchors: &[Anchor], paths: &[Path]) -> Vec<u64> {
    paths.iter().map(|path| path.cost(anchors).macs).collect()
}

/// Parameters of the stitching layers of a set of paths, and how many there are.
fn layers(anchors: &[Anchor], paths: &[Path]) -> (usize, u64) {
    let stitches = paths.iter().flat_map(|path| &path.stitches);
    let layers: BTreeMap<_, _> = stitches.map(|stitch| (stitch.layer_key(), stitch.cost(anchors).parameters)).collect();
    (layers.len(), layers.values().sum())
}

/// Parameters of a whole family: anchors and layers.
fn total(anchors: &[Anchor], paths: &[Path]) -> u64 {
    paths[..anchors.len()].iter().map(|path| path.cost(anchors).parameters).sum::<u64>() + layers(anchors, paths).1
}

fn runs(anchors: &[Anchor], paths: &[Path]) -> (usize, usize) {
    let BlockRuns { alone, shared } = block_runs(anchors, paths);
    (shared, alone)
}

#[test]
fn deit_has_the_71_published_configs() {
    let anchors = deits();
    let paths = version_1(&anchors, &Rule::default(), 1);
    let rows = rows(DEIT);
    assert_eq!((paths.len(), rows.len()), (71, 71));
    for (id, (path, row)) in paths.iter().zip(&rows).enumerate() {
        let mut cost = path.cost(&anchors);
        let of = |name: &str| row[name].clone();
        let text = |value: usize| value.to_string();
        let expected = ["front", "front_last_block", "back", "back_first_block", "stitch_layer"].map(of);
        let found = if let [stitch] = path.stitches[..] {
            let layer = format!("{}-{}:{}", stitch.front, stitch.back, stitch.layer);
            let [front, back] = [stitch.front, stitch.back].map(|anchor| anchors[anchor].name.clone());
            [front, text(stitch.leave.block), back, text(stitch.enter.block), layer]
        } else {
            cost = cost + deit_anchor_only(anchors[path.first].stages[0].entry.width);
            [anchors[path.first].name.clone(), text(11), String::new(), String::new(), String::new()]
        };
        assert_eq!(found, expected, "id {id}");
        let blocks: Vec<usize> = path.legs(&anchors).iter().map(|leg| leg.until.block - leg.from.block).collect();
        let blocks = [blocks[0], blocks.get(1).copied().unwrap_or(0)].map(text);
        assert_eq!(blocks, ["blocks_front", "blocks_back"].map(of), "id {id}");
        assert_eq!([cost.macs, cost.parameters].map(|n| n.to_string()), ["flops", "params"].map(of), "id {id}");
    }
    assert_eq!(layers(&anchors, &paths), (22, 4_067_712));
    assert_eq!(runs(&anchors, &paths), (478, 920));
}

#[test]
fn windows_give_the_published_counts() {
    // Kernel, stride; pairs and layers per pair of anchors; nearest, all pairs, triples; parameters of the layers.
    let cases = [
        (1, 1, 12, 12, 27, 39, 117, 4_437_504),
        (2, 1, 34, 11, 71, 105, 732, 4_067_712),
        (2, 2, 24, 6, 51, 75, 387, 2_218_752),
        (3, 1, 54, 10, 111, 165, 1_748, 3_697_920),
        (3, 2, 44, 6, 91, 135, 1_190, 2_218_752),
        (3, 3, 36, 4, 75, 111, 813, 1_479_168),
        (4, 1, 72, 9, 147, 219, 3_035, 3_328_128),
        (4, 2, 64, 5, 131, 195, 2_419, 1_848_960),
        (4, 4, 48, 3, 99, 147, 1_395, 1_109_376),
        (6, 6, 72, 2, 147, 219, 3_027, 739_584),
    ];
    let anchors = deits();
    for (kernel, stride, pairs, layers_of_pair, nearest, all, triples, parameters) in cases {
        let found = paired(12, kernel, stride);
        let numbers: BTreeSet<usize> = found.iter().map(|&(_, _, layer)| layer).collect();
        assert_eq!((found.len(), numbers.len()), (pairs, layers_of_pair), "kernel {kernel}, stride {stride}");
        assert_eq!(numbers, (0..layers_of_pair).collect(), "kernel {kernel}, stride {stride}");
        let rule = Rule { kernel, stride, ..Rule::default() };
        let every = Rule { all_pairs: true, ..rule.clone() };
        let paths = version_1(&anchors, &rule, 1);
        let count = [paths.len(), version_1(&anchors, &every, 1).len(), version_1(&anchors, &every, 2).len()];
        assert_eq!(count, [nearest, all, triples], "kernel {kernel}, stride {stride}");
        assert_eq!(layers(&anchors, &paths), (2 * layers_of_pair, parameters), "kernel {kernel}, stride {stride}");
    }
}

#[test]
fn unequal_depths_are_answered_by_the_nearest_block() {
    let cases = [
        (2, 4, "0,1 1,2 1,3"),
        (2, 6, "0,1 0,2 1,3 1,4 1,5"),
        (6, 18, "0,1 0,2 1,3 1,4 1,5 2,6 2,7 2,8 3,9 3,10 3,11 4,12 4,13 4,14 5,15 5,16 5,17"),
    ];
    let shifted = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5];
    for (front, back, expected) in cases {
        let anchors = [front, back].map(|depth| swin("", 96, [0, 0, depth, 0]));
        let of = |shifted_layers| stitches(&anchors, &Rule { shifted_layers, ..Rule::default() });
        let pair = |stitch: &Stitch| format!("{},{}", stitch.leave.block, stitch.enter.block);
        assert_eq!(of(false).iter().map(pair).collect::<Vec<_>>().join(" "), expected);
        assert!(of(false).iter().all(|stitch| stitch.layer == stitch.leave.block), "a layer per block that is left");
        if front == 6 {
            assert_eq!(of(true).iter().map(|stitch| stitch.layer).collect::<Vec<_>>(), shifted);
        }
    }
    // Features that a dense head taps in the large anchor, in the small one.
    assert_eq!([9, 14, 19, 23].map(|block| answer(block, 24, 12)), [4, 7, 9, 11]);
}

#[test]
fn resnet_has_the_10_published_configs() {
    let anchors = resnets();
    let paths = version_1(&anchors, &staged(&[1, 2]), 1);
    let rows = rows(RESNET);
    assert_eq!((paths.len(), rows.len()), (10, 10));
    for (id, (path, row)) in paths.iter().zip(&rows).enumerate() {
        assert_eq!(path.cost(&anchors).macs.to_string(), row["flops"], "id {id}");
        let [Stitch { front, leave, back, enter, layer }] = path.stitches[..] else { continue };
        assert_eq!(leave.stage, enter.stage, "id {id}");
        let found = [leave.stage, leave.block, enter.block].map(|number| number.to_string());
        assert_eq!(found, ["stage", "front_last_block", "back_first_block"].map(|name| row[name].clone()), "id {id}");
        assert_eq!(format!("{}-{front}-{back}:{layer}", leave.stage), row["stitch_layer"], "id {id}");
    }
    assert_eq!(
        paths[..2].iter().map(|path| path.cost(&anchors).parameters).collect::<Vec<_>>(),
        [11_689_512, 25_557_032]
    );
    assert_eq!((layers(&anchors, &paths), total(&anchors, &paths)), ((4, 658_432), 37_904_976));
}

#[test]
fn families_of_two_kinds_and_of_levit_have_the_published_configs() {
    let mixed = vec![resnets().remove(0), swins().remove(0)];
    let paths = version_1(&mixed, &staged(&[1, 2]), 1);
    let expected = [
        1_819_065_856,
        4_509_194_496,
        4_095_543_552,
        3_730_713_856,
        3_375_768_832,
        3_252_235_520,
        2_897_290_496,
        2_542_345_472,
    ];
    assert_eq!(macs(&mixed, &paths), expected);
    assert_eq!((layers(&mixed, &paths), total(&mixed, &paths)), ((3, 222_144), 40_200_010));

    let levits = levits();
    let paths = version_1(&levits, &staged(&[0, 1]), 1);
    let expected =
        [661_663_808, 1_133_412_864, 1_020_918_272, 977_741_824, 934_565_376, 812_300_576, 791_247_040, 770_193_504];
    assert_eq!(macs(&levits, &paths), expected);
    let anchors: Vec<u64> = paths[..2].iter().map(|path| path.cost(&levits).parameters).collect();
    assert_eq!(anchors, [10_947_069, 18_893_876]);
    assert_eq!((layers(&levits, &paths), total(&levits, &paths)), ((6, 481_152), 30_322_097));
}

#[test]
fn swin_has_the_41_published_configs() {
    let anchors = swins();
    let paths = version_1(&anchors, &staged(&[0, 1, 2]), 1);
    assert_eq!(paths.len(), 41);
    assert_eq!(macs(&anchors, &paths[..3]), [4_509_194_496, 8_768_534_784, 15_467_826_176]);
    let parameters: Vec<u64> = paths.iter().map(|path| path.cost(&anchors).parameters).collect();
    assert_eq!(parameters[..3], [28_288_354, 49_606_258, 87_768_224]);
    assert_eq!((layers(&anchors, &paths), total(&anchors, &paths)), ((27, 4_346_272), 170_009_108));
    assert_eq!(runs(&anchors, &paths), (522, 881));
}

/// The closed form of Swin: what a path costs, written out stage by stage (§8.2).
#[test]
fn swin_configs_cost_what_the_closed_form_says() {
    let anchors = swins();
    let depths = [[2, 2, 6, 2], [2, 2, 18, 2], [2, 2, 18, 2]];
    let widths = [96, 96, 128];
    let block = |anchor: usize, stage: u32| {
        let (l, c) = (3136 >> (2 * stage), widths[anchor] << stage);
        12 * l * c * c + 2 * l * 49 * c + 10 * l * c
    };
    let merging = |anchor: usize, stage: u32| {
        let (l, c) = (3136 >> (2 * stage), widths[anchor] << stage);
        l / 4 * 8 * c * c + 5 * (l / 4) * 4 * c
    };
    for path in version_1(&anchors, &staged(&[0, 1, 2]), 1) {
        let Some(Stitch { front, leave, back, enter, .. }) = path.stitches.first().copied() else { continue };
        let cut = leave.stage as u32;
        let mut expected = 3136 * 48 * widths[front] + 5 * 3136 * widths[front];
        expected += (0..cut).map(|s| depths[front][s as usize] * block(front, s) + merging(front, s)).sum::<u64>();
        expected += (leave.block as u64 + 1) * block(front, cut);
        expected += (3136 >> (2 * cut)) * (widths[front] << cut) * (widths[back] << cut);
        expected += (depths[back][enter.stage] - enter.block as u64) * block(back, cut);
        expected += (cut + 1..4).map(|s| merging(back, s - 1) + depths[back][s as usize] * block(back, s)).sum::<u64>();
        expected += 5 * 49 * 8 * widths[back] + 1000 * 8 * widths[back];
        assert_eq!(path.cost(&anchors).macs, expected, "{path:?}");
    }
    // Id 13 leaves T behind block 2 of stage 2 and enters S before block 7. The published size leaves out the two
    // mergings that T runs; its published FLOPs have them.
    let path = &version_1(&anchors, &staged(&[0, 1, 2]), 1)[13];
    let stitch = path.stitches[0];
    assert_eq!((stitch.leave, stitch.enter), (Place { stage: 2, block: 2 }, Place { stage: 2, block: 7 }));
    let mergings = anchors[0].stages[1..3].iter().map(|stage| stage.entry.cost.parameters).sum::<u64>();
    assert_eq!(path.cost(&anchors).parameters - mergings, 42_277_186);
}

/// `DeiT3-S[0..0] | DeiT3-L[2..23]`, as the table writes it.
fn route(anchors: &[Anchor], path: &Path) -> String {
    let leg = |leg: &Leg| match (leg.from.block, leg.until.block) {
        (from, until) if from == until => format!("{}[head only]", anchors[leg.anchor].name),
        (from, until) => format!("{}[{from}..{}]", anchors[leg.anchor].name, until - 1),
    };
    path.legs(anchors).iter().map(leg).collect::<Vec<_>>().join(" | ")
}

#[test]
fn two_way_has_the_135_published_routes() {
    let anchors = vec![deit3("DeiT3-S", 384, 12), deit3("DeiT3-L", 1024, 24)];
    let paths = two_way::paths(&anchors);
    let rows = rows(TWO_WAY);
    assert_eq!((paths.len(), rows.len()), (135, 135));
    for (id, (path, row)) in paths.iter().zip(&rows).enumerate() {
        assert_eq!(path.cost(&anchors).macs.to_string(), row["flops"], "id {id}");
        assert_eq!(path.is_idle(&anchors), row["kind"] == "idle", "id {id}");
        if path.stitches.is_empty() {
            continue;
        }
        assert_eq!(route(&anchors, path), row["path"], "id {id}");
        let name = |stitch: &Stitch| format!("{}{}", ["SL", "LS"][stitch.front], stitch.layer);
        let names: Vec<String> = path.stitches.iter().map(name).collect();
        assert_eq!(names.join("+"), row["stitch_layers"], "id {id}");
        let blocks: usize = path.legs(&anchors).iter().map(|leg| leg.until.block - leg.from.block).sum();
        assert_eq!(blocks.to_string(), row["blocks"], "id {id}");
    }
    let kinds = |first: usize, hops: usize| {
        paths.iter().filter(|path| path.first == first && path.stitches.len() == hops).count()
    };
    assert_eq!([kinds(0, 1), kinds(1, 1), kinds(1, 2), kinds(0, 2)], [12, 11, 55, 55]);
    assert_eq!(layers(&anchors, &paths), (23, 12 * 394_240 + 11 * 393_600));

    let used: Vec<Path> = paths.into_iter().filter(|path| !path.is_idle(&anchors)).collect();
    assert_eq!(runs(&anchors, &used), (894, 2_412));
    let sizes = |gap| two_way::groups(&macs(&anchors, &used), gap).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(1_000_000_000), [1, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 1]);
    // Measured from the first of the group, not from the one before.
    assert_eq!(two_way::groups(&[9, 1, 3, 5, 2], 2), [vec![1, 4, 2], vec![3], vec![0]]);
}

#[test]
fn two_way_of_other_widths_costs_what_is_published() {
    let [small, base, large] =
        [deit3("S", 384, 12), deit3("B", 768, 12), deit3("L", 1024, 24)].map(|anchor| move || anchor.clone());
    let cases = [
        (vec![small(), base()], [16_506_715_392, 5_800_558_464, 16_622_615_808, 5_800_853_376]),
        (vec![base(), large()], [58_055_331_840, 21_441_398_528, 58_248_794_112, 21_557_790_464]),
    ];
    for (anchors, expected) in cases {
        let macs = macs(&anchors, &two_way::paths(&anchors));
        assert_eq!([2, 14, 25, 80].map(|id| macs[id]), expected, "{} {}", anchors[0].name, anchors[1].name);
    }
}

#[test]
fn the_general_space_is_lazy_and_within_its_limits() {
    let anchors = deits();
    let rule = Rule { all_pairs: true, both_ways: true, ..Rule::default() };
    let stitches = stitches(&anchors, &rule);
    assert_eq!(stitches.len(), 6 * 34);
    // Far more paths than anybody could list.
    let first: Vec<Path> = general(&anchors, &stitches, 12, Limits::default()).take(2_000).collect();
    assert_eq!(first.len(), 2_000);
    assert_eq!(first[..3 + 6 * 34], version_1(&anchors, &rule, 1), "fewer stitches first");

    let all: Vec<Path> = general(&anchors, &stitches, 2, Limits::default()).collect();
    for path in &all {
        let legs = path.legs(&anchors);
        let blocks = legs.iter().flat_map(|leg| (leg.from.block..leg.until.block).map(|block| (leg.anchor, block)));
        let blocks: Vec<_> = blocks.collect();
        assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), blocks.len(), "a block runs twice in {path:?}");
        assert!(legs.iter().all(|leg| leg.from < leg.until), "an empty leg in {path:?}");
    }
    let limits = Limits { max_macs: Some(4_000_000_000), max_flash_bytes: Some(300_000) };
    let within = |path: &&Path| {
        let cost = path.cost(&anchors);
        path.stitches.is_empty() || cost.macs <= 4_000_000_000 && cost.flash_bytes <= 300_000
    };
    let expected: Vec<&Path> = all.iter().filter(within).collect();
    let found: Vec<Path> = general(&anchors, &stitches, 2, limits).collect();
    assert!(found.len() > 200 && found.len() < all.len(), "{} of {}", found.len(), all.len());
    assert!(found.iter().eq(expected));
}
