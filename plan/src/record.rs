//! The records: one description of each fact about a network, read on the device and written by the host.

use crate::bytes::Field;
use crate::layout::{BLOCK, KEPT, NO_TENSOR, STREAMED, WITH_BIAS, WITH_BIAS_MAP, WITH_MASK};

macro_rules! id {
    ($(#[$doc:meta] $name:ident),*) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub u16);
        impl Field for $name {
            const LEN: usize = 2;
            fn read(bytes: &[u8]) -> Self {
                Self(u16::read(bytes))
            }
            fn write(&self, bytes: &mut [u8]) {
                self.0.write(bytes);
            }
        }
        impl $name {
            /// Position in its section.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}
id!(
    /// A cut.
    CutId,
    /// An activation or scratch tensor.
    TensorId,
    /// An op.
    OpId,
    /// A block or a stitch.
    SegmentId,
    /// A config.
    ConfigId,
    /// A target.
    TargetId
);

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A number this version does not know; validation refuses it.
            Invalid(u8),
        }
        impl Field for $name {
            const LEN: usize = 1;
            fn read(bytes: &[u8]) -> Self {
                match u8::read(bytes) {
                    $($value => Self::$variant,)*
                    other => Self::Invalid(other),
                }
            }
            fn write(&self, bytes: &mut [u8]) {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Invalid(other) => *other,
                }
                .write(bytes);
            }
        }
    };
}
kind!(
    /// What an op computes.
    OpKind {
        /// Convolution, grouped or not; a dense layer is one whose window is the whole map.
        Conv = 1,
        /// Convolution with one filter per channel; weights `[KH][KW][C]`.
        Depthwise = 2,
        /// Sum of two tensors of one shape.
        Add = 3,
        /// Mean over a window.
        AveragePool = 4,
        /// Largest value in a window.
        MaxPool = 5,
        /// Strided slice, pad, part of a concatenation, nearest resize, clamp.
        Move = 6,
        /// Channels of each position to mean 0 and variance 1, then factors and offsets.
        LayerNorm = 7,
        /// Softmax of products of queries and keys, times values; [`Attention`] has its numbers.
        Attention = 8,
        /// A function of each element, as a table.
        Curve = 9,
        /// Constant positions before those of the input.
        Prepend = 10,
        /// Cyclic shift of rows and columns.
        Roll = 11,
        /// Another quantisation, per channel.
        Rescale = 12,
        /// Windows of a map, one below the other; outside of the map its zero point.
        Windows = 13,
        /// Anchors from two predictions, and which of them ask for a patch; [`Generator`] has its numbers.
        Select = 14,
        /// Boxes that are left, and a layer on the inside of each, which is pooled from three maps; [`Generator`] has its numbers.
        Pool = 15,
        /// Position code of the boxes, after they were refined or not.
        Position = 16,
        /// Overlap of each two boxes, as the bias of an attention.
        Overlap = 17,
        /// Points around boxes, sampled from three maps; [`Sampling`] has its numbers.
        Sample = 18,
        /// Sampled points times matrices made of a box's content; [`Mixing`] has its numbers.
        Mix = 19,
        /// Last refinement, and the best pairs of box and class.
        Detect = 20,
        /// Boxes of the cells of three maps; of those of a class that overlap the surest is left.
        Suppress = 21,
    }
);
kind!(
    /// What an activation is made of.
    Element {
        /// One byte.
        Int8 = 0,
        /// Two bytes, little-endian; 0 stands for 0.0.
        Int16 = 1,
    }
);
kind!(
    /// What a segment is.
    SegmentKind {
        /// Operations of one anchor between two neighbouring cuts.
        Block = 1,
        /// A learned layer from a cut of one anchor to a cut of another.
        Stitch = 2,
    }
);

macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $len:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty = $at:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
        impl Field for $name {
            const LEN: usize = $len;
            #[inline]
            fn read(bytes: &[u8]) -> Self {
                // One check of the length: behind it every field is a load from a known place.
                let mut padded;
                let bytes: &[u8; $len] = match bytes.first_chunk() {
                    Some(whole) => whole,
                    None => {
                        padded = [0; $len];
                        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                        &padded
                    }
                };
                Self { $($field: <$type>::read(bytes.get($at..).unwrap_or_default()),)* }
            }
            fn write(&self, bytes: &mut [u8]) {
                $(if let Some(part) = bytes.get_mut($at..) {
                    self.$field.write(part);
                })*
            }
        }
        impl $name {
            /// Byte offset and length of each field, in order: the table of `docs/image-format.md`.
            pub const FIELDS: &'static [(&'static str, usize, usize)] =
                &[$((stringify!($field), $at, <$type as Field>::LEN),)*];
        }
    };
}

record!(
    /// A run of bytes in the data section.
    Range, 8 {
        /// First byte.
        offset: u32 = 0,
        /// Bytes.
        len: u32 = 4,
    }
);
record!(
    /// Facts about the whole image.
    Meta, 80 {
        /// Name of the family, UTF-8.
        name: Range = 0,
        /// Class names, UTF-8, separated by newlines.
        labels: Range = 8,
        /// Preprocessing: 256 bytes a channel, pixel value → input value.
        preprocess: Range = 16,
        /// Self test: one input `[H, W, C]` of int8.
        test_input: Range = 24,
        /// Self test: the output of every config on it, one after another.
        test_outputs: Range = 32,
        /// Cut where every path starts.
        input: CutId = 40,
        /// Cut where every path ends.
        output: CutId = 42,
        /// Number of classes, at most the output's elements.
        classes: u16 = 44,
        /// Anchors of the family.
        anchors: u16 = 46,
        /// Arena that runs every config, bytes.
        arena_bytes: u32 = 48,
        /// Images behind each score.
        score_images: u32 = 52,
        /// Name of each anchor, UTF-8, separated by newlines.
        anchor_names: Range = 56,
        /// Patches that a head probes at most; 0 without a head.
        patches: u16 = 64,
        /// Boxes that a head refines, or that a dense one leaves, at most; 0 without a head.
        boxes: u16 = 66,
        /// Segments at the start of every path in which the kept maps' bytes are part of the two-ended arena; even.
        lead: u16 = 68,
        /// Zero.
        reserved: [u8; 10] = 70,
    }
);
record!(
    /// A place where a path may change segment. One tensor is alive here, with one quantisation in all configs.
    Cut, 16 {
        /// Rows, columns, channels.
        shape: [u16; 3] = 0,
        /// Integer that stands for 0.0; 0 in int16.
        zero_point: i8 = 6,
        /// int8 or int16.
        element: Element = 7,
        /// Real value of one step, bits of an IEEE 754 single; for people and reports, never computed with.
        scale_bits: u32 = 8,
        /// Number of the anchor, or [`crate::layout::SHARED`].
        anchor: u16 = 12,
        /// Position in the anchor, counted from its input.
        position: u16 = 14,
    }
);
record!(
    /// An activation `[H, W, C]`, channels last, or scratch bytes `[1, 1, n]`.
    Tensor, 16 {
        /// Rows, columns, channels; of a streamed map those that are held at once ([`crate::stream`]).
        shape: [u16; 3] = 0,
        /// Integer that stands for 0.0; 0 in int16.
        zero_point: i8 = 6,
        /// int8 or int16.
        element: Element = 7,
        /// First byte, counted from the end of the arena where the segment's input lies; of a kept map
        /// [`crate::layout::KEPT`] and its number, and in the section of kept maps the first byte behind the two-ended arena.
        offset: u32 = 8,
        /// Real value of one step, bits of an IEEE 754 single; for people only.
        scale_bits: u32 = 12,
    }
);
record!(
    /// One operation. Fields that a kind does not use are zero.
    Op, 64 {
        /// What is computed.
        kind: OpKind = 0,
        /// Least output value.
        min: i8 = 1,
        /// Largest output value.
        max: i8 = 2,
        /// Add, average: right shift of the rescale; LayerNorm: fraction bits of the factors.
        shift: u8 = 3,
        /// Operand.
        input: TensorId = 4,
        /// Second operand of an addition, keys and values of an attention if not `input`'s; else `NO_TENSOR`.
        input2: TensorId = 6,
        /// Result. That of an addition of bytes may lie where `input` does, if nobody reads that later.
        output: TensorId = 8,
        /// Scratch, or `NO_TENSOR`.
        scratch: TensorId = 10,
        /// Window, `[rows, columns]`.
        kernel: [u8; 2] = 12,
        /// Step of the window.
        stride: [u8; 2] = 14,
        /// Padding: top, left, bottom, right.
        pad: [u8; 4] = 16,
        /// Conv: groups; Move: channels that are written; Prepend: positions that come before; Windows: how many; Pool, Sample:
        /// fourth operand.
        groups: u16 = 20,
        /// [`crate::layout::STREAMED`]; Conv: [`crate::layout::WITH_CURVE`], [`crate::layout::IN_BLOCKS`]; in a head [`crate::layout::PER_PATCH`],
        /// [`crate::layout::PER_BOX`] or [`crate::layout::IF_PATCHES`]; Attention: [`crate::layout::WITH_BIAS_MAP`]; Position:
        /// [`crate::layout::REFINES`].
        flags: u16 = 22,
        /// In the data section. Conv: weights; LayerNorm: `i16` factor per channel; Attention: its record; Curve: 256 bytes,
        /// by the input as a byte; Prepend: positions, as the output has them; Add without a second operand: a constant
        /// one, of the output's shape and element; Windows: `i16` row and column of each, unless they are those of patches; Position:
        /// `u32` `[4, rates]`; Overlap: `i16` per head; Select, Pool, Sample, Mix: their record.
        weights: u32 = 24,
        /// Conv, Rescale: `i32` per output channel, input zero point folded in; LayerNorm: `i32` per channel, 1/64 steps of
        /// the output, zero point and rounding half included.
        bias: u32 = 28,
        /// Conv, Rescale: `i32` per output channel, 0..2³¹.
        multiplier: u32 = 32,
        /// Conv, Rescale: `u8` per output channel, 1..=62.
        shifts: u32 = 36,
        /// Add: factors of the operands (16 bits); average: the first, 0..2³¹; LayerNorm: what is added to the variance, times
        /// the squared number of channels: low and high word; Detect, Suppress: width and height of the picture, 1/16 pixel.
        factors: [i32; 2] = 40,
        /// Add: constant, rounding half included; Conv with a curve: its table in the data section.
        constant: i32 = 48,
        /// Move: first row, column and channel that is read; Roll: the first two, rows and columns of the shift; Windows: the first
        /// two, added to the row and column of each; Suppress: the logit, Q12, above which a cell has a box, and the largest
        /// overlap, Q15.
        origin: [i16; 3] = 52,
        /// Move: first output channel that is written; Pool, Sample, Suppress, and Attention with a map as bias: third
        /// operand.
        first_channel: u16 = 58,
        /// Move: read step, `[rows, columns]`.
        step: [u8; 2] = 60,
        /// Move: how often a row and a column is repeated.
        repeat: [u8; 2] = 62,
    }
);
record!(
    /// Numbers of an attention, in the data section. Head `h` has its queries in `query_width` channels of `input` from
    /// `query_first + h·query_per_head`, and its keys (as wide) and values in channels of the other map.
    Attention, 48 {
        /// Heads.
        heads: u16 = 0,
        /// First channel of the queries of head 0.
        query_first: u16 = 2,
        /// From one head to the next.
        query_per_head: u16 = 4,
        /// Channels of a query and of a key.
        query_width: u16 = 6,
        /// First channel of the keys of head 0.
        key_first: u16 = 8,
        /// From one head to the next.
        key_per_head: u16 = 10,
        /// First channel of the values of head 0.
        value_first: u16 = 12,
        /// From one head to the next.
        value_per_head: u16 = 14,
        /// Channels of a value.
        value_width: u16 = 16,
        /// Rows and columns of a window in the map of the queries.
        query_window: [u16; 2] = 18,
        /// Rows and columns of a window in the map of keys and values.
        key_window: [u16; 2] = 22,
        /// Right shift of the scores' rescale, 1..=62.
        logit_shift: u8 = 26,
        /// Right shift of the output's rescale, 1..=62.
        shift: u8 = 27,
        /// Products to base-2 exponents with 8 fraction bits, 0..2³¹.
        logit_multiplier: i32 = 28,
        /// Sums of values times weights (15 fraction bits) to the output, 0..2³¹.
        multiplier: i32 = 32,
        /// Added to the exponents: `i16` `[heads, queries, keys]`, if flag 1 is set.
        bias: u32 = 36,
        /// Added to the exponents: `i16` `[windows, queries, keys]`, if flag 2 is set.
        mask: u32 = 40,
        /// [`crate::layout::WITH_BIAS`], [`crate::layout::WITH_MASK`].
        flags: u16 = 44,
        /// Zero.
        reserved: u16 = 46,
    }
);
record!(
    /// Numbers of a detector's anchors, in the data section: of `Select` and of the `Pool` that follows, whose layer has bias,
    /// multipliers and shifts in the op. Logits are Q12, lengths 1/16 pixel. `docs/detector.md` has the arithmetic.
    Generator, 64 {
        /// Width and height of the picture.
        size: [i16; 2] = 0,
        /// Anchors with a shorter side are none.
        smallest: u16 = 4,
        /// Anchors of one prediction of the fixed patches.
        base_anchors: u16 = 6,
        /// Anchors of one prediction of a probed patch.
        probe_anchors: u16 = 8,
        /// Asks for a patch: logit above.
        low: i16 = 10,
        /// Asks for a patch: logit below.
        high: i16 = 12,
        /// Asks for a patch: sides below.
        side: u16 = 14,
        /// Side of a patch, cells of the first map.
        patch: u16 = 16,
        /// Stays: logit above.
        keep: i16 = 18,
        /// Best ones of the fixed patches that stay if fewer do.
        least: u16 = 20,
        /// Bins of a side of what is pooled.
        bins: u8 = 22,
        /// Logarithms of the strides of the three maps, the finest first.
        strides: [u8; 3] = 23,
        /// Between two maps: the side of the square from whose area on the coarser one is pooled.
        sides: [u16; 2] = 26,
        /// Right shift of a Q16 sample of each map, 1..=62.
        shifts: [u8; 3] = 30,
        /// Integer that stands for 0.0 in what is pooled.
        zero_point: i8 = 33,
        /// Zero.
        reserved: u16 = 34,
        /// Multiplier of a Q16 sample of each map, 0..2³¹.
        multipliers: [i32; 3] = 36,
        /// In the data section: left, top (`i16`), width, height (`u16`) of each fixed patch.
        regions: u32 = 48,
        /// Columns and rows of the first map.
        cells: [u16; 2] = 52,
        /// Weights of the layer on what is pooled, in the data section: rows padded to whole words.
        weights: u32 = 56,
        /// Zero.
        reserved2: u32 = 60,
    }
);
record!(
    /// Numbers of a `Sample`, in the data section.
    Sampling, 24 {
        /// Groups of channels.
        groups: u16 = 0,
        /// Points of a group.
        points: u16 = 2,
        /// Q12 logarithm of the size of the first row of weights, in units of 4 pixels.
        first: i32 = 4,
        /// Rows of weights.
        steps: u16 = 8,
        /// Logarithms of the strides of the three maps, the finest first.
        strides: [u8; 3] = 10,
        /// Right shift of the weighted sum, 1..=62.
        shift: u8 = 13,
        /// Zero.
        reserved: u16 = 14,
        /// In the data section: `u16` `[steps, 3]`.
        weights: u32 = 16,
        /// Zero.
        reserved2: u32 = 20,
    }
);
record!(
    /// Numbers of a `Mix`, in the data section. Bias, multipliers and shifts of the layer that makes the matrices are the op's;
    /// its outputs are, for each group, `[width][width]`, output channel first, then `[points out][points in]`.
    Mixing, 32 {
        /// Groups of channels.
        groups: u16 = 0,
        /// Channels of a group.
        width: u16 = 2,
        /// Points that were sampled.
        points_in: u16 = 4,
        /// Points behind the second product.
        points_out: u16 = 6,
        /// Factor of the norm behind the first product.
        inner_factor: i16 = 8,
        /// Its fraction bits, 0..=15.
        inner_bits: u8 = 10,
        /// Fraction bits of the other factor, 0..=15.
        outer_bits: u8 = 11,
        /// Factor of the norm behind the second product.
        outer_factor: i16 = 12,
        /// Zero.
        reserved: u16 = 14,
        /// 1/64 steps, rounding half included, of the first norm.
        inner_offset: i32 = 16,
        /// The same of the second.
        outer_offset: i32 = 20,
        /// Weights of the layer that makes the matrices, in the data section: rows padded to whole words.
        weights: u32 = 24,
        /// Zero.
        reserved2: u32 = 28,
    }
);
record!(
    /// A block or a stitch.
    Segment, 40 {
        /// Block or stitch.
        kind: SegmentKind = 0,
        /// Zero.
        reserved: u8 = 1,
        /// Cut that it starts from.
        from: CutId = 2,
        /// Cut that it reaches.
        to: CutId = 4,
        /// First op.
        first_op: u16 = 6,
        /// Ops.
        ops: u16 = 8,
        /// First tensor.
        first_tensor: u16 = 10,
        /// Tensors.
        tensors: u16 = 12,
        /// Tensor at the input end.
        input: TensorId = 14,
        /// Tensor at the far end.
        output: TensorId = 16,
        /// Kept maps that it writes, a bit each.
        keeps: u8 = 18,
        /// Kept maps that it reads, a bit each.
        takes: u8 = 19,
        /// Arena that it needs, bytes.
        peak_bytes: u32 = 20,
        /// Weights, biases and requantisation, bytes.
        flash_bytes: u32 = 24,
        /// Multiply-accumulates.
        macs: u64 = 28,
        /// Most bytes alive at once: no placement can need less.
        live_bytes: u32 = 36,
    }
);
record!(
    /// Segments of a path whose numbers follow one another.
    Run, 4 {
        /// The first.
        first: SegmentId = 0,
        /// How many.
        segments: u16 = 2,
    }
);
record!(
    /// One path through the family. What is a sum over its segments, and its name, the image computes: a family has
    /// hundreds of configs.
    Config, 16 {
        /// First run of its path.
        first_run: u16 = 0,
        /// Segments, those of all its runs.
        segments: u16 = 2,
        /// First overlay.
        first_overlay: u16 = 4,
        /// Overlays, in order of their ops.
        overlays: u16 = 6,
        /// Arena that it needs, bytes: the largest of its segments, and the kept maps.
        arena_bytes: u32 = 8,
        /// Correct answers in 10,000, measured with these integers; of a detector AP at an IoU of 0.5, times 10,000.
        score: u16 = 12,
        /// The same of the float path.
        float_score: u16 = 14,
    }
);
record!(
    /// Another bias for one op, in one config.
    Overlay, 8 {
        /// The op, a convolution.
        op: OpId = 0,
        /// Segment of the path that has the op, counted from 0: says without a search whether a run has met it.
        step: u16 = 2,
        /// `i32` per output channel in the data section.
        bias: u32 = 4,
    }
);

