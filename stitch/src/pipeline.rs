//! The whole job, one stage a line.

mod detector;
mod text;

use std::path::{Path, PathBuf};

use crate::cost::CostModel;
use crate::cut::Blocks;
use crate::emit::{Labels, Measured};
use crate::error::Error;
use crate::evaluate::FloatPaths;
use crate::evaluate::tally::{Shard, Tally};
use crate::family::{AnchorSpec, FamilySpec, Limits, StitchSpec};
use crate::graph::Graph;
use crate::images::{ImageSet, Sheets};
use crate::layers::Layer;
use crate::network::{Calibrated, Placed, Stitched};
use crate::quantize::Pixels;
use crate::{
    auto16, calibrate, cut, emit, evaluate, frontier, import, layers, learn, place, quantize, simplify, stream, verify,
};

/// Pictures behind the noise by which `--auto16` orders tensors.
const AUTO16_PICTURES: usize = 4;

/// Where a person sees how far it is.
pub trait Progress: Sync {
    /// A stage begins, with so many steps (0: unknown).
    fn stage(&self, stage: Stage, steps: u64);
    /// A step is done.
    fn advance(&self);
    /// Something that a person should know.
    fn note(&self, _: &str) {}
}

/// Shows nothing.
pub struct Quiet;

impl Progress for Quiet {
    fn stage(&self, _: Stage, _: u64) {}
    fn advance(&self) {}
}

/// A stage that can be stopped after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// ONNX files → graphs.
    Import,
    /// Canonical float form.
    Simplify,
    /// Cuts, blocks, matching.
    Cut,
    /// Stitches and corrections.
    Learn,
    /// Ranges.
    Calibrate,
    /// Integers.
    Quantize,
    /// Arena offsets.
    Place,
    /// Scores of every config, by the real runtime and by the float judge.
    Evaluate,
    /// Configs to ship.
    Frontier,
    /// Bytes.
    Emit,
    /// Bytes that were parsed back and run.
    Verify,
}

/// Who scores the configs that the frontier is chosen from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scoring {
    /// This run.
    #[default]
    Here,
    /// Nobody yet: the image that is written has every config and no score, for `evaluate` on as many machines as there are.
    Later,
    /// What `evaluate` and `merge` counted with that image, and the file that it was read from.
    Given(PathBuf, Tally),
}

/// Limits that a caller sets.
#[derive(Clone, Debug)]
pub struct Options {
    /// Test images behind the scores; those of a given evaluation are as many as it says.
    pub score_images: usize,
    /// Who scores.
    pub scoring: Scoring,
    /// Last stage to run.
    pub stop_after: Stage,
    /// Tensors become 16 bits until no config loses more points than that by integers.
    pub auto16: Option<f64>,
}

/// What the pipeline leaves: the image, or the text form of the stage it stopped after.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// An image that was verified.
    Image(Vec<u8>),
    /// Text of an earlier stage.
    Stopped(String),
}

fn labels(spec: &FamilySpec) -> Labels {
    Labels { family: spec.name.clone(), classes: spec.labels.clone(), packing: spec.packing }
}

/// Anchors as their files have them.
///
/// # Errors
/// What `import` refuses; unreadable files.
pub fn imported(spec: &FamilySpec) -> Result<Vec<Graph>, Error> {
    spec.anchors.iter().map(|anchor| import::import(&anchor.name, &anchor.read()?)).collect()
}

