//! Stage 12: layout of the image. No arithmetic but sums of sizes.

use std::collections::{BTreeMap, BTreeSet};

use plan::layout::{ARENA_ALIGN, BLOCK, IN_BLOCKS, KEPT, SHARED, WITH_BIAS, WITH_CURVE, WITH_MASK};
use plan::{
    Config, Cut, CutId, Element, ImageWriter, Meta, OpId, Overlay, Range, Segment, SegmentId, SegmentKind, Target,
    Tensor, TensorId,
};

use crate::cost::CostModel;
use crate::error::Error;
use crate::family::Packing;
use crate::network::{Constants, IntegerOp, IntegerPath, Kind, Placed, Placement, Quant};

/// What the image says about itself besides its networks, and how their weights lie in it.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Name of the family.
    pub family: String,
    /// Class names.
    pub classes: Vec<String>,
    /// How weights lie.
    pub packing: Packing,
}

/// What was measured: empty in the first pass, before anything could run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Images behind the scores.
    pub images: usize,
    /// Correct answers in 10,000 per config, integers.
    pub scores: Vec<u16>,
    /// The same of the float paths.
    pub float_scores: Vec<u16>,
    /// Self test: one input.
    pub input: Vec<i8>,
    /// Self test: the output of each config on it.
    pub outputs: Vec<Vec<i8>>,
}

/// Data section in which equal runs of bytes are stored once.
struct Data {
    writer: ImageWriter,
    known: BTreeMap<Vec<u8>, Range>,
}

impl Data {
    fn put(&mut self, bytes: Vec<u8>) -> Range {
        if let Some(&range) = self.known.get(&bytes) {
            return range;
        }
        let range = self.writer.put(&bytes);
        self.known.insert(bytes, range);
        range
    }
}

fn signed(values: &[i8]) -> Vec<u8> {
    values.iter().map(|&value| value as u8).collect()
}