record!(
    /// A device whose costs the image carries. Target 0 is the one that the configs were chosen for.
    Target, 16 {
        /// Name, UTF-8.
        name: Range = 0,
        /// Ticks of its costs in one second, at least 1.
        ticks_per_second: u32 = 8,
        /// What a change of config is predicted to add: caches are cold.
        switch_ticks: u32 = 12,
    }
);
record!(
    /// What a segment costs on a target; from the decision at the cut before it to the one behind it.
    Cost, 16 {
        /// Predicted ticks.
        ticks: u32 = 0,
        /// Ticks that it never exceeds, with cold caches too, at least those predicted. Deadlines rest on it.
        bound_ticks: u32 = 4,
        /// Predicted energy, microjoules.
        energy_uj: u32 = 8,
        /// Energy that it never exceeds, microjoules, at least what is predicted.
        bound_energy_uj: u32 = 12,
    }
);

impl Run {
    /// The number behind its last segment.
    pub(crate) fn end(self) -> u32 {
        u32::from(self.first.0) + u32::from(self.segments)
    }
}

impl Element {
    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> u16 {
        match self {
            Self::Int16 => 2,
            _ => 1,
        }
    }
}

fn bytes(shape: [u16; 3], element: Element) -> u64 {
    shape.iter().map(|&side| u64::from(side)).product::<u64>() * u64::from(element.bytes())
}

