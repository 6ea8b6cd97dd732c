//! Stage 2: an ONNX file becomes a [`Graph`]; what is not supported is refused by name.
//!
//! tract's protobuf types are read directly, so that messages can quote the file's own node names. ONNX maps are
//! `[1, C, H, W]`, its tokens `[1, N, C]`, its heads and windows have more dimensions; ours are `[H, W, C]`. A value of
//! the file is therefore a [`View`] of a map, and what an exporter computes about shapes is computed here.
//!
//! Parts of an operation that the file spells out are recognised as they come: a factor, an error function and a sum
//! compose a [`Function`] until something else reads it; a product of two maps is scores, to which factors, biases and
//! masks are added until a second product makes it attention.

mod attention;
mod constant;
mod elementwise;
mod layers;
mod movement;
mod norm;
mod view;

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};
use tract_onnx::pb;
use tract_onnx::prelude::Framework;

use crate::error::Error;
use crate::graph::{Clamp, Function, Graph, Node, Op};
use attention::Scores;
use constant::Constant;
use norm::Norm;
use view::{CHANNELS, View};

/// Largest side of a map.
const LARGEST: usize = 65_535;
/// A map has fewer elements, as the image's rule V13 says; what is larger would only be allocated in vain.
const ELEMENTS: usize = 1 << 31;
/// A constant that the file computes from others has no more elements.
const LARGEST_CONSTANT: usize = 1 << 26;
/// Largest number in a window: the image has a byte for it.
const LARGEST_WINDOW: usize = 255;

/// Operators of the standard domain that are read; some only where they compute shapes, or as a part of attention.
#[rustfmt::skip]
pub const OPERATORS: [&str; 47] = [
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat",
    "Constant", "ConstantOfShape", "Conv", "Div", "Dropout", "Equal",
    "Erf", "Expand", "Flatten", "Gather", "GatherND", "Gelu",
    "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization",
    "MatMul", "MaxPool", "Mod", "Mul", "Pad", "Pow",
    "ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid",
    "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub",
    "Tanh", "Transpose", "Unsqueeze", "Upsample", "Where",
];

/// What an ONNX value name stands for.
#[derive(Clone, Debug)]
enum Value {
    /// A map.
    Map(Mapped),
    /// Scores of attention.
    Scores(Box<Scores>),
    /// A part of a layer norm.
    Norm(Box<Norm>),
    /// A constant.
    Floats(Constant<f32>),
    /// A constant of integers.
    Integers(Constant<i64>),
}

impl TryFrom<Value> for Constant<f32> {
    type Error = ();
    fn try_from(value: Value) -> Result<Self, ()> {
        if let Value::Floats(values) = value { Ok(values) } else { Err(()) }
    }
}
impl TryFrom<Value> for Constant<i64> {
    type Error = ();
    fn try_from(value: Value) -> Result<Self, ()> {
        if let Value::Integers(values) = value { Ok(values) } else { Err(()) }
    }
}

impl Value {
    /// How its dimensions lie; `None` for a constant.
    fn view(&self) -> Option<&View> {
        match self {
            Self::Map(mapped) => Some(&mapped.view),
            Self::Scores(scores) => Some(&scores.view),
            _ => None,
        }
    }

    /// The same with its dimensions elsewhere.
    fn with_view(self, view: View) -> Self {
        match self {
            Self::Map(mapped) => Self::Map(Mapped { view, ..mapped }),
            Self::Scores(mut scores) => {
                scores.view = view;
                Self::Scores(scores)
            }
            constant => constant,
        }
    }
}

/// A map, seen through a view and a function that no node computes yet.
#[derive(Clone, Debug)]
struct Mapped {
    /// Of the graph.
    tensor: usize,
    view: View,
    function: Function,
    /// Node of the file that computes it.
    maker: String,
}

