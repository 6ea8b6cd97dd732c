//! Stage 10, scores: top-1 of every config, with the integers that the device will use and, beside them, in float.
//!
//! Paths form a [`Tree`] of shared starts. For each image, every step of it runs once, whatever the number of configs
//! behind it; a config gives the same bytes so as it gives alone.

pub mod tally;
pub mod tree;

use std::collections::BTreeMap;

use kernels::{Isa, Level, with_isa};
use plan::{ConfigId, Image};
use rayon::prelude::*;
use runtime::{Engine, Progress, RunError};

use crate::error::Error;
use crate::float;
use crate::images::{ImageSet, Sheets};
use crate::network::{Path, Stitched};
use tree::Tree;

/// Images in memory at once.
const BATCH: usize = 256;

/// What every config says of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Class per config.
    pub classes: Vec<u16>,
    /// Output per config.
    pub outputs: Vec<Vec<i8>>,
}

/// The tree of an image's configs: two share a start as far as their segments, and the biases of these, are equal.
#[must_use]
pub fn tree_of(image: &Image<'_>) -> Tree {
    let path = |id: ConfigId| {
        let config = image.config(id);
        let mut biases = vec![vec![]; usize::from(config.segments)];
        for overlay in (0..config.overlays).map(|index| image.overlay(&config, index)) {
            if let Some(biases) = biases.get_mut(usize::from(overlay.step)) {
                biases.push((overlay.op.0, overlay.bias));
            }
        }
        image.path(&config).map(|segment| segment.0).zip(biases).collect::<Vec<_>>()
    };
    Tree::of(&(0..image.configs()).map(|number| path(ConfigId(number))).collect::<Vec<_>>())
}

/// How configs are run.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// Shared starts once: the image's [`tree_of`].
    Shared(&'a Tree),
    /// Each alone, from the input on.
    Alone,
}

/// Runs every config on the input that is in the arena.
///
/// # Errors
/// What the runtime refuses.
pub fn answers<I: Isa>(engine: &mut Engine<'_, I>, way: Way<'_>) -> Result<Answers, RunError> {
    let configs = usize::from(engine.image().configs());
    let mut answers = Answers { classes: vec![0; configs], outputs: vec![vec![]; configs] };
    let mut end = |config: usize, engine: &Engine<'_, I>| {
        answers.classes[config] = engine.class();
        answers.outputs[config] = engine.features().to_vec();
    };
    match way {
        Way::Shared(tree) => {
            // What was kept behind so many segments of the path that runs.
            let mut kept: Vec<[Vec<i8>; 2]> = vec![[vec![], vec![]]; tree.depth + 1];
            if tree.keeps_input() {
                kept[0] = [engine.input_mut().to_vec(), engine.kept().to_vec()];
            }
            for step in &tree.steps {
                let config = ConfigId(step.path as u16);
                if step.resumes {
                    let [features, maps] = &kept[step.done];
                    engine.resume(config, step.done as u16, features, maps)?;
                } else if step.done == 0 {
                    engine.begin(config)?;
                }
                engine.step()?;
                if step.keeps {
                    kept[step.done + 1] = [engine.features().to_vec(), engine.kept().to_vec()];
                }
                step.ends.iter().for_each(|&config| end(config, engine));
            }
        }
        Way::Alone => {
            let (input, maps) = (engine.input_mut().to_vec(), engine.kept().to_vec());
            for config in 0..configs {
                engine.resume(ConfigId(config as u16), 0, &input, &maps)?;
                while let Progress::Cut(_) = engine.step()? {}
                end(config, engine);
            }
        }
    }
    Ok(answers)
}

/// Answers for each image of a batch, on all cores; `advance` is called once per image.
///
/// # Errors
/// What the runtime refuses.
pub fn batch(
    image: &Image<'_>,
    way: Way<'_>,
    images: &ImageSet,
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<Answers>, RunError> {
    (0..images.len())
        .into_par_iter()
        .map_init(
            || vec![0; image.meta().arena_bytes as usize],
            |arena, number| {
                let found = with_isa!(Level::best(), |isa| {
                    let mut engine = Engine::new(isa, *image, arena)?;
                    engine.preprocess(images.image(number))?;
                    answers(&mut engine, way)
                })?;
                advance();
                Ok(found)
            },
        )
        .collect()
}

/// The paths of a family in float, by our own float path.
#[derive(Clone, Debug)]
pub struct FloatPaths<'a> {
    stitched: &'a Stitched,
    /// Two paths share a start as far as their segments, and the corrections of these, are equal.
    pub tree: Tree,
}

