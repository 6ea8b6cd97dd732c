//! [`ImageWriter`]: records in, bytes out; the inverse of [`crate::Image::parse`].

use alloc::vec;
use alloc::vec::Vec;

use crate::bytes::{Field, seal};
use crate::error::Section;
use crate::image::Image;
use crate::layout::{ALIGN, HEADER_LEN, MAGIC, MAJOR, MINOR, SECTION_ENTRY_LEN, TARGET_CLASS_PORTABLE};
use crate::record::{
    Config, ConfigId, Cost, Cut, CutId, Meta, Op, OpId, Overlay, Range, Run, Segment, SegmentId, Target, TargetId,
    Tensor, TensorId,
};

/// Collects the parts of an image. Equal parts give equal bytes.
#[derive(Clone, Debug)]
pub struct ImageWriter {
    /// Facts about the whole image.
    pub meta: Meta,
    /// Cuts.
    pub cuts: Vec<Cut>,
    /// Tensors, segment by segment.
    pub tensors: Vec<Tensor>,
    /// Ops, segment by segment.
    pub ops: Vec<Op>,
    /// Segments.
    pub segments: Vec<Segment>,
    /// Configs, anchors first.
    pub configs: Vec<Config>,
    /// Paths, config by config, in runs as long as they can be.
    pub path: Vec<Run>,
    /// Overlays, config by config.
    pub overlays: Vec<Overlay>,
    /// Data section.
    pub data: Vec<u8>,
    /// Targets, at least one.
    pub targets: Vec<Target>,
    /// Costs, target by target, one per segment.
    pub costs: Vec<Cost>,
    /// Kept maps.
    pub kept: Vec<Tensor>,
}

impl ImageWriter {
    /// Without any record but `meta`.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            cuts: vec![],
            tensors: vec![],
            ops: vec![],
            segments: vec![],
            configs: vec![],
            path: vec![],
            overlays: vec![],
            data: vec![],
            targets: vec![],
            costs: vec![],
            kept: vec![],
        }
    }

    /// The parts of an image: `finish` gives its bytes again if a writer made them.
    #[must_use]
    pub fn of(image: &Image<'_>) -> Self {
        let overlays = 0..image.overlays();
        let targets = (0..image.targets()).map(TargetId);
        let segments = (0..image.segments()).map(|index| SegmentId(index as u16));
        let configs = (0..image.configs()).map(|number| image.config(ConfigId(number)));
        Self {
            meta: *image.meta(),
            cuts: (0..image.cuts()).map(|index| image.cut(CutId(index as u16))).collect(),
            tensors: (0..image.tensors()).map(|index| image.tensor(TensorId(index as u16))).collect(),
            ops: (0..image.ops()).map(|index| image.op(OpId(index as u16))).collect(),
            segments: segments.clone().map(|id| image.segment(id)).collect(),
            path: (0..image.runs()).map(|index| image.run(index)).collect(),
            configs: configs.collect(),
            overlays: overlays.map(|index| image.any_overlay(index)).collect(),
            data: image.data(0, image.data_len()).to_vec(),
            targets: targets.clone().map(|id| image.target(id)).collect(),
            costs: targets.flat_map(|id| segments.clone().map(move |segment| image.cost(id, segment))).collect(),
            kept: (0..image.kept_maps()).map(|number| image.kept(number.into())).collect(),
        }
    }

    /// Appends a config's path and returns where it starts.
    pub fn put_path(&mut self, segments: &[SegmentId]) -> u16 {
        let first = self.path.len();
        for &id in segments {
            let own = self.path.get_mut(first..).and_then(|own| own.last_mut());
            match own.filter(|run| run.first.0.checked_add(run.segments) == Some(id.0)) {
                Some(run) => run.segments += 1,
                None => self.path.push(Run { first: id, segments: 1 }),
            }
        }
        first as u16
    }

    /// Appends bytes to the data section at the next word and returns where they are.
    pub fn put(&mut self, bytes: &[u8]) -> Range {
        self.data.resize(self.data.len().next_multiple_of(ALIGN), 0);
        let range = Range { offset: self.data.len() as u32, len: bytes.len() as u32 };
        self.data.extend_from_slice(bytes);
        range
    }

    /// The image. Not validated: parse it.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let sections = [
            (Section::Meta, records(core::slice::from_ref(&self.meta))),
            (Section::Cuts, records(&self.cuts)),
            (Section::Tensors, records(&self.tensors)),
            (Section::Ops, records(&self.ops)),
            (Section::Segments, records(&self.segments)),
            (Section::Configs, records(&self.configs)),
            (Section::Path, records(&self.path)),
            (Section::Overlays, records(&self.overlays)),
            (Section::Data, self.data.clone()),
            (Section::Targets, records(&self.targets)),
            (Section::Costs, records(&self.costs)),
            (Section::Kept, records(&self.kept)),
        ];
        let mut bytes = vec![0; HEADER_LEN + sections.len() * SECTION_ENTRY_LEN];
        for (index, (section, content)) in sections.iter().enumerate() {
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            let entry = HEADER_LEN + index * SECTION_ENTRY_LEN;
            let range = [bytes.len() as u32, content.len() as u32];
            [section.id(), 0].write(&mut bytes[entry..]);
            range.write(&mut bytes[entry + 4..]);
            bytes.extend_from_slice(content);
        }
        bytes[..4].copy_from_slice(&MAGIC);
        [MAJOR, MINOR].write(&mut bytes[4..]);
        (bytes.len() as u32).write(&mut bytes[8..]);
        [TARGET_CLASS_PORTABLE, sections.len() as u16].write(&mut bytes[16..]);
        seal(&mut bytes);
        bytes
    }
}

fn records<T: Field>(values: &[T]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * T::LEN];
    for (value, chunk) in values.iter().zip(bytes.chunks_exact_mut(T::LEN)) {
        value.write(chunk);
    }
    bytes
}
