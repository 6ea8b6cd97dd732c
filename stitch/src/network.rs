//! What the later stages of the compiler hand to one another: a family cut into segments, in float, then with
//! ranges, then in integers, then with places, then with costs and scores.
//!
//! Segments are numbered once, by `learn`, and keep their numbers to the end: blocks of the first anchor, of the
//! second, …, then stitches in the order of [`crate::cut::Blocks`]' pairs.

use std::collections::BTreeMap;

use plan::Element;

use crate::graph::Node;

/// A place where a path may change segment. Cut 0 is the input, cut 1 the output; both belong to all anchors.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// The anchor, `None` for the input and the output.
    pub anchor: Option<usize>,
    /// Position in the anchor, counted from its input.
    pub position: usize,
}

/// Block or stitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Operations of one anchor between two neighbouring cuts.
    Block,
    /// A learned layer from a cut of one anchor to a cut of another.
    Stitch,
}

/// A segment in float. Node inputs and outputs index `tensors`.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Block or stitch.
    pub kind: Kind,
    /// Layer whose weights a stitch has: stitches of one layer stay equal when they are trained. None: no other has them.
    pub layer: Option<usize>,
    /// For people: `small.3` (block 3 of small) or `small.2>medium.3`.
    pub name: String,
    /// Cut that it starts from.
    pub from: usize,
    /// Cut that it reaches.
    pub to: usize,
    /// Shapes `[H, W, C]`.
    pub tensors: Vec<[usize; 3]>,
    /// Operations in order.
    pub nodes: Vec<Node>,
    /// Tensor that holds the cut `from`.
    pub input: usize,
    /// Tensor that holds the cut `to`.
    pub output: usize,
    /// Maps that stay for a head: number of the map, and tensor.
    pub keeps: Vec<(usize, usize)>,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// Another bias for one convolution of one path (statistics correction).
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// Segment, an entry of the path.
    pub segment: usize,
    /// Node of the segment.
    pub node: usize,
    /// The whole bias that replaces the node's, one value per output channel.
    pub bias: Vec<f32>,
}

/// One path through the family.
#[derive(Clone, Debug)]
pub struct Path {
    /// Anchor name, or `small.2>medium.3` for a stitched path.
    pub name: String,
    /// Segments in order, from cut 0 to cut 1.
    pub segments: Vec<usize>,
    /// Corrections in order of the path; none for an anchor.
    pub corrections: Vec<Correction>,
}

/// Output of `learn`: every segment with float weights, every path. The first paths are the anchors, in order.
#[derive(Clone, Debug)]
pub struct Stitched {
    /// Names of the anchors, in increasing order of cost.
    pub anchors: Vec<String>,
    /// Cuts; 0 is the input, 1 the output.
    pub cuts: Vec<Cut>,
    /// Segments.
    pub segments: Vec<Segment>,
    /// Paths, anchors first.
    pub paths: Vec<Path>,
}

/// Least and largest value seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// Least.
    pub min: f32,
    /// Largest.
    pub max: f32,
}

/// Output of `calibrate`.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The family.
    pub stitched: Stitched,
    /// Range of each tensor of each segment, over all paths that run it. Tensors at a cut have the cut's range.
    pub tensors: Vec<Vec<Extent>>,
    /// Per segment, tensor and channel: the largest value without its sign.
    pub channels: Vec<Vec<Vec<f32>>>,
    /// Range of each cut.
    pub cuts: Vec<Extent>,
}

/// Quantisation of a tensor: real = scale · (integer − zero_point).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    /// Real value of one step, > 0.
    pub scale: f32,
    /// Integer that stands for 0.0; 0 in int16.
    pub zero_point: i8,
    /// int8 or int16.
    pub element: Element,
}

/// A convolution's integers.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvWeights {
    /// As the image stores them: rows padded to whole words (`Conv`), or `[KH][KW][C]` (`Depthwise`).
    pub weights: Vec<i8>,
    /// Per output channel, input zero point folded in.
    pub bias: Vec<i32>,
    /// Per output channel, 0..2³¹.
    pub multiplier: Vec<i32>,
    /// Per output channel, 1..=62.
    pub shift: Vec<u8>,
    /// A function that follows, by the int8 result as a byte; empty without one.
    pub curve: Vec<i8>,
}

/// What other ops have in flash.
#[derive(Clone, Debug, PartialEq)]
pub enum Constants {
    /// None.
    Nothing,
    /// A table, positions or a second operand, as the image stores them.
    Bytes(Vec<u8>),
    /// Of a LayerNorm, per channel.
    Norm {
        /// Factors, with the fraction bits that the record says.
        factor: Vec<i16>,
        /// In 1/64 steps of the output.
        offset: Vec<i32>,
    },
    /// Of a `Select` or a `Pool`, whose weights are those of the op; the place of the table is 0.
    Generator {
        /// Its numbers.
        record: plan::Generator,
        /// Regions, as the image stores them.
        regions: Vec<u8>,
    },
    /// Of a `Sample`; the place of the table is 0.
    Sampling {
        /// Its numbers.
        record: plan::Sampling,
        /// Weights of the maps, row by row.
        weights: Vec<u16>,
    },
    /// Of a `Mix`; the weights are those of the op.
    Mixing(plan::Mixing),
    /// Of an attention.
    Attention {
        /// Its numbers; places of the tables are 0.
        record: plan::Attention,
        /// `[heads, queries, keys]`, or nothing.
        bias: Vec<i16>,
        /// `[windows, queries, keys]`, or nothing.
        mask: Vec<i16>,
    },
}

