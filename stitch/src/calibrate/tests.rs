use super::*;
use crate::learn::learn;
use crate::learn::tests::{OPTIONS, anchor, family, images};

fn calibrated(count: usize) -> Calibrated {
    let blocks = family(anchor("a", 3, 1), anchor("b", 6, 2));
    let stitched = learn(&blocks, &images(count), OPTIONS, &|| ()).expect("learned").stitched;
    calibrate(stitched, &images(count), &|| ())
}

#[test]
fn every_tensor_at_a_cut_has_the_range_of_the_cut() {
    let found = calibrated(32);
    for (segment, tensors) in found.stitched.segments.iter().zip(&found.tensors) {
        assert_eq!(tensors.len(), segment.tensors.len());
        assert_eq!(tensors[segment.input], found.cuts[segment.from], "{}", segment.name);
        assert_eq!(tensors[segment.output], found.cuts[segment.to], "{}", segment.name);
    }
}

#[test]
fn every_range_holds_zero_and_relu_outputs_are_not_negative() {
    let found = calibrated(32);
    for (segment, tensors) in found.stitched.segments.iter().zip(&found.tensors) {
        for extent in tensors {
            assert!(extent.min <= 0.0 && extent.max >= 0.0, "{}: {extent:?}", segment.name);
        }
        for node in &segment.nodes {
            let at_cut = node.output == segment.output;
            if node.op.clamp().min == 0.0 && !at_cut {
                assert_eq!(tensors[node.output].min, 0.0, "{}", node.name);
            }
        }
    }
}

#[test]
fn the_input_range_covers_every_pixel() {
    let found = calibrated(32);
    let pixels = images(32).concat();
    assert_eq!(found.cuts[0].min, pixels.iter().copied().fold(0.0, f32::min));
    assert_eq!(found.cuts[0].max, pixels.iter().copied().fold(0.0, f32::max));
}

#[test]
fn a_few_extreme_images_do_not_set_the_range() {
    let usual = (0..99).map(|_| Extent { min: -1.0, max: 2.0 });
    let found = covering(usual.chain([Extent { min: -50.0, max: 80.0 }]));
    assert_eq!(found, Extent { min: -1.0, max: 2.0 });
}

#[test]
fn threads_change_nothing() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| calibrated(20).tensors)
    };
    assert_eq!(with(1), with(3));
}
