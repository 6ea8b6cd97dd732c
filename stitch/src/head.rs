//! The head of a detector: a file of float tensors becomes one more segment, behind the backbone and shared by all configs.
//!
//! `docs/detector.md` numbers the steps and names the tensors; `models/recipe/export_detector.py` writes the file, with the range of
//! each intermediate map as it was seen on calibration pictures. Maps of patches and boxes have room for the most that there can be:
//! `[most, 1, channels]`.

mod builder;
mod file;
mod numbers;

use ndarray::Array4;
use plan::layout::{
    AT_PATCHES, DETECTION_LEN, IF_PATCHES, MAX_BOXES, MAX_DETECTIONS, MIX_BOXES, PER_BOX, PER_PATCH, POOL_BOXES,
    REFINES, WITH_BIAS_MAP,
};
use plan::{Element, OpKind};

use crate::error::Error;
use crate::network::{Constants, Cut, Extent, IntegerSegment, Kind, Quant, Quantized};
use crate::quantize::ranges::{narrow, wide};
use builder::{Builder, Layer, Norm, Rows, integers};
pub use file::HeadFile;
use numbers::{Geometry, Kinds};

/// Step of logits, deltas and offsets: 12 fraction bits.
const Q12: Quant = Quant { scale: 1.0 / 4096.0, zero_point: 0, element: Element::Int16 };
/// Step of a position code: 14 fraction bits.
const Q14: Quant = Quant { scale: 1.0 / 16_384.0, zero_point: 0, element: Element::Int16 };
/// What a normalised value is cut off at between the two products of a mixing.
const INNER_LARGEST: f32 = 6.0;

/// ln(0.01 / 0.99), Q12: probabilities below are not looked at.
const SUPPRESS_FLOOR: i16 = -18_822;
/// 0.6, Q15.
const SUPPRESS_OVERLAP: i16 = 19_661;

/// int16 that covers a range eight times. What it is rescaled from has 8 bits, so 12 bits are enough, and rescales then shift by
/// more than 32 bits, for which a 32-bit core needs one word.
fn roomy(extent: Extent) -> Quant {
    let quant = wide(extent);
    Quant { scale: 4.0 * quant.scale, ..quant }
}

/// Appends the head to a family whose output and kept maps are the head's lateral maps, the coarsest last.
///
/// # Errors
/// [`Error::Content`] where the file lacks a tensor or has another shape; [`Error::Family`] if the laterals are not those of the
/// head.
pub fn append(family: &mut Quantized, file: &HeadFile) -> Result<(), Error> {
    let geometry = Geometry::of(file)?;
    let (coarsest, quant) = (family.cuts[family.output].0.shape, family.cuts[family.output].1);
    let mut laterals = family.kept.clone();
    laterals.push((coarsest, quant));
    for (&(shape, _), &stride) in laterals.iter().zip(&geometry.strides) {
        let cells = geometry.side / stride;
        let expected = [cells, cells, geometry.channels];
        if shape != expected {
            return Err(Error::Family(format!(
                "the lateral map of stride {stride} is {shape:?} [H, W, C], the head in {} reads {expected:?}",
                file.path.display()
            )));
        }
    }
    if laterals.len() != geometry.strides.len() {
        let (found, expected) = (laterals.len(), geometry.strides.len());
        return Err(Error::Family(format!(
            "the networks have {found} outputs, the head reads {expected}; export them anew"
        )));
    }
    let mut build = Builder::new(file);
    let laterals: Vec<usize> = laterals.iter().map(|&(shape, quant)| build.tensor(shape, quant)).collect();
    let maps = neck(&mut build, &geometry, &laterals)?;
    let detections = if geometry.kind == Kinds::Dense {
        dense(&mut build, &geometry, &maps)?
    } else {
        let raw = generator(&mut build, &geometry, &maps)?;
        boxes(&mut build, &geometry, &maps, raw)?
    };
    let (from, to) = (family.output, family.cuts.len());
    let output = build.tensors[detections];
    let position = to;
    family.cuts.push((Cut { shape: output.0, anchor: None, position }, output.1));
    let keeps = laterals.iter().copied().take(laterals.len() - 1).enumerate().collect();
    let segment = IntegerSegment {
        kind: Kind::Block,
        name: "head".into(),
        from,
        to,
        held: std::collections::BTreeMap::new(),
        in_place: vec![],
        stands_for: vec![None; build.tensors.len()],
        tensors: build.tensors,
        ops: build.ops,
        input: laterals[laterals.len() - 1],
        output: detections,
        keeps,
    };
    let number = family.segments.len();
    family.segments.push(segment);
    family.paths.iter_mut().for_each(|path| path.segments.push(number));
    let caps =
        if geometry.kind == Kinds::Dense { [0, MAX_BOXES] } else { [geometry.patches as u16, geometry.boxes as u16] };
    (family.output, family.caps) = (to, caps);
    Ok(())
}

