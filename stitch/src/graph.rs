//! The float form of a network: nodes in order, maps `[H, W, C]`, channels last, no batch dimension.
//!
//! Tokens are maps too: `[H, W, C]` as long as they are the positions of an image, `[1, N, C]` once a class token has joined
//! them. So a stitch between any two networks is a 1×1 convolution, and heads, windows and the transposes around them are
//! numbers of one [`Attention`] instead of tensors of their own.

mod attention;
mod function;

use std::fmt;

pub use attention::{Attention, Heads};
pub use function::Function;

use ndarray::Array4;

/// Bounds of a fused activation; infinite where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Least value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Self { min: f32::NEG_INFINITY, max: f32::INFINITY };
    /// `max(x, 0)`.
    pub const RELU: Self = Self { min: 0.0, max: f32::INFINITY };

    /// `value` within the bounds.
    #[must_use]
    pub fn apply(self, value: f32) -> f32 {
        value.max(self.min).min(self.max)
    }

    /// This bound, then `outer`.
    #[must_use]
    pub fn then(self, outer: Self) -> Self {
        Self { min: outer.apply(self.min), max: outer.apply(self.max) }
    }
}

/// A window that walks over a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows, columns.
    pub kernel: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Padding with zeros: top, left, bottom, right.
    pub pad: [usize; 4],
}

impl Window {
    /// Rows and columns of the output for a map of `height` × `width`, if the window fits at all.
    #[must_use]
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let side = |side: usize, axis: usize| {
            let padded = side + self.pad[axis] + self.pad[axis + 2];
            Some(padded.checked_sub(self.kernel[axis])? / self.stride[axis].max(1) + 1)
        };
        Some([side(height, 0)?, side(width, 1)?])
    }
}

/// Mean or maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Mean over the whole window, padding counted as 0.
    Average,
    /// Maximum, padding not counted.
    Max,
}

/// What a node computes. Every op ends with its clamp.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Convolution; a dense layer is one whose window is the whole map.
    Conv {
        /// `[O, KH, KW, I/groups]`.
        weights: Array4<f32>,
        /// One per output channel.
        bias: Vec<f32>,
        /// Window.
        window: Window,
        /// Groups; divide both channel counts.
        groups: usize,
        /// Fused activation.
        clamp: Clamp,
    },
    /// Per-channel factor and offset: a batch-norm that `simplify` has not folded yet.
    Scale {
        /// Factor per channel.
        factor: Vec<f32>,
        /// Offset per channel.
        offset: Vec<f32>,
    },
    /// Sum of two maps of one shape.
    Add {
        /// Fused activation.
        clamp: Clamp,
    },
    /// Mean or maximum over a window.
    Pool {
        /// Which.
        kind: PoolKind,
        /// Window.
        window: Window,
        /// Fused activation.
        clamp: Clamp,
    },
    /// `out[y, x, c] = in[y·step/repeat + origin₀, x·step/repeat + origin₁, c + origin₂]`, 0 outside: strided slice,
    /// pad, nearest resize by whole factors, clamp. The output's shape says how far it goes.
    Move {
        /// First row, column and channel that is read.
        origin: [isize; 3],
        /// Read step of rows and columns.
        step: [usize; 2],
        /// How often a row and a column is repeated.
        repeat: [usize; 2],
        /// Fused activation.
        clamp: Clamp,
    },
    /// Channels of all inputs, one after another.
    Concat {
        /// Fused activation.
        clamp: Clamp,
    },
    /// Normalises the channels of each position to mean 0 and variance 1, then scales and shifts them.
    LayerNorm {
        /// Factor per channel.
        factor: Vec<f32>,
        /// Offset per channel.
        offset: Vec<f32>,
        /// Added to the variance.
        epsilon: f32,
    },
    /// A function of each element.
    Curve {
        /// Which.
        function: Function,
    },
    /// Attention.
    Attention(Box<Attention>),
    /// Sum with a constant map (a position embedding).
    Offset {
        /// `[H, W, C]`.
        values: Vec<f32>,
    },
    /// Constant tokens, then the positions of a map row by row: `[H, W, C]` to `[1, tokens + H·W, C]`.
    Prepend {
        /// `[tokens, C]`.
        tokens: Vec<f32>,
    },
    /// Cyclic shift: `out[y, x] = in[(y + by₀) mod H, (x + by₁) mod W]`.
    Roll {
        /// Rows and columns.
        by: [usize; 2],
    },
}