/// Compiles a family.
///
/// # Errors
/// The first stage that refuses.
pub fn compile(spec: &FamilySpec, options: Options, progress: &dyn Progress) -> Result<Compiled, Error> {
    /// Ends here if the caller wanted no more.
    macro_rules! stop_after {
        ($stage:ident, $text:expr) => {
            if options.stop_after == Stage::$stage {
                return Ok(Compiled::Stopped($text));
            }
        };
    }
    let begin = |stage: Stage, steps: usize| progress.stage(stage, steps as u64);
    let advance = || progress.advance();
    let listed = |graphs: &[Graph]| graphs.iter().map(ToString::to_string).collect();

    begin(Stage::Import, 0);
    let graphs = imported(spec)?;
    stop_after!(Import, listed(&graphs));
    begin(Stage::Simplify, 0);
    let graphs = graphs.into_iter().map(simplify::simplify).collect::<Result<Vec<_>, _>>()?;
    stop_after!(Simplify, listed(&graphs));
    check_shapes(spec, &graphs)?;
    begin(Stage::Cut, 0);
    let blocks = cut::cut(graphs, &spec.stitch)?;
    stop_after!(Cut, text::print_blocks(&blocks));
    if let Some(head) = &spec.detector {
        return detector::compile(spec, &head.head, &blocks, &options, progress);
    }
    let score_images = match &options.scoring {
        Scoring::Given(_, tally) => tally.images,
        _ => options.score_images,
    };
    let data = Data::read(spec, score_images)?;
    for (anchor, blocks) in spec.anchors.iter().zip(&blocks.anchors) {
        verify::float_path(&anchor.read()?, &blocks.graph, &data.samples)?;
    }
    begin(Stage::Learn, blocks.paths.len());
    let learn::Learned { stitched, fits } = stitched(spec, &blocks, &data.samples, &advance)?;
    fits.iter().filter_map(learn::fit::Fit::note).for_each(|note| progress.note(&note));
    stop_after!(Learn, text::print_stitched(&stitched, &fits));
    begin(Stage::Calibrate, stitched.paths.len());
    let calibrated = calibrate::calibrate(stitched, &data.samples, &advance);
    stop_after!(Calibrate, text::print_calibrated(&calibrated));
    begin(Stage::Quantize, 0);
    let pixels = Pixels { mean: spec.input.mean.clone(), std: spec.input.std.clone() };
    let wide = match options.auto16 {
        Some(most) => auto16(spec, &calibrated, most, progress)?,
        None => spec.quantize.wide.clone(),
    };
    let quantized = quantize::quantize(&calibrated, &pixels, &wide)?;
    stop_after!(Quantize, text::print_quantized(&quantized));
    begin(Stage::Place, 0);
    let mut placed = place::place(stream::stream(quantized, spec.streams)?)?;
    stop_after!(Place, text::print_placed(&placed));
    let labels = labels(spec);
    let cost = CostModel::cortex_m4f();
    let emit = |placed: &Placed, measured: &Measured| emit::emit(placed, &labels, &cost, measured);
    let mut measured = self_test(&emit(&placed, &Measured::default())?, &data)?;
    let first = emit(&placed, &measured)?;
    if options.scoring == Scoring::Later {
        begin(Stage::Verify, 0);
        verify::verify(&first)?;
        return Ok(Compiled::Image(first));
    }
    let mut stitched = calibrated.stitched;
    verify::float_paths(&stitched, &FloatPaths::new(&stitched), &data.samples)?;
    let floats = |stitched: &Stitched| {
        begin(Stage::Evaluate, data.test.len());
        evaluate::float_scores(&FloatPaths::new(stitched), &data.test, [&pixels.mean, &pixels.std], &advance)
    };
    measured.images = data.test.len();
    if let Scoring::Given(path, tally) = &options.scoring {
        measured.scores = given(path, tally, &first, &data.test)?;
    } else {
        begin(Stage::Evaluate, data.test.len());
        measured.scores = evaluate::scores(&plan::Image::parse(&first)?, &data.test, &advance)?;
        measured.float_scores = floats(&stitched)?;
    }
    stop_after!(Evaluate, text::print_scores(&placed, &measured));
    begin(Stage::Frontier, 0);
    let choice = choose(&plan::Image::parse(&first)?, &placed, &measured, &spec.limits, emit)?;
    stop_after!(Frontier, choice.to_string());
    let kept = choice.kept();
    frontier::retain(&mut placed, &mut measured, &kept);
    if measured.float_scores.is_empty() {
        // Only of those that ship: an evaluation that was spread over machines has none.
        let mut kept = kept.iter();
        stitched.paths.retain(|_| kept.next().copied().unwrap_or(true));
        measured.float_scores = floats(&stitched)?;
    }
    begin(Stage::Emit, 0);
    let bytes = emit(&placed, &measured)?;
    stop_after!(Emit, text::print_image(&plan::Image::parse(&bytes)?));
    begin(Stage::Verify, 0);
    verify::verify(&bytes)?;
    Ok(Compiled::Image(bytes))
}

