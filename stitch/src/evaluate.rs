//! Stage 10, scores: top-1 of every config, with the integers that the device will use and, beside them, in float.

use kernels::{Isa, Level, with_isa};
use plan::{ConfigId, Image};
use rayon::prelude::*;
use runtime::{Engine, Progress, RunError, policy};

use crate::error::Error;
use crate::float_judge::Judge;
use crate::images::ImageSet;
use crate::network::Stitched;

/// Correct answers in 10,000 per config, over all images; `advance` is called once per image.
///
/// # Errors
/// What the runtime refuses.
pub fn integer_scores(image: &Image<'_>, images: &ImageSet, advance: &(dyn Fn() + Sync)) -> Result<Vec<u16>, RunError> {
    let configs = usize::from(image.configs());
    let classes: Vec<Vec<u16>> = (0..images.len())
        .into_par_iter()
        .map_init(
            || vec![0; image.meta().arena_bytes as usize],
            |arena, number| {
                let answers = with_isa!(Level::best(), |isa| {
                    let mut engine = Engine::new(isa, *image, arena)?;
                    engine.preprocess(images.image(number))?;
                    answers(&mut engine)
                })?;
                advance();
                Ok(answers.classes)
            },
        )
        .collect::<Result<_, RunError>>()?;
    let right =
        |config: usize| classes.iter().zip(&images.labels).filter(|(found, label)| found[config] == **label).count();
    Ok((0..configs).map(|config| in_ten_thousand(right(config), images.len())).collect())
}

/// What every config says of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Class per config.
    pub classes: Vec<u16>,
    /// Output per config.
    pub outputs: Vec<Vec<i8>>,
    /// Segments that were run. Every config alone would run the sum of all path lengths.
    pub segments: usize,
}

/// Runs every config on the input that is in the arena. Paths form a tree of shared starts, and each of its branches is run
/// once: what a segment computes is kept at a fork and taken up by every config that goes on from there.
///
/// # Errors
/// What the runtime refuses.
pub fn answers<I: Isa>(engine: &mut Engine<'_, I>) -> Result<Answers, RunError> {
    let configs: Vec<ConfigId> = (0..engine.image().configs()).map(ConfigId).collect();
    let input = engine.input_mut().to_vec();
    let mut answers = Answers { classes: vec![0; configs.len()], outputs: vec![vec![]; configs.len()], segments: 0 };
    fork(engine, &configs, 0, &input, &mut answers)?;
    Ok(answers)
}

/// Runs the rest of `configs`, which share their first `done` segments; `features` is what those computed.
fn fork<I: Isa>(
    engine: &mut Engine<'_, I>,
    configs: &[ConfigId],
    done: u16,
    features: &[i8],
    answers: &mut Answers,
) -> Result<(), RunError> {
    let image = *engine.image();
    let mut left = configs.to_vec();
    while let Some(&first) = left.first() {
        let record = image.config(first);
        let (branch, others) =
            left.into_iter().partition(|&id| policy::shares(&image, &record, &image.config(id), done + 1));
        left = others;
        engine.resume(first, done, features)?;
        let progress = engine.step()?;
        answers.segments += 1;
        if progress == Progress::Done {
            for id in branch {
                answers.classes[id.index()] = engine.class();
                answers.outputs[id.index()] = engine.features().to_vec();
            }
        } else {
            let features = engine.features().to_vec();
            fork(engine, &branch, done + 1, &features, answers)?;
        }
    }
    Ok(())
}

fn in_ten_thousand(right: usize, of: usize) -> u16 {
    (right * 10_000 / of.max(1)) as u16
}

/// The same in float, by the judge: tract on every path, corrections included. `normalised` holds one `[H, W, C]` per
/// image. Only the class counts, so ties aside it is the score of our own float path ([`Judge`] and it are compared
/// when a family is compiled).
///
/// # Errors
/// What the judge refuses.
pub fn float_scores(
    stitched: &Stitched,
    normalised: &[Vec<f32>],
    labels: &[u16],
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<u16>, Error> {
    let judges = stitched.paths.iter().map(|path| Judge::of_path(stitched, path)).collect::<Result<Vec<_>, _>>()?;
    let right = normalised
        .par_iter()
        .zip(labels)
        .map(|(image, &label)| {
            let right = judges.iter().map(|judge| Ok(largest(&judge.output(image)?) == usize::from(label)));
            let right = right.collect::<Result<Vec<bool>, Error>>();
            advance();
            right
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((0..stitched.paths.len())
        .map(|path| in_ten_thousand(right.iter().filter(|right| right[path]).count(), labels.len()))
        .collect())
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
