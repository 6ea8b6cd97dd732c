//! The whole job, one stage a line.

use std::fmt::Write as _;

use crate::cost::CostModel;
use crate::cut::Blocks;
use crate::emit::{Labels, Measured};
use crate::error::Error;
use crate::family::FamilySpec;
use crate::graph::Graph;
use crate::images::ImageSet;
use crate::network::{Calibrated, Placed, Quantized, Stitched};
use crate::quantize::Pixels;
use crate::{calibrate, cut, emit, evaluate, import, learn, place, quantize, simplify, verify};

/// Where a person sees how far it is.
pub trait Progress: Sync {
    /// A stage begins, with so many steps (0: unknown).
    fn stage(&self, stage: Stage, steps: u64);
    /// A step is done.
    fn advance(&self);
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
    /// Scores of every config.
    Evaluate,
    /// Bytes that were parsed back and run.
    Verify,
}

/// Limits that a caller sets.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Test images behind the scores.
    pub score_images: usize,
    /// Last stage to run.
    pub stop_after: Stage,
}

/// What the pipeline leaves: the image, or the text form of the stage it stopped after.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// An image that was verified.
    Image(Vec<u8>),
    /// Text of an earlier stage.
    Stopped(String),
}

/// Anchors as graphs in canonical form.
///
/// # Errors
/// What `import` and `simplify` refuse; unreadable files.
pub fn graphs(spec: &FamilySpec) -> Result<Vec<Graph>, Error> {
    spec.anchors
        .iter()
        .map(|anchor| {
            let bytes =
                std::fs::read(&anchor.file).map_err(|source| Error::File { path: anchor.file.clone(), source })?;
            simplify::simplify(import::import(&anchor.name, &bytes)?)
        })
        .collect()
}

/// Compiles a family.
///
/// # Errors
/// The first stage that refuses.
pub fn compile(spec: &FamilySpec, options: Options, progress: &dyn Progress) -> Result<Compiled, Error> {
    let stopped = |stage: Stage| options.stop_after == stage;
    let begin = |stage: Stage, steps: usize| progress.stage(stage, steps as u64);
    let advance = || progress.advance();

    begin(Stage::Import, 0);
    let graphs = graphs(spec)?;
    if stopped(Stage::Import) || stopped(Stage::Simplify) {
        return Ok(Compiled::Stopped(graphs.iter().map(ToString::to_string).collect()));
    }
    check_shapes(spec, &graphs)?;
    begin(Stage::Cut, 0);
    let blocks = cut::cut(graphs, spec.stitch.direction)?;
    if stopped(Stage::Cut) {
        return Ok(Compiled::Stopped(print_blocks(&blocks)));
    }
    let shape = [spec.input.height, spec.input.width, spec.input.channels];
    let calibration = ImageSet::read(&spec.data.calibration, shape, spec.labels.len())?;
    let test = ImageSet::read(&spec.data.test, shape, spec.labels.len())?.first(options.score_images);
    let normalised = |images: &ImageSet| -> Vec<Vec<f32>> {
        let values = images.normalised(&spec.input.mean, &spec.input.std);
        values.chunks(shape.iter().product()).map(<[f32]>::to_vec).collect()
    };
    let samples = normalised(&calibration);
    begin(Stage::Learn, blocks.pairs.len());
    let learning = learn::Options { ridge: spec.stitch.ridge, corrections: spec.stitch.corrections };
    let stitched = learn::learn(&blocks, &samples, learning, &advance)?;
    if stopped(Stage::Learn) {
        return Ok(Compiled::Stopped(print_stitched(&stitched)));
    }
    begin(Stage::Calibrate, stitched.paths.len());
    let calibrated = calibrate::calibrate(stitched, &samples, &advance);
    if stopped(Stage::Calibrate) {
        return Ok(Compiled::Stopped(print_calibrated(&calibrated)));
    }
    begin(Stage::Quantize, 0);
    let pixels = Pixels { mean: spec.input.mean.clone(), std: spec.input.std.clone() };
    let quantized = quantize::quantize(&calibrated, &pixels)?;
    if stopped(Stage::Quantize) {
        return Ok(Compiled::Stopped(print_quantized(&quantized)));
    }
    begin(Stage::Place, 0);
    let placed = place::place(quantized)?;
    if stopped(Stage::Place) {
        return Ok(Compiled::Stopped(print_placed(&placed)));
    }
    let labels = Labels { family: spec.name.clone(), classes: spec.labels.clone() };
    let cost = CostModel::cortex_m4f();
    let first = emit::emit(&placed, &labels, &cost, &Measured::default())?;
    let measured = measure(&first, &calibrated.stitched, &test, &normalised(&test), progress)?;
    begin(Stage::Verify, 0);
    let bytes = emit::emit(&placed, &labels, &cost, &measured)?;
    verify::verify(&bytes)?;
    Ok(Compiled::Image(bytes))
}