/// How far each tensor of a config is from float, on the first test pictures: the stages up to `emit`, all configs kept.
///
/// # Errors
/// The first stage that refuses; [`Error::Family`] if there is no such config.
pub fn layers(spec: &FamilySpec, config: &str, pictures: usize, progress: &dyn Progress) -> Result<Vec<Layer>, Error> {
    let begin = |stage: Stage, steps: usize| progress.stage(stage, steps as u64);
    begin(Stage::Cut, 0);
    let blocks = blocks(spec)?;
    let data = Data::read(spec, pictures)?;
    begin(Stage::Learn, blocks.paths.len());
    let stitched = stitched(spec, &blocks, &data.samples, &|| progress.advance())?.stitched;
    let names: Vec<&str> = stitched.paths.iter().map(|path| &path.name[..]).collect();
    let Some(number) = names.iter().position(|&name| name == config) else {
        return Err(Error::Family(format!("no config is called `{config}`; there are {}", names.join(", "))));
    };
    begin(Stage::Calibrate, stitched.paths.len());
    let calibrated = calibrate::calibrate(stitched, &data.samples, &|| progress.advance());
    begin(Stage::Quantize, 0);
    let pixels = Pixels { mean: spec.input.mean.clone(), std: spec.input.std.clone() };
    let quantized = quantize::quantize(&calibrated, &pixels, &spec.quantize.wide)?;
    begin(Stage::Place, 0);
    let placed = place::place(quantized)?;
    let labels = labels(spec);
    let bytes = emit::emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default())?;
    let pictures = first_pictures(&data.test, pictures)?;
    layers::layers(&calibrated, &placed.quantized, &bytes, number, &pixels, &pictures)
}

/// The tensors of 16 bits with which no config loses more than `most` points against float on the calibration images:
/// test images are not there to choose by.
fn auto16(
    spec: &FamilySpec,
    calibrated: &Calibrated,
    most: f64,
    progress: &dyn Progress,
) -> Result<Vec<String>, Error> {
    let shape = [spec.input.height, spec.input.width, spec.input.channels];
    let judges = Sheets::open(&spec.data.calibration, shape, spec.labels.len())?;
    let (stitched, advance) = (&calibrated.stitched, || progress.advance());
    let pixels = Pixels { mean: spec.input.mean.clone(), std: spec.input.std.clone() };
    let labels = labels(spec);
    let integers = |wide: &[String]| {
        let placed = place::place(quantize::quantize(calibrated, &pixels, wide)?)?;
        let bytes = emit::emit(&placed, &labels, &CostModel::cortex_m4f(), &Measured::default())?;
        Ok::<_, Error>((placed, bytes))
    };
    progress.stage(Stage::Quantize, stitched.paths.len() as u64);
    let first = first_pictures(&judges, AUTO16_PICTURES)?;
    let (placed, bytes) = integers(&spec.quantize.wide)?;
    let mut found = vec![];
    for number in 0..stitched.paths.len() {
        found.extend(layers::layers(calibrated, &placed.quantized, &bytes, number, &pixels, &first)?);
        progress.advance();
    }
    let mut candidates = auto16::noisiest_first(quantize::elements::candidates(stitched), &found);
    candidates.retain(|name| !spec.quantize.wide.contains(name));
    progress.stage(Stage::Evaluate, judges.len() as u64);
    let floats = evaluate::float_scores(&FloatPaths::new(stitched), &judges, [&pixels.mean, &pixels.std], &advance)?;
    let wide = auto16::choose(&spec.quantize.wide, &candidates, most, |wide| {
        progress.stage(Stage::Evaluate, judges.len() as u64);
        let (_, bytes) = integers(wide)?;
        let scores = evaluate::scores(&plan::Image::parse(&bytes)?, &judges, &advance)?;
        let lost = floats.iter().zip(&scores).map(|(&float, &integer)| (f64::from(float) - f64::from(integer)) / 100.0);
        Ok(lost.fold(0.0, f64::max))
    })?;
    progress.note(&format!("--auto16 {most}: [quantize] wide = {wide:?}"));
    Ok(wide)
}

