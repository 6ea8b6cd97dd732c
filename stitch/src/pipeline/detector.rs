//! The stages behind `cut` for a detector: the head is one more segment, scores are AP at an IoU of 0.5.

use std::collections::HashMap;
use std::path::Path;

use super::{Compiled, Options, Progress, Scoring, Stage, stitched, text};
use crate::cost::CostModel;
use crate::cut::Blocks;
use crate::detection::coco::BoxSet;
use crate::detection::evaluate::scores;
use crate::detection::picture::Picture;
use crate::emit::Measured;
use crate::error::Error;
use crate::family::{FamilySpec, InputSpec};
use crate::head::{self, HeadFile};
use crate::images::normalised;
use crate::network::Placed;
use crate::quantize::Pixels;
use crate::{calibrate, emit, frontier, learn, place, quantize, stream, verify};

/// Pictures behind ranges.
const CALIBRATION: usize = 64;

/// Compiles a detector.
pub(super) fn compile(
    spec: &FamilySpec,
    head: &Path,
    blocks: &Blocks,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Compiled, Error> {
    if matches!(options.scoring, Scoring::Given(..)) || options.auto16.is_some() {
        return Err(Error::Family("--scores and --auto16 are not for detectors; leave them out".into()));
    }
    let begin = |stage: Stage, steps: usize| progress.stage(stage, steps as u64);
    let advance = || progress.advance();
    let head = HeadFile::read(head)?;
    let data = Data::read(spec, options.score_images)?;
    for (anchor, blocks) in spec.anchors.iter().zip(&blocks.anchors) {
        verify::float_path(&anchor.read()?, &blocks.graph, &data.samples)?;
    }
    begin(Stage::Learn, blocks.paths.len());
    let learn::Learned { stitched, fits } = stitched(spec, blocks, &data.samples, &advance)?;
    fits.iter().filter_map(learn::fit::Fit::note).for_each(|note| progress.note(&note));
    if options.stop_after == Stage::Learn {
        return Ok(Compiled::Stopped(text::print_stitched(&stitched, &fits)));
    }
    begin(Stage::Calibrate, stitched.paths.len());
    let calibrated = calibrate::calibrate(stitched, &data.samples, &advance);
    if options.stop_after == Stage::Calibrate {
        return Ok(Compiled::Stopped(text::print_calibrated(&calibrated)));
    }
    begin(Stage::Quantize, 0);
    let scaling = Pixels { mean: spec.input.mean.clone(), std: spec.input.std.clone() };
    let mut quantized = quantize::quantize(&calibrated, &scaling, &spec.quantize.wide)?;
    head::append(&mut quantized, &head)?;
    if options.stop_after == Stage::Quantize {
        return Ok(Compiled::Stopped(text::print_quantized(&quantized)));
    }
    begin(Stage::Place, 0);
    let mut placed = place::place(stream::stream(quantized, spec.streams)?)?;
    if options.stop_after == Stage::Place {
        return Ok(Compiled::Stopped(text::print_placed(&placed)));
    }
    let labels = super::labels(spec);
    let cost = CostModel::cortex_m4f();
    let emit = |placed: &Placed, measured: &Measured| emit::emit(placed, &labels, &cost, measured);
    let bytes = emit(&placed, &Measured::default())?;
    let image = plan::Image::parse(&bytes)?;
    let shape = [spec.input.height, spec.input.width];
    let first = pixels(&data.test, 0, shape)?;
    let channels = spec.input.channels;
    let value = |(index, &value): (usize, &u8)| image.preprocess((index % channels) as u16)[usize::from(value)] as i8;
    let input: Vec<i8> = first.iter().enumerate().map(value).collect();
    let outputs = verify::agreed_outputs(&image, &input)?;
    let mut measured = Measured { input, outputs, ..Measured::default() };
    if options.scoring == Scoring::Later {
        let bytes = emit(&placed, &measured)?;
        begin(Stage::Verify, 0);
        verify::verify(&bytes)?;
        return Ok(Compiled::Image(bytes));
    }
    begin(Stage::Evaluate, data.test.pictures.len());
    let of_10_000 = |part: f64| (part * 10_000.0).round() as u16;
    let found = scores(&image, &data.test, &advance)?;
    measured.images = data.test.pictures.len();
    measured.scores = found.iter().map(|scores| of_10_000(scores.ap50())).collect();
    let floats: HashMap<String, f64> = head.entry("float_ap50").unwrap_or_default();
    let float = |path: &crate::network::Path| floats.get(&path.name).map_or(0, |&part| of_10_000(part));
    measured.float_scores = calibrated.stitched.paths.iter().map(float).collect();
    if options.stop_after == Stage::Evaluate {
        return Ok(Compiled::Stopped(text::print_scores(&placed, &measured)));
    }
    begin(Stage::Frontier, 0);
    let choice = super::choose(&image, &placed, &measured, &spec.limits, emit)?;
    if options.stop_after == Stage::Frontier {
        return Ok(Compiled::Stopped(choice.to_string()));
    }
    frontier::retain(&mut placed, &mut measured, &choice.kept());
    begin(Stage::Emit, 0);
    let bytes = emit(&placed, &measured)?;
    if options.stop_after == Stage::Emit {
        return Ok(Compiled::Stopped(text::print_image(&plan::Image::parse(&bytes)?)));
    }
    begin(Stage::Verify, 0);
    verify::verify(&bytes)?;
    Ok(Compiled::Image(bytes))
}

/// Pictures with boxes.
struct Data {
    /// Normalised calibration pictures, `[H, W, C]` each.
    samples: Vec<Vec<f32>>,
    test: BoxSet,
}

impl Data {
    fn read(spec: &FamilySpec, score_images: usize) -> Result<Self, Error> {
        let open = |path: &Path, count: usize| {
            let set = BoxSet::read(path)?.first(count);
            let bad = |what: String| Error::Content { path: path.into(), what };
            if set.pictures.is_empty() {
                return Err(bad("no picture is asked for; at least one is needed".into()));
            }
            if set.classes != spec.labels {
                return Err(bad(format!("classes {:?}; `labels` says {:?}", set.classes, spec.labels)));
            }
            Ok(set)
        };
        let calibration = open(&spec.data.calibration, CALIBRATION)?;
        let test = open(&spec.data.test, score_images)?;
        let InputSpec { height, width, channels, ref mean, ref std } = spec.input;
        if channels != 3 {
            return Err(Error::Family(format!("input.channels is {channels}; pictures of a detector have 3")));
        }
        let value = |(index, &pixel): (usize, &u8)| normalised(pixel, mean[index % 3], std[index % 3]);
        let sample = |number: usize| {
            let pixels = pixels(&calibration, number, [height, width])?;
            Ok(pixels.iter().enumerate().map(value).collect())
        };
        Ok(Self { samples: (0..calibration.pictures.len()).map(sample).collect::<Result<_, Error>>()?, test })
    }
}

/// A picture of a set as the networks see it, `[H, W, 3]`.
fn pixels(set: &BoxSet, number: usize, [height, width]: [usize; 2]) -> Result<Vec<u8>, Error> {
    Ok(Picture::read(&set.pictures[number].path)?.stretched(height, width).pixels)
}
