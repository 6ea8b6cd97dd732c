//! Why bytes are not an image: which rule, in which section and record, what was found and expected.

use core::fmt;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $number:literal, $sentence:literal;)*) => {
        /// A rule of `docs/image-format.md`, in the order in which they are checked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $(#[doc = $sentence] $rule,)*
        }
        impl Rule {
            /// Every rule, in order.
            pub const ALL: &'static [Self] = &[$(Self::$rule,)*];
            /// Number in the documentation: V1, V2, …
            #[must_use]
            pub fn number(self) -> u8 {
                match self { $(Self::$rule => $number,)* }
            }
            /// The rule as a sentence.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$rule => $sentence,)* }
            }
        }
    };
}
rules! {
    Magic = 1, "An image has a whole header that starts with `SNET`.";
    Version = 2, "The major version is the one this reader knows.";
    Length = 3, "The length in the header is the length of the bytes.";
    Checksum = 4, "The CRC-32 of every other byte is the one in the header.";
    TargetClass = 5, "The weight layout is one this reader knows.";
    SectionTable = 6, "The section table has at most 32 entries and lies inside the image.";
    SectionKnown = 7, "A section that is not marked optional is known.";
    SectionOnce = 8, "Every section appears exactly once.";
    SectionPlace = 9, "Sections are aligned, in order, apart, inside the image, and hold whole records.";
    RecordCount = 10, "A section has at least one record where one is needed, and at most 65,535; paths have 2^20 segments.";
    KindKnown = 11, "Kinds are known and reserved fields are zero.";
    Reference = 12, "Numbers and ranges point inside their section; tables and names are at most 16 times the data.";
    TensorShape = 13, "A tensor and a cut have at least one byte and fewer than 2^31.";
    Partition = 14, "Segments, configs and their ranges follow one another without gap or overlap.";
    Geometry = 15, "The shapes and elements of an op agree with its kind, window, groups and steps.";
    Numeric = 16, "Sums cannot overflow: reductions, biases, multipliers and shifts are in range.";
    WriteBeforeRead = 17, "A tensor of the segment is written once, whole, and before it is read; a streamed one by the next op alone; rows of patches or boxes behind their count, by ops on such rows.";
    Placement = 18, "Live tensors and scratch are aligned, apart and inside the segment's peak, but a sum may lie on its first operand; kept maps likewise in theirs.";
    SegmentEnds = 19, "A segment's first and last tensors are those of its cuts and lie at the two ends, or both at the first.";
    Costs = 20, "There is one cost per target and segment; no bound is below its prediction; a second has ticks.";
    Path = 21, "A config is a chain of segments, none twice, in the longest runs, from the input cut to the output cut; it keeps each map once, before it is read; in the lead no output stays at the end of its input.";
    ConfigCost = 22, "A config's arena is that of its segments and kept maps, and the image's is enough; no score is above 10,000.";
    OverlayOrder = 23, "Overlays name convolutions of their path, and their step, in the order in which they run.";
    SelfTest = 24, "The self test has one input and one output per config.";
    Text = 25, "Names are UTF-8 and there is one label per class.";
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Section {
    /// Before the sections.
    Header = 0,
    /// The one [`crate::Meta`] record.
    Meta = 1,
    /// [`crate::Cut`] records.
    Cuts = 2,
    /// [`crate::Tensor`] records.
    Tensors = 3,
    /// [`crate::Op`] records.
    Ops = 4,
    /// [`crate::Segment`] records.
    Segments = 5,
    /// [`crate::Config`] records.
    Configs = 6,
    /// Segment numbers.
    Path = 7,
    /// [`crate::Overlay`] records.
    Overlays = 8,
    /// Bytes that records point into.
    Data = 9,
    /// [`crate::Target`] records.
    Targets = 10,
    /// [`crate::Cost`] records: those of target 0, segment by segment, then those of target 1, …
    Costs = 11,
    /// [`crate::Tensor`] records: maps that stay until a head reads them, offsets from the end of the two-ended arena on.
    Kept = 12,
}

impl Section {
    /// The sections that every image has, in the order of the file.
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Cuts,
        Self::Tensors,
        Self::Ops,
        Self::Segments,
        Self::Configs,
        Self::Path,
        Self::Overlays,
        Self::Data,
        Self::Targets,
        Self::Costs,
        Self::Kept,
    ];

    /// Number in the section table.
    #[must_use]
    pub fn id(self) -> u16 {
        u16::from(self as u8)
    }
}

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageError {
    /// The rule that is broken.
    pub rule: Rule,
    /// Where.
    pub section: Section,
    /// Which record of the section, counted from 0.
    pub record: u32,
    /// The number that was found.
    pub found: u64,
    /// The number that was expected, or the bound.
    pub expected: u64,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not a valid image: {:?} record {}: found {}, expected {}: rule V{}: {}",
            self.section,
            self.record,
            self.found,
            self.expected,
            self.rule.number(),
            self.rule.sentence()
        )
    }
}

impl core::error::Error for ImageError {}
