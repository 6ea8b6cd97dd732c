//! Stage 2: an ONNX file becomes a [`Graph`]; what is not supported is refused by name.
//!
//! tract's protobuf types are read directly, so that messages can quote the file's own node names. ONNX maps are
//! `[1, C, H, W]`; ours are `[H, W, C]`.

mod movement;

use std::collections::HashMap;

use ndarray::{Array2, Array4};
use tract_onnx::pb;
use tract_onnx::prelude::Framework;

use crate::error::Error;
use crate::graph::{Clamp, Graph, Node, Op, PoolKind, Window};

/// Largest side of a map.
const LARGEST: usize = 65_535;
/// A map has fewer elements, as the image's rule V13 says; what is larger would only be allocated in vain.
const ELEMENTS: usize = 1 << 31;
/// Largest number in a window: the image has a byte for it.
const LARGEST_WINDOW: usize = 255;

/// Operators of the standard domain that are read.
#[rustfmt::skip]
pub const OPERATORS: [&str; 22] = [
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant",
    "Conv", "Dropout", "Flatten", "Gemm", "GlobalAveragePool", "Identity",
    "MatMul", "MaxPool", "Pad", "ReduceMean", "Relu", "Reshape",
    "Resize", "Slice", "Squeeze", "Unsqueeze",
];

/// What an ONNX value name stands for.
#[derive(Clone, Debug)]
enum Value {
    /// A map; `flat` after a flatten: `[1, C·H·W]` in that order.
    Map { tensor: usize, flat: bool },
    /// A constant.
    Floats { dims: Vec<usize>, values: Vec<f32> },
    /// A constant of integers.
    Integers(Vec<i64>),
}

