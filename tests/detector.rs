//! The bundled detector: what a picture can make its head do is bounded, whatever the picture or the maps.

use std::path::{Path, PathBuf};

use kernels::arch::Scalar;
use kernels::{Level, with_isa};
use plan::layout::{PER_BOX, PER_PATCH};
use plan::{ConfigId, Image, SegmentId};
use runtime::{Detection, Engine, Progress};
use stitch::detection::coco::BoxSet;
use stitch::error::Error;
use stitch::family::{self, FamilySpec, Limits};
use stitch::frontier::Keep;
use stitch::images::ImageSet;
use stitch::pipeline::{self, Compiled, Options, Quiet, Scoring, Stage};
use support::onnx::noise;

/// A bundled family, compiled.
fn compiled(name: &str) -> Vec<u8> {
    compile(&spec(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// The description of a bundled family, of which every config ships: two pictures are no scores to choose by.
fn spec(name: &str) -> FamilySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name).join("family.toml");
    let mut spec = family::read(&path).unwrap_or_else(|error| panic!("{error}"));
    spec.limits = Limits { keep: Keep::All, ..Limits::default() };
    spec
}

fn compile(spec: &FamilySpec) -> Result<Vec<u8>, Error> {
    let options = Options { score_images: 2, scoring: Scoring::Here, stop_after: Stage::Verify, auto16: None };
    match pipeline::compile(spec, options, &Quiet)? {
        Compiled::Image(bytes) => Ok(bytes),
        stopped => panic!("{stopped:?}"),
    }
}

/// What a head did.
#[derive(Clone, Debug, PartialEq)]
struct Work {
    patches: usize,
    boxes: usize,
    /// Bytes that its ops wrote.
    written: u64,
    detections: Vec<Detection>,
}

/// Runs the last segment and looks on.
fn head<I: kernels::Isa>(engine: &mut Engine<'_, I>) -> Work {
    let image = *engine.image();
    let [patches, rows] = [image.meta().patches, image.meta().boxes].map(usize::from);
    let mut work = Work { patches: 0, boxes: 0, written: 0, detections: vec![] };
    let done = engine.step_watched(|id, written| {
        let op = image.op(id);
        let part = |most: usize| written.len() * most / image.tensor(op.output).bytes() as usize;
        if op.flags & PER_PATCH != 0 {
            work.patches = part(patches);
        } else if op.flags & PER_BOX != 0 {
            work.boxes = part(rows);
        }
        work.written += written.len() as u64;
    });
    assert_eq!(done, Ok(Progress::Done));
    work.detections = engine.detections().collect();
    work
}

/// Bytes that the ops of the head write when every patch and every box is used.
fn most(image: &Image<'_>, segment: SegmentId) -> u64 {
    let segment = image.segment(segment);
    let ops = segment.first_op..segment.first_op + segment.ops;
    ops.map(|op| image.tensor(image.op(plan::OpId(op)).output).bytes()).sum()
}

#[track_caller]
fn assert_bounded(image: &Image<'_>, work: &Work, most: u64, what: &str) {
    let meta = image.meta();
    assert!(work.patches <= meta.patches.into() && work.boxes <= meta.boxes.into(), "{what}: {work:?}");
    assert!(work.detections.len() < usize::from(image.cut(meta.output).shape[0]), "{what}");
    assert!(work.written <= most, "{what}: {} of {most} bytes", work.written);
    assert!(work.detections.is_sorted_by(|a, b| a.logit >= b.logit), "{what}: best first");
    let [height, width, _] = image.cut(meta.input).shape.map(|side| 16 * side as i16);
    for Detection { corners: [left, top, right, bottom], class, .. } in &work.detections {
        assert!(*class < meta.classes, "{what}");
        assert!(0 <= *left && left <= right && *right <= width, "{what}: {left} {right}");
        assert!(0 <= *top && top <= bottom && *bottom <= height, "{what}: {top} {bottom}");
    }
}

#[test]
fn no_map_makes_the_sparse_head_do_more_than_its_cap() {
    let bytes = compiled("blood-cells");
    let image = Image::parse(&bytes).expect("the compiler writes valid images");
    // Both caps are reached, so they are what holds.
    assert_eq!(adversarial(&image), (image.meta().patches.into(), image.meta().boxes.into()));
}

#[test]
fn no_map_makes_the_dense_head_do_more_than_its_cap() {
    let bytes = compiled("blood-cells-dense");
    adversarial(&Image::parse(&bytes).expect("the compiler writes valid images"));
}

/// What ships is within the limits of the description, also where a head follows.
#[test]
fn limits_decide_which_configs_ship() {
    let mut spec = spec("blood-cells-dense");
    let mut ships = |limits: Limits| {
        spec.limits = limits;
        compile(&spec).map(|bytes| {
            let image = Image::parse(&bytes).expect("the compiler writes valid images");
            let configs = (0..image.configs()).map(ConfigId);
            let scores =
                |id| (image.config_name(id).to_string(), [image.config(id).score, image.config(id).float_score]);
            (configs.map(scores).collect::<Vec<_>>(), bytes.len())
        })
    };
    let all = Limits { keep: Keep::All, ..Limits::default() };
    let (configs, bytes) = ships(all).expect("no limit");
    assert_eq!(configs.len(), 6);
    let (few, less) = ships(Limits { configs: Some(3), ..all }).expect("anchors and one more");
    assert_eq!((&few[..2], few.len()), (&configs[..2], 3));
    assert!(less < bytes && configs.contains(&few[2]), "{few:?} of {configs:?}");
    let (short, size) = ships(Limits { flash_bytes: Some(less as u64), ..all }).expect("as many as fit");
    assert!((2..6).contains(&short.len()) && size <= less);
    let (line, _) = ships(Limits { keep: Keep::Line, ..all }).expect("anchors at least");
    let [low, high] = [0, 1].map(|anchor| configs[anchor].1[0]);
    assert_eq!(line[..2], configs[..2]);
    assert!(line[2..].iter().all(|config| configs.contains(config) && config.1[0] >= low.min(high)), "{line:?}");
    assert!(configs.iter().filter(|config| config.1[0] < low.min(high)).all(|config| !line.contains(config)));
    let refused = ships(Limits { arena_bytes: Some(100_000), ..all }).expect_err("no anchor fits");
    assert!(refused.to_string().contains("limits.arena_bytes is 100000"), "{refused}");
}

/// Runs the head on maps that no backbone would make; the most patches and boxes that it had.
fn adversarial(image: &Image<'_>) -> (usize, usize) {
    let last = image.config(ConfigId(0)).segments - 1;
    let segment = image.path_segment(&image.config(ConfigId(0)), last);
    let most = most(image, segment);
    let features = image.tensor(image.segment(segment).input).bytes() as usize;
    let kept = image.kept_bytes() as usize;
    let constant = |value: i8| vec![value; features + kept];
    let drawn = |gain: f32, seed: u32| -> Vec<i8> {
        noise(features + kept, seed).iter().map(|value| (value * gain).clamp(-128.0, 127.0) as i8).collect()
    };
    let mut maps: Vec<(String, Vec<i8>)> =
        [-128, -1, 0, 1, 127].map(|value| (format!("all {value}"), constant(value))).into();
    maps.push(("stripes".into(), (0..features + kept).map(|at| if at / 64 % 2 == 0 { 127 } else { -128 }).collect()));
    maps.push(("bits".into(), (0..features + kept).map(|at| if at % 3 == 0 { 127 } else { -128 }).collect()));
    for seed in 0..60 {
        // From faint to cut off.
        let gain = [20.0, 80.0, 200.0, 1000.0][seed as usize % 4];
        maps.push((format!("noise {seed} of {gain}"), drawn(gain, seed)));
    }
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let (mut patches, mut boxes) = (0, 0);
    for (what, map) in &maps {
        let mut engine = Engine::new(Scalar, *image, &mut arena).expect("it fits");
        engine.resume(ConfigId(0), last, &map[..features], &map[features..]).expect("maps of these sizes");
        let work = head(&mut engine);
        assert_bounded(image, &work, most, what);
        (patches, boxes) = (patches.max(work.patches), boxes.max(work.boxes));
        with_isa!(Level::best(), |isa| {
            let mut engine = Engine::new(isa, *image, &mut arena).expect("it fits");
            engine.resume(ConfigId(0), last, &map[..features], &map[features..]).expect("maps of these sizes");
            assert_eq!(head(&mut engine), work, "{what}: other kernels");
        });
    }
    (patches, boxes)
}

#[test]
fn no_picture_of_the_test_set_makes_the_sparse_head_do_more_than_its_cap() {
    let (patches, boxes) = test_set("blood-cells");
    assert!(boxes.iter().all(|&count| count > 0) && patches.iter().any(|&count| count > 0));
}

#[test]
fn no_picture_of_the_test_set_makes_the_dense_head_do_more_than_its_cap() {
    test_set("blood-cells-dense");
}

/// The bundled head, called `asag-no-probing`: everything that such a head has is in it.
fn without_probing() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/blood-cells/head.safetensors");
    let bytes = std::fs::read(path).expect("it is part of the repository");
    // Length of the header, the header, tensors.
    let (length, rest) = bytes.split_at(8);
    let (header, tensors) = rest.split_at(u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize);
    let header = std::str::from_utf8(header).expect("JSON");
    let renamed = header.replace("\\\"asag\\\"", "\\\"asag-no-probing\\\"");
    assert_ne!(header, renamed);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-probing.safetensors");
    let length = (renamed.len() as u64).to_le_bytes();
    std::fs::write(&file, [&length, renamed.as_bytes(), tensors].concat()).expect("it can be written");
    file
}