/// Reads an anchor.
///
/// # Errors
/// [`Error::Unsupported`] naming node, operator and attribute; [`Error::NotFinite`] naming the tensor;
/// [`Error::Stage`] if the bytes are not an ONNX model of one input.
pub fn import(name: &str, bytes: &[u8]) -> Result<Graph, Error> {
    let bad = |what: String| Error::Stage { stage: "import", what: format!("{name}: {what}") };
    let model = tract_onnx::onnx()
        .proto_model_for_read(&mut &bytes[..])
        .map_err(|error| bad(format!("not an ONNX file: {error}")))?;
    let proto = model.graph.ok_or_else(|| bad("an ONNX file without a graph".into()))?;
    let mut import = Import {
        anchor: name,
        values: HashMap::new(),
        graph: Graph { name: name.into(), tensors: vec![], nodes: vec![], input: 0, output: 0, taps: vec![] },
    };
    for tensor in proto.initializer {
        let name = tensor.name.clone();
        let value = import.constant(&name, tensor)?;
        import.values.insert(name, value);
    }
    let inputs: Vec<_> = proto.input.iter().filter(|input| !import.values.contains_key(&input.name)).collect();
    let ([input], [taps @ .., output]) = (&inputs[..], &proto.output[..]) else {
        let (inputs, outputs) = (inputs.len(), proto.output.len());
        return Err(bad(format!("{inputs} inputs and {outputs} outputs; one input and an output are needed")));
    };
    let shape = input_shape(input).map_err(|what| bad(format!("input `{}`: {what}", input.name)))?;
    import.graph.tensors.push(shape);
    let view = View::channels_first(shape);
    let mapped = Mapped { tensor: 0, view, function: Function::Argument, maker: input.name.clone() };
    import.values.insert(input.name.clone(), Value::Map(mapped));
    for node in &proto.node {
        import.node(node)?;
    }
    for tap in taps {
        let tensor = import.result(&tap.name)?;
        import.graph.taps.push(tensor);
    }
    import.graph.output = import.result(&output.name)?;
    Ok(import.graph)
}

/// `[1 or N, C, H, W]` as `[H, W, C]`.
fn input_shape(input: &pb::ValueInfoProto) -> Result<[usize; 3], String> {
    use pb::tensor_shape_proto::dimension::Value::DimValue;
    let Some(pb::type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return Err("not a tensor".into());
    };
    let dims: Vec<Option<i64>> = tensor
        .shape
        .iter()
        .flat_map(|shape| &shape.dim)
        .map(|dim| match dim.value {
            Some(DimValue(value)) => Some(value),
            _ => None,
        })
        .collect();
    let sizes = |value: Option<i64>| {
        value.and_then(|value| usize::try_from(value).ok()).filter(|&value| (1..=LARGEST).contains(&value))
    };
    match dims[..] {
        [None | Some(1), channels, height, width] => match (sizes(height), sizes(width), sizes(channels)) {
            (Some(height), Some(width), Some(channels)) if height * width * channels < ELEMENTS => {
                Ok([height, width, channels])
            }
            _ => Err(format!(
                "shape {dims:?}; channels, rows and columns must be fixed, from 1 to {LARGEST}, with fewer than {ELEMENTS} \
                 elements"
            )),
        },
        _ => Err(format!("shape {dims:?}; expected [1, channels, rows, columns]")),
    }
}

struct Import<'a> {
    anchor: &'a str,
    values: HashMap<String, Value>,
    graph: Graph,
}

/// Attributes of a node, by name.
struct Attributes<'a>(&'a pb::NodeProto);

impl Attributes<'_> {
    fn get(&self, name: &str) -> Option<&pb::AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name == name)
    }
    fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |attribute| attribute.i)
    }
    fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |attribute| attribute.f)
    }
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.get(name).map(|attribute| attribute.ints.clone())
    }
    fn text(&self, name: &str, default: &str) -> String {
        self.get(name).map_or(default.into(), |attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }
}