impl Tensor {
    /// Number of the kept map that it is, if it is one.
    #[must_use]
    pub fn kept(&self) -> Option<u32> {
        (self.offset & KEPT != 0).then_some(self.offset & !KEPT)
    }

    /// Bytes of the values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(self.shape, self.element)
    }
}

impl Cut {
    /// Bytes of the values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(self.shape, self.element)
    }
}

macro_rules! in_data {
    ($($name:ident),*) => {$(
        impl $name {
            /// The record as the data section has it.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; Self::LEN] {
                let mut bytes = [0; Self::LEN];
                self.write(&mut bytes);
                bytes
            }
        }
    )*};
}
in_data!(Attention, Generator, Sampling, Mixing);

impl Attention {
    /// Queries of a window.
    #[must_use]
    pub fn queries(&self) -> u32 {
        self.query_window.iter().map(|&side| u32::from(side)).product()
    }

    /// Keys of a window.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.key_window.iter().map(|&side| u32::from(side)).product()
    }

    /// Bytes of the bias table, 0 without one.
    #[must_use]
    pub fn bias_bytes(&self) -> u64 {
        let table = 2 * u64::from(self.heads) * u64::from(self.queries()) * u64::from(self.keys());
        if self.flags & WITH_BIAS == 0 { 0 } else { table }
    }

    /// Bytes of the mask of `windows` windows, 0 without one.
    #[must_use]
    pub fn mask_bytes(&self, windows: u32) -> u64 {
        let table = 2 * u64::from(windows) * u64::from(self.queries()) * u64::from(self.keys());
        if self.flags & WITH_MASK == 0 { 0 } else { table }
    }
}

