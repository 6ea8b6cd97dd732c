//! The bodies of the fuzz targets on seeded mutations of a small image, and on everything a fuzzer ever found.
//!
//! `STITCHNET_SEED=7 cargo test -p tests` tries other mutations.

use std::path::Path;

use plan::Image;
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