/// The family before any fine-tuning.
///
/// # Errors
/// What `learn` refuses.
pub fn fitted(
    spec: &FamilySpec,
    blocks: &Blocks,
    samples: &[Vec<f32>],
    advance: &(dyn Fn() + Sync),
) -> Result<learn::Learned, Error> {
    let StitchSpec { start, ridge, corrections, .. } = spec.stitch;
    learn::learn(blocks, samples, learn::Options { start, ridge, rounded: true, corrections }, advance)
}

/// The family with its stitches: as they were learned, or as they are fitted now.
fn stitched(
    spec: &FamilySpec,
    blocks: &Blocks,
    samples: &[Vec<f32>],
    advance: &(dyn Fn() + Sync),
) -> Result<learn::Learned, Error> {
    match &spec.stitch.learned {
        Some(file) => Ok(learn::Learned { stitched: learned(spec, blocks, file)?, fits: vec![] }),
        None => fitted(spec, blocks, samples, advance),
    }
}

/// The family as a file of learned weights has it.
///
/// # Errors
/// What [`learn::learned::read`] refuses.
pub fn learned(spec: &FamilySpec, blocks: &Blocks, file: &Path) -> Result<Stitched, Error> {
    let mut stitched = learn::random(blocks, 0);
    learn::learned::read(file, &mut stitched, anchors_checksum(spec)?)?;
    Ok(stitched)
}

/// Checksum of the anchors' files, in order.
///
/// # Errors
/// [`Error::File`].
pub fn anchors_checksum(spec: &FamilySpec) -> Result<u32, Error> {
    let files = spec.anchors.iter().map(AnchorSpec::read).collect::<Result<Vec<_>, _>>()?;
    Ok(plan::crc32(files.iter().flatten()))
}

/// The anchors of a family, cut and matched.
///
/// # Errors
/// What `import`, `simplify` and `cut` refuse; [`Error::Family`] where description and networks disagree.
pub fn blocks(spec: &FamilySpec) -> Result<Blocks, Error> {
    let graphs = imported(spec)?.into_iter().map(simplify::simplify).collect::<Result<Vec<_>, _>>()?;
    check_shapes(spec, &graphs)?;
    cut::cut(graphs, &spec.stitch)
}

/// The configs to ship, so that the bytes that `emit` makes of them are within the limits. `first` has all configs.
fn choose(
    first: &plan::Image<'_>,
    placed: &Placed,
    measured: &Measured,
    limits: &Limits,
    emit: impl Fn(&Placed, &Measured) -> Result<Vec<u8>, Error>,
) -> Result<frontier::Choice, Error> {
    for id in (0..first.meta().anchors).map(plan::ConfigId) {
        let anchor = first.config(id);
        if let Some(limit) = limits.arena_bytes.filter(|&limit| anchor.arena_bytes > limit) {
            return Err(Error::Family(format!(
                "anchor `{}` needs an arena of {} bytes, limits.arena_bytes is {limit}; raise it or drop the anchor",
                first.config_name(id),
                anchor.arena_bytes
            )));
        }
    }
    if let Some(limit) = limits.configs.filter(|&limit| limit < first.meta().anchors.into()) {
        let anchors = first.meta().anchors;
        return Err(Error::Family(format!(
            "all {anchors} anchors ship, limits.configs is {limit}; raise it or drop anchors"
        )));
    }
    let mut aim = limits.flash_bytes;
    loop {
        let choice = frontier::choose(first, &measured.scores, Limits { flash_bytes: aim, ..*limits });
        let Some(limit) = limits.flash_bytes else { return Ok(choice) };
        let (mut placed, mut measured) = (placed.clone(), measured.clone());
        let kept = choice.kept();
        frontier::retain(&mut placed, &mut measured, &kept);
        let needed = emit(&placed, &measured)?.len() as u64;
        if needed <= limit {
            return Ok(choice);
        }
        if placed.quantized.paths.len() == placed.quantized.anchors.len() {
            return Err(Error::Family(format!(
                "the anchors alone need {needed} bytes of flash, limits.flash_bytes is {limit}; raise it or drop an anchor"
            )));
        }
        // The estimate was too low by this much.
        aim = aim.map(|aim| aim.saturating_sub(needed - limit));
    }
}

