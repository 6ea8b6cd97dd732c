//! The bodies of the fuzz targets on seeded mutations of a small image, and on everything a fuzzer ever found.
//!
//! `STITCHNET_SEED=7 cargo test -p tests` tries other mutations.

use std::path::Path;

use plan::layout::NO_TENSOR;
use plan::{Image, OpKind, TensorId, sample};
use support::{Random, mutate, parse_any, reseal, run_any, seeds};

/// Mutated images of one run; a second or two.
const IMAGES: usize = 5_000;

#[test]
fn seeds_are_valid_and_run() {
    for (name, image) in seeds() {
        Image::parse(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        parse_any(&image);
        run_any(&image);
    }
}

#[test]
fn mutated_images_are_refused_or_run() {
    let seed = Random::seed(1);
    println!("STITCHNET_SEED={seed}");
    let seeds = seeds();
    let mut random = Random::new(seed);
    let mut valid = 0;
    for _ in 0..IMAGES {
        let mut image = seeds[random.below(seeds.len())].1.clone();
        mutate(&mut random, &mut image);
        parse_any(&image);
        run_any(&image);
        valid += usize::from(reseal(&image).is_some_and(|sealed| Image::parse(&sealed).is_ok()));
    }
    // Otherwise the mutations test the parser alone, or nothing.
    assert!(valid > IMAGES / 20 && valid < IMAGES - IMAGES / 20, "{valid} of {IMAGES} were valid");
}

/// Counting the classes in 16 bits went one too far: `0u16..` steps once more before `zip` sees the end.
#[test]
fn an_image_may_have_as_many_classes_as_its_numbers_allow() {
    let mut writer = sample::writer();
    // Both heads write the most scores, by a move out of their mean that is mostly fill.
    writer.cuts[1].shape = [255, 257, 1];
    let room = 65_536;
    for segment in [1, 4] {
        let segment = &mut writer.segments[segment];
        let op = &mut writer.ops[usize::from(segment.first_op + segment.ops - 1)];
        (op.kind, op.scratch) = (OpKind::Move, TensorId(NO_TENSOR));
        (op.groups, op.step, op.repeat) = (1, [1; 2], [1; 2]);
        let output = &mut writer.tensors[segment.output.index()];
        output.shape = [255, 257, 1];
        segment.peak_bytes = output.offset + room;
    }
    for (config, head) in [(0, 1), (1, 4), (2, 4)] {
        writer.configs[config].arena_bytes = writer.segments[head].peak_bytes;
        writer.meta.arena_bytes = writer.meta.arena_bytes.max(writer.segments[head].peak_bytes);
    }
    writer.meta.classes = u16::MAX;
    writer.meta.labels = writer.put(&[b'\n'; u16::MAX as usize]);
    writer.meta.test_outputs = writer.put(&[0; 3 * u16::MAX as usize]);
    let image = writer.finish();
    Image::parse(&image).expect("every rule holds");
    run_any(&image);
}

#[test]
fn findings_stay_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for entry in std::fs::read_dir(folder).expect("tests/regressions is part of the repository") {
        let path = entry.expect("the folder can be read").path();
        println!("{}", path.display());
        let bytes = std::fs::read(&path).expect("the file can be read");
        parse_any(&bytes);
        run_any(&bytes);
    }
}