impl Op {
    /// The fused activation; none where the op has no place for one.
    #[must_use]
    pub fn clamp(&self) -> Clamp {
        match self {
            Self::Conv { clamp, .. }
            | Self::Add { clamp }
            | Self::Pool { clamp, .. }
            | Self::Move { clamp, .. }
            | Self::Concat { clamp } => *clamp,
            _ => Clamp::NONE,
        }
    }

    /// The fused activation, to change it, where the op has a place for one.
    pub fn clamp_mut(&mut self) -> Option<&mut Clamp> {
        match self {
            Self::Conv { clamp, .. }
            | Self::Add { clamp }
            | Self::Pool { clamp, .. }
            | Self::Move { clamp, .. }
            | Self::Concat { clamp } => Some(clamp),
            _ => None,
        }
    }

    /// Weights, biases and tables. A table that the file shares between places counts once per place.
    #[must_use]
    pub fn parameters(&self) -> usize {
        match self {
            Self::Conv { weights, bias, .. } => weights.len() + bias.len(),
            Self::LayerNorm { factor, offset, .. } => factor.len() + offset.len(),
            Self::Attention(attention) => attention.bias.len(),
            Self::Offset { values } => values.len(),
            Self::Prepend { tokens } => tokens.len(),
            _ => 0,
        }
    }

    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv { .. } => "conv",
            Self::Scale { .. } => "scale",
            Self::Add { .. } => "add",
            Self::Pool { kind: PoolKind::Average, .. } => "mean",
            Self::Pool { kind: PoolKind::Max, .. } => "max",
            Self::Move { .. } => "move",
            Self::Concat { .. } => "concat",
            Self::LayerNorm { .. } => "layernorm",
            Self::Curve { function } => function.name(),
            Self::Attention(_) => "attention",
            Self::Offset { .. } => "offset",
            Self::Prepend { .. } => "prepend",
            Self::Roll { .. } => "roll",
        }
    }
}

/// One operation. Inputs and output index a list of tensors kept beside the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name in the ONNX file, for messages.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<usize>,
    /// Result; every tensor but the graph's input is the result of one node.
    pub output: usize,
}

impl Node {
    /// Multiply-accumulates: those of convolutions, dense layers and both products of attention. Norms, curves and sums
    /// count nothing. `tensors` are the shapes that the node's numbers index.
    #[must_use]
    pub fn macs(&self, tensors: &[[usize; 3]]) -> u64 {
        match &self.op {
            Op::Conv { weights, .. } => {
                let [height, width, _] = tensors[self.output];
                (weights.len() * height * width) as u64
            }
            Op::Attention(attention) => {
                let [height, width, _] = tensors[self.output];
                attention.macs(height * width)
            }
            _ => 0,
        }
    }
}

/// A network with one input, nodes in an order in which they can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Name of the anchor.
    pub name: String,
    /// Shape `[H, W, C]` of each tensor.
    pub tensors: Vec<[usize; 3]>,
    /// Operations.
    pub nodes: Vec<Node>,
    /// Tensor of the input.
    pub input: usize,
    /// Tensor of the output; the last one of the file.
    pub output: usize,
    /// Tensors of the file's other outputs, in order: maps that a head reads behind the last block.
    pub taps: Vec<usize>,
}

impl Graph {
    /// Multiply-accumulates of one image.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| node.macs(&self.tensors)).sum()
    }

    /// Weights, biases and tables.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.nodes.iter().map(|node| node.op.parameters()).sum()
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} MACs, {} parameters", self.name, self.macs(), self.parameters())?;
        for node in &self.nodes {
            let shape = self.tensors[node.output];
            writeln!(f, "  t{:<4} = {:<9} {:?} -> {shape:?}  {}", node.output, node.op.name(), node.inputs, node.name)?;
        }
        Ok(())
    }
}
