//! rten's side of what ../turns.rs describes: `rten-turns MODEL SIDE`. The picture is a ramp.

use std::hint::black_box;
use std::{env, fs, io};

use rten::{Model, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

fn main() {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().expect("usage: rten-turns MODEL SIDE");
    let side: usize = arguments.next().and_then(|side| side.parse().ok()).expect("usage: rten-turns MODEL SIDE");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let ramp: Vec<f32> = (0..3 * side * side).map(|at| (at % 255) as f32 / 64.0 - 2.0).collect();
    let picture = NdTensor::from_data([1, 3, side, side], ramp);
    let options = RunOptions::default().with_thread_pool(Some(ThreadPool::with_num_threads(1).into()));
    let mut lines = io::stdin().lines();
    println!("rten");
    lines.next();
    let model = Model::load(bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    let input = model.node_id("image").expect("the input is called image");
    let output = model.node_id("logits").expect("the output is called logits");
    let run = || {
        let inputs = vec![(input, picture.view().into())];
        black_box(model.run(inputs, &[output], Some(options.clone())).expect("the model runs"));
    };
    run();
    println!("done");
    for line in lines {
        let runs: usize = line.expect("the input is text").trim().parse().expect("a number of runs");
        (0..runs).for_each(|_| run());
        println!("done");
    }
}
