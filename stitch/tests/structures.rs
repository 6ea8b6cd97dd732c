//! Public architectures with random weights against onnxruntime. The files are made by `models/recipe/structures.py` and
//! `judge.py`, which need Python; so these tests run when asked for:
//! `STRUCTURES=folder cargo test --release --workspace --test structures -- --ignored`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::Array4;
use rayon::prelude::*;
use stitch::family::{Space, StitchSpec};
use stitch::graph::{Clamp, Graph, Node, Op, Window};
use stitch::learn::{self, learn};
use stitch::{cut, float, import, simplify};

const TOLERANCE: f32 = 1e-4;

fn folder() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/recipe/cache/structures");
    std::env::var_os("STRUCTURES").map_or(default, PathBuf::from)
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn anchor(name: &str) -> Graph {
    let path = folder().join(format!("{name}.onnx"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    import::import(name, &bytes).and_then(simplify::simplify).unwrap_or_else(|error| panic!("{error}"))
}

/// Largest difference as a part of the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
#[ignore = "needs the files of models/recipe/judge.py"]
fn every_architecture_computes_what_onnxruntime_computes() {
    let mut count = 0;
    let mut failed = vec![];
    let entries = fs::read_dir(folder()).expect("the folder of structures.py");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let graph = anchor(&name);
        let (image, expected) = (path.with_extension("image.f32"), path.with_extension("output.f32"));
        let difference = difference(&float::output(&graph, &floats(&image)), &floats(&expected));
        let blocks = cut::blocks(graph);
        println!("{name}: {} blocks, difference {difference:.1e}", blocks.blocks.len());
        if difference > TOLERANCE {
            failed.push(format!("{name}: {difference}"));
        }
        count += 1;
    }
    assert!(count > 0 && failed.is_empty(), "{count} architectures; {failed:?}");
}

#[test]
#[ignore = "needs the files of models/recipe/judge.py --stitches"]
fn a_stitched_deit_is_what_onnxruntime_computes_on_joined_halves() {
    let folder = folder().join("stitched");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder of judge.py").filter_map(Result::ok) {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".bias.f32") else { continue };
        let [front, a, back, b] = stem.split('+').collect::<Vec<_>>()[..] else { panic!("{stem}") };
        let of = |what: &str| floats(&folder.join(format!("{stem}.{what}.f32")));
        let block = |text: &str| text.parse::<usize>().expect("a block");
        let (front, back) = (cut::blocks(anchor(front)), cut::blocks(anchor(back)));
        // Block 0 is the embedding, so the published block `a` ends at cut `a + 2`, and `b` begins at cut `b + 1`.
        let (leave, enter) = (front.cuts[block(a) + 2], back.cuts[block(b) + 1]);
        let values = float::run(&front.graph.nodes, &front.graph.tensors, front.graph.input, &of("image"));
        let (bias, shapes) = (of("bias"), [leave.shape, enter.shape]);
        let weights = Array4::from_shape_vec([enter.shape[2], 1, 1, leave.shape[2]], of("weights")).expect("weights");
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let op = Op::Conv { weights, bias, window, groups: 1, clamp: Clamp::NONE };
        let stitch = Node { name: stem.into(), op, inputs: vec![0], output: 1 };
        let stitched = float::run(&[stitch], &shapes, 0, &values[leave.tensor]).swap_remove(1);
        let suffix: Vec<Node> =
            back.blocks[block(b) + 1..].iter().flatten().map(|&node| back.graph.nodes[node].clone()).collect();
        let output = float::run(&suffix, &back.graph.tensors, enter.tensor, &stitched).swap_remove(back.graph.output);
        let difference = difference(&output, &of("output"));
        println!("{stem}: difference {difference:.1e}");
        assert!(difference <= TOLERANCE, "{stem}: {difference}");
        count += 1;
    }
    assert!(count > 0, "no stitched network in {}", folder.display());
}

/// Both anchors once over the images, against the same and all stitches of SN-Net's space fitted to them.
#[test]
#[ignore = "needs deit-ti.onnx and deit-s.onnx of models/recipe/structures.py"]
fn least_squares_of_deit_take_at_most_a_third_of_the_forward_passes() {
    let spec = StitchSpec { space: Space::V1, ..StitchSpec::default() };
    let blocks = cut::cut(vec![anchor("deit-ti"), anchor("deit-s")], &spec).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(blocks.paths.len(), 34);
    let count = std::env::var("IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    let size = blocks.anchors[0].graph.tensors[blocks.anchors[0].graph.input].iter().product();
    let images: Vec<Vec<f32>> = (0..count).map(|image| support::onnx::noise(size, image)).collect();
    let begin = Instant::now();
    for anchor in &blocks.anchors {
        images.par_iter().for_each(|image| {
            std::hint::black_box(float::output(&anchor.graph, image));
        });
    }
    let forward = begin.elapsed();
    let options = learn::Options { start: learn::Start::LeastSquares, ridge: None, rounded: true, corrections: false };
    let begin = Instant::now();
    let learned = learn(&blocks, &images, options, &|| ()).unwrap_or_else(|error| panic!("{error}"));
    let all = begin.elapsed();
    let ratio = all.as_secs_f64() / forward.as_secs_f64();
    println!(
        "{count} images: forward {forward:.1?}, with {} layers fitted {all:.1?}, {ratio:.2} times",
        learned.fits.len()
    );
    assert!(ratio <= 1.3, "{ratio:.2}");
}