/// Name of a node, or of what it computes.
fn name_of(node: &pb::NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

/// Operands and results.
impl Import<'_> {
    fn refuse(&self, node: &pb::NodeProto, detail: impl Into<String>) -> Error {
        let (anchor, op) = (self.anchor.into(), node.op_type.clone());
        Error::Unsupported { anchor, node: name_of(node), op, detail: detail.into() }
    }

    fn constant(&self, name: &str, tensor: pb::TensorProto) -> Result<Value, Error> {
        const FLOAT: i32 = 1;
        const INT32: i32 = 6;
        const INT64: i32 = 7;
        const BOOL: i32 = 9;
        let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect::<Vec<_>>();
        let raw = &tensor.raw_data;
        let wrong = |what: String| Error::Stage { stage: "import", what: format!("{}: `{name}`: {what}", self.anchor) };
        let width = match tensor.data_type {
            INT64 => 8,
            BOOL => 1,
            _ => 4,
        };
        if !raw.len().is_multiple_of(width) {
            return Err(wrong(format!("{} raw bytes; a multiple of {width} is expected", raw.len())));
        }
        let integers: Vec<i64> = match tensor.data_type {
            FLOAT => {
                let values: Vec<f32> = if raw.is_empty() {
                    tensor.float_data
                } else {
                    raw.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
                };
                let expected = dims.iter().try_fold(1, |product: usize, &dim| product.checked_mul(dim));
                if expected != Some(values.len()) {
                    return Err(wrong(format!("{} values for a shape {dims:?}", values.len())));
                }
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    let (anchor, tensor) = (self.anchor.into(), name.into());
                    return Err(Error::NotFinite { anchor, tensor, index, value: values[index] });
                }
                let array = ArrayD::from_shape_vec(IxDyn(&dims), values).map_err(|error| wrong(error.to_string()))?;
                return Ok(Value::Floats(array.into()));
            }
            INT64 if raw.is_empty() => tensor.int64_data,
            INT64 => raw.as_chunks::<8>().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect(),
            INT32 | BOOL if raw.is_empty() => tensor.int32_data.iter().map(|&v| v.into()).collect(),
            INT32 => raw.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c).into()).collect(),
            BOOL => raw.iter().map(|&v| v.into()).collect(),
            other => return Err(wrong(format!("element type {other}; float32 and int64 are supported"))),
        };
        let count = integers.len();
        let array = ArrayD::from_shape_vec(IxDyn(&dims), integers);
        let array = array.map_err(|_| wrong(format!("{count} values for a shape {dims:?}")))?;
        Ok(Value::Integers(array.into()))
    }

    fn value(&self, node: &pb::NodeProto, operand: usize) -> Result<&Value, Error> {
        let name = node.input.get(operand).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| self.refuse(node, format!("input {operand} is missing")))?;
        self.values.get(name).ok_or_else(|| self.refuse(node, format!("input `{name}` is not computed before it")))
    }

    fn has(&self, node: &pb::NodeProto, operand: usize) -> bool {
        node.input.get(operand).is_some_and(|name| !name.is_empty())
    }

    /// A map as the file has it.
    fn mapped(&self, node: &pb::NodeProto, operand: usize) -> Result<Mapped, Error> {
        match self.value(node, operand)? {
            Value::Map(mapped) => Ok(mapped.clone()),
            Value::Scores(_) => Err(self.refuse(node, format!("input {operand} is a product of two maps"))),
            Value::Norm(_) => Err(self.refuse(node, format!("input {operand} is a part of a layer norm"))),
            _ => Err(self.refuse(node, format!("input {operand} is a constant; a map is expected"))),
        }
    }

    /// A map whose function is computed and of which every element is read.
    fn map(&mut self, node: &pb::NodeProto, operand: usize) -> Result<(usize, View), Error> {
        let mapped = self.mapped(node, operand)?;
        let mapped = self.computed(node, mapped)?;
        let mapped = self.completed(node, mapped)?;
        if let Some(name) = node.input.get(operand) {
            self.values.insert(name.clone(), Value::Map(mapped.clone()));
        }
        Ok((mapped.tensor, mapped.view))
    }

    /// A map `[1, C, H, W]`.
    fn spatial(&mut self, node: &pb::NodeProto, operand: usize) -> Result<usize, Error> {
        let (tensor, view) = self.map(node, operand)?;
        if view.is_channels_first() {
            return Ok(tensor);
        }
        let detail = format!("input {operand} of {:?}; a map [1, channels, rows, columns] is expected", view.shape());
        Err(self.refuse(node, detail))
    }

    fn floats(&self, node: &pb::NodeProto, operand: usize) -> Result<&Constant<f32>, Error> {
        match self.value(node, operand)? {
            Value::Floats(values) => Ok(values),
            _ => Err(self.refuse(node, format!("input {operand} must be a constant of floats"))),
        }
    }

    /// A constant of floats, one per channel.
    fn table(&self, node: &pb::NodeProto, operand: usize, channels: usize) -> Result<Vec<f32>, Error> {
        let values = self.floats(node, operand)?;
        if values.len() == channels {
            return Ok(values.iter().copied().collect());
        }
        Err(self.refuse(node, format!("input {operand} has {} values for {channels} channels", values.len())))
    }

    fn integers(&self, node: &pb::NodeProto, operand: usize) -> Result<Vec<i64>, Error> {
        match self.value(node, operand)? {
            Value::Integers(values) => Ok(values.iter().copied().collect()),
            _ => Err(self.refuse(node, format!("input {operand} must be a constant of integers"))),
        }
    }

    /// Integers of an attribute, or of an input in newer opsets.
    fn integers_of(&self, node: &pb::NodeProto, name: &str, operand: usize) -> Result<Option<Vec<i64>>, Error> {
        match Attributes(node).integers(name) {
            Some(values) => Ok(Some(values)),
            None if self.has(node, operand) => self.integers(node, operand).map(Some),
            None => Ok(None),
        }
    }

    /// Adds a node to the graph and returns the tensor that it computes.
    fn append(
        &mut self,
        node: &pb::NodeProto,
        name: String,
        op: Op,
        inputs: Vec<usize>,
        shape: [usize; 3],
    ) -> Result<usize, Error> {
        let elements = shape.iter().try_fold(1, |product: usize, &side| product.checked_mul(side));
        let fits = elements.is_some_and(|elements| elements < ELEMENTS);
        if shape.iter().any(|&side| side == 0 || side > LARGEST) || !fits {
            return Err(self.refuse(
                node,
                format!(
                    "a map of {shape:?}; sides from 1 to {LARGEST} and fewer than {ELEMENTS} elements are supported"
                ),
            ));
        }
        let output = self.graph.tensors.len();
        self.graph.tensors.push(shape);
        self.graph.nodes.push(Node { name, op, inputs, output });
        Ok(output)
    }

    /// Adds a node that computes what the file's node does; `view` is its result.
    fn push(&mut self, node: &pb::NodeProto, op: Op, inputs: Vec<usize>, view: View) -> Result<(), Error> {
        let &[height, width, channels] = &view.extents[..] else {
            return Err(self.refuse(node, "a result that is no map"));
        };
        let tensor = self.append(node, name_of(node), op, inputs, [height, width, channels])?;
        self.bind(node, Value::Map(Mapped { tensor, view, function: Function::Argument, maker: name_of(node) }));
        Ok(())
    }

    fn bind(&mut self, node: &pb::NodeProto, value: Value) {
        self.bind_output(node, 0, value);
    }

    fn bind_output(&mut self, node: &pb::NodeProto, output: usize, value: Value) {
        if let Some(name) = node.output.get(output).filter(|name| !name.is_empty()) {
            self.values.insert(name.clone(), value);
        }
    }

    /// The tensor of an output, if that is a map.
    fn result(&mut self, output: &str) -> Result<usize, Error> {
        let bad = |what: String| Error::Stage { stage: "import", what: format!("{}: {what}", self.anchor) };
        let Some(Value::Map(mapped)) = self.values.get(output).cloned() else {
            return Err(bad(format!("no node computes the output `{output}`")));
        };
        let node = pb::NodeProto { name: mapped.maker.clone(), ..pb::NodeProto::default() };
        let (anchor, mapped) = (self.anchor, self.computed(&node, mapped)?);
        let Mapped { tensor, view, .. } = self.completed(&node, mapped)?;
        let runs: Vec<usize> = view.dims.iter().flatten().map(|run| run.axis).collect();
        let first = runs.is_sorted_by_key(|axis| [1, 2, 0][*axis]) && view.dims.iter().all(|runs| runs.len() < 2);
        let last = runs.is_sorted() && view.is_channels_last();
        if !first && !last {
            let what = format!("{anchor}: the output `{output}` is a flattened map; end before the flatten");
            return Err(Error::Stage { stage: "import", what });
        }
        Ok(tensor)
    }
}

