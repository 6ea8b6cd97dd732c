//! A path of a family as an ONNX model (opset 13): what tract runs to judge a config that no file holds.

mod transformer;

use ndarray::Array4;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto, tensor_proto, tensor_shape_proto, type_proto,
};

use crate::error::Error;
use crate::graph::{Clamp, Node, Op, PoolKind, Window};
use crate::network::{Path, Stitched};

/// Opset in which clamps, pads and slices take their numbers as inputs.
const OPSET: i64 = 13;

/// The model: input `[1, C, H, W]`, output channels first.
pub(super) fn of_path(stitched: &Stitched, path: &Path) -> Result<ModelProto, Error> {
    let mut graph = GraphProto { name: path.name.clone(), ..GraphProto::default() };
    let mut value = "image".to_owned();
    graph.input.push(info(&value, stitched.cuts[0].shape));
    for (step, &number) in path.segments.iter().enumerate() {
        let segment = &stitched.segments[number];
        let name = |tensor: usize| if tensor == segment.input { value.clone() } else { format!("s{step}t{tensor}") };
        for (position, node) in segment.nodes.iter().enumerate() {
            let corrected = path.corrections.iter().find(|c| (c.segment, c.node) == (number, position));
            let mut writer = Writer { graph: &mut graph, prefix: format!("s{step}n{position}"), parts: 0 };
            let inputs: Vec<String> = node.inputs.iter().map(|&tensor| name(tensor)).collect();
            let before_clamp = writer.op(node, &segment.tensors, inputs, corrected.map(|c| &c.bias[..]))?;
            writer.clamp(node.op.clamp(), before_clamp, name(node.output));
        }
        value = name(segment.output);
    }
    graph.output.push(info(&value, stitched.cuts[1].shape));
    let opset = OperatorSetIdProto { domain: String::new(), version: OPSET };
    Ok(ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() })
}

fn info(name: &str, [height, width, channels]: [usize; 3]) -> ValueInfoProto {
    let dim = |size: usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(size as i64)),
        ..tensor_shape_proto::Dimension::default()
    };
    let shape = TensorShapeProto { dim: [1, channels, height, width].map(dim).to_vec() };
    let elem_type = tensor_proto::DataType::Float as i32;
    let tensor = type_proto::Tensor { elem_type, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_proto::AttributeType::Ints as i32,
        ints: values.iter().map(|&value| value as i64).collect(),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_proto::AttributeType::Int as i32,
        i: value as i64,
        ..AttributeProto::default()
    }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: attribute_proto::AttributeType::String as i32,
        s: value.into(),
        ..AttributeProto::default()
    }
}

fn window_attributes(window: &Window) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &window.kernel), ints("strides", &window.stride), ints("pads", &window.pad)]
}

/// Appends the nodes of one op to a graph.
struct Writer<'a> {
    graph: &'a mut GraphProto,
    /// Starts every name that this op invents.
    prefix: String,
    parts: usize,
}