/// Steps 1 and 2: the maps, finest first.
fn neck(build: &mut Builder<'_>, geometry: &Geometry, laterals: &[usize]) -> Result<Vec<usize>, Error> {
    let mut sums = laterals.to_vec();
    for level in (0..sums.len() - 1).rev() {
        let name = format!("sum{}", geometry.strides[level]);
        let above = build.twice(sums[level + 1]);
        let quant = narrow(build.file.range(&name)?);
        sums[level] = build.add(&name, [sums[level], above], quant, Rows::All)?;
    }
    let mut maps = vec![];
    for (&sum, stride) in sums.iter().zip(&geometry.strides) {
        let channels = geometry.channels;
        let name = format!("neck.smooth{stride}.0");
        let weights = build.file.weights(&name, [channels, 3, 3, 1])?;
        let quant = narrow(build.file.range(&format!("smooth{stride}.0"))?);
        let layer = Layer { weights, pad: [1; 4], stride: 1, groups: channels, ..Layer::new(&name) };
        let middle = build.conv(layer, sum, quant)?;
        let name = format!("neck.smooth{stride}.1");
        let weights = build.file.weights(&name, [channels, 1, 1, channels])?;
        let quant = narrow(build.file.range(&format!("smooth{stride}.1"))?);
        maps.push(build.conv(Layer { weights, ..Layer::new(&name) }, middle, quant)?);
    }
    Ok(maps)
}

/// The dense head: two depthwise-separable blocks and a prediction for each map, then suppression.
fn dense(build: &mut Builder<'_>, geometry: &Geometry, maps: &[usize]) -> Result<usize, Error> {
    let Geometry { channels, classes, .. } = *geometry;
    let scales = build.file.vector("dense.scales", maps.len())?;
    let mut predictions = vec![];
    for ((&map, stride), scale) in maps.iter().zip(&geometry.strides).zip(scales) {
        let mut values = map;
        for block in 0..2 {
            let name = format!("dense{stride}.{block}.0");
            let weights = build.file.weights(&name, [channels, 3, 3, 1])?;
            let quant = narrow(build.file.range(&name)?);
            let layer = Layer { weights, pad: [1; 4], groups: channels, ..Layer::new(&name) };
            values = build.conv(layer, values, quant)?;
            let name = format!("dense{stride}.{block}.1");
            let weights = build.file.weights(&name, [channels, 1, 1, channels])?;
            let quant = narrow(build.file.range(&name)?);
            values = build.conv(Layer { weights, relu: true, ..Layer::new(&name) }, values, quant)?;
        }
        let name = "dense.predict";
        let mut weights = build.file.weights(name, [classes + 4, 1, 1, channels])?;
        let mut bias = build.file.bias(name, classes + 4)?;
        for (side, bias) in bias.iter_mut().enumerate().skip(classes) {
            weights.index_axis_mut(ndarray::Axis(0), side).mapv_inplace(|weight| weight * scale);
            *bias *= scale;
        }
        predictions.push(build.conv(Layer { weights, bias: Some(bias), ..Layer::new(name) }, values, Q12)?);
    }
    let cells: usize = geometry.strides.iter().map(|stride| (geometry.side / stride).pow(2)).sum();
    let bytes = Quant { scale: 1.0, zero_point: 0, element: Element::Int8 };
    let detections = build.tensor([usize::from(MAX_BOXES) + 1, 1, DETECTION_LEN.into()], bytes);
    let mut record = build.op(OpKind::Suppress, &predictions, detections)?;
    record.factors = [(16 * geometry.side) as i32; 2];
    record.origin = [SUPPRESS_FLOOR, SUPPRESS_OVERLAP, 0];
    build.push_with(record, Constants::Nothing, kernels::suppress_scratch(cells * classes), 0);
    Ok(detections)
}

