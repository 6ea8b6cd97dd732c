//! [`Image`]: parse once, then read without failure.

use core::fmt;

use crate::bytes::{Field, checksum};
use crate::error::{ImageError, Rule, Section};
use crate::layout::{
    ALIGN, ARENA_ALIGN, CRC_OFFSET, FLAG_OPTIONAL, HEADER_LEN, MAGIC, MAJOR, MAX_RECORDS, MAX_SECTIONS, NO_TENSOR,
    SECTION_ENTRY_LEN, TARGET_CLASS_PORTABLE, WITH_CURVE,
};
use crate::record::{
    Attention, Config, ConfigId, Cost, Cut, CutId, Element, Generator, Meta, Mixing, Op, OpId, OpKind, Overlay, Range,
    Run, Sampling, Segment, SegmentId, SegmentKind, Target, TargetId, Tensor, TensorId,
};
use crate::validate;

/// A validated image over borrowed bytes, read in place. Copying it copies offsets.
///
/// A value of this type is the proof that every rule held, so accessors are total: a number that did not come
/// from the image itself reads as a record of zeros.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    bytes: &'a [u8],
    sections: [&'a [u8]; Section::ALL.len()],
    meta: Meta,
}

fn refuse(rule: Rule, record: usize, found: u64, expected: u64) -> ImageError {
    ImageError { rule, section: Section::Header, record: record as u32, found, expected }
}

/// Bytes of one record of a section.
pub(crate) fn record_len(section: Section) -> usize {
    match section {
        Section::Header | Section::Data => 1,
        Section::Meta => Meta::LEN,
        Section::Cuts => Cut::LEN,
        Section::Tensors => Tensor::LEN,
        Section::Ops => Op::LEN,
        Section::Segments => Segment::LEN,
        Section::Configs => Config::LEN,
        Section::Path => Run::LEN,
        Section::Overlays => Overlay::LEN,
        Section::Targets => Target::LEN,
        Section::Costs => Cost::LEN,
        Section::Kept => Tensor::LEN,
    }
}

