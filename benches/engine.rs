//! The runtime on an image: each anchor on each instruction set, parsing, changing config.
//!
//! The image is the file that `STITCHNET_IMAGE` names, from the root of the repository; else `out/family.snet`, if
//! there is one (`stitchnet demo` writes it); else the sample of `plan`.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use criterion::{Criterion, Throughput};
use kernels::{Isa, Level, arch};
use plan::{ConfigId, Image, sample};
use runtime::{Engine, policy};

fn bytes() -> Vec<u8> {
    // Cargo runs a bench in its package's folder.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let family = root.join("out/family.snet");
    let path = match env::var_os("STITCHNET_IMAGE") {
        Some(named) => root.join(named),
        None if family.exists() => family,
        None => {
            eprintln!("image: the sample of plan, far too small to show a network's speed");
            return sample::writer().finish();
        }
    };
    eprintln!("image: {}", path.display());
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn arena(image: &Image<'_>) -> Vec<i8> {
    vec![0; image.meta().arena_bytes as usize]
}

fn parse(criterion: &mut Criterion, image: Image<'_>) {
    let bytes = image.bytes();
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(image.text(image.meta().name), |bencher| {
        bencher.iter(|| Image::parse(black_box(bytes)).is_ok())
    });
    group.finish();
}

/// Whole runs of the anchors. A run overwrites its input, so writing that is part of the time.
fn anchors<I: Isa>(criterion: &mut Criterion, image: Image<'_>, isa: I) {
    let mut arena = arena(&image);
    let mut engine = Engine::new(isa, image, &mut arena).expect("the arena is the image's own");
    let input: Vec<i8> = image.test_input().iter().map(|byte| byte.cast_signed()).collect();
    let mut group = criterion.benchmark_group(I::NAME);
    // The least that criterion takes: a run may last a tenth of a second.
    group.sample_size(10);
    for id in (0..image.meta().anchors).map(ConfigId) {
        group.throughput(Throughput::Elements(image.macs(&image.config(id))));
        group.bench_function(image.config_name(id).to_string(), |bencher| {
            bencher.iter(|| {
                engine.input_mut().copy_from_slice(black_box(&input));
                black_box(engine.run_config(id).expect("a parsed image runs"));
            });
        });
    }
    group.finish();
}

/// What a change of mind costs: no kernel runs here, so one instruction set stands for all.
fn switch(criterion: &mut Criterion, image: Image<'_>) {
    let mut arena = arena(&image);
    let mut engine = Engine::new(arch::Scalar, image, &mut arena).expect("the arena is the image's own");
    let mut group = criterion.benchmark_group("switch");
    let configs = || (0..image.configs()).map(ConfigId);
    let [first, last] = [0, image.configs() - 1].map(ConfigId);
    group.bench_function("begin and switch", |bencher| {
        bencher.iter(|| {
            engine.begin(black_box(first)).expect("the arena holds every config");
            engine.switch(black_box(last)).expect("no segment is run yet: every config shares that");
        });
    });
    let shares = |&id: &ConfigId| policy::shares(&image, &image.config(first), &image.config(id), 1);
    if let Some(other) = configs().skip(1).find(shares) {
        engine.begin(first).expect("the arena holds every config");
        engine.step().expect("a path has a segment");
        group.bench_function("there and back at the first cut", |bencher| {
            bencher.iter(|| {
                engine.switch(black_box(other)).expect("it shares the path");
                engine.switch(black_box(first)).expect("it shares the path");
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let bytes = bytes();
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("the image was refused: {error}"));
    parse(&mut criterion, image);
    for level in Level::available() {
        kernels::with_isa!(level, |isa| anchors(&mut criterion, image, isa));
    }
    switch(&mut criterion, image);
    criterion.final_summary();
}