/// One integer op: the image's record without places and offsets, and its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerOp {
    /// The record; tensors count within the segment, offsets into the data section are 0, scratch is none.
    pub record: plan::Op,
    /// Weights of a convolution, without any for a rescale.
    pub weights: Option<ConvWeights>,
    /// What else it has in flash.
    pub constants: Constants,
    /// Scratch bytes that the kernels ask for.
    pub scratch_bytes: usize,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl IntegerSegment {
    /// Whether a tensor is a map that stays for a head.
    #[must_use]
    pub fn is_kept(&self, tensor: usize) -> bool {
        self.keeps.iter().any(|(_, kept)| *kept == tensor)
    }

    /// Whether the output takes the place of the input.
    #[must_use]
    pub fn stays(&self) -> bool {
        let mut at = self.output;
        while let Some(&(_, operand)) = self.in_place.iter().find(|(output, _)| *output == at) {
            at = operand;
        }
        at == self.input
    }

    /// Shape of a tensor in memory: of a streamed one the lines that are held.
    #[must_use]
    pub fn shape(&self, tensor: usize) -> [usize; 3] {
        self.held.get(&tensor).copied().unwrap_or(self.tensors[tensor].0)
    }

    /// Bytes of a tensor in memory.
    #[must_use]
    pub fn bytes(&self, tensor: usize) -> usize {
        let (shape, quant) = (self.shape(tensor), self.tensors[tensor].1);
        shape.iter().product::<usize>() * usize::from(quant.element.bytes())
    }
}

/// A segment in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerSegment {
    /// Block or stitch.
    pub kind: Kind,
    /// Name, as in [`Segment`].
    pub name: String,
    /// Cut that it starts from.
    pub from: usize,
    /// Cut that it reaches.
    pub to: usize,
    /// Shape and quantisation of each activation.
    pub tensors: Vec<([usize; 3], Quant)>,
    /// Shape of what is held of each streamed tensor, by its number.
    pub held: BTreeMap<usize, [usize; 3]>,
    /// Sums that take the place of their first operand, in order: output and operand.
    pub in_place: Vec<(usize, usize)>,
    /// The tensor of the float segment that each stands for; `None` for a copy in another quantisation.
    pub stands_for: Vec<Option<usize>>,
    /// Ops in order.
    pub ops: Vec<IntegerOp>,
    /// Tensor that holds the cut `from`.
    pub input: usize,
    /// Tensor that holds the cut `to`.
    pub output: usize,
    /// Maps that stay for a head, or that the head reads: number of the map, and tensor.
    pub keeps: Vec<(usize, usize)>,
}

/// Another integer bias for one op of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerCorrection {
    /// Segment, an entry of the path.
    pub segment: usize,
    /// Op of the segment.
    pub op: usize,
    /// Per output channel, input zero point folded in.
    pub bias: Vec<i32>,
}

/// A path in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerPath {
    /// Name, as in [`Path`].
    pub name: String,
    /// Segments in order.
    pub segments: Vec<usize>,
    /// Corrections in order of the path.
    pub corrections: Vec<IntegerCorrection>,
}

/// Output of `quantize`: every integer that the device will use.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Names of the anchors.
    pub anchors: Vec<String>,
    /// Cuts with their one quantisation.
    pub cuts: Vec<(Cut, Quant)>,
    /// Segments.
    pub segments: Vec<IntegerSegment>,
    /// Paths, anchors first.
    pub paths: Vec<IntegerPath>,
    /// Pixel value → input value, per channel.
    pub preprocess: Vec<[i8; 256]>,
    /// Maps that stay for a head: shape and their one quantisation.
    pub kept: Vec<([usize; 3], Quant)>,
    /// The cut where every path ends.
    pub output: usize,
    /// Most patches and boxes of the head, 0 without one.
    pub caps: [u16; 2],
}

impl Quantized {
    /// Segments at the start of every path that neither write nor read a kept map; even, so that the next one begins at the end
    /// that does not move.
    #[must_use]
    pub fn lead(&self) -> usize {
        let keeps = |&number: &usize| !self.segments[number].keeps.is_empty();
        let first = self.paths.iter().filter_map(|path| path.segments.iter().position(keeps)).min();
        first.unwrap_or(0) / 2 * 2
    }
}

/// Where the tensors of one segment lie, counted from its input end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First byte of each activation, at the smallest arena.
    pub offsets: Vec<u32>,
    /// First byte of the scratch of each op that has some.
    pub scratch: Vec<Option<u32>>,
    /// Arena that the segment needs.
    pub peak_bytes: u32,
    /// Most bytes alive at once: no placement can need less.
    pub live_bytes: u32,
}

/// Output of `place`.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The family.
    pub quantized: Quantized,
    /// Placement of each segment.
    pub placements: Vec<Placement>,
}