impl OpKind {
    /// Its number in an image.
    #[must_use]
    pub fn number(self) -> u8 {
        let mut byte = [0];
        self.write(&mut byte);
        byte[0]
    }

    /// Whether only a detector's head has it.
    #[must_use]
    pub fn is_of_head(self) -> bool {
        matches!(
            self,
            Self::Windows
                | Self::Select
                | Self::Pool
                | Self::Position
                | Self::Overlap
                | Self::Sample
                | Self::Mix
                | Self::Detect
                | Self::Suppress
        )
    }
}

impl Mixing {
    /// Elements of the matrices of all groups.
    #[must_use]
    pub fn matrices(&self) -> u64 {
        let [groups, width, inputs, outputs] =
            [self.groups, self.width, self.points_in, self.points_out].map(u64::from);
        groups * (width * width + inputs * outputs)
    }
}

impl Op {
    /// An op whose fields are those that a kind does not use.
    pub const EMPTY: Self = Self {
        kind: OpKind::Move,
        min: -128,
        max: 127,
        shift: 0,
        input: TensorId(0),
        input2: TensorId(NO_TENSOR),
        output: TensorId(0),
        scratch: TensorId(NO_TENSOR),
        kernel: [0; 2],
        stride: [0; 2],
        pad: [0; 4],
        groups: 0,
        flags: 0,
        weights: 0,
        bias: 0,
        multiplier: 0,
        shifts: 0,
        factors: [0; 2],
        constant: 0,
        origin: [0; 3],
        first_channel: 0,
        step: [0; 2],
        repeat: [0; 2],
    };

