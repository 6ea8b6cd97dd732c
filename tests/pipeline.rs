//! The bundled family from its ONNX files to an image that runs: what holds for every config.

use std::collections::BTreeSet;
use std::path::Path;

use kernels::arch::Scalar;
use plan::{ConfigId, Image, SegmentId, SegmentKind, TargetId};
use runtime::policy::{Left, Policy, Settings};
use runtime::{Budget, Engine, Limit};
use simulator::PolicyMemory;
use stitch::evaluate::Way;
use stitch::evaluate::tally::{Shard, Tally, merge};
use stitch::family::{self, FamilySpec, Space, StitchSpec};
use stitch::images::Sheets;
use stitch::pipeline::{self, Compiled, Options, Quiet, Scoring, Stage};
use stitch::report::Facts;
use stitch::{cut, error, evaluate, simplify, verify};

/// Test images behind the scores: these tests ask about bytes, not about accuracy.
const IMAGES: usize = 24;

fn spec() -> FamilySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar-cnn/family.toml");
    family::read(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// Without the large anchor, which takes most of the time: for what does not depend on which anchors there are.
fn two_anchors() -> FamilySpec {
    let mut spec = spec();
    spec.anchors.pop();
    spec
}

fn compile(spec: &FamilySpec) -> Vec<u8> {
    scored(spec, Scoring::Here).unwrap_or_else(|error| panic!("{error}"))
}

fn scored(spec: &FamilySpec, scoring: Scoring) -> Result<Vec<u8>, error::Error> {
    let options = Options { score_images: IMAGES, scoring, stop_after: Stage::Verify, auto16: None };
    match pipeline::compile(spec, options, &Quiet)? {
        Compiled::Image(bytes) => Ok(bytes),
        stopped => panic!("{stopped:?}"),
    }
}

#[test]
fn two_compilations_give_one_image_that_keeps_its_bounds() {
    let spec = two_anchors();
    let bytes = compile(&spec);
    // Invariant 9: same input, same bytes, whatever the number of threads.
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    assert!(bytes == single.install(|| compile(&spec)), "two compilations differ");

    let image = Image::parse(&bytes).expect("the compiler writes valid images");
    let facts = Facts::of(&image);
    assert_eq!(usize::from(image.meta().anchors), spec.anchors.len());
    assert!(facts.rows.len() > spec.anchors.len(), "no stitched config ships");
    assert!(facts.overhead_percent() <= 3.0, "overhead {} %", facts.overhead_percent());
    assert!(facts.arena_percent() <= 5.0, "arena {} % above the bound", facts.arena_percent());
    assert!(bytes.len() <= 600_000, "{} bytes", bytes.len());

    // Through the tree of shared starts every config says what it says alone, and each start is run once.
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the arena is the image's own");
    let pixels: Vec<u8> = (0..engine.input_mut().len()).map(|index| (index * 7 % 251) as u8).collect();
    engine.preprocess(&pixels).expect("the size is the image's own");
    let tree = evaluate::tree_of(&image);
    let found = evaluate::answers(&mut engine, Way::Shared(&tree)).expect("they run");
    let mut starts = BTreeSet::new();
    let mut alone = 0;
    for id in (0..image.configs()).map(ConfigId) {
        engine.preprocess(&pixels).expect("the size is the image's own");
        assert_eq!(engine.run_config(id), Ok(&found.outputs[id.index()][..]), "{id:?}");
        assert_eq!(engine.class(), found.classes[id.index()], "{id:?}");
        let path: Vec<u16> = image.path(&image.config(id)).map(|segment| segment.0).collect();
        alone += path.len();
        starts.extend((1..=path.len()).map(|len| path[..len].to_vec()));
    }
    assert_eq!(tree.steps.len(), starts.len());
    assert!(tree.steps.len() < alone * 3 / 4, "{} segments instead of {alone}", tree.steps.len());

    // A run that has begun as the costliest config can be handed a path that ends sooner, and bytes stay equal.
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the arena is the image's own");
    let mut memory = PolicyMemory::of(&image);
    let mut policy =
        Policy::new(&image, TargetId(0), Settings::default(), memory.lend()).expect("the memory is of this image");
    let left = |ticks: Option<u64>| {
        let budget = Budget { time: ticks.map(Limit::soft), ..Budget::default() };
        Left::of(&budget, image.meta().arena_bytes, 0, 0)
    };
    let last = policy.choose(&left(None)).expect("no limit");
    let input: Vec<i8> = image.test_input().iter().map(|&byte| byte.cast_signed()).collect();
    let mut switched = 0;
    for done in 1..image.config(last).segments {
        engine.input_mut().copy_from_slice(&input);
        engine.begin(last).expect("it fits");
        for _ in 0..done {
            engine.step().expect("a step");
        }
        let next = policy.reconsider(last, done, &left(Some(0)));
        engine.switch(next).expect("it shares the path");
        switched += usize::from(next != last);
        while engine.done() < image.config(next).segments {
            engine.step().expect("a step");
        }
        let output: Vec<u8> = engine.features().iter().map(|value| value.cast_unsigned()).collect();
        assert_eq!(output, image.test_output(next), "after {done} segments of {last:?}, as {next:?}");
    }
    assert!(switched > 0, "no config leads down from {last:?}");
}

#[test]
fn sixteen_bits_are_given_where_they_are_asked_for_and_refused_where_they_do_not_help() {
    let mut spec = two_anchors();
    // Every set that is tried is scored on all calibration images.
    spec.stitch.max_configs = 3;
    let with = |auto16| {
        let scoring = Scoring::Later;
        let options = Options { score_images: IMAGES, scoring, stop_after: Stage::Quantize, auto16 };
        match pipeline::compile(&spec, options, &Quiet)? {
            Compiled::Stopped(text) => Ok(text),
            image => panic!("{image:?}"),
        }
    };
    let plain = with(None).unwrap_or_else(|error| panic!("{error}"));
    assert!(with(Some(100.0)).unwrap_or_else(|error: error::Error| panic!("{error}")) == plain);
    let error = with(Some(-1.0)).expect_err("no integers gain that on every config").to_string();
    assert!(error.contains("--auto16 -1") && error.contains("more tensors in 16 bits"), "{error}");
}

#[test]
fn configs_of_two_stitches_are_compiled_and_shared_layers_stored_once() {
    let mut spec = spec();
    spec.stitch = StitchSpec { space: Space::General, stages: Some(vec![2]), ..StitchSpec::default() };
    // Verified on every instruction set, as every image is.
    let bytes = compile(&spec);
    let image = Image::parse(&bytes).expect("the compiler writes valid images");
    let ids = || (0..image.configs()).map(ConfigId);
    let stitches = |id: ConfigId| -> Vec<SegmentId> {
        let path = image.path(&image.config(id));
        path.filter(|&segment| image.segment(segment).kind == SegmentKind::Stitch).collect()
    };
    let count = |hops: usize| ids().filter(|&id| stitches(id).len() == hops).count();
    // Small has 2 blocks in the stage, medium 4, large 5: 3 and 4 stitches, and each of the former before 3, 2 or 1 of the
    // latter.
    assert_eq!([count(0), count(1), count(2), count(3)], [3, 7, 6, 0]);
    assert!(ids().filter(|&id| stitches(id).len() == 2).all(|id| image.config(id).overlays > 0), "no correction");
    let weights = |name: &str| {
        let id = ids().find(|&id| image.config_name(id).to_string() == name).unwrap_or_else(|| panic!("no {name}"));
        let op = plan::OpId(image.segment(stitches(id)[0]).first_op);
        (stitches(id)[0], image.op(op).weights)
    };
    let [(first, of_first), (second, of_second)] = ["small.6>medium.8", "small.6>medium.9"].map(weights);
    assert!(first != second && of_first == of_second, "{first:?} {of_first}, {second:?} {of_second}");
}

#[test]
fn shards_choose_what_one_run_chooses() {
    let mut spec = two_anchors();
    spec.limits.configs = Some(6);
    let all = scored(&spec, Scoring::Later).unwrap_or_else(|error| panic!("{error}"));
    let image = Image::parse(&all).expect("the compiler writes valid images");
    let sheets = Sheets::open(&spec.data.test, [32, 32, 3], 10).unwrap_or_else(|error| panic!("{error}")).first(IMAGES);
    let data = sheets.checksum().expect("the files were read before");
    let tree = evaluate::tree_of(&image);
    let part = |number: usize| {
        let shard = Shard { number, of: 2 };
        let mut tally = Tally::new(&image, data, IMAGES, shard);
        for images in sheets.batches(8, |picture| shard.has(picture)) {
            let images = images.unwrap_or_else(|error| panic!("{error}"));
            let answers = evaluate::batch(&image, Way::Shared(&tree), &images, &|| ()).expect("they run");
            answers.iter().zip(&images.labels).for_each(|(answers, &label)| tally.add(answers, label));
        }
        (format!("{number}.txt").into(), tally)
    };
    let merged = merge(&[part(1), part(2)]).unwrap_or_else(|error| panic!("{error}"));
    let from_shards =
        scored(&spec, Scoring::Given("merged.txt".into(), merged)).unwrap_or_else(|error| panic!("{error}"));
    assert!(from_shards == compile(&spec), "scores from shards give another image");
    assert_eq!(Image::parse(&from_shards).expect("the compiler writes valid images").configs(), 6);
}

#[test]
fn a_float_path_that_is_not_the_file_is_refused() {
    let spec = spec();
    let graphs = pipeline::imported(&spec).unwrap_or_else(|error| panic!("{error}"));
    let graphs = graphs.into_iter().map(simplify::simplify).collect::<Result<_, _>>();
    let graphs = graphs.unwrap_or_else(|error| panic!("{error}"));
    let mut anchors = cut::cut(graphs, &spec.stitch).unwrap_or_else(|error| panic!("{error}")).anchors;
    let file = spec.anchors[0].read().unwrap_or_else(|error| panic!("{error}"));
    let images = vec![vec![0.5; 32 * 32 * 3]];
    assert!(verify::float_path(&file, &anchors[0].graph, &images).is_ok());
    for node in &mut anchors[0].graph.nodes {
        if let stitch::graph::Op::Conv { bias, .. } = &mut node.op {
            bias[0] += 0.05;
        }
    }
    match verify::float_path(&file, &anchors[0].graph, &images) {
        Err(error @ error::Error::Stage { stage: "simplify", .. }) => {
            let text = error.to_string();
            assert!(
                text.contains("`small` on calibration image 0, output") && text.contains("the ONNX file gives"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}