/// Steps 3 to 14: the predictions of the probed patches; without probing 3 to 10; what the fixed ones say is selected on the way.
fn generator(build: &mut Builder<'_>, geometry: &Geometry, maps: &[usize]) -> Result<usize, Error> {
    let Geometry { compressed, patch, channels, .. } = *geometry;
    let [fine, middle] = [geometry.strides[0], geometry.strides[1]];
    let squeeze = |build: &mut Builder<'_>, stride: usize, input: usize, rows: Rows| {
        let name = format!("generator.compress{stride}.0");
        let weights = build.file.weights(&name, [channels / 2, 1, 1, channels])?;
        let quant = narrow(build.file.range(&format!("compress{stride}.0"))?);
        build.conv(Layer { weights, relu: true, rows, ..Layer::new(&name) }, input, quant)
    };
    let compress = |build: &mut Builder<'_>, stride: usize, input: usize, pad: [usize; 4], rows: Rows| {
        let name = format!("generator.compress{stride}.1");
        let weights = build.file.weights(&name, [compressed, 3, 3, channels / 2])?;
        let quant = roomy(build.file.range(&format!("compress{stride}.1"))?);
        build.conv(Layer { weights, pad, rows, ..Layer::new(&name) }, input, quant)
    };
    let squeezed = squeeze(build, middle, maps[1], Rows::All)?;
    let squeezed = compress(build, middle, squeezed, [1; 4], Rows::All)?;
    let whole = whole(build, geometry, squeezed)?;
    let side = patch as i16;
    let quadrants = [[0, 0], [0, side], [side, 0], [side, side]];
    let quadrants = build.windows("quadrants", squeezed, patch, &quadrants, Rows::All)?;
    let whole = build.windows("whole patch", whole, patch, &[[0, 0]], Rows::All)?;
    let predict = |build: &mut Builder<'_>, cells: usize, stride: usize, kind: &str, rows: Rows| {
        let values = patch * patch * compressed;
        let norm =
            Norm { name: &format!("generator.norm{stride}"), range: &format!("norm{stride}"), relu: false, values };
        let mut tokens = build.norm(norm, cells, rows)?;
        let anchors = if kind == "base" { geometry.base_anchors } else { geometry.probe_anchors };
        let sizes = [values, geometry.generator_hidden, geometry.generator_hidden, 5 * anchors];
        for layer in 0..3 {
            let name = format!("generator.{kind}.{layer}");
            let weights = build.file.weights(&name, [sizes[layer + 1], 1, 1, sizes[layer]])?;
            let last = layer == 2;
            let quant = if last { Q12 } else { narrow(build.file.range(&format!("{kind}.{layer}"))?) };
            tokens = build.conv(Layer { weights, relu: !last, rows, ..Layer::new(&name) }, tokens, quant)?;
        }
        Ok::<usize, Error>(tokens)
    };
    let quadrants = predict(build, quadrants, middle, "base", Rows::All)?;
    let whole = predict(build, whole, middle, "base", Rows::All)?;
    let corners = build.tensor([geometry.patches, 1, 4], Quant { scale: 1.0, zero_point: 0, element: Element::Int8 });
    let record = build.op(OpKind::Select, &[quadrants, whole], corners)?;
    build.push(record, numbers::generator(geometry, build, None)?);
    if geometry.kind == Kinds::NoProbing {
        // Of no patch; `Pool` asks for a map here, and never reads it.
        return Ok(whole);
    }
    // Compressed as a whole: a patch's rim has zeros beyond the map only, which is what windows put there.
    let squeezed = squeeze(build, fine, maps[0], Rows::IfPatches)?;
    let rim = patch + 2;
    let stack = build.tensor([geometry.patches * rim, rim, channels / 2], build.tensors[squeezed].1);
    let mut record = build.op(OpKind::Windows, &[squeezed], stack)?;
    (record.kernel, record.origin) = ([rim as u8; 2], [-1, -1, 0]);
    (record.groups, record.flags) = (geometry.patches as u16, PER_PATCH | AT_PATCHES);
    build.push(record, Constants::Nothing);
    // Two rows below: so each patch has as many rows behind as before, of which the last two are of no use.
    let stack = compress(build, fine, stack, [0, 0, 2, 0], Rows::PerPatch)?;
    let corners: Vec<[i16; 2]> = (0..geometry.patches).map(|number| [(number * rim) as i16, 0]).collect();
    let cells = build.windows("patches", stack, patch, &corners, Rows::PerPatch)?;
    predict(build, cells, fine, "probe", Rows::PerPatch)
}