fn halves(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn shape(shape: [usize; 3]) -> Result<[u16; 3], Error> {
    let side = |side: usize| {
        let what = format!("a map of {shape:?} [H, W, C]: a side of {side} does not fit 16 bits");
        u16::try_from(side).map_err(|_| Error::Stage { stage: "emit", what })
    };
    Ok([side(shape[0])?, side(shape[1])?, side(shape[2])?])
}

fn count(what: &str, count: usize) -> Result<u16, Error> {
    u16::try_from(count)
        .map_err(|_| Error::Stage { stage: "emit", what: format!("{count} {what}; an image holds at most 65,535") })
}

/// The bytes of the image; `verify` decides whether they may be written.
///
/// # Errors
/// [`Error::Stage`] if a count or a size does not fit the format.
pub fn emit(placed: &Placed, labels: &Labels, cost: &CostModel, measured: &Measured) -> Result<Vec<u8>, Error> {
    let family = &placed.quantized;
    let empty = Range { offset: 0, len: 0 };
    let mut data = Data {
        writer: ImageWriter::new(Meta {
            name: empty,
            labels: empty,
            preprocess: empty,
            test_input: empty,
            test_outputs: empty,
            input: CutId(0),
            output: CutId(count("cuts", family.output)?),
            classes: count("classes", labels.classes.len())?,
            anchors: count("anchors", family.anchors.len())?,
            arena_bytes: 0,
            score_images: measured.images as u32,
            anchor_names: empty,
            patches: family.caps[0],
            boxes: family.caps[1],
            lead: count("path entries", family.lead())?,
            reserved: [0; 10],
        }),
        known: BTreeMap::new(),
    };
    for (cut, quant) in &family.cuts {
        let anchor = cut.anchor.map_or(Ok(SHARED), |anchor| count("anchors", anchor))?;
        data.writer.cuts.push(Cut {
            shape: shape(cut.shape)?,
            zero_point: quant.zero_point,
            element: quant.element,
            scale_bits: quant.scale.to_bits(),
            anchor,
            position: count("cuts", cut.position)?,
        });
    }
    let name = data.put(cost.target.clone().into_bytes());
    let (ticks_per_second, switch_ticks) = (cost.ticks_per_second, cost.switch_ticks);
    data.writer.targets.push(Target { name, ticks_per_second, switch_ticks });
    data.writer.costs = family.segments.iter().map(|segment| cost.cost(segment)).collect();
    for (sides, quant) in &family.kept {
        let offset = kept_bytes(&data.writer.kept);
        data.writer.kept.push(tensor(*sides, quant, offset)?);
    }
    for (segment, placement) in family.segments.iter().zip(&placed.placements) {
        emit_segment(&mut data, segment, placement, labels.packing)?;
    }
    for (number, path) in family.paths.iter().enumerate() {
        emit_path(&mut data, placed, number, path, measured)?;
    }
    let elements = |cut: usize| family.cuts[cut].0.shape.iter().product::<usize>();
    let mut input = signed(&measured.input);
    input.resize(elements(0), 0);
    let mut outputs: Vec<u8> = measured.outputs.iter().flat_map(|output| signed(output)).collect();
    outputs.resize(elements(family.output) * family.paths.len(), 0);
    data.writer.meta.preprocess = data.put(family.preprocess.iter().flat_map(|table| signed(table)).collect());
    data.writer.meta.test_input = data.put(input);
    data.writer.meta.test_outputs = data.put(outputs);
    data.writer.meta.name = data.put(labels.family.clone().into_bytes());
    data.writer.meta.labels = data.put(labels.classes.join("\n").into_bytes());
    data.writer.meta.anchor_names = data.put(family.anchors.join("\n").into_bytes());
    data.writer.meta.arena_bytes = data.writer.configs.iter().map(|config| config.arena_bytes).max().unwrap_or(0);
    Ok(data.writer.finish())
}

fn tensor(sides: [usize; 3], quant: &Quant, offset: u32) -> Result<Tensor, Error> {
    let (zero_point, element, scale_bits) = (quant.zero_point, quant.element, quant.scale.to_bits());
    Ok(Tensor { shape: shape(sides)?, zero_point, element, offset, scale_bits })
}

/// Bytes of the maps that stay.
fn kept_bytes(kept: &[Tensor]) -> u32 {
    kept.iter().map(|map| (map.bytes() as u32).next_multiple_of(ARENA_ALIGN)).sum()
}

fn emit_segment(
    data: &mut Data,
    segment: &crate::network::IntegerSegment,
    placement: &Placement,
    packing: Packing,
) -> Result<(), Error> {
    let first_tensor = count("tensors", data.writer.tensors.len())?;
    let first_op = count("ops", data.writer.ops.len())?;
    for (number, ((_, quant), &offset)) in segment.tensors.iter().zip(&placement.offsets).enumerate() {
        let kept = segment.keeps.iter().find(|(_, tensor)| *tensor == number);
        let offset = kept.map_or(offset, |&(map, _)| KEPT | map as u32);
        data.writer.tensors.push(tensor(segment.shape(number), quant, offset)?);
    }
    // Two ops with the same content share it.
    let mut used = BTreeSet::new();
    for (op, scratch) in segment.ops.iter().zip(&placement.scratch) {
        let mut record = op.record;
        record.renumber(|id| TensorId(first_tensor + id.0));
        if let Some(offset) = *scratch {
            record.scratch = TensorId(count("tensors", data.writer.tensors.len())?);
            // Scratch is bytes; a long one is written as rows.
            let bytes = op.scratch_bytes.next_multiple_of(ARENA_ALIGN as usize);
            let sides = if bytes > 65_535 { shape([bytes / 16, 1, 16])? } else { shape([1, 1, bytes])? };
            data.writer.tensors.push(Tensor {
                shape: sides,
                zero_point: 0,
                element: Element::Int8,
                offset,
                scale_bits: 0,
            });
        }
        emit_constants(data, op, &mut record, packing, &mut used);
        data.writer.ops.push(record);
    }
    let cut = |cut: usize| count("cuts", cut).map(CutId);
    let writes = |tensor: usize| segment.ops.iter().any(|op| op.record.output.index() == tensor);
    let bits = |written| {
        let maps = segment.keeps.iter().filter(|(_, tensor)| writes(*tensor) == written);
        maps.fold(0, |bits, (map, _)| bits | 1 << map)
    };
    data.writer.segments.push(Segment {
        kind: if segment.kind == Kind::Block { SegmentKind::Block } else { SegmentKind::Stitch },
        reserved: 0,
        from: cut(segment.from)?,
        to: cut(segment.to)?,
        first_op,
        ops: count("ops", segment.ops.len())?,
        first_tensor,
        tensors: count("tensors", data.writer.tensors.len() - usize::from(first_tensor))?,
        input: TensorId(first_tensor + count("tensors", segment.input)?),
        output: TensorId(first_tensor + count("tensors", segment.output)?),
        keeps: bits(true),
        takes: bits(false),
        peak_bytes: placement.peak_bytes,
        flash_bytes: used.iter().map(|&(_, len)| len).sum(),
        macs: segment.ops.iter().map(|op| op.macs).sum(),
        live_bytes: placement.live_bytes,
    });
    Ok(())
}

/// Rows of weights, one for each of the outputs, as blocks: [`plan::Op::fits_blocks`].
fn blocks(rows: &[u8], outputs: usize) -> Vec<u8> {
    let row = rows.len() / outputs;
    let mut blocks = Vec::with_capacity(rows.len());
    for rows in rows.chunks_exact(row * usize::from(BLOCK)) {
        for at in (0..row).step_by(4) {
            rows.chunks_exact(row).for_each(|row| blocks.extend_from_slice(&row[at..at + 4]));
        }
    }
    blocks
}

/// Puts what an op has in flash; `used` are offsets and lengths.
fn emit_constants(
    data: &mut Data,
    op: &IntegerOp,
    record: &mut plan::Op,
    packing: Packing,
    used: &mut BTreeSet<(u32, u32)>,
) {
    let [input, output] = [record.input, record.output].map(|id| data.writer.tensors[id.index()]);
    // Fewer positions do not share weights, and no instruction set has more than leaves for them.
    let few = u32::from(output.shape[0]) * u32::from(output.shape[1]) < 4;
    let in_blocks = packing == Packing::Blocks && !few && record.fits_blocks(&input, &output);
    let mut put = |content: Vec<u8>| {
        let range = data.put(content);
        used.insert((range.offset, range.len));
        range.offset
    };
    if let Some(weights) = &op.weights {
        if !weights.weights.is_empty() {
            let rows = signed(&weights.weights);
            record.weights = put(if in_blocks { blocks(&rows, output.shape[2].into()) } else { rows });
            record.flags |= if in_blocks { IN_BLOCKS } else { 0 };
        }
        record.bias = put(words(&weights.bias));
        record.multiplier = put(words(&weights.multiplier));
        record.shifts = put(weights.shift.clone());
        if !weights.curve.is_empty() {
            record.flags |= WITH_CURVE;
            record.constant = put(signed(&weights.curve)) as i32;
        }
    }
    match &op.constants {
        Constants::Nothing => {}
        Constants::Bytes(content) => record.weights = put(content.clone()),
        Constants::Norm { factor, offset } => {
            (record.weights, record.bias) = (put(halves(factor)), put(words(offset)));
        }
        Constants::Generator { record: numbers, regions } => {
            let weights = record.weights;
            let numbers = plan::Generator { regions: put(regions.clone()), weights, ..*numbers };
            record.weights = put(numbers.to_bytes().to_vec());
        }
        Constants::Sampling { record: numbers, weights } => {
            let weights = put(weights.iter().flat_map(|weight| weight.to_le_bytes()).collect());
            record.weights = put(plan::Sampling { weights, ..*numbers }.to_bytes().to_vec());
        }
        Constants::Mixing(numbers) => {
            let numbers = plan::Mixing { weights: record.weights, ..*numbers };
            record.weights = put(numbers.to_bytes().to_vec());
        }
        Constants::Attention { record: numbers, bias, mask } => {
            let mut numbers = *numbers;
            for (table, place, flag) in [(bias, &mut numbers.bias, WITH_BIAS), (mask, &mut numbers.mask, WITH_MASK)] {
                if !table.is_empty() {
                    (*place, numbers.flags) = (put(halves(table)), numbers.flags | flag);
                }
            }
            record.weights = put(numbers.to_bytes().to_vec());
        }
    }
}

fn emit_path(
    data: &mut Data,
    placed: &Placed,
    number: usize,
    path: &IntegerPath,
    measured: &Measured,
) -> Result<(), Error> {
    let first_overlay = count("overlays", data.writer.overlays.len())?;
    for correction in &path.corrections {
        let segment = &placed.quantized.segments[correction.segment];
        let own = segment.ops[correction.op].weights.as_ref();
        if own.is_some_and(|weights| weights.bias == correction.bias) {
            continue;
        }
        let bias = data.put(words(&correction.bias));
        let op = OpId(data.writer.segments[correction.segment].first_op + count("ops", correction.op)?);
        let step = path.segments.iter().position(|&segment| segment == correction.segment).unwrap_or(0);
        data.writer.overlays.push(Overlay { op, step: count("path entries", step)?, bias: bias.offset });
    }
    let segments = path.segments.iter().map(|&segment| count("segments", segment).map(SegmentId));
    let first_run = data.writer.put_path(&segments.collect::<Result<Vec<_>, Error>>()?);
    count("runs of paths", data.writer.path.len())?;
    let peak = |segments: &[usize]| segments.iter().map(|&number| placed.placements[number].peak_bytes).max();
    let (lead, rest) = path.segments.split_at(path.segments.len().min(data.writer.meta.lead.into()));
    let behind = peak(rest).unwrap_or(0) + kept_bytes(&data.writer.kept);
    data.writer.configs.push(Config {
        first_run,
        segments: count("path entries", path.segments.len())?,
        first_overlay,
        overlays: count("overlays", data.writer.overlays.len())? - first_overlay,
        arena_bytes: behind.max(peak(lead).unwrap_or(0)),
        score: measured.scores.get(number).copied().unwrap_or(0),
        float_score: measured.float_scores.get(number).copied().unwrap_or(0),
    });
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