impl<'a> FloatPaths<'a> {
    /// The paths of a family.
    #[must_use]
    pub fn new(stitched: &'a Stitched) -> Self {
        let key = |path: &Path| -> Vec<_> {
            let mut biases: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
            for correction in &path.corrections {
                let bits = correction.bias.iter().map(|value| value.to_bits()).collect();
                biases.entry(correction.segment).or_default().push((correction.node, bits));
            }
            path.segments.iter().map(|&segment| (segment, biases.remove(&segment).unwrap_or_default())).collect()
        };
        Self { stitched, tree: Tree::of(&stitched.paths.iter().map(key).collect::<Vec<_>>()) }
    }

    /// Output of every path for one normalised image `[H, W, C]`.
    #[must_use]
    pub fn outputs(&self, image: &[f32]) -> Vec<Vec<f32>> {
        let mut outputs = vec![vec![]; self.stitched.paths.len()];
        let mut kept: Vec<Vec<f32>> = vec![vec![]; self.tree.depth + 1];
        let mut values = image.to_vec();
        for step in &self.tree.steps {
            if step.resumes {
                values = if step.done == 0 { image.to_vec() } else { kept[step.done].clone() };
            }
            values = self.segment(step.path, step.done, values);
            if step.keeps {
                kept[step.done + 1].clone_from(&values);
            }
            step.ends.iter().for_each(|&path| outputs[path].clone_from(&values));
        }
        outputs
    }

    /// Output of one path that is run alone.
    #[must_use]
    pub fn output(&self, path: usize, image: &[f32]) -> Vec<f32> {
        let segments = 0..self.stitched.paths[path].segments.len();
        segments.fold(image.to_vec(), |values, done| self.segment(path, done, values))
    }

    /// What the segment of a path behind its first `done` gives.
    fn segment(&self, path: usize, done: usize, values: Vec<f32>) -> Vec<f32> {
        let path = &self.stitched.paths[path];
        let number = path.segments[done];
        let segment = &self.stitched.segments[number];
        let bias = |node: usize| {
            let mut corrections = path.corrections.iter();
            let found = corrections.find(|correction| correction.segment == number && correction.node == node);
            found.map(|correction| &correction.bias[..])
        };
        float::run_with(&segment.nodes, &segment.tensors, segment.input, values, bias).swap_remove(segment.output)
    }
}

/// Scores of every config with integers, by the real runtime: correct answers in 10,000. `advance` is called once per image.
///
/// # Errors
/// What the runtime refuses; images that cannot be read.
pub fn scores(image: &Image<'_>, images: &Sheets, advance: &(dyn Fn() + Sync)) -> Result<Vec<u16>, Error> {
    let tree = tree_of(image);
    let mut right = vec![0; usize::from(image.configs())];
    for images in images.batches(BATCH, |_| true) {
        let images = images?;
        for (answers, label) in batch(image, Way::Shared(&tree), &images, advance)?.iter().zip(&images.labels) {
            count(&mut right, answers.classes.iter().map(|&class| class == *label));
        }
    }
    Ok(right.into_iter().map(|right| score(right, images.len())).collect())
}

/// The same in float, of images normalised by `mean` and `std`.
///
/// # Errors
/// Images that cannot be read.
pub fn float_scores(
    paths: &FloatPaths<'_>,
    images: &Sheets,
    [mean, std]: [&[f32]; 2],
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<u16>, Error> {
    let mut right = vec![0; paths.stitched.paths.len()];
    for images in images.batches(BATCH, |_| true) {
        let images = images?;
        let floats: Vec<Vec<usize>> = (0..images.len())
            .into_par_iter()
            .map(|number| {
                let outputs = paths.outputs(&images.normalised(number, mean, std));
                advance();
                outputs.iter().map(|output| largest(output)).collect()
            })
            .collect();
        for (classes, &label) in floats.iter().zip(&images.labels) {
            count(&mut right, classes.iter().map(|&class| class == usize::from(label)));
        }
    }
    Ok(right.into_iter().map(|right| score(right, images.len())).collect())
}

fn count(right: &mut [usize], answers: impl Iterator<Item = bool>) {
    right.iter_mut().zip(answers).for_each(|(right, answer)| *right += usize::from(answer));
}

/// Right answers in 10,000.
#[must_use]
pub fn score(right: usize, of: usize) -> u16 {
    (right * 10_000 / of.max(1)) as u16
}

/// Position of the largest value; of equal ones the first.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (class, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests;