impl<'a> Image<'a> {
    /// Checks every rule of `docs/image-format.md` in order and returns a view of `bytes`.
    ///
    /// # Errors
    /// The first rule that is broken, with the record and the numbers.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let sections = sections(bytes)?;
        let meta = Meta::read(sections.first().copied().unwrap_or_default());
        let image = Self { bytes, sections, meta };
        validate::records(&image)?;
        Ok(image)
    }

    fn section(&self, section: Section) -> &'a [u8] {
        self.sections.get(usize::from(section.id()).wrapping_sub(1)).copied().unwrap_or_default()
    }

    fn record<T: Field>(&self, section: Section, index: usize) -> T {
        T::read(self.section(section).get(index * T::LEN..).unwrap_or_default())
    }

    pub(crate) fn count(&self, section: Section) -> usize {
        self.section(section).len() / record_len(section)
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Facts about the whole image.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Number of cuts.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.count(Section::Cuts)
    }

    /// A cut.
    #[must_use]
    pub fn cut(&self, id: CutId) -> Cut {
        self.record(Section::Cuts, id.index())
    }

    /// Number of tensors.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.count(Section::Tensors)
    }

    /// A tensor. A call, as [`Image::op`].
    #[must_use]
    #[inline(never)]
    pub fn tensor(&self, id: TensorId) -> Tensor {
        self.record(Section::Tensors, id.index())
    }

    /// Number of ops.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.count(Section::Ops)
    }

    /// An op. A call: inlined it is 150 bytes on a Cortex-M, at a dozen places.
    #[must_use]
    #[inline(never)]
    pub fn op(&self, id: OpId) -> Op {
        self.record(Section::Ops, id.index())
    }

    /// The first op that a convolutional network has not: another kind than convolution, sum, pool and movement, a constant
    /// operand, a curve, or an int16 tensor. A runtime without its feature `transformers` lacks these.
    #[must_use]
    pub fn first_of_transformer(&self) -> Option<OpId> {
        let narrow = |tensor: TensorId| tensor.0 == NO_TENSOR || self.tensor(tensor).element == Element::Int8;
        let of_cnn = |op: &Op| {
            let kind = match op.kind {
                OpKind::Conv | OpKind::Depthwise => op.flags & WITH_CURVE == 0,
                OpKind::Add => op.input2.0 != NO_TENSOR,
                OpKind::AveragePool | OpKind::MaxPool | OpKind::Move => true,
                _ => false,
            };
            kind && [op.input, op.input2, op.output].into_iter().all(narrow)
        };
        (0..self.ops()).map(|number| OpId(number as u16)).find(|&id| !of_cnn(&self.op(id)))
    }

    /// The numbers of an attention.
    #[must_use]
    pub fn attention(&self, op: &Op) -> Attention {
        Attention::read(self.data(op.weights, Attention::LEN))
    }

    /// The numbers of a `Select` or a `Pool`.
    #[must_use]
    pub fn generator(&self, op: &Op) -> Generator {
        Generator::read(self.data(op.weights, Generator::LEN))
    }

    /// The numbers of a `Sample`.
    #[must_use]
    pub fn sampling(&self, op: &Op) -> Sampling {
        Sampling::read(self.data(op.weights, Sampling::LEN))
    }

    /// The numbers of a `Mix`.
    #[must_use]
    pub fn mixing(&self, op: &Op) -> Mixing {
        Mixing::read(self.data(op.weights, Mixing::LEN))
    }

    /// Number of maps that stay until a head reads them.
    #[must_use]
    pub fn kept_maps(&self) -> u16 {
        self.count(Section::Kept) as u16
    }

    /// A kept map; its offset counts from the end of the two-ended arena on.
    #[must_use]
    pub fn kept(&self, number: u32) -> Tensor {
        self.record(Section::Kept, number as usize)
    }

    /// Bytes of all kept maps.
    #[must_use]
    pub fn kept_bytes(&self) -> u32 {
        let ends = (0..self.kept_maps()).map(|number| self.kept(number.into()));
        ends.map(|map| map.offset + (map.bytes() as u32).next_multiple_of(ARENA_ALIGN)).max().unwrap_or(0)
    }

    /// Whether configs end in a detector's head: the output is detections, not scores.
    #[must_use]
    pub fn is_detector(&self) -> bool {
        self.meta.boxes > 0
    }

    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.count(Section::Segments)
    }

    /// A segment.
    #[must_use]
    pub fn segment(&self, id: SegmentId) -> Segment {
        self.record(Section::Segments, id.index())
    }

    /// Number of configs, at least 1. The first [`Meta::anchors`] are the anchors.
    #[must_use]
    pub fn configs(&self) -> u16 {
        self.count(Section::Configs) as u16
    }

    /// A config.
    #[must_use]
    #[inline(never)]
    pub fn config(&self, id: ConfigId) -> Config {
        self.record(Section::Configs, id.index())
    }

    /// The number of a config, if there is one of that number.
    #[must_use]
    pub fn config_id(&self, number: usize) -> Option<ConfigId> {
        let id = ConfigId(u16::try_from(number).ok()?);
        (id.0 < self.configs()).then_some(id)
    }

    /// Segment number `step` of a config's path.
    #[must_use]
    pub fn path_segment(&self, config: &Config, step: u16) -> SegmentId {
        let mut left = step;
        for index in usize::from(config.first_run)..self.runs() {
            let Run { first, segments } = self.run(index);
            if left < segments {
                return SegmentId(first.0.saturating_add(left));
            }
            left -= segments;
        }
        SegmentId(0)
    }

    /// The segments of a path, in order.
    pub fn path(&self, config: &Config) -> impl Iterator<Item = SegmentId> + Clone + use<'a> {
        let image = *self;
        (usize::from(config.first_run)..self.runs())
            .map(move |index| image.run(index))
            .flat_map(|run| (0..run.segments).map(move |step| SegmentId(run.first.0.saturating_add(step))))
            .take(config.segments.into())
    }

    /// Whether two configs have the same first `steps` segments. Runs are as long as they can be, so two equal paths
    /// have equal runs.
    #[must_use]
    pub fn same_path(&self, a: &Config, b: &Config, steps: u16) -> bool {
        if steps > a.segments.min(b.segments) {
            return false;
        }
        let (mut index, mut left) = (0, steps);
        while left > 0 {
            let [of_a, of_b] = [a, b].map(|config| self.run(usize::from(config.first_run) + index));
            let same = of_a.segments.min(of_b.segments).min(left);
            if same == 0 || of_a.first != of_b.first || same < left && of_a.segments != of_b.segments {
                return false;
            }
            (index, left) = (index + 1, left - same);
        }
        true
    }

    pub(crate) fn run(&self, index: usize) -> Run {
        self.record(Section::Path, index)
    }

    pub(crate) fn runs(&self) -> usize {
        self.count(Section::Path)
    }

    /// Predicted cost of a config in ticks of target 0: the sum of its segments.
    #[must_use]
    pub fn ticks(&self, config: &Config) -> u64 {
        self.path(config).map(|id| u64::from(self.cost(TargetId(0), id).ticks)).sum()
    }

    /// Multiply-accumulates of a config: the sum of its segments.
    #[must_use]
    pub fn macs(&self, config: &Config) -> u64 {
        self.path(config).fold(0, |sum, id| sum.saturating_add(self.segment(id).macs))
    }

    /// Flash of the segments and overlays of a config, bytes.
    #[must_use]
    pub fn flash_bytes(&self, config: &Config) -> u64 {
        self.path(config).map(|id| u64::from(self.segment(id).flash_bytes)).sum::<u64>() + self.overlay_bytes(config)
    }

    /// Flash of the biases that only this config has, bytes.
    #[must_use]
    pub fn overlay_bytes(&self, config: &Config) -> u64 {
        let channels = |op: OpId| self.tensor(self.op(op).output).shape[2];
        (0..config.overlays).map(|index| 4 * u64::from(channels(self.overlay(config, index).op))).sum()
    }

    /// Bytes of the records that a config adds: its own, those of its path and its overlays.
    #[must_use]
    pub fn record_bytes(&self, config: &Config) -> u64 {
        let (mut runs, mut left) = (0, config.segments);
        while left > 0 && usize::from(config.first_run) + runs < self.runs() {
            left = left.saturating_sub(self.run(usize::from(config.first_run) + runs).segments);
            runs += 1;
        }
        (Config::LEN + runs * Run::LEN + usize::from(config.overlays) * Overlay::LEN) as u64
    }

    /// Name of a config: its anchor's, or where it leaves one anchor and enters another, `tiny.1>wide.1`. From a second
    /// stitch on only what is new: `tiny.1>wide.2-4>huge.5`.
    #[must_use]
    pub fn config_name(&self, id: ConfigId) -> ConfigName<'a> {
        ConfigName { image: *self, id }
    }

    fn anchor_name(&self, anchor: u16) -> &'a str {
        self.text(self.meta.anchor_names).lines().nth(anchor.into()).unwrap_or_default()
    }

    /// Number of targets, at least 1.
    #[must_use]
    pub fn targets(&self) -> u16 {
        self.count(Section::Targets) as u16
    }

    /// A target.
    #[must_use]
    pub fn target(&self, id: TargetId) -> Target {
        self.record(Section::Targets, id.index())
    }

    /// What a segment costs on a target.
    #[must_use]
    #[inline(never)]
    pub fn cost(&self, target: TargetId, segment: SegmentId) -> Cost {
        self.record(Section::Costs, target.index() * self.segments() + segment.index())
    }

    pub(crate) fn cost_entries(&self) -> usize {
        self.count(Section::Costs)
    }

    /// Overlay number `index` of a config.
    #[must_use]
    pub fn overlay(&self, config: &Config, index: u16) -> Overlay {
        self.any_overlay(usize::from(config.first_overlay) + usize::from(index))
    }

    pub(crate) fn any_overlay(&self, index: usize) -> Overlay {
        self.record(Section::Overlays, index)
    }

    pub(crate) fn overlays(&self) -> usize {
        self.count(Section::Overlays)
    }

    /// Bytes of the data section from `offset` on: weights, biases, tables.
    #[must_use]
    pub fn data(&self, offset: u32, len: usize) -> &'a [u8] {
        let start = offset as usize;
        self.section(Section::Data).get(start..start.saturating_add(len)).unwrap_or_default()
    }

    pub(crate) fn data_len(&self) -> usize {
        self.section(Section::Data).len()
    }

    /// Bytes of a range.
    #[must_use]
    pub fn range(&self, range: Range) -> &'a [u8] {
        self.data(range.offset, range.len as usize)
    }

    /// Text of a range.
    #[must_use]
    pub fn text(&self, range: Range) -> &'a str {
        core::str::from_utf8(self.range(range)).unwrap_or_default()
    }

    /// Name of a class.
    #[must_use]
    pub fn label(&self, class: usize) -> &'a str {
        self.text(self.meta.labels).lines().nth(class).unwrap_or_default()
    }

    /// Preprocessing table of an input channel: pixel value → input value, 256 bytes of int8.
    #[must_use]
    pub fn preprocess(&self, channel: u16) -> &'a [u8] {
        self.data(self.meta.preprocess.offset.saturating_add(u32::from(channel) * 256), 256)
    }

    /// Self test: the input, int8 `[H, W, C]`.
    #[must_use]
    pub fn test_input(&self) -> &'a [u8] {
        self.range(self.meta.test_input)
    }

    /// Self test: the output of a config.
    #[must_use]
    pub fn test_output(&self, config: ConfigId) -> &'a [u8] {
        let len = self.cut(self.meta.output).bytes() as usize;
        let offset = u64::from(self.meta.test_outputs.offset) + config.index() as u64 * len as u64;
        self.data(u32::try_from(offset).unwrap_or(u32::MAX), len)
    }
}