impl Import<'_> {
    fn node(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(self.refuse(node, format!("an operator of the domain `{}`", node.domain)));
        }
        if let Some(name) = node.output.iter().find(|name| self.values.contains_key(*name)) {
            return Err(self.refuse(node, format!("it computes `{name}`, which exists already; names must differ")));
        }
        if self.fold(node)? {
            return Ok(());
        }
        if (0..node.input.len()).any(|operand| matches!(self.value(node, operand), Ok(Value::Norm(_)))) {
            return self.norm_part(node);
        }
        match node.op_type.as_str() {
            "Conv" => self.conv(node),
            "BatchNormalization" => self.batch_norm(node),
            "LayerNormalization" => self.layer_norm(node),
            "Relu" => self.clamp(node, Clamp::RELU),
            "Clip" => self.clip(node),
            "Add" | "Sub" | "Mul" | "Div" => self.combine(node),
            "Erf" | "Gelu" | "HardSigmoid" | "HardSwish" | "Pow" | "Sigmoid" | "Tanh" => self.curve(node),
            "AveragePool" => self.pool(node, crate::graph::PoolKind::Average),
            "MaxPool" => self.pool(node, crate::graph::PoolKind::Max),
            "GlobalAveragePool" => {
                let tensor = self.spatial(node, 0)?;
                let view = View::channels_first(self.graph.tensors[tensor]);
                self.mean(node, tensor, &view, &[2, 3], true)
            }
            "ReduceMean" => self.reduce_mean(node),
            "Gemm" | "MatMul" => self.matmul(node),
            "Softmax" => self.softmax(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Transpose" => self.transpose(node),
            "Pad" => self.pad(node),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            "Gather" => self.gather(node),
            "Concat" => self.concat(node),
            "Resize" | "Upsample" => self.resize(node), // Upsample is what Resize was before opset 10
            "Cast" if Attributes(node).integer("to", 0) != 1 => {
                Err(self.refuse(node, "only a cast to float32 is supported"))
            }
            "Identity" | "Dropout" | "Cast" => {
                let value = self.value(node, 0)?.clone();
                self.bind(node, value);
                Ok(())
            }
            "Constant" => {
                let tensor = Attributes(node).get("value").and_then(|attribute| attribute.t.clone());
                let tensor = tensor.ok_or_else(|| self.refuse(node, "only the attribute `value` is supported"))?;
                let value = self.constant(&node.name, tensor)?;
                self.bind(node, value);
                Ok(())
            }
            op if OPERATORS.contains(&op) => Err(self.refuse(node, "only with constants is it supported")),
            _ => Err(self.refuse(node, format!("supported operators are {}", OPERATORS.join(", ")))),
        }
    }

    /// The map with its function as a node of its own: a scale where it is a straight line, else a curve.
    fn computed(&mut self, node: &pb::NodeProto, mapped: Mapped) -> Result<Mapped, Error> {
        if mapped.function == Function::Argument {
            return Ok(mapped);
        }
        let shape = self.graph.tensors[mapped.tensor];
        let op = match mapped.function.line() {
            Some((factor, offset)) => {
                Op::Scale { factor: vec![factor; shape[CHANNELS]], offset: vec![offset; shape[CHANNELS]] }
            }
            None => Op::Curve { function: mapped.function },
        };
        let tensor = self.append(node, mapped.maker.clone(), op, vec![mapped.tensor], shape)?;
        Ok(Mapped { tensor, function: Function::Argument, ..mapped })
    }

    /// The map with nothing in it that the view does not read: a strided slice.
    fn completed(&mut self, node: &pb::NodeProto, mapped: Mapped) -> Result<Mapped, Error> {
        if mapped.view.is_full() {
            return Ok(mapped);
        }
        let mut view = mapped.view;
        let (mut origin, mut step, mut sides) = ([0; 3], [1; 3], [1; 3]);
        for axis in 0..3 {
            let mut runs: Vec<view::Run> = view.dims.iter().flatten().filter(|run| run.axis == axis).copied().collect();
            runs.sort_by_key(|run| run.step);
            step[axis] = runs.first().map_or(1, |run| run.step);
            for run in runs {
                if run.step != step[axis] * sides[axis] {
                    return Err(self.refuse(node, "a slice of a slice that is not one strided slice"));
                }
                sides[axis] *= run.size;
            }
            origin[axis] = view.start[axis] as isize;
        }
        if step[CHANNELS] != 1 {
            return Err(self.refuse(node, "a step over channels"));
        }
        view.dims.iter_mut().flatten().for_each(|run| run.step /= step[run.axis]);
        (view.start, view.extents) = (vec![0; 3], sides.to_vec());
        let op = Op::Move { origin, step: [step[0], step[1]], repeat: [1; 2], clamp: Clamp::NONE };
        let tensor = self.append(node, mapped.maker.clone(), op, vec![mapped.tensor], sides)?;
        Ok(Mapped { tensor, view: view.merged(), ..mapped })
    }
}