impl Writer<'_> {
    fn fresh(&mut self) -> String {
        self.parts += 1;
        format!("{}_{}", self.prefix, self.parts)
    }

    fn constant(&mut self, dims: &[usize], values: &[f32]) -> String {
        let float_data = values.to_vec();
        self.initializer(dims, tensor_proto::DataType::Float, TensorProto { float_data, ..TensorProto::default() })
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let int64_data = values.to_vec();
        let tensor = TensorProto { int64_data, ..TensorProto::default() };
        self.initializer(&[values.len()], tensor_proto::DataType::Int64, tensor)
    }

    fn initializer(&mut self, dims: &[usize], data_type: tensor_proto::DataType, tensor: TensorProto) -> String {
        let name = self.fresh();
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        self.graph.initializer.push(TensorProto { name: name.clone(), dims, data_type: data_type as i32, ..tensor });
        name
    }

    /// Adds a node and returns the name of its result.
    fn node(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.node_to(op, input, attribute, output.clone());
        output
    }

    fn node_to(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>, output: String) {
        let (name, op_type) = (output.clone(), op.into());
        let output = vec![output];
        self.graph.node.push(NodeProto { name, op_type, input, output, attribute, ..NodeProto::default() });
    }

    /// The op without its clamp; returns the name of its result. `bias` replaces that of a convolution.
    fn op(
        &mut self,
        node: &Node,
        shapes: &[[usize; 3]],
        mut inputs: Vec<String>,
        bias: Option<&[f32]>,
    ) -> Result<String, Error> {
        let shape = |operand: usize| shapes[node.inputs[operand]];
        Ok(match &node.op {
            Op::Conv { weights, bias: own, window, groups, .. } => {
                inputs.push(self.filters(weights));
                inputs.push(self.constant(&[own.len()], bias.unwrap_or(own)));
                let mut attributes = window_attributes(window);
                attributes.push(int("group", *groups));
                self.node("Conv", inputs, attributes)
            }
            Op::Scale { .. } => {
                let what = format!("node `{}`: a scale that `simplify` should have folded", node.name);
                return Err(Error::Stage { stage: "float judge", what });
            }
            Op::Add { .. } => self.node("Add", inputs, vec![]),
            Op::Pool { kind: PoolKind::Average, window, .. } => {
                let mut attributes = window_attributes(window);
                attributes.push(int("count_include_pad", 1));
                self.node("AveragePool", inputs, attributes)
            }
            Op::Pool { kind: PoolKind::Max, window, .. } => self.node("MaxPool", inputs, window_attributes(window)),
            Op::Move { origin, step, repeat, .. } => {
                let input = inputs.swap_remove(0);
                self.moved(input, shape(0), shapes[node.output], *origin, *step, *repeat)
            }
            Op::Concat { .. } => self.node("Concat", inputs, vec![int("axis", 1)]),
            Op::LayerNorm { factor, offset, epsilon } => {
                self.layer_norm(inputs.swap_remove(0), factor, offset, *epsilon)
            }
            Op::Curve { function } => self.function(function, &inputs[0]),
            Op::Attention(attention) => {
                let operands = [0, 1, 2].map(|operand| (inputs[operand].as_str(), shape(operand)));
                self.attention(attention, operands, shapes[node.output])
            }
            Op::Offset { values } => {
                inputs.push(self.map(shapes[node.output], values));
                self.node("Add", inputs, vec![])
            }
            Op::Prepend { tokens } => self.prepend(inputs.swap_remove(0), shape(0), tokens),
            Op::Roll { by } => self.roll(inputs.swap_remove(0), shape(0), *by),
        })
    }

    /// `[O, KH, KW, I]` as ONNX has it: `[O, I, KH, KW]`.
    fn filters(&mut self, weights: &Array4<f32>) -> String {
        let filters = weights.view().permuted_axes([0, 3, 1, 2]);
        let values: Vec<f32> = filters.iter().copied().collect();
        self.constant(filters.shape(), &values)
    }

    /// Repeat, pad and slice, as far as the move does each.
    fn moved(
        &mut self,
        mut value: String,
        from: [usize; 3],
        to: [usize; 3],
        origin: [isize; 3],
        step: [usize; 2],
        repeat: [usize; 2],
    ) -> String {
        let mut sides = [from[2], from[0], from[1]];
        let to = [to[2], to[0], to[1]];
        // Of the repeated map; y·step/repeat + origin = (y·step + origin·repeat)/repeat.
        let origin = [origin[2], origin[0] * repeat[0] as isize, origin[1] * repeat[1] as isize];
        let step = [1, step[0], step[1]];
        if repeat != [1, 1] {
            let scales = self.constant(&[4], &[1.0, 1.0, repeat[0] as f32, repeat[1] as f32]);
            let modes = vec![
                text("mode", "nearest"),
                text("coordinate_transformation_mode", "asymmetric"),
                text("nearest_mode", "floor"),
            ];
            value = self.node("Resize", vec![value, String::new(), scales], modes);
            sides = [sides[0], sides[1] * repeat[0], sides[2] * repeat[1]];
        }
        let last = |axis: usize| origin[axis] + ((to[axis] - 1) * step[axis]) as isize;
        let before: [i64; 3] = [0, 1, 2].map(|axis| (-origin[axis]).max(0) as i64);
        let after: [i64; 3] = [0, 1, 2].map(|axis| (last(axis) + 1 - sides[axis] as isize).max(0) as i64);
        if [before, after] != [[0; 3]; 2] {
            let pads = self.integers(&[0, before[0], before[1], before[2], 0, after[0], after[1], after[2]]);
            value = self.node("Pad", vec![value, pads], vec![text("mode", "constant")]);
        }
        let starts: [i64; 3] = [0, 1, 2].map(|axis| origin[axis] as i64 + before[axis]);
        let ends: [i64; 3] = [0, 1, 2].map(|axis| last(axis) as i64 + before[axis] + 1);
        let whole = (0..3).all(|axis| {
            starts[axis] == 0 && step[axis] == 1 && ends[axis] == sides[axis] as i64 + before[axis] + after[axis]
        });
        if !whole {
            let numbers = [starts, ends, [1, 2, 3], step.map(|step| step as i64)];
            let numbers = numbers.map(|values| self.integers(&values));
            value = self.node("Slice", [value].into_iter().chain(numbers).collect(), vec![]);
        }
        value
    }

    /// The clamp, or nothing but a name.
    fn clamp(&mut self, clamp: Clamp, value: String, output: String) {
        if clamp == Clamp::NONE {
            return self.node_to("Identity", vec![value], vec![], output);
        }
        if clamp == Clamp::RELU {
            return self.node_to("Relu", vec![value], vec![], output);
        }
        let bounds = [clamp.min, clamp.max]
            .map(|bound| if bound.is_finite() { self.constant(&[], &[bound]) } else { String::new() });
        self.node_to("Clip", [value].into_iter().chain(bounds).collect(), vec![], output);
    }
}
