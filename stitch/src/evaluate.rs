//! Scores: top-1 of every config, with the integers that the device will use and, beside them, in float.

use plan::{ConfigId, Image};
use rayon::prelude::*;
use runtime::{Engine, RunError};

use crate::float;
use crate::graph::Op;
use crate::images::ImageSet;
use crate::network::{Path, Stitched};

/// Runs `body` with the fastest instruction set of this machine.
macro_rules! with_best_isa {
    (|$isa:ident| $body:expr) => {
        match kernels::Level::best() {
            #[cfg(target_arch = "x86_64")]
            kernels::Level::Avx2 => match kernels::arch::Avx2::new() {
                Some($isa) => $body,
                None => {
                    let $isa = kernels::arch::Scalar;
                    $body
                }
            },
            _ => {
                let $isa = kernels::arch::Scalar;
                $body
            }
        }
    };
}
pub(crate) use with_best_isa;

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
                let right = with_best_isa!(|isa| right_answers(isa, image, images, number, arena));
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

/// The same of the float paths, corrections included. `normalised` holds one `[H, W, C]` per image.
#[must_use]
pub fn float_scores(
    stitched: &Stitched,
    normalised: &[Vec<f32>],
    labels: &[u16],
    advance: &(dyn Fn() + Sync),
) -> Vec<u16> {
    let nodes: Vec<_> = stitched.paths.iter().map(|path| corrected(stitched, path)).collect();
    let right: Vec<Vec<bool>> = normalised
        .par_iter()
        .zip(labels)
        .map(|(image, &label)| {
            let right = nodes.iter().zip(&stitched.paths).map(|(nodes, path)| {
                let mut values = image.clone();
                for (nodes, &number) in nodes.iter().zip(&path.segments) {
                    let segment = &stitched.segments[number];
                    values = float::run(nodes, &segment.tensors, segment.input, &values).swap_remove(segment.output);
                }
                let mut best = 0;
                for (class, value) in values.iter().enumerate() {
                    if *value > values[best] {
                        best = class;
                    }
                }
                best == usize::from(label)
            });
            let right = right.collect();
            advance();
            right
        })
        .collect();
    (0..stitched.paths.len())
        .map(|path| in_ten_thousand(right.iter().filter(|right| right[path]).count(), labels.len()))
        .collect()
}

/// Nodes of each segment of a path, with the path's own biases.
fn corrected(stitched: &Stitched, path: &Path) -> Vec<Vec<crate::graph::Node>> {
    let of_segment = |&number: &usize| {
        let mut nodes = stitched.segments[number].nodes.clone();
        for correction in path.corrections.iter().filter(|correction| correction.segment == number) {
            if let Op::Conv { bias, .. } = &mut nodes[correction.node].op {
                bias.clone_from(&correction.bias);
            }
        }
        nodes
    };
    path.segments.iter().map(of_segment).collect()
}