/// Pictures of a family.
struct Data {
    /// Normalised calibration images, `[H, W, C]` each.
    samples: Vec<Vec<f32>>,
    /// Test images, as many as the scores are taken from; read as they are needed.
    test: Sheets,
}

impl Data {
    fn read(spec: &FamilySpec, score_images: usize) -> Result<Self, Error> {
        let shape = [spec.input.height, spec.input.width, spec.input.channels];
        let calibration = ImageSet::read(&spec.data.calibration, shape, spec.labels.len())?;
        let test = Sheets::open(&spec.data.test, shape, spec.labels.len())?.first(score_images);
        if test.is_empty() {
            return Err(Error::TooFewImages { stage: "evaluate", found: 0, needed: 1 });
        }
        let normalised = |number| calibration.normalised(number, &spec.input.mean, &spec.input.std);
        Ok(Self { samples: (0..calibration.len()).map(normalised).collect(), test })
    }
}

/// Pixels of the first pictures, `[H, W, C]` each.
fn first_pictures(sheets: &Sheets, count: usize) -> Result<Vec<Vec<u8>>, Error> {
    let set = sheets.batches(count, |_| true).next().transpose()?;
    Ok(set.iter().flat_map(|set| (0..set.len()).map(|number| set.image(number).to_vec())).collect())
}

/// Input and outputs of the self test of an image without one.
fn self_test(bytes: &[u8], data: &Data) -> Result<Measured, Error> {
    let image = plan::Image::parse(bytes)?;
    let channels = usize::from(image.cut(image.meta().input).shape[2]);
    let pixel = |(index, &value): (usize, &u8)| image.preprocess((index % channels) as u16)[usize::from(value)] as i8;
    let first = data.test.batches(1, |_| true).next().transpose()?;
    let input: Vec<i8> = first.iter().flat_map(|first| first.image(0).iter().enumerate().map(pixel)).collect();
    let outputs = verify::agreed_outputs(&image, &input)?;
    Ok(Measured { input, outputs, ..Measured::default() })
}

/// The scores of an evaluation, if it is one of this image and these pictures, and whole.
fn given(path: &Path, tally: &Tally, image: &[u8], test: &Sheets) -> Result<Vec<u16>, Error> {
    let expected = Tally::new(&plan::Image::parse(image)?, test.checksum()?, test.len(), Shard::ALL);
    let refuse = |what: String| {
        let how = "`compile --unscored` writes the image to evaluate, `merge` puts shards together";
        Error::Content { path: path.into(), what: format!("{what}; {how}") }
    };
    tally.same_run(&expected).map_err(refuse)?;
    if !tally.is_complete() {
        return Err(refuse(format!("{} of {} pictures are done", tally.done, tally.images)));
    }
    Ok(tally.scores())
}

/// The description and the networks must agree before data is read.
fn check_shapes(spec: &FamilySpec, graphs: &[Graph]) -> Result<(), Error> {
    let described = [spec.input.height, spec.input.width, spec.input.channels];
    for graph in graphs {
        let (input, output) = (graph.tensors[graph.input], graph.tensors[graph.output]);
        if input != described {
            let name = &graph.name;
            return Err(Error::Family(format!(
                "the input of `{name}` is {input:?} [H, W, C], [input] says {described:?}"
            )));
        }
        if spec.detector.is_none() && !graph.taps.is_empty() {
            let (name, outputs) = (&graph.name, graph.taps.len() + 1);
            return Err(Error::Family(format!(
                "`{name}` has {outputs} outputs; one is expected, or a [detector] that reads them"
            )));
        }
        if spec.detector.is_none() && output != [1, 1, spec.labels.len()] {
            let (name, labels) = (&graph.name, spec.labels.len());
            return Err(Error::Family(format!(
                "the output of `{name}` is {output:?} [H, W, C], `labels` has {labels} names: [1, 1, {labels}] is expected"
            )));
        }
    }
    for pair in graphs.windows(2) {
        if pair[0].macs() > pair[1].macs() {
            return Err(Error::Family(format!(
                "anchor `{}` has {} MACs and comes before `{}` with {}; list them in increasing order of cost",
                pair[0].name,
                pair[0].macs(),
                pair[1].name,
                pair[1].macs()
            )));
        }
    }
    Ok(())
}