/// Name of a config, written when it is shown: see [`Image::config_name`].
#[derive(Clone, Copy, Debug)]
pub struct ConfigName<'a> {
    image: Image<'a>,
    id: ConfigId,
}

impl fmt::Display for ConfigName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, id } = self;
        if id.0 < image.meta.anchors {
            return f.pad(image.anchor_name(id.0));
        }
        let segments = image.path(&image.config(*id)).map(|segment| image.segment(segment));
        let mut first = true;
        for stitch in segments.filter(|segment| segment.kind == SegmentKind::Stitch) {
            let [from, to] = [stitch.from, stitch.to].map(|cut| image.cut(cut));
            let joint = if first { image.anchor_name(from.anchor) } else { "-" };
            let dot = if first { "." } else { "" };
            write!(f, "{joint}{dot}{}>{}.{}", from.position, image.anchor_name(to.anchor), to.position)?;
            first = false;
        }
        Ok(())
    }
}

/// Rules V1 to V10: finds the sections.
fn sections(bytes: &[u8]) -> Result<[&[u8]; Section::ALL.len()], ImageError> {
    if bytes.len() < HEADER_LEN || !bytes.starts_with(&MAGIC) {
        return Err(refuse(Rule::Magic, 0, u32::read(bytes).into(), u32::from_le_bytes(MAGIC).into()));
    }
    let at = |offset: usize| bytes.get(offset..).unwrap_or_default();
    if u8::read(at(4)) != MAJOR {
        return Err(refuse(Rule::Version, 0, u8::read(at(4)).into(), MAJOR.into()));
    }
    if u64::from(u32::read(at(8))) != bytes.len() as u64 {
        return Err(refuse(Rule::Length, 0, bytes.len() as u64, u32::read(at(8)).into()));
    }
    let crc = checksum(bytes);
    if crc != u32::read(at(CRC_OFFSET)) {
        return Err(refuse(Rule::Checksum, 0, crc.into(), u32::read(at(CRC_OFFSET)).into()));
    }
    if u16::read(at(16)) != TARGET_CLASS_PORTABLE {
        return Err(refuse(Rule::TargetClass, 0, u16::read(at(16)).into(), TARGET_CLASS_PORTABLE.into()));
    }
    let count = usize::from(u16::read(at(18)));
    let table_end = HEADER_LEN + count * SECTION_ENTRY_LEN;
    if count > MAX_SECTIONS || table_end > bytes.len() {
        return Err(refuse(Rule::SectionTable, 0, count as u64, MAX_SECTIONS as u64));
    }
    let mut sections: [Option<&[u8]>; Section::ALL.len()] = [None; Section::ALL.len()];
    let mut end = table_end;
    for entry in 0..count {
        let entry_bytes = at(HEADER_LEN + entry * SECTION_ENTRY_LEN);
        let [id, flags] = <[u16; 2]>::read(entry_bytes);
        let [offset, len] = <[u32; 2]>::read(entry_bytes.get(4..).unwrap_or_default()).map(|value| value as usize);
        let found = offset..offset.saturating_add(len);
        let Some(part) = bytes.get(found).filter(|_| offset % ALIGN == 0 && offset >= end) else {
            return Err(refuse(Rule::SectionPlace, entry, offset as u64, end as u64));
        };
        end = offset + len;
        let Some(section) = Section::ALL.into_iter().find(|section| section.id() == id) else {
            if flags & FLAG_OPTIONAL == 0 {
                return Err(refuse(Rule::SectionKnown, entry, id.into(), Section::ALL.len() as u64));
            }
            continue;
        };
        let record = record_len(section);
        if len % record != 0 {
            return Err(refuse(Rule::SectionPlace, entry, len as u64, record as u64));
        }
        let most = if section == Section::Data { u32::MAX as usize } else { MAX_RECORDS };
        let least = usize::from(!matches!(section, Section::Overlays | Section::Kept));
        if len / record < least || len / record > most || (section == Section::Meta && len != record) {
            return Err(refuse(Rule::RecordCount, entry, (len / record) as u64, least as u64));
        }
        match sections.get_mut(usize::from(id) - 1) {
            Some(slot @ None) => *slot = Some(part),
            _ => return Err(refuse(Rule::SectionOnce, entry, id.into(), 1)),
        }
    }
    let mut result = [&[][..]; Section::ALL.len()];
    for ((slot, section), id) in result.iter_mut().zip(sections).zip(1u64..) {
        *slot = section.ok_or(refuse(Rule::SectionOnce, count, 0, id))?;
    }
    Ok(result)
}
