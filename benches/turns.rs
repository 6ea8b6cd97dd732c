//! One side of a comparison in turns: `turns IMAGE` runs an image's first config as often as each line of the input says.
//!
//! ```text
//! stdout  name of the instruction set, when the bytes of the image are read
//! stdin   any line: parses them, runs once
//! stdout  `done`
//! stdin   a number of runs
//! stdout  `done`
//! ```
//!
//! `peers.py` starts it beside other engines and gives each its turn.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::{env, fs, io};

use kernels::{Isa, Level};
use plan::{ConfigId, Image};
use runtime::Engine;

fn turns<I: Isa>(isa: I, bytes: &[u8]) {
    let mut lines = io::stdin().lines();
    println!("{}", I::NAME);
    lines.next();
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
    println!("done");
    for line in lines {
        let runs: usize = line.expect("the input is text").trim().parse().expect("a number of runs");
        (0..runs).for_each(|_| run());
        println!("done");
    }
}

fn main() {
    let path = env::args().nth(1).expect("usage: turns IMAGE");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    kernels::with_isa!(Level::best(), |isa| turns(isa, &bytes));
}
