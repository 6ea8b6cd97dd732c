//! Tensor by tensor: how far the integers of one config are from float, and what to do about the worst.

use std::collections::BTreeMap;
use std::fmt;

use plan::{ConfigId, Element, Image, OpId};
use runtime::{Engine, Progress};

use crate::error::Error;
use crate::float;
use crate::images::normalised;
use crate::network::{Calibrated, Path, Quantized};
use crate::quantize::Pixels;

/// Tensors that the text lists with advice.
const WORST: usize = 10;
/// A tensor that is no more than this much noisier than what it was computed from has its noise from there, decibels.
const INHERITED: f64 = 1.5;
/// A channel so many times as large as the median one leaves few steps to the others.
const SPREAD: f32 = 8.0;

/// One tensor of a config.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `segment:node`, as `[quantize] wide` takes it.
    pub name: String,
    /// What computes it.
    pub op: &'static str,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// int8 or int16.
    pub element: Element,
    /// Whether it lies at a cut.
    pub cut: bool,
    /// Power of the signal over that of the difference to float, decibels.
    pub ratio: f64,
    /// Cosine between integers and float.
    pub cosine: f64,
    /// Part of the values that the range does not hold.
    pub cut_off: f64,
    /// The largest channel over the median one.
    pub spread: f32,
    /// The noisiest of what it was computed from.
    pub source: Option<f64>,
}

/// Sums behind a [`Layer`].
#[derive(Clone, Copy, Default)]
struct Sums {
    float: f64,
    integer: f64,
    product: f64,
    difference: f64,
    cut_off: usize,
    values: usize,
}

/// Runs config `number` of an image with all of a family's configs on pictures `[H, W, C]`, in integers and in float.
///
/// # Errors
/// [`Error::Image`], [`Error::Run`] from the runtime.
pub fn layers(
    calibrated: &Calibrated,
    quantized: &Quantized,
    bytes: &[u8],
    number: usize,
    pixels: &Pixels,
    pictures: &[Vec<u8>],
) -> Result<Vec<Layer>, Error> {
    let image = Image::parse(bytes)?;
    let path = &calibrated.stitched.paths[number];
    // Per step of the path and tensor of the float segment.
    let mut sums: BTreeMap<(usize, usize), Sums> = BTreeMap::new();
    for picture in pictures {
        let floats = in_float(calibrated, path, pixels, picture);
        for ((step, tensor), integers) in in_integers(&image, quantized, number, picture)? {
            let float = &floats[step][tensor];
            let sums = sums.entry((step, tensor)).or_default();
            for (&float, &integer) in float.iter().zip(&integers.values) {
                let [least, largest] = integers.range;
                let cut_off = float < least || float > largest;
                let (float, integer) = (f64::from(float), f64::from(integer));
                sums.float += float * float;
                sums.integer += integer * integer;
                sums.product += float * integer;
                sums.difference += (float - integer) * (float - integer);
                sums.cut_off += usize::from(cut_off);
            }
            sums.values += float.len();
        }
    }
    let ratio = |sums: &Sums| 10.0 * (sums.float.max(f64::MIN_POSITIVE) / sums.difference.max(1e-30)).log10();
    let mut result = vec![];
    for (&(step, tensor), found) in &sums {
        let segment = &calibrated.stitched.segments[path.segments[step]];
        let integers = &quantized.segments[path.segments[step]];
        let Some(node) = segment.nodes.iter().find(|node| node.output == tensor) else { continue };
        let Some(local) = integers.stands_for.iter().position(|&float| float == Some(tensor)) else { continue };
        let sources = node.inputs.iter().filter_map(|&input| sums.get(&(step, input)).map(ratio));
        let mut channels = calibrated.channels[path.segments[step]][tensor].clone();
        channels.sort_by(f32::total_cmp);
        let (largest, median) = (channels.last().copied().unwrap_or(0.0), channels[channels.len() / 2]);
        result.push(Layer {
            name: format!("{}:{}", segment.name, node.name),
            op: node.op.name(),
            shape: segment.tensors[tensor],
            element: integers.tensors[local].1.element,
            cut: tensor == segment.output,
            ratio: ratio(found),
            cosine: found.product / (found.float * found.integer).sqrt().max(f64::MIN_POSITIVE),
            cut_off: found.cut_off as f64 / found.values.max(1) as f64,
            spread: largest / median.max(f32::MIN_POSITIVE),
            source: sources.min_by(f64::total_cmp),
        });
    }
    Ok(result)
}