/// Scores and self test of an image without them.
fn measure(
    bytes: &[u8],
    stitched: &Stitched,
    test: &ImageSet,
    normalised: &[Vec<f32>],
    progress: &dyn Progress,
) -> Result<Measured, Error> {
    let image = plan::Image::parse(bytes)?;
    progress.stage(Stage::Evaluate, 2 * test.len() as u64);
    let advance = || progress.advance();
    let scores = evaluate::integer_scores(&image, test, &advance)?;
    let float_scores = evaluate::float_scores(stitched, normalised, &test.labels, &advance);
    let channels = usize::from(image.cut(image.meta().input).shape[2]);
    let pixel = |(index, &value): (usize, &u8)| image.preprocess((index % channels) as u16)[usize::from(value)] as i8;
    let input: Vec<i8> = test.image(0).iter().enumerate().map(pixel).collect();
    let outputs = verify::agreed_outputs(&image, &input)?;
    Ok(Measured { images: test.len(), scores, float_scores, input, outputs })
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
        let classes = output.iter().product::<usize>();
        if classes != spec.labels.len() {
            let (name, labels) = (&graph.name, spec.labels.len());
            return Err(Error::Family(format!("`{name}` gives {classes} scores, `labels` has {labels} names")));
        }
    }
    Ok(())
}

/// Cuts, blocks and pairs as text.
#[must_use]
pub fn print_blocks(blocks: &Blocks) -> String {
    let mut text = String::new();
    for anchor in &blocks.anchors {
        let graph = &anchor.graph;
        let _ = writeln!(text, "{}: {} MACs, {} parameters", graph.name, graph.macs(), graph.parameters());
        for (block, nodes) in anchor.blocks.iter().enumerate() {
            let macs: u64 = nodes.iter().map(|&node| graph.nodes[node].macs(&graph.tensors)).sum();
            let (from, to) = (anchor.cuts[block].shape, anchor.cuts[block + 1].shape);
            let _ = writeln!(text, "  block {block:<3} {from:?} -> {to:?}  {} nodes, {macs} MACs", nodes.len());
        }
    }
    for pair in &blocks.pairs {
        let name = |anchor: usize| &blocks.anchors[anchor].graph.name;
        let _ = writeln!(
            text,
            "stitch {}: after {} blocks -> {}: from block {}",
            name(pair.front),
            pair.front_cut,
            name(pair.back),
            pair.back_cut
        );
    }
    text
}

fn print_stitched(stitched: &Stitched) -> String {
    let mut text = String::new();
    for path in &stitched.paths {
        let segments: Vec<&str> = path.segments.iter().map(|&s| &stitched.segments[s].name[..]).collect();
        let _ = writeln!(text, "{}: {} corrections; {}", path.name, path.corrections.len(), segments.join(" "));
    }
    text
}

fn print_calibrated(calibrated: &Calibrated) -> String {
    let mut text = String::new();
    for (segment, extents) in calibrated.stitched.segments.iter().zip(&calibrated.tensors) {
        for (tensor, extent) in extents.iter().enumerate() {
            let _ = writeln!(text, "{} t{tensor}: {:.4} .. {:.4}", segment.name, extent.min, extent.max);
        }
    }
    text
}

fn print_quantized(quantized: &Quantized) -> String {
    let mut text = String::new();
    for segment in &quantized.segments {
        for (op, found) in segment.ops.iter().enumerate() {
            let (shape, quant) = segment.tensors[found.record.output.index()];
            let (kind, scale, zero) = (found.record.kind, quant.scale, quant.zero_point);
            let _ = writeln!(text, "{} op {op}: {kind:?} -> {shape:?} scale {scale:e} zero {zero}", segment.name);
        }
    }
    text
}

fn print_placed(placed: &Placed) -> String {
    let mut text = String::new();
    for (segment, placement) in placed.quantized.segments.iter().zip(&placed.placements) {
        let (peak, live) = (placement.peak_bytes, placement.live_bytes);
        let _ = writeln!(text, "{}: arena {peak}, alive {live}, offsets {:?}", segment.name, placement.offsets);
    }
    text
}
