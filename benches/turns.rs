//! One side of a comparison in turns: `turns IMAGE` runs an image's first config as often as each line of the input says.
//!
//! ```text
//! stdout  instruction set, nanoseconds from the image's bytes to the first result, bytes of the arena
//! stdin   a number of runs
//! stdout  nanoseconds of each run, median
//! ```
//!
//! `peers.py` starts it beside other engines and gives each its turn.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant;
use std::{env, fs, io};

use kernels::{Isa, Level};
use plan::{ConfigId, Image};
use runtime::Engine;

fn turns<I: Isa>(isa: I, bytes: &[u8], start: Instant) {
    let image = Image::parse(bytes).unwrap_or_else(|error| panic!("the image was refused: {error}"));
    let input: Vec<i8> = image.test_input().iter().map(|byte| byte.cast_signed()).collect();
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(isa, image, &mut arena).expect("the arena is the image's own");
    let mut run = || {
        // A run overwrites its input, so writing that is part of the time.
        engine.input_mut().copy_from_slice(black_box(&input));
        black_box(engine.run_config(ConfigId(0)).expect("a parsed image runs"));
    };
    run();
    println!("{} {} {}", I::NAME, start.elapsed().as_nanos(), image.meta().arena_bytes);
    for line in io::stdin().lines() {
        let runs: usize = line.expect("the input is text").trim().parse().expect("a number of runs");
        let mut times: Vec<u128> = (0..runs.max(1))
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed().as_nanos()
            })
            .collect();
        times.sort_unstable();
        println!("{}", times[times.len() / 2]);
    }
}

fn main() {
    let path = env::args().nth(1).expect("usage: turns IMAGE");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let start = Instant::now();
    kernels::with_isa!(Level::best(), |isa| turns(isa, &bytes, start));
}