    /// The tensors that it reads, or [`NO_TENSOR`].
    #[must_use]
    pub fn operands(&self) -> [TensorId; 4] {
        const NONE: TensorId = TensorId(NO_TENSOR);
        let [third, fourth] = [TensorId(self.first_channel), TensorId(self.groups)];
        let rest = match self.kind {
            OpKind::Pool | OpKind::Sample => [third, fourth],
            OpKind::Suppress => [third, NONE],
            OpKind::Attention if self.flags & WITH_BIAS_MAP != 0 => [third, NONE],
            _ => [NONE; 2],
        };
        [self.input, self.input2, rest[0], rest[1]]
    }

    /// Whether the op behind it takes its output up strip by strip.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.flags & STREAMED != 0
    }

    /// Whether it reads the tensor of a number.
    #[must_use]
    pub fn reads(&self, tensor: usize) -> bool {
        self.operands().into_iter().any(|id| id.0 != NO_TENSOR && id.index() == tensor)
    }

    /// Numbers every tensor anew that it reads, writes or works in.
    pub fn renumber(&mut self, new: impl Fn(TensorId) -> TensorId) {
        let [_, _, third, fourth] = self.operands();
        let all = [&mut self.input, &mut self.input2, &mut self.output, &mut self.scratch];
        all.into_iter().filter(|id| id.0 != NO_TENSOR).for_each(|id| *id = new(*id));
        if third.0 != NO_TENSOR {
            self.first_channel = new(third).0;
        }
        if fourth.0 != NO_TENSOR {
            self.groups = new(fourth).0;
        }
    }

    /// What a LayerNorm adds to the variance times the squared number of channels.
    #[must_use]
    pub fn epsilon(&self) -> u64 {
        let [low, high] = self.factors.map(|word| u64::from(word as u32));
        high << 32 | low
    }

    /// Logarithm of the pixels across a cell of a map that `Suppress` reads; 0 where it is none.
    #[must_use]
    pub fn stride_log2(&self, map: &Tensor) -> u8 {
        let across = self.factors[0].unsigned_abs() / 16 / u32::from(map.shape[1]).max(1);
        across.checked_ilog2().unwrap_or(0) as u8
    }

    /// Terms of one dot product of a convolution.
    #[must_use]
    pub fn reduction(&self, input: &Tensor) -> u32 {
        let channels = u32::from(input.shape[2]) / u32::from(self.groups.max(1));
        u32::from(self.kernel[0]) * u32::from(self.kernel[1]) * channels
    }

    /// Whether the weights of a convolution may lie in blocks, `[outputs/16][terms/4][16][4]`: four neighbours of a row of each
    /// of 16 channels. It has one group, outputs in sixteens, and lines of a window that are whole words, so blocks are as long
    /// as rows.
    #[must_use]
    pub fn fits_blocks(&self, input: &Tensor, output: &Tensor) -> bool {
        let line = u32::from(self.kernel[1]) * u32::from(input.shape[2]);
        let whole = output.shape[2].is_multiple_of(BLOCK) && line.is_multiple_of(4);
        self.kind == OpKind::Conv && self.groups == 1 && whole
    }

    /// Bytes of the weights of a convolution: rows padded to whole words; depthwise has no rows to pad.
    #[must_use]
    pub fn weight_bytes(&self, input: &Tensor, output: &Tensor) -> u64 {
        let terms = u64::from(self.reduction(input));
        match self.kind {
            OpKind::Depthwise => terms * u64::from(output.shape[2]),
            _ => terms.next_multiple_of(4) * u64::from(output.shape[2]),
        }
    }
}
