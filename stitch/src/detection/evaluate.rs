//! Average precision of every config of a detector's image, by the real runtime.

use kernels::{Level, with_isa};
use plan::Image;
use rayon::prelude::*;
use runtime::{Detection, Engine};

use crate::detection::average_precision::{Found, Precision};
use crate::detection::coco::{BoxSet, BoxedPicture};
use crate::detection::picture::Picture;
use crate::error::Error;
use crate::evaluate::{Way, answers, tree_of};

/// Scores of every config, in their order. `advance` is called once per picture.
///
/// # Errors
/// [`Error::Stage`] if the image is no detector of these classes; pictures that cannot be read; what the runtime refuses.
pub fn scores(image: &Image<'_>, set: &BoxSet, advance: &(dyn Fn() + Sync)) -> Result<Vec<Precision>, Error> {
    let refuse = |what: String| Err(Error::Stage { stage: "evaluate", what });
    if !image.is_detector() {
        return refuse(
            "the image is no detector; a folder of sheets with labels.txt is expected, not a COCO file".into(),
        );
    }
    let labels: Vec<&str> = (0..image.meta().classes.into()).map(|class| image.label(class)).collect();
    if labels != set.classes {
        return refuse(format!("the pictures have the classes {:?}, the image {labels:?}", set.classes));
    }
    let tree = tree_of(image);
    let [height, width, _] = image.cut(image.meta().input).shape.map(usize::from);
    let of_picture = |arena: &mut Vec<i8>, boxed: &BoxedPicture| -> Result<Vec<Vec<Found>>, Error> {
        let pixels = Picture::read(&boxed.path)?.stretched(height, width).pixels;
        let answers = with_isa!(Level::best(), |isa| {
            let mut engine = Engine::new(isa, *image, arena)?;
            engine.preprocess(&pixels)?;
            answers(&mut engine, Way::Shared(&tree))
        })?;
        advance();
        let found = |output: &Vec<i8>| runtime::detections(output).map(|one| found(&one, [height, width])).collect();
        Ok(answers.outputs.iter().map(found).collect())
    };
    let pictures: Vec<Vec<Vec<Found>>> = set
        .pictures
        .par_iter()
        .map_init(|| vec![0; image.meta().arena_bytes as usize], of_picture)
        .collect::<Result<_, _>>()?;
    let mut by_config = vec![vec![]; usize::from(image.configs())];
    for (found, boxed) in pictures.into_iter().zip(&set.pictures) {
        for (pictures, found) in by_config.iter_mut().zip(found) {
            pictures.push((found, boxed.truths.clone()));
        }
    }
    Ok(by_config.iter().map(|pictures| Precision::of(pictures, image.meta().classes)).collect())
}

/// A detection in units of the picture, which was stretched to an input of so many rows and columns.
#[must_use]
pub fn found(detection: &Detection, [height, width]: [usize; 2]) -> Found {
    let units = [width, height, width, height].map(|side| 16.0 * side as f64);
    let corners = [0, 1, 2, 3].map(|axis| f64::from(detection.corners[axis]) / units[axis]);
    Found { corners, class: detection.class, score: detection.logit.into() }
}