/// All tensors of each segment of a path.
fn in_float(calibrated: &Calibrated, path: &Path, pixels: &Pixels, picture: &[u8]) -> Vec<Vec<Vec<f32>>> {
    let channels = pixels.mean.len();
    let normal =
        |(index, &pixel): (usize, &u8)| normalised(pixel, pixels.mean[index % channels], pixels.std[index % channels]);
    let mut value: Vec<f32> = picture.iter().enumerate().map(normal).collect();
    let mut all = vec![];
    for &number in &path.segments {
        let segment = &calibrated.stitched.segments[number];
        let corrections = path.corrections.iter().filter(|correction| correction.segment == number);
        let biases: BTreeMap<usize, &[f32]> = corrections.map(|c| (c.node, &c.bias[..])).collect();
        let tensors =
            float::run_with(&segment.nodes, &segment.tensors, segment.input, value, |node| biases.get(&node).copied());
        value = tensors[segment.output].clone();
        all.push(tensors);
    }
    all
}

/// What the integers of a tensor stand for.
struct Real {
    values: Vec<f32>,
    /// What they could stand for, a step more at each end.
    range: [f32; 2],
}

/// By step of the path and tensor of the float segment.
type Reals = BTreeMap<(usize, usize), Real>;

fn in_integers(image: &Image<'_>, quantized: &Quantized, number: usize, picture: &[u8]) -> Result<Reals, Error> {
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(kernels::arch::Scalar, *image, &mut arena)?;
    engine.preprocess(picture)?;
    engine.begin(ConfigId(number as u16))?;
    let path = &quantized.paths[number];
    let mut reals = BTreeMap::new();
    for (step, &segment) in path.segments.iter().enumerate() {
        let first = image.segment(plan::SegmentId(segment as u16)).first_tensor;
        let watch = |op: OpId, written: &[i8]| {
            let id = image.op(op).output;
            let local = usize::from(id.0 - first);
            if let Some(tensor) = quantized.segments[segment].stands_for[local] {
                // An op that writes a part comes again with the next one.
                reals.insert((step, tensor), real(&image.tensor(id), written));
            }
        };
        if engine.step_watched(watch)? == Progress::Done {
            break;
        }
    }
    Ok(reals)
}

fn real(tensor: &plan::Tensor, bytes: &[i8]) -> Real {
    let scale = f32::from_bits(tensor.scale_bits);
    let value = |integer: i32| scale * (integer - i32::from(tensor.zero_point)) as f32;
    let (values, [least, largest]) = match tensor.element {
        Element::Int16 => {
            let pairs = bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0] as u8, pair[1] as u8]));
            (pairs.map(|integer| value(integer.into())).collect(), [i16::MIN, i16::MAX].map(i32::from))
        }
        _ => (bytes.iter().map(|&byte| value(byte.into())).collect(), [-128, 127]),
    };
    Real { values, range: [value(least - 1), value(largest + 1)] }
}

impl Layer {
    /// What to do about its noise.
    fn advice(&self) -> String {
        let inherited = self.source.is_some_and(|source| source - self.ratio <= INHERITED);
        if inherited {
            "has it from what it is computed from: look there".into()
        } else if self.cut_off > 0.01 {
            format!("its range cuts off {:.1} % of the values: calibrate on more pictures", 100.0 * self.cut_off)
        } else if self.element == Element::Int8 && self.spread > SPREAD {
            format!("one channel is {:.0} times the median one: 16 bits", self.spread)
        } else if self.element == Element::Int8 {
            "rounding to 8 bits: 16 bits if it matters".into()
        } else {
            "rounding inside the operation".into()
        }
    }
}

/// The table of a config, then its worst tensors with advice.
pub struct Text<'a>(pub &'a [Layer]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max(6);
        writeln!(f, "{:<width$}  {:<10} {:<14} bits  signal/noise  cosine", "tensor", "op", "shape")?;
        for layer in self.0 {
            let [height, width_of_map, channels] = layer.shape;
            let shape = format!("{height}x{width_of_map}x{channels}");
            let bits = 8 * layer.element.bytes();
            let mark = if layer.cut { "  at a cut" } else { "" };
            let (name, op, ratio, cosine) = (&layer.name, layer.op, layer.ratio, layer.cosine);
            writeln!(f, "{name:<width$}  {op:<10} {shape:<14} {bits:>4}  {ratio:>9.1} dB  {cosine:.5}{mark}")?;
        }
        let mut worst: Vec<&Layer> = self.0.iter().collect();
        worst.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        writeln!(f, "\nNoisiest tensors:")?;
        for layer in worst.into_iter().take(WORST) {
            writeln!(f, "  {:>6.1} dB  {}: {}", layer.ratio, layer.name, layer.advice())?;
        }
        let cuts = self.0.iter().filter(|layer| layer.cut).min_by(|a, b| a.cosine.total_cmp(&b.cosine));
        cuts.map_or(Ok(()), |layer| writeln!(f, "Least cosine at a cut: {:.5}, {}", layer.cosine, layer.name))
    }
}