/// Step 5: 3×3 with a dilation of 2 is 5×5 with zeros.
fn whole(build: &mut Builder<'_>, geometry: &Geometry, squeezed: usize) -> Result<usize, Error> {
    let compressed = geometry.compressed;
    let range = build.file.range("compress16.1")?;
    let positive = narrow(Extent { min: 0.0, max: range.max });
    let input = build.rescale("generator.whole", squeezed, positive, Rows::All)?;
    let name = "generator.whole";
    let narrow_kernel = build.file.weights(name, [compressed, 3, 3, compressed])?;
    let mut weights = Array4::zeros([compressed, 5, 5, compressed]);
    for ((output, row, column, input), &value) in narrow_kernel.indexed_iter() {
        weights[[output, 2 * row, 2 * column, input]] = value;
    }
    let quant = roomy(build.file.range("whole")?);
    build.conv(Layer { weights, pad: [2; 4], stride: 2, ..Layer::new(name) }, input, quant)
}

/// Steps 15 to 29: the detections.
fn boxes(build: &mut Builder<'_>, geometry: &Geometry, maps: &[usize], raw: usize) -> Result<usize, Error> {
    let Geometry { channels, boxes, .. } = *geometry;
    let content = pool(build, geometry, maps, raw)?;
    let mut content = build.box_norm("relation.content_norm", content, false, channels)?;
    let mut deltas = None;
    for part in if geometry.kind == Kinds::Generator { &["relation"][..] } else { &["relation", "stage"] } {
        let attended = attend(build, geometry, part, content, deltas)?;
        content = build.box_norm(&format!("{part}.attention_norm"), attended, false, channels)?;
        if *part == "stage" {
            let mixed = mixed(build, geometry, maps, content)?;
            content = build.box_norm("stage.mixing_norm", mixed, false, channels)?;
        }
        content = feed_forward(build, geometry, part, content)?;
        deltas = Some(predictions(build, &format!("{part}.boxes"), content, geometry.box_layers, [channels, 4])?);
    }
    let part = if geometry.kind == Kinds::Generator { "relation" } else { "stage" };
    let logits = predictions(build, &format!("{part}.classes"), content, 1, [channels, geometry.classes])?;
    let deltas = deltas.unwrap_or(logits);
    let room = (boxes * geometry.classes).min(MAX_DETECTIONS.into());
    let bytes = Quant { scale: 1.0, zero_point: 0, element: Element::Int8 };
    let detections = build.tensor([room + 1, 1, DETECTION_LEN.into()], bytes);
    let mut record = build.op(OpKind::Detect, &[deltas, logits], detections)?;
    record.factors = [(16 * geometry.side) as i32; 2];
    build.push(record, Constants::Nothing);
    Ok(detections)
}

/// Steps 15 to 17, without the norm.
fn pool(build: &mut Builder<'_>, geometry: &Geometry, maps: &[usize], raw: usize) -> Result<usize, Error> {
    let Geometry { channels, boxes, bins, .. } = *geometry;
    let (name, inputs) = ("relation.content", bins * bins * channels);
    // Channel, row, column in the file; row, column, channel in what is pooled.
    let by_channel = build.file.weights(name, [channels, channels, bins * bins, 1])?;
    let weights = by_channel.permuted_axes([0, 2, 1, 3]).as_standard_layout().to_owned();
    let weights = weights.to_shape([channels, 1, 1, inputs]).map_err(|error| build.file.bad(error))?.to_owned();
    let (pooled, to) = (narrow(build.file.range("pooled")?), roomy(build.file.range(name)?));
    let weights = integers(&weights, &build.file.bias(name, channels)?, false, [pooled, to], name)?;
    let content = build.tensor([boxes, 1, channels], to);
    let record = build.op(OpKind::Pool, &[raw, maps[0], maps[1], maps[2]], content)?;
    let numbers = numbers::generator(geometry, build, Some((maps, pooled)))?;
    let together = POOL_BOXES.min(boxes);
    let wide = u16::try_from(inputs)
        .map_err(|_| build.file.bad(format!("{name}: {inputs} values are pooled of a box; 65,535 at most")))?;
    let scratch = together * inputs + kernels::conv_scratch([1; 2], wide, together);
    build.push_layer(record, (weights, numbers), scratch, (boxes * inputs * channels) as u64);
    Ok(content)
}

