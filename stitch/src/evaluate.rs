//! Stage 10, scores: top-1 of every config, with the integers that the device will use and, beside them, in float.

use kernels::{Level, with_isa};
use plan::{ConfigId, Image};
use rayon::prelude::*;
use runtime::{Engine, RunError};

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
    let classes: Vec<Vec<bool>> = (0..images.len())
        .into_par_iter()
        .map_init(
            || vec![0; image.meta().arena_bytes as usize],
            |arena, number| {
                let right = with_isa!(Level::best(), |isa| right_answers(isa, image, images, number, arena));
                advance();
                right
            },
        )
        .collect::<Result<_, _>>()?;
    Ok((0..configs)
        .map(|config| in_ten_thousand(classes.iter().filter(|right| right[config]).count(), images.len()))
        .collect())
}

/// Whether each config recognises one image.
fn right_answers<I: kernels::Isa>(
    isa: I,
    image: &Image<'_>,
    images: &ImageSet,
    number: usize,
    arena: &mut [i8],
) -> Result<Vec<bool>, RunError> {
    let mut engine = Engine::new(isa, *image, arena)?;
    (0..image.configs())
        .map(|config| {
            engine.preprocess(images.image(number))?;
            engine.run_config(ConfigId(config))?;
            Ok(engine.class() == images.labels[number])
        })
        .collect()
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