/// Reads an anchor.
///
/// # Errors
/// [`Error::Unsupported`] naming node, operator and attribute; [`Error::NotFinite`] naming the tensor;
/// [`Error::Stage`] if the bytes are not an ONNX model of one input and one output.
pub fn import(name: &str, bytes: &[u8]) -> Result<Graph, Error> {
    let bad = |what: String| Error::Stage { stage: "import", what: format!("{name}: {what}") };
    let model = tract_onnx::onnx()
        .proto_model_for_read(&mut &bytes[..])
        .map_err(|error| bad(format!("not an ONNX file: {error}")))?;
    let proto = model.graph.ok_or_else(|| bad("an ONNX file without a graph".into()))?;
    let mut import = Import {
        anchor: name,
        values: HashMap::new(),
        graph: Graph { name: name.into(), tensors: vec![], nodes: vec![], input: 0, output: 0 },
    };
    for tensor in &proto.initializer {
        let value = import.constant(&tensor.name, tensor)?;
        import.values.insert(tensor.name.clone(), value);
    }
    let inputs: Vec<_> = proto.input.iter().filter(|input| !import.values.contains_key(&input.name)).collect();
    let ([input], [output]) = (&inputs[..], &proto.output[..]) else {
        return Err(bad(format!("{} inputs and {} outputs; one of each is needed", inputs.len(), proto.output.len())));
    };
    let shape = input_shape(input).map_err(|what| bad(format!("input `{}`: {what}", input.name)))?;
    import.graph.tensors.push(shape);
    import.values.insert(input.name.clone(), Value::Map { tensor: 0, flat: false });
    for node in &proto.node {
        import.node(node)?;
    }
    match import.values.get(&output.name) {
        Some(&Value::Map { tensor, flat }) => {
            let [height, width, _] = import.graph.tensors[tensor];
            if flat && height * width > 1 {
                return Err(bad(format!("the output `{}` is a flattened map; end before the flatten", output.name)));
            }
            import.graph.output = tensor;
        }
        _ => return Err(bad(format!("no node computes the output `{}`", output.name))),
    }
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

impl Import<'_> {
    fn refuse(&self, node: &pb::NodeProto, detail: impl Into<String>) -> Error {
        let name =
            if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
        Error::Unsupported { anchor: self.anchor.into(), node: name, op: node.op_type.clone(), detail: detail.into() }
    }

    fn constant(&self, name: &str, tensor: &pb::TensorProto) -> Result<Value, Error> {
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
        match tensor.data_type {
            FLOAT => {
                let values: Vec<f32> = if raw.is_empty() {
                    tensor.float_data.clone()
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
                Ok(Value::Floats { dims, values })
            }
            INT64 if raw.is_empty() => Ok(Value::Integers(tensor.int64_data.clone())),
            INT64 => {
                Ok(Value::Integers(raw.as_chunks::<8>().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect()))
            }
            INT32 if raw.is_empty() => Ok(Value::Integers(tensor.int32_data.iter().map(|&v| v.into()).collect())),
            INT32 => {
                Ok(Value::Integers(raw.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c).into()).collect()))
            }
            BOOL if raw.is_empty() => Ok(Value::Integers(tensor.int32_data.iter().map(|&v| v.into()).collect())),
            BOOL => Ok(Value::Integers(raw.iter().map(|&v| v.into()).collect())),
            other => Err(wrong(format!("element type {other}; float32 and int64 are supported"))),
        }
    }

    fn value(&self, node: &pb::NodeProto, operand: usize) -> Result<&Value, Error> {
        let name = node.input.get(operand).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| self.refuse(node, format!("input {operand} is missing")))?;
        self.values.get(name).ok_or_else(|| self.refuse(node, format!("input `{name}` is not computed before it")))
    }

    fn has(&self, node: &pb::NodeProto, operand: usize) -> bool {
        node.input.get(operand).is_some_and(|name| !name.is_empty())
    }

    fn map(&self, node: &pb::NodeProto, operand: usize) -> Result<(usize, bool), Error> {
        match self.value(node, operand)? {
            Value::Map { tensor, flat } => Ok((*tensor, *flat)),
            _ => Err(self.refuse(node, format!("input {operand} is a constant; a map is expected"))),
        }
    }

    fn floats(&self, node: &pb::NodeProto, operand: usize) -> Result<(&[usize], &[f32]), Error> {
        match self.value(node, operand)? {
            Value::Floats { dims, values } => Ok((dims, values)),
            _ => Err(self.refuse(node, format!("input {operand} must be a constant of floats"))),
        }
    }

    fn integers(&self, node: &pb::NodeProto, operand: usize) -> Result<Vec<i64>, Error> {
        match self.value(node, operand)? {
            Value::Integers(values) => Ok(values.clone()),
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

    fn push(
        &mut self,
        node: &pb::NodeProto,
        op: Op,
        inputs: Vec<usize>,
        shape: [usize; 3],
        flat: bool,
    ) -> Result<(), Error> {
        if shape.iter().any(|&side| side == 0 || side > LARGEST) || shape.iter().product::<usize>() >= ELEMENTS {
            return Err(self.refuse(
                node,
                format!(
                    "a map of {shape:?}; sides from 1 to {LARGEST} and fewer than {ELEMENTS} elements are supported"
                ),
            ));
        }
        let tensor = self.graph.tensors.len();
        self.graph.tensors.push(shape);
        let name =
            if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
        self.graph.nodes.push(Node { name, op, inputs, output: tensor });
        self.bind(node, Value::Map { tensor, flat });
        Ok(())
    }

    fn bind(&mut self, node: &pb::NodeProto, value: Value) {
        if let Some(name) = node.output.first() {
            self.values.insert(name.clone(), value);
        }
    }

    fn node(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(self.refuse(node, format!("an operator of the domain `{}`", node.domain)));
        }
        if let Some(name) = node.output.iter().find(|name| self.values.contains_key(*name)) {
            return Err(self.refuse(node, format!("it computes `{name}`, which exists already; names must differ")));
        }
        match node.op_type.as_str() {
            "Conv" => self.conv(node),
            "BatchNormalization" => self.batch_norm(node),
            "Relu" => self.clamp(node, Clamp::RELU),
            "Clip" => {
                let bound = |operand: usize, name: &str, default: f32| -> Result<f32, Error> {
                    if self.has(node, operand) {
                        let values = self.floats(node, operand)?.1;
                        return values.first().copied().ok_or_else(|| self.refuse(node, "an empty bound"));
                    }
                    Ok(Attributes(node).float(name, default))
                };
                let clamp = Clamp { min: bound(1, "min", f32::NEG_INFINITY)?, max: bound(2, "max", f32::INFINITY)? };
                if clamp.min.is_nan() || clamp.max.is_nan() || clamp.min > clamp.max {
                    return Err(
                        self.refuse(node, format!("min {}, max {}; min up to max is expected", clamp.min, clamp.max))
                    );
                }
                self.clamp(node, clamp)
            }
            "Add" => self.add(node),
            "AveragePool" => self.pool(node, PoolKind::Average),
            "MaxPool" => self.pool(node, PoolKind::Max),
            "GlobalAveragePool" => self.global_mean(node, false),
            "ReduceMean" => self.reduce_mean(node),
            "Gemm" | "MatMul" => self.dense(node),
            "Flatten" | "Reshape" | "Squeeze" => self.flatten(node),
            "Unsqueeze" => self.unsqueeze(node),
            "Pad" => self.pad(node),
            "Slice" => self.slice(node),
            "Concat" => self.concat(node),
            "Resize" | "Upsample" => self.resize(node), // Upsample is what Resize was before opset 10
            "Identity" | "Dropout" => {
                let value = self.value(node, 0)?.clone();
                self.bind(node, value);
                Ok(())
            }
            "Constant" => {
                let tensor = Attributes(node).get("value").and_then(|attribute| attribute.t.clone());
                let tensor = tensor.ok_or_else(|| self.refuse(node, "only the attribute `value` is supported"))?;
                let value = self.constant(&node.name, &tensor)?;
                self.bind(node, value);
                Ok(())
            }
            _ => Err(self.refuse(node, format!("supported operators are {}", OPERATORS.join(", ")))),
        }
    }

    fn window(
        &self,
        node: &pb::NodeProto,
        kernel: [usize; 2],
        [height, width, _]: [usize; 3],
    ) -> Result<Window, Error> {
        let attributes = Attributes(node);
        let pair = |name: &str| -> Result<[usize; 2], Error> {
            match attributes.integers(name).as_deref() {
                None => Ok([1, 1]),
                Some(&[rows, columns])
                    if [rows, columns].iter().all(|side| (1..=LARGEST_WINDOW as i64).contains(side)) =>
                {
                    Ok([rows as usize, columns as usize])
                }
                Some(other) => {
                    let expected = format!("two numbers from 1 to {LARGEST_WINDOW} are expected");
                    Err(self.refuse(node, format!("{name} = {other:?}; {expected}")))
                }
            }
        };
        if kernel.iter().any(|side| !(1..=LARGEST_WINDOW).contains(side)) {
            let expected = format!("sides from 1 to {LARGEST_WINDOW} are supported");
            return Err(self.refuse(node, format!("a window of {kernel:?}; {expected}")));
        }
        if pair("dilations")? != [1, 1] {
            return Err(self.refuse(node, format!("dilations = {:?}; only 1 is supported", pair("dilations")?)));
        }
        if attributes.integer("ceil_mode", 0) != 0 {
            return Err(self.refuse(node, "ceil_mode = 1; only 0 is supported"));
        }
        let stride = pair("strides")?;
        let pad = match attributes.text("auto_pad", "NOTSET").as_str() {
            "NOTSET" => match attributes.integers("pads").as_deref() {
                None => [0; 4],
                Some(&[top, left, bottom, right])
                    if [top, left, bottom, right].iter().all(|pad| (0..=LARGEST_WINDOW as i64).contains(pad)) =>
                {
                    [top as usize, left as usize, bottom as usize, right as usize]
                }
                Some(other) => {
                    return Err(self.refuse(
                        node,
                        format!("pads = {other:?}; four numbers from 0 to {LARGEST_WINDOW} are expected"),
                    ));
                }
            },
            "VALID" => [0; 4],
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                let total = |side: usize, axis: usize| {
                    ((side.div_ceil(stride[axis]) - 1) * stride[axis] + kernel[axis]).saturating_sub(side)
                };
                let (rows, columns) = (total(height, 0), total(width, 1));
                let (small, large) = ([rows / 2, columns / 2], [rows - rows / 2, columns - columns / 2]);
                let (before, after) = if same == "SAME_UPPER" { (small, large) } else { (large, small) };
                [before[0], before[1], after[0], after[1]]
            }
            other => return Err(self.refuse(node, format!("auto_pad = {other}"))),
        };
        Ok(Window { kernel, stride, pad })
    }

    fn windowed(
        &self,
        node: &pb::NodeProto,
        window: &Window,
        [height, width, _]: [usize; 3],
    ) -> Result<[usize; 2], Error> {
        let fits = window.output(height, width).filter(|sides| sides.iter().all(|&side| side > 0));
        fits.ok_or_else(|| self.refuse(node, format!("a window {window:?} does not fit a map of {height}x{width}")))
    }

    fn conv(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let shape = self.graph.tensors[input];
        let (dims, values) = self.floats(node, 1)?;
        let &[outputs, inputs, rows, columns] = dims else {
            return Err(
                self.refuse(node, format!("weights of shape {dims:?}; only two-dimensional windows are supported"))
            );
        };
        let groups = usize::try_from(Attributes(node).integer("group", 1)).unwrap_or(0);
        if groups == 0 || inputs.checked_mul(groups) != Some(shape[2]) || outputs % groups != 0 || values.is_empty() {
            let detail =
                format!("{groups} groups of {inputs} input channels for a map of {} and {outputs} outputs", shape[2]);
            return Err(self.refuse(node, detail));
        }
        let mut weights = Array4::zeros([outputs, rows, columns, inputs]);
        for ((o, y, x, i), weight) in weights.indexed_iter_mut() {
            *weight = values[((o * inputs + i) * rows + y) * columns + x];
        }
        let bias = if self.has(node, 2) { self.floats(node, 2)?.1.to_vec() } else { vec![0.0; outputs] };
        if bias.len() != outputs {
            return Err(self.refuse(node, format!("{} biases for {outputs} output channels", bias.len())));
        }
        let window = self.window(node, [rows, columns], shape)?;
        let [height, width] = self.windowed(node, &window, shape)?;
        let op = Op::Conv { weights, bias, window, groups, clamp: Clamp::NONE };
        self.push(node, op, vec![input], [height, width, outputs], false)?;
        Ok(())
    }

    fn batch_norm(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, flat) = self.map(node, 0)?;
        let shape = self.graph.tensors[input];
        if Attributes(node).integer("training_mode", 0) != 0 {
            return Err(self.refuse(node, "training_mode = 1; export the network in evaluation mode"));
        }
        let epsilon = Attributes(node).float("epsilon", 1e-5);
        let table = |operand: usize| -> Result<Vec<f32>, Error> {
            let values = self.floats(node, operand)?.1;
            if values.len() == shape[2] {
                return Ok(values.to_vec());
            }
            Err(self.refuse(node, format!("input {operand} has {} values for {} channels", values.len(), shape[2])))
        };
        let (gamma, beta, mean, variance) = (table(1)?, table(2)?, table(3)?, table(4)?);
        let factor: Vec<f32> =
            gamma.iter().zip(&variance).map(|(gamma, variance)| gamma / (variance + epsilon).sqrt()).collect();
        let offset: Vec<f32> =
            beta.iter().zip(mean.iter().zip(&factor)).map(|(beta, (mean, factor))| beta - mean * factor).collect();
        if factor.iter().chain(&offset).any(|value| !value.is_finite()) {
            return Err(self.refuse(node, "a variance that is not positive"));
        }
        self.push(node, Op::Scale { factor, offset }, vec![input], shape, flat)?;
        Ok(())
    }

    fn clamp(&mut self, node: &pb::NodeProto, clamp: Clamp) -> Result<(), Error> {
        let (input, flat) = self.map(node, 0)?;
        let op = Op::Move { origin: [0; 3], step: [1; 2], repeat: [1; 2], clamp };
        self.push(node, op, vec![input], self.graph.tensors[input], flat)?;
        Ok(())
    }

    fn add(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let constant = |operand| matches!(self.value(node, operand), Ok(Value::Floats { .. }));
        if constant(0) || constant(1) {
            let (map, table) = if constant(0) { (1, 0) } else { (0, 1) };
            let (input, flat) = self.map(node, map)?;
            let shape = self.graph.tensors[input];
            let (dims, offset) = self.floats(node, table)?;
            // ONNX aligns shapes at their ends: channels are last only after a flatten.
            let aligned = match *dims {
                [values] | [1, values] if flat => shape == [1, 1, values],
                [values, 1, 1] | [1, values, 1, 1] if !flat => values == shape[2],
                _ => false,
            };
            if !aligned {
                let detail =
                    format!("a constant of shape {dims:?} for a map of {} channels; one value a channel", shape[2]);
                return Err(self.refuse(node, detail));
            }
            let offset = offset.to_vec();
            self.push(node, Op::Scale { factor: vec![1.0; shape[2]], offset }, vec![input], shape, flat)?;
            return Ok(());
        }
        let ((a, flat), (b, other_flat)) = (self.map(node, 0)?, self.map(node, 1)?);
        let (shape, other) = (self.graph.tensors[a], self.graph.tensors[b]);
        if shape != other || flat != other_flat {
            return Err(self
                .refuse(node, format!("maps of {shape:?} and {other:?}, flat or not; broadcasting is not supported")));
        }
        self.push(node, Op::Add { clamp: Clamp::NONE }, vec![a, b], shape, flat)?;
        Ok(())
    }

    fn pool(&mut self, node: &pb::NodeProto, kind: PoolKind) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let shape = self.graph.tensors[input];
        let kernel = match Attributes(node).integers("kernel_shape").as_deref() {
            Some(&[rows, columns]) if [rows, columns].iter().all(|side| (1..=LARGEST as i64).contains(side)) => {
                [rows as usize, columns as usize]
            }
            other => return Err(self.refuse(node, format!("kernel_shape = {other:?}; two numbers are expected"))),
        };
        let window = self.window(node, kernel, shape)?;
        let padded = window.pad != [0; 4];
        if kind == PoolKind::Average && padded && Attributes(node).integer("count_include_pad", 0) == 0 {
            return Err(self.refuse(node, "count_include_pad = 0 with padding; only 1 is supported"));
        }
        if node.output.len() > 1 {
            return Err(self.refuse(node, "indices as a second output"));
        }
        let [height, width] = self.windowed(node, &window, shape)?;
        self.push(node, Op::Pool { kind, window, clamp: Clamp::NONE }, vec![input], [height, width, shape[2]], false)?;
        Ok(())
    }

    fn global_mean(&mut self, node: &pb::NodeProto, flat: bool) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let [height, width, channels] = self.graph.tensors[input];
        if height.max(width) > LARGEST_WINDOW {
            let found = format!("a mean over {height}x{width}");
            return Err(self.refuse(node, format!("{found}; up to {LARGEST_WINDOW}x{LARGEST_WINDOW} is supported")));
        }
        let window = Window { kernel: [height, width], stride: [1, 1], pad: [0; 4] };
        let op = Op::Pool { kind: PoolKind::Average, window, clamp: Clamp::NONE };
        self.push(node, op, vec![input], [1, 1, channels], flat)?;
        Ok(())
    }

    fn reduce_mean(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let mut axes = self.integers_of(node, "axes", 1)?.unwrap_or_default();
        for axis in &mut axes {
            *axis = if *axis < 0 { *axis + 4 } else { *axis };
        }
        axes.sort_unstable();
        if axes != [2, 3] {
            return Err(self.refuse(node, format!("axes = {axes:?}; only rows and columns, [2, 3], are supported")));
        }
        self.global_mean(node, Attributes(node).integer("keepdims", 1) == 0)
    }

    fn dense(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, flat) = self.map(node, 0)?;
        let [height, width, channels] = self.graph.tensors[input];
        if !flat && height * width > 1 {
            return Err(self.refuse(node, "a map that was not flattened"));
        }
        let attributes = Attributes(node);
        let (dims, values) = self.floats(node, 1)?;
        let &[first, second] = dims else {
            return Err(self.refuse(node, format!("weights of shape {dims:?}; two dimensions are expected")));
        };
        if attributes.integer("transA", 0) != 0 {
            return Err(self.refuse(node, "transA = 1; only 0 is supported"));
        }
        let transposed = attributes.integer("transB", 0) != 0;
        let (outputs, features) = if transposed { (first, second) } else { (second, first) };
        if features != height * width * channels {
            let detail = format!("{features} weights a row for {} features", height * width * channels);
            return Err(self.refuse(node, detail));
        }
        let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
        let matrix = Array2::from_shape_fn([outputs, features], |(o, f)| {
            alpha * values[if transposed { o * features + f } else { f * outputs + o }]
        });
        // Features count channels first, maps have channels last.
        let weights = Array4::from_shape_fn([outputs, height, width, channels], |(o, y, x, c)| {
            matrix[[o, (c * height + y) * width + x]]
        });
        let bias = if self.has(node, 2) {
            let bias = self.floats(node, 2)?.1;
            match bias {
                [one] => vec![beta * one; outputs],
                _ if bias.len() == outputs => bias.iter().map(|bias| beta * bias).collect(),
                _ => return Err(self.refuse(node, format!("{} biases for {outputs} outputs", bias.len()))),
            }
        } else {
            vec![0.0; outputs]
        };
        let window = Window { kernel: [height, width], stride: [1, 1], pad: [0; 4] };
        let op = Op::Conv { weights, bias, window, groups: 1, clamp: Clamp::NONE };
        self.push(node, op, vec![input], [1, 1, outputs], true)?;
        Ok(())
    }

    /// A map with rows and columns of its own, for operators whose axes count from four dimensions.
    fn spatial(&self, node: &pb::NodeProto, operand: usize) -> Result<usize, Error> {
        match self.map(node, operand)? {
            (tensor, false) => Ok(tensor),
            _ => Err(self.refuse(node, format!("input {operand} was flattened; a map of four dimensions is expected"))),
        }
    }
}