/// Steps 18 and 19, with the boxes moved by deltas first: content and attention added up, int16.
fn attend(
    build: &mut Builder<'_>,
    geometry: &Geometry,
    part: &str,
    content: usize,
    deltas: Option<usize>,
) -> Result<usize, Error> {
    let Geometry { channels, boxes, heads, .. } = *geometry;
    let code = build.tensor([boxes, 1, channels], Q14);
    let mut record = build.op(OpKind::Position, &[deltas.unwrap_or(content)], code)?;
    record.flags = if deltas.is_some() { REFINES } else { 0 };
    build.push(record, Constants::Bytes(numbers::position_rates(geometry)));
    let quant = roomy(build.file.range(&format!("{part}.sum"))?);
    let sum = build.add(&format!("{part}.sum"), [content, code], quant, Rows::PerBox)?;
    let input = build.rescale(part, sum, narrow(build.file.range(&format!("{part}.sum"))?), Rows::PerBox)?;
    let (qkv, scales) = queries(build, part, input, channels)?;
    let bias =
        build.tensor([heads, boxes, boxes], Quant { scale: 1.0 / 256.0, zero_point: 0, element: Element::Int16 });
    let record = build.op(OpKind::Overlap, &[code], bias)?;
    let tau = build.file.vector(&format!("{part}.tau"), heads)?;
    let tau = tau.iter().flat_map(|tau| ((tau * 2048.0).round().clamp(-32_768.0, 32_767.0) as i16).to_le_bytes());
    build.push(record, Constants::Bytes(tau.collect()));
    let to = narrow(build.file.range(&format!("{part}.attention"))?);
    let attended = build.tensor([boxes, 1, channels], to);
    let mut record = build.op(OpKind::Attention, &[qkv], attended)?;
    record.flags = PER_BOX | WITH_BIAS_MAP;
    record.first_channel = bias as u16;
    let numbers = numbers::attention(geometry, scales, to, part)?;
    let macs = 2 * (boxes * boxes * channels) as u64;
    let scratch = kernels::attention_scratch(boxes, (channels / heads) as u16);
    build.push_with(record, Constants::Attention { record: numbers, bias: vec![], mask: vec![] }, scratch, macs);
    let name = format!("{part}.attention.out");
    let weights = build.file.weights(&name, [channels, 1, 1, channels])?;
    let quant = roomy(build.file.range(&name)?);
    let layer = Layer { weights, rows: Rows::PerBox, ..Layer::new(&name) };
    let out = build.conv(layer, attended, quant)?;
    let quant = roomy(build.file.range(&format!("{part}.attention_sum"))?);
    build.add(&format!("{part}.attention_sum"), [sum, out], quant, Rows::PerBox)
}

/// Queries, keys and values, each with a step of its own.
fn queries(build: &mut Builder<'_>, part: &str, input: usize, channels: usize) -> Result<(usize, [f32; 3]), Error> {
    let name = format!("{part}.attention.qkv");
    let mut weights = build.file.weights(&name, [3 * channels, 1, 1, channels])?;
    let mut bias = build.file.vector(&format!("{name}.bias"), 3 * channels)?;
    let mut scales = [1.0; 3];
    for (third, (scale, letter)) in scales.iter_mut().zip(["q", "k", "v"]).enumerate() {
        let range = build.file.range(&format!("{part}.{letter}"))?;
        *scale = (range.max.max(-range.min) / 127.0).max(f32::MIN_POSITIVE);
        for (channel, bias) in bias.iter_mut().enumerate().skip(third * channels).take(channels) {
            weights.index_axis_mut(ndarray::Axis(0), channel).mapv_inplace(|weight| weight / *scale);
            *bias /= *scale;
        }
    }
    let one = Quant { scale: 1.0, zero_point: 0, element: Element::Int8 };
    let layer = Layer { weights, bias: Some(bias), rows: Rows::PerBox, ..Layer::new(&name) };
    Ok((build.conv(layer, input, one)?, scales))
}