#[test]
fn a_head_without_probing_differs_on_those_pictures_only_that_ask_for_a_patch() {
    let mut other = spec("blood-cells");
    other.detector.as_mut().expect("it is one").head = without_probing();
    let images = [compiled("blood-cells"), compile(&other).unwrap_or_else(|error| panic!("{error}"))];
    let images = images.each_ref().map(|bytes| Image::parse(bytes).expect("the compiler writes valid images"));
    let pictures = test_pictures(&images[0]);
    // All pictures of cells may ask; those of one colour have no reason to.
    let plain: Vec<Vec<u8>> = (0..16).map(|grey| vec![17 * grey; pictures.image(0).len()]).collect();
    let pictures = (0..pictures.len()).map(|number| pictures.image(number)).chain(plain.iter().map(Vec::as_slice));
    // Whether a picture asks, and whether it gives the same.
    let mut seen = [[0; 2]; 2];
    for (number, picture) in pictures.enumerate() {
        let [with, without] = images.each_ref().map(|image| {
            let mut arena = vec![0; image.meta().arena_bytes as usize];
            let mut engine = Engine::new(Scalar, *image, &mut arena).expect("it fits");
            engine.preprocess(picture).expect("a picture of this size");
            engine.begin(ConfigId(0)).expect("it fits");
            for _ in 1..image.config(ConfigId(0)).segments {
                engine.step().expect("it runs");
            }
            head(&mut engine)
        });
        assert_eq!(without.patches, 0, "{number}");
        seen[usize::from(with.patches > 0)][usize::from(with.detections == without.detections)] += 1;
    }
    let [[other, same], [probed, _]] = seen;
    assert!(other == 0 && same > 0 && probed > 0, "{seen:?}");
}

