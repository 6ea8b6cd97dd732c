use plan::{ConfigId, Image, SegmentId};

use super::*;
use crate::family::Packing;
use crate::learn::learn;
use crate::learn::tests::{OPTIONS, anchor, family, images};
use crate::quantize::{Pixels, quantize};
use crate::report::Facts;
use crate::{calibrate, place, verify};

/// Two anchors and one stitch: three configs.
pub(crate) fn placed() -> Placed {
    placed_of([3, 6])
}

/// As [`placed`], of anchors that have as many channels.
fn placed_of([small, large]: [usize; 2]) -> Placed {
    let blocks = family(anchor("a", small, 1), anchor("b", large, 2));
    let stitched = learn(&blocks, &images(32), OPTIONS, &|| ()).expect("learned").stitched;
    let calibrated = calibrate::calibrate(stitched, &images(32), &|| ());
    let pixels = Pixels { mean: vec![0.5; 3], std: vec![0.5; 3] };
    place::place(quantize(&calibrated, &pixels, &[]).expect("quantised")).expect("placed")
}

fn labels() -> Labels {
    Labels { family: "test".into(), classes: ["w", "x", "y", "z"].map(String::from).into(), packing: Packing::Rows }
}

pub(crate) fn image(placed: &Placed, measured: &Measured) -> Vec<u8> {
    emit(placed, &labels(), &CostModel::cortex_m4f(), measured).expect("emitted")
}

fn measured(placed: &Placed) -> Measured {
    let first = image(placed, &Measured::default());
    let first = Image::parse(&first).expect("a valid image");
    let input: Vec<i8> = (0..6 * 6 * 3).map(|value| value as i8).collect();
    let outputs = verify::agreed_outputs(&first, &input).expect("runs");
    Measured { images: 7, scores: vec![1, 2, 3], float_scores: vec![4, 5, 6], input, outputs }
}

#[test]
fn a_family_becomes_a_verified_image_and_the_same_bytes_twice() {
    let placed = placed();
    let bytes = image(&placed, &measured(&placed));
    verify::verify(&bytes).expect("verified");
    let again = super::tests::placed();
    assert!(bytes == image(&again, &measured(&again)), "two compilations differ");
    let parsed = Image::parse(&bytes).expect("a valid image");
    assert_eq!(parsed.configs(), 3);
    assert_eq!((0..3).map(|config| parsed.config(ConfigId(config)).score).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(parsed.label(3), "z");
    let names: Vec<String> = (0..3).map(|config| parsed.config_name(ConfigId(config)).to_string()).collect();
    assert_eq!(names, placed.quantized.paths.iter().map(|path| path.name.clone()).collect::<Vec<_>>());
}

/// The smaller anchor has no layer whose weights fit blocks: its outputs are not in sixteens.
#[test]
fn weights_in_blocks_are_other_bytes_of_the_same_network() {
    let placed = placed_of([8, 32]);
    let image = |packing| {
        let labels = Labels { packing, ..labels() };
        emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default()).expect("emitted")
    };
    let (rows, blocks) = (image(Packing::Rows), image(Packing::Blocks));
    let (rows, blocks) = (Image::parse(&rows).expect("an image"), Image::parse(&blocks).expect("an image"));
    let ops = |image: &Image<'_>| (0..image.ops()).map(|op| image.op(OpId(op as u16))).collect::<Vec<_>>();
    let in_blocks = |ops: &[plan::Op]| ops.iter().filter(|op| op.flags & IN_BLOCKS != 0).count();
    // Of the larger anchor all 3x3 layers but the first, whose lines are 9 bytes; and the stitch.
    assert_eq!((in_blocks(&ops(&rows)), in_blocks(&ops(&blocks))), (0, 5));
    let input: Vec<i8> = (0..6 * 6 * 3).map(|value| (value * 7 % 251) as u8 as i8).collect();
    let outputs = |image| verify::agreed_outputs(image, &input).expect("all instruction sets agree");
    assert_eq!(outputs(&rows), outputs(&blocks));
}

#[test]
fn a_wrong_self_test_is_not_written() {
    let placed = placed();
    let mut measured = measured(&placed);
    measured.outputs[2][1] ^= 1;
    let error = verify::verify(&image(&placed, &measured)).expect_err("the self test is wrong").to_string();
    assert!(error.contains("config 2"), "{error}");
}

#[test]
fn corrections_are_overlays_of_the_stitched_config_alone() {
    let placed = placed();
    let bytes = image(&placed, &Measured::default());
    let parsed = Image::parse(&bytes).expect("a valid image");
    let overlays: Vec<u16> = (0..3).map(|config| parsed.config(ConfigId(config)).overlays).collect();
    assert_eq!(overlays[..2], [0, 0]);
    assert!(overlays[2] > 0, "the stitched path has no correction");
}

#[test]
fn own_flash_is_what_no_other_config_uses() {
    let placed = placed();
    let bytes = image(&placed, &Measured::default());
    let parsed = Image::parse(&bytes).expect("a valid image");
    let stitch = (0..parsed.segments()).map(|segment| parsed.segment(SegmentId(segment as u16)));
    let stitch: u64 = stitch.filter(|s| s.kind == SegmentKind::Stitch).map(|s| u64::from(s.flash_bytes)).sum();
    let facts = Facts::of(&parsed);
    let stitched = facts.rows.iter().find(|row| row.number == 2).expect("a row per config");
    let overlays: u64 = placed.quantized.paths[2].corrections.iter().map(|c| 4 * c.bias.len() as u64).sum();
    assert!(stitched.own_bytes >= stitch && stitched.own_bytes <= stitch + overlays, "{}", stitched.own_bytes);
    assert!(stitched.own_bytes < stitched.flash_bytes);
}

#[test]
fn equal_bytes_are_stored_once() {
    let once = placed();
    let mut twice = once.clone();
    for segment in &mut twice.quantized.segments {
        for op in &mut segment.ops {
            if let Some(weights) = &mut op.weights {
                weights.shift.fill(40);
                weights.multiplier.fill(1 << 30);
            }
        }
    }
    let (once, twice) = (image(&once, &Measured::default()), image(&twice, &Measured::default()));
    assert!(twice.len() < once.len(), "{} and {} bytes", once.len(), twice.len());
}
