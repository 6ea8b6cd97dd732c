use plan::{ConfigId, Image};

use super::*;
use crate::emit::Measured;
use crate::emit::tests::{image, placed};
use crate::learn::learn;
use crate::learn::tests::{OPTIONS, anchor, family, follow, images};
use crate::verify;

/// Two anchors and a stitched path, whose suffix has corrections.
fn stitched() -> Stitched {
    learn(&family(anchor("a", 3, 1), anchor("b", 6, 2)), &images(32), OPTIONS, &|| ()).expect("learned").stitched
}

/// The same with a fourth path like the third, without the correction of its last segment.
fn with_a_twin() -> Stitched {
    let mut stitched = stitched();
    let mut twin = stitched.paths[2].clone();
    let last = twin.segments[twin.segments.len() - 1];
    let before = twin.corrections.len();
    twin.corrections.retain(|correction| correction.segment != last);
    assert!(twin.corrections.len() < before, "the last segment has a correction");
    stitched.paths.push(twin);
    stitched
}

#[test]
fn float_paths_through_the_tree_are_what_each_is_alone() {
    let stitched = with_a_twin();
    let paths = FloatPaths::new(&stitched);
    let lengths: usize = stitched.paths.iter().map(|path| path.segments.len()).sum();
    // a: 4, b: 4, the stitch leaves a after 2 of its 5; its twin runs only the last again.
    assert_eq!((paths.tree.steps.len(), lengths), (4 + 4 + 3 + 1, 4 + 4 + 5 + 5));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for image in images(5) {
        let found = paths.outputs(&image);
        for (path, found) in found.iter().enumerate() {
            assert_eq!(bits(found), bits(&follow(&stitched, path, &image)), "{path}");
            assert_eq!(bits(found), bits(&paths.output(path, &image)), "{path}");
        }
        assert_ne!(found[2], found[3], "a correction changes the output");
    }
}

#[test]
fn every_path_is_judged() {
    let stitched = with_a_twin();
    let images = images(4);
    assert!(verify::float_paths(&stitched, &FloatPaths::new(&stitched), &images).is_ok());
    let mut other = stitched.clone();
    other.paths[2].corrections[0].bias[0] += 0.5;
    let error =
        verify::float_paths(&stitched, &FloatPaths::new(&other), &images).expect_err("another bias").to_string();
    assert!(error.starts_with("evaluate: `a.2>b.2` on calibration image 0, output "), "{error}");
}

#[test]
fn integers_through_the_tree_are_what_each_config_is_alone() {
    let bytes = image(&placed(), &Measured::default());
    let image = Image::parse(&bytes).expect("a valid image");
    let tree = tree_of(&image);
    assert_eq!(tree.steps.len(), 4 + 4 + 3);
    let blocks = tree.steps.iter().filter(|step| {
        let segment = image.path_segment(&image.config(ConfigId(step.path as u16)), step.done as u16);
        image.segment(segment).kind == plan::SegmentKind::Block
    });
    assert_eq!(blocks.count(), 4 + 4 + 2);
    let pixels: Vec<u8> = (0..5 * 6 * 6 * 3).map(|index| (index * 37 % 251) as u8).collect();
    let images = ImageSet { pixels, shape: [6, 6, 3], labels: vec![0; 5] };
    let shared = batch(&image, Way::Shared(&tree), &images, &|| ()).expect("it runs");
    assert_eq!(shared, batch(&image, Way::Alone, &images, &|| ()).expect("it runs"));
    assert!(shared.iter().all(|answers| answers.outputs.iter().all(|output| output.len() == 4)));
    assert_ne!(shared[0].outputs, shared[1].outputs);
}

#[test]
fn only_equal_biases_are_a_shared_start() {
    // Two configs on one path, one of them with an overlay on its third segment.
    let mut writer = plan::sample::writer();
    let mut twin = writer.configs[2];
    twin.overlays = 0;
    let sample = writer.finish();
    let path: Vec<_> = Image::parse(&sample).expect("the sample is valid").path(&twin).collect();
    twin.first_run = writer.put_path(&path);
    twin.first_overlay = writer.overlays.len() as u16;
    writer.configs.push(twin);
    writer.meta.test_outputs = writer.put(&[0; 8]);
    let bytes = writer.finish();
    let tree = tree_of(&Image::parse(&bytes).expect("the twin is valid"));
    // tiny: stem, head; wide: stem, block, head; stitched: stitch, block, head; its twin: block, head.
    assert_eq!(tree.steps.len(), 2 + 3 + 3 + 2);
}