fn test_pictures(image: &Image<'_>) -> ImageSet {
    let shape = image.cut(image.meta().input).shape.map(usize::from);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/blood-cells/data/test.json");
    BoxSet::read(&path).and_then(|set| set.images(shape)).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all test pictures, the configs in turns; patches and boxes of each, in order of size.
fn test_set(name: &str) -> (Vec<usize>, Vec<usize>) {
    let bytes = compiled(name);
    let image = Image::parse(&bytes).expect("the compiler writes valid images");
    let pictures = test_pictures(&image);
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let (mut patches, mut boxes) = (vec![], vec![]);
    with_isa!(Level::best(), |isa| {
        let mut engine = Engine::new(isa, image, &mut arena).expect("it fits");
        for number in 0..pictures.len() {
            let config = ConfigId(number as u16 % image.configs());
            engine.preprocess(pictures.image(number)).expect("a picture of this size");
            engine.begin(config).expect("it fits");
            let record = image.config(config);
            let last = record.segments - 1;
            for _ in 0..last {
                engine.step().expect("it runs");
            }
            let work = head(&mut engine);
            assert_bounded(&image, &work, most(&image, image.path_segment(&record, last)), &format!("{number}"));
            patches.push(work.patches);
            boxes.push(work.boxes);
        }
    });
    for (what, counts) in [("patches", &mut patches), ("boxes", &mut boxes)] {
        counts.sort_unstable();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        println!(
            "{name}: {mean:.2} {what} on average, p95 {}, most {:?}",
            counts[counts.len() * 95 / 100],
            counts.last()
        );
    }
    (patches, boxes)
}