/// Steps 20 and 27.
fn feed_forward(build: &mut Builder<'_>, geometry: &Geometry, part: &str, content: usize) -> Result<usize, Error> {
    let Geometry { channels, hidden, .. } = *geometry;
    let sizes = [channels, hidden, channels];
    let mut values = content;
    for layer in 0..2 {
        let name = format!("{part}.ffn.{layer}");
        let weights = build.file.weights(&name, [sizes[layer + 1], 1, 1, sizes[layer]])?;
        let range = build.file.range(&name)?;
        let quant = if layer == 0 { narrow(range) } else { wide(range) };
        let layer = Layer { weights, relu: layer == 0, rows: Rows::PerBox, ..Layer::new(&name) };
        values = build.conv(layer, values, quant)?;
    }
    let name = format!("{part}.ffn_sum");
    let quant = roomy(build.file.range(&name)?);
    let sum = build.add(&name, [content, values], quant, Rows::PerBox)?;
    build.box_norm(&format!("{part}.ffn_norm"), sum, false, channels)
}

/// Layers with norm and ReLU, then one without: deltas or logits, Q12.
fn predictions(
    build: &mut Builder<'_>,
    name: &str,
    content: usize,
    layers: usize,
    [channels, outputs]: [usize; 2],
) -> Result<usize, Error> {
    let mut values = content;
    for number in 0..layers {
        let layer = format!("{name}.{number}");
        let weights = build.file.weights(&layer, [channels, 1, 1, channels])?;
        let quant = roomy(build.file.range(&layer)?);
        let layer_of = Layer { weights, rows: Rows::PerBox, ..Layer::new(&layer) };
        values = build.conv(layer_of, values, quant)?;
        let norm = format!("{layer}.norm");
        values = build.box_norm(&norm, values, true, channels)?;
    }
    let last = format!("{name}.{layers}");
    let weights = build.file.weights(&last, [outputs, 1, 1, channels])?;
    build.conv(Layer { weights, rows: Rows::PerBox, ..Layer::new(&last) }, values, Q12)
}

/// Steps 23 to 26: content and what was sampled and mixed added up, int16.
fn mixed(build: &mut Builder<'_>, geometry: &Geometry, maps: &[usize], content: usize) -> Result<usize, Error> {
    let Geometry { channels, boxes, groups, points_in, points_out, .. } = *geometry;
    let width = channels / groups;
    let name = "stage.offsets";
    let weights = build.file.weights(name, [3 * groups * points_in, 1, 1, channels])?;
    let offsets = build.conv(Layer { weights, rows: Rows::PerBox, ..Layer::new(name) }, content, Q12)?;
    let to = crate::quantize::ranges::symmetric(build.file.range("stage.samples")?);
    let samples = build.tensor([boxes, 1, channels * points_in], to);
    let record = build.op(OpKind::Sample, &[offsets, maps[0], maps[1], maps[2]], samples)?;
    build.push(record, numbers::sampling(geometry, build, maps, to)?);
    let to = narrow(build.file.range("stage.mixed")?);
    let mixed = build.tensor([boxes, 1, channels * points_out], to);
    let mut record = build.op(OpKind::Mix, &[content, samples], mixed)?;
    record.min = to.zero_point;
    let layer = numbers::mixing(geometry, build, content, to)?;
    let matrices = groups * (width * width + points_in * points_out);
    let together = MIX_BOXES.min(boxes);
    let scratch = together * 2 * matrices
        + width * width
        + points_in * points_out
        + kernels::mix_scratch(points_in as u16, points_out as u16, width as u16).max(kernels::conv_scratch(
            [1; 2],
            channels as u16,
            together,
        ));
    let products = groups * (width * width * points_in + width * points_in * points_out);
    let macs = (boxes * (channels * matrices + products)) as u64;
    build.push_layer(record, layer, scratch, macs);
    let name = "stage.mixing.out";
    let weights = build.file.weights(name, [channels, 1, 1, channels * points_out])?;
    let quant = roomy(build.file.range(name)?);
    let out = build.conv(Layer { weights, rows: Rows::PerBox, ..Layer::new(name) }, mixed, quant)?;
    let quant = roomy(build.file.range("stage.mixing_sum")?);
    build.add("stage.mixing_sum", [content, out], quant, Rows::PerBox)
}

impl Rows {
    /// The flag of an op.
    fn flag(self) -> u16 {
        match self {
            Self::All => 0,
            Self::IfPatches => IF_PATCHES,
            Self::PerPatch => PER_PATCH,
            Self::PerBox => PER_BOX,
        }
    }
}
