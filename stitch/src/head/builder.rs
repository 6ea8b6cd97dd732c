//! Ops of a head, one after another, with the tensors between them.

use ndarray::Array4;
use plan::layout::NO_TENSOR;
use plan::{OpKind, TensorId};

use super::HeadFile;
use crate::error::Error;
use crate::network::{Constants, ConvWeights, IntegerOp, Quant};
use crate::quantize::numbers::{addition, conv_weights, rescale, weight_scales};
use crate::quantize::ranges::narrow;
use crate::quantize::transformer::{NormNumbers, norm_numbers};

/// Which rows of its maps an op runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// All.
    All,
    /// All, if there is a patch.
    IfPatches,
    /// Those of the patches that there are.
    PerPatch,
    /// Those of the boxes that there are.
    PerBox,
}

/// A convolution; of the file's bias if none is given.
pub(super) struct Layer<'n> {
    pub name: &'n str,
    /// `[O, KH, KW, I / groups]`.
    pub weights: Array4<f32>,
    pub bias: Option<Vec<f32>>,
    pub pad: [usize; 4],
    pub stride: usize,
    pub groups: usize,
    pub relu: bool,
    pub rows: Rows,
}

impl<'n> Layer<'n> {
    /// One without weights yet: no padding, stride 1, no activation.
    pub fn new(name: &'n str) -> Self {
        let weights = Array4::zeros([0; 4]);
        Self { name, weights, bias: None, pad: [0; 4], stride: 1, groups: 1, relu: false, rows: Rows::All }
    }
}

/// A layer norm over `values` of each row.
pub(super) struct Norm<'n> {
    pub name: &'n str,
    pub range: &'n str,
    pub relu: bool,
    pub values: usize,
}

/// Weights and bias of a layer in integers.
pub(super) fn integers(
    weights: &Array4<f32>,
    bias: &[f32],
    depthwise: bool,
    [from, to]: [Quant; 2],
    name: &str,
) -> Result<ConvWeights, Error> {
    let largest: Vec<f32> = bias.iter().map(|bias| bias.abs()).collect();
    let scales = weight_scales(weights, &largest, from);
    Ok(conv_weights(weights, bias, &scales, depthwise, [from, to], name)?.0)
}

/// The segment under construction.
pub(super) struct Builder<'f> {
    pub file: &'f HeadFile,
    pub tensors: Vec<([usize; 3], Quant)>,
    pub ops: Vec<IntegerOp>,
}

impl<'f> Builder<'f> {
    pub fn new(file: &'f HeadFile) -> Self {
        Self { file, tensors: vec![], ops: vec![] }
    }

    pub fn tensor(&mut self, shape: [usize; 3], quant: Quant) -> usize {
        self.tensors.push((shape, quant));
        self.tensors.len() - 1
    }

    /// The record of an op with up to four operands.
    pub fn op(&self, kind: OpKind, operands: &[usize], output: usize) -> Result<plan::Op, Error> {
        let id = |tensor: usize| {
            u16::try_from(tensor).map_err(|_| self.file.bad(format!("{tensor} tensors; a head has fewer")))
        };
        let mut operands = operands.iter().map(|&tensor| id(tensor));
        let mut next = || operands.next().unwrap_or(Ok(NO_TENSOR));
        let (input, input2) = (TensorId(next()?), TensorId(next()?));
        let mut record = plan::Op { kind, input, input2, output: TensorId(id(output)?), ..plan::Op::EMPTY };
        match kind {
            OpKind::Pool | OpKind::Sample => (record.first_channel, record.groups) = (next()?, next()?),
            OpKind::Suppress => record.first_channel = next()?,
            _ => {}
        }
        Ok(record)
    }

    pub fn push(&mut self, record: plan::Op, constants: Constants) {
        self.push_with(record, constants, 0, 0);
    }

    pub fn push_with(&mut self, record: plan::Op, constants: Constants, scratch_bytes: usize, macs: u64) {
        self.ops.push(IntegerOp { record, weights: None, constants, scratch_bytes, macs });
    }

    pub fn push_layer(
        &mut self,
        record: plan::Op,
        (weights, constants): (ConvWeights, Constants),
        scratch_bytes: usize,
        macs: u64,
    ) {
        self.ops.push(IntegerOp { record, weights: Some(weights), constants, scratch_bytes, macs });
    }

