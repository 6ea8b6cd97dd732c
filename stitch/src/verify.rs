//! Stage 13: permission to write the image. It is parsed back and run by the real runtime; every instruction set of
//! this machine must give the same bytes, in the smallest arena and in a larger one. Before that, the float form must
//! be what the ONNX file computes.

use kernels::{Level, with_isa};
use plan::{ConfigId, Image};
use rayon::prelude::*;
use runtime::Engine;

use crate::error::Error;
use crate::evaluate::FloatPaths;
use crate::float;
use crate::float_judge::Judge;
use crate::graph::Graph;
use crate::network::Stitched;

/// Images on which a graph is compared with its file.
const FLOAT_IMAGES: usize = 4;
/// Largest difference of an output, as a part of the largest output of the image. Sums in f32 in another order give
/// about 1e-6.
pub const FLOAT_TOLERANCE: f32 = 1e-4;

/// Runs an anchor's ONNX file in tract and its graph in our float path, on some normalised images `[H, W, C]`.
///
/// # Errors
/// [`Error::Stage`] naming image, class and both values where they differ by more than [`FLOAT_TOLERANCE`].
pub fn float_path(file: &[u8], graph: &Graph, images: &[Vec<f32>]) -> Result<(), Error> {
    let judge = Judge::of_file(file, graph.tensors[graph.input])?;
    for (number, image) in images.iter().take(FLOAT_IMAGES).enumerate() {
        if let Some((output, found, expected)) =
            difference(&float::output(graph, image), &channels_last(&judge.output(image)?, graph.tensors[graph.output]))
        {
            let what = format!(
                "`{}` on calibration image {number}, output {output}: {found:?}, the ONNX file gives {expected:?}: a fault \
                 of import or simplify",
                graph.name
            );
            return Err(Error::Stage { stage: "simplify", what });
        }
    }
    Ok(())
}

/// Runs every path as ONNX in tract, each alone, and all of them through the tree of our float path, on some normalised
/// images `[H, W, C]`.
///
/// # Errors
/// [`Error::Stage`] naming path, image, class and both values where they differ by more than [`FLOAT_TOLERANCE`].
pub fn float_paths(stitched: &Stitched, paths: &FloatPaths<'_>, images: &[Vec<f32>]) -> Result<(), Error> {
    let images = &images[..images.len().min(FLOAT_IMAGES)];
    let outputs: Vec<Vec<Vec<f32>>> = images.par_iter().map(|image| paths.outputs(image)).collect();
    stitched.paths.par_iter().enumerate().try_for_each(|(number, path)| {
        let judge = Judge::of_path(stitched, path)?;
        for (index, image) in images.iter().enumerate() {
            if let Some((output, found, expected)) = difference(&outputs[index][number], &channels_last(&judge.output(image)?, stitched.cuts[1].shape)) {
                let what = format!(
                    "`{}` on calibration image {index}, output {output}: {found:?}, tract gives {expected:?}: a fault of the \
                     float path",
                    path.name
                );
                return Err(Error::Stage { stage: "evaluate", what });
            }
        }
        Ok(())
    })
}

/// A map `[C, H, W]` as `[H, W, C]`.
fn channels_last(values: &[f32], [height, width, channels]: [usize; 3]) -> Vec<f32> {
    let cells = height * width;
    let at = |index: usize| values.get(index % channels * cells + index / channels).copied();
    if values.len() == cells * channels { (0..values.len()).filter_map(at).collect() } else { values.to_vec() }
}

/// The first output that differs by more than [`FLOAT_TOLERANCE`], and what it is in both; `None` where one has ended.
fn difference(found: &[f32], expected: &[f32]) -> Option<(usize, Option<f32>, Option<f32>)> {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let equal = |(a, b): (&f32, &f32)| (a - b).abs() <= FLOAT_TOLERANCE * largest;
    let first = found.iter().zip(expected).position(|pair| !equal(pair));
    let first = first.or((found.len() != expected.len()).then_some(found.len().min(expected.len())))?;
    Some((first, found.get(first).copied(), expected.get(first).copied()))
}

/// Outputs of every config on one int8 input, with one instruction set.
///
/// # Errors
/// What the runtime refuses.
pub fn outputs<I: kernels::Isa>(isa: I, image: &Image<'_>, input: &[i8], spare: usize) -> Result<Vec<Vec<i8>>, Error> {
    (0..image.configs())
        .map(|config| {
            let config = ConfigId(config);
            let mut arena = vec![0x55; image.config(config).arena_bytes as usize + spare];
            let smallest = (0..image.configs()).map(|other| image.config(ConfigId(other)).arena_bytes).min();
            arena.resize(arena.len().max(smallest.unwrap_or(0) as usize), 0x55);
            let mut engine = Engine::new(isa, *image, &mut arena)?;
            let target = engine.input_mut();
            if target.len() != input.len() {
                let (found, expected) = (input.len() as u32, target.len() as u32);
                return Err(runtime::RunError::InputSize { found, expected }.into());
            }
            target.copy_from_slice(input);
            Ok(engine.run_config(config)?.to_vec())
        })
        .collect()
}

/// Outputs that all instruction sets of this machine and two sizes of arena agree on.
///
/// # Errors
/// [`Error::Stage`] naming the config where they do not.
pub fn agreed_outputs(image: &Image<'_>, input: &[i8]) -> Result<Vec<Vec<i8>>, Error> {
    let expected = outputs(kernels::arch::Scalar, image, input, 0)?;
    for (level, spare) in Level::available().flat_map(|level| [(level, 0), (level, 4096)]) {
        let found = with_isa!(level, |isa| outputs(isa, image, input, spare))?;
        if let Some(config) = (0..expected.len()).find(|&config| found[config] != expected[config]) {
            let name = image.config_name(ConfigId(config as u16));
            let what = format!(
                "config {config} ({name}) gives {:?} with {} and {:?} with scalar: a fault of the kernels",
                found[config],
                level.name(),
                expected[config]
            );
            return Err(Error::Stage { stage: "verify", what });
        }
    }
    Ok(expected)
}

/// Parses the bytes and runs the stored self test, then its complement, on which all instruction sets must agree too.
///
/// # Errors
/// [`Error::Image`] with the broken rule; [`Error::Stage`] if an output is not the stored one, or if two instruction
/// sets differ.
pub fn verify(bytes: &[u8]) -> Result<(), Error> {
    let image = Image::parse(bytes)?;
    let input: Vec<i8> = image.test_input().iter().map(|&byte| byte as i8).collect();
    for (config, output) in agreed_outputs(&image, &input)?.iter().enumerate() {
        let stored = image.test_output(ConfigId(config as u16));
        if output.iter().map(|&value| value as u8).ne(stored.iter().copied()) {
            let what = format!("config {config}: the self test gives {output:?}, the image holds {stored:?}");
            return Err(Error::Stage { stage: "verify", what });
        }
    }
    // Reaches the values that one picture does not.
    let complement: Vec<i8> = input.iter().map(|value| !value).collect();
    agreed_outputs(&image, &complement)?;
    Ok(())
}