    /// A convolution of a map; its output.
    pub fn conv(&mut self, layer: Layer<'_>, input: usize, to: Quant) -> Result<usize, Error> {
        let ([height, width, inputs], from) = self.tensors[input];
        let [outputs, rows, columns, _] = layer.weights.dim().into();
        let bias = layer.bias.map_or_else(|| self.file.bias(layer.name, outputs), Ok)?;
        let [top, left, bottom, right] = layer.pad;
        let side = |side: usize, kernel: usize| (side - kernel) / layer.stride + 1;
        let shape = [side(height + top + bottom, rows), side(width + left + right, columns), outputs];
        let output = self.tensor(shape, to);
        let depthwise = layer.groups == inputs && layer.groups > 1;
        let weights = integers(&layer.weights, &bias, depthwise, [from, to], layer.name)?;
        let kind = if depthwise { OpKind::Depthwise } else { OpKind::Conv };
        let mut record = self.op(kind, &[input], output)?;
        (record.kernel, record.stride) = ([rows as u8, columns as u8], [layer.stride as u8; 2]);
        record.pad = layer.pad.map(|pad| pad as u8);
        (record.groups, record.flags) = (layer.groups as u16, layer.rows.flag());
        record.min = if layer.relu { to.zero_point } else { i8::MIN };
        let positions = shape[0] * shape[1];
        let scratch = if depthwise { 0 } else { kernels::conv_scratch(record.kernel, inputs as u16, positions) };
        let macs = (layer.weights.len() * positions) as u64;
        self.push_layer(record, (weights, Constants::Nothing), scratch, macs);
        Ok(output)
    }

    pub fn add(&mut self, name: &str, operands: [usize; 2], to: Quant, rows: Rows) -> Result<usize, Error> {
        let output = self.tensor(self.tensors[operands[0]].0, to);
        let mut record = self.op(OpKind::Add, &operands, output)?;
        addition(&mut record, operands.map(|tensor| self.tensors[tensor].1), to, name)?;
        record.flags = rows.flag();
        self.push(record, Constants::Nothing);
        Ok(output)
    }

    /// The same values in another quantisation; what is below 0 is cut off where that has no room for it.
    pub fn rescale(&mut self, name: &str, input: usize, to: Quant, rows: Rows) -> Result<usize, Error> {
        let (shape, from) = self.tensors[input];
        let output = self.tensor(shape, to);
        let mut record = self.op(OpKind::Rescale, &[input], output)?;
        record.flags = rows.flag();
        let weights = rescale(from, &vec![to.scale; shape[2]], name)?;
        self.push_layer(record, (weights, Constants::Nothing), 0, 0);
        Ok(output)
    }

    /// Each value four times.
    pub fn twice(&mut self, input: usize) -> usize {
        let ([height, width, channels], quant) = self.tensors[input];
        let output = self.tensor([2 * height, 2 * width, channels], quant);
        let (input, output_id) = (TensorId(input as u16), TensorId(output as u16));
        let record = plan::Op {
            kind: OpKind::Move,
            input,
            output: output_id,
            groups: channels as u16,
            step: [1; 2],
            repeat: [2; 2],
            ..plan::Op::EMPTY
        };
        self.push(record, Constants::Nothing);
        output
    }

    /// Square windows at fixed corners, `[count, 1, side·side·C]`.
    pub fn windows(
        &mut self,
        name: &str,
        input: usize,
        side: usize,
        corners: &[[i16; 2]],
        rows: Rows,
    ) -> Result<usize, Error> {
        let ([_, _, channels], quant) = self.tensors[input];
        let output = self.tensor([corners.len(), 1, side * side * channels], quant);
        let mut record = self.op(OpKind::Windows, &[input], output)?;
        let side =
            u8::try_from(side).map_err(|_| self.file.bad(format!("{name}: a patch of {side} cells; 255 at most")))?;
        (record.kernel, record.groups, record.flags) = ([side; 2], corners.len() as u16, rows.flag());
        let table = corners.iter().flatten().flat_map(|corner| corner.to_le_bytes()).collect();
        self.push(record, Constants::Bytes(table));
        Ok(output)
    }

    /// A norm of an int16 map, to int8.
    pub fn norm(&mut self, norm: Norm<'_>, input: usize, rows: Rows) -> Result<usize, Error> {
        let (shape, from) = self.tensors[input];
        let to = narrow(self.file.range(norm.range)?);
        let factor = self.file.vector(&format!("{}.weight", norm.name), norm.values)?;
        let offset = self.file.vector(&format!("{}.bias", norm.name), norm.values)?;
        let NormNumbers { bits, factor, offset, added } =
            norm_numbers([&factor, &offset], 1e-5, [from, to], norm.name)?;
        let output = self.tensor(shape, to);
        let mut record = self.op(OpKind::LayerNorm, &[input], output)?;
        (record.shift, record.factors) = (bits, [added as u32 as i32, (added >> 32) as i32]);
        (record.flags, record.min) = (rows.flag(), if norm.relu { to.zero_point } else { i8::MIN });
        self.push(record, Constants::Norm { factor, offset });
        Ok(output)
    }

    /// A norm of each box.
    pub fn box_norm(&mut self, name: &str, input: usize, relu: bool, values: usize) -> Result<usize, Error> {
        self.norm(Norm { name, range: name, relu, values }, input, Rows::PerBox)
    }
}
