//! ONNX files written by hand: enough of the format for small models, without a library that the compiler also uses.

/// A protobuf message.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value > 127 {
            self.0.push(value as u8 | 128);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
    fn int(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value as u64)
    }
    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        message.0.extend_from_slice(bytes);
        message
    }
    fn float(self, field: u64, value: f32) -> Self {
        let mut message = self.varint(field << 3 | 5);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }
}

/// A constant of floats.
pub fn tensor(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    dims.iter()
        .fold(Message::default(), |message, &dim| message.int(1, dim))
        .int(2, 1)
        .bytes(8, name.as_bytes())
        .bytes(9, &raw)
}

/// A constant of integers.
pub fn integers(name: &str, values: &[i64]) -> Message {
    indices(name, &[values.len() as i64], values)
}

/// A constant of integers of a shape.
pub fn indices(name: &str, dims: &[i64], values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let message = dims.iter().fold(Message::default(), |message, &dim| message.int(1, dim));
    message.int(2, 7).bytes(8, name.as_bytes()).bytes(9, &raw)
}

/// An attribute of a node.
#[derive(Clone, Copy, Debug)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(&'static [i64]),
    /// A number.
    Float(f32),
    /// A text.
    Text(&'static str),
}
use Attribute::{Float, Int, Ints, Text};

/// A node called `the_OP`.
pub fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Message {
    node_of_many(op, inputs, &[output], attributes)
}

/// The same with several outputs.
pub fn node_of_many(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> Message {
    let message = inputs.iter().fold(Message::default(), |message, input| message.bytes(1, input.as_bytes()));
    let message = outputs.iter().fold(message, |message, output| message.bytes(2, output.as_bytes()));
    let message = message.bytes(3, format!("the_{op}").as_bytes()).bytes(4, op.as_bytes());
    attributes.iter().fold(message, |message, (name, value)| {
        let attribute = Message::default().bytes(1, name.as_bytes());
        let attribute = match value {
            Float(value) => attribute.float(2, *value).int(20, 1),
            Int(value) => attribute.int(3, *value).int(20, 2),
            Text(value) => attribute.bytes(4, value.as_bytes()).int(20, 3),
            Ints(values) => values.iter().fold(attribute, |attribute, &value| attribute.int(8, value)).int(20, 7),
        };
        message.bytes(5, &attribute.0)
    })
}

fn value(name: &str, dims: &[i64]) -> Message {
    // A dimension of 0 stands for a dynamic one.
    let shape = dims.iter().fold(Message::default(), |shape, &dim| {
        let dim = if dim == 0 { Message::default().bytes(2, b"N") } else { Message::default().int(1, dim) };
        shape.bytes(1, &dim.0)
    });
    let kind = Message::default().bytes(1, &Message::default().int(1, 1).bytes(2, &shape.0).0);
    Message::default().bytes(1, name.as_bytes()).bytes(2, &kind.0)
}

/// A model from `x` of `dims` to `y`.
pub fn model(dims: &[i64], tensors: &[Message], nodes: &[Message]) -> Vec<u8> {
    let graph = nodes.iter().fold(Message::default(), |graph, node| graph.bytes(1, &node.0)).bytes(2, b"g");
    let graph = tensors.iter().fold(graph, |graph, tensor| graph.bytes(5, &tensor.0));
    let output = Message::default().bytes(1, b"y");
    let graph = graph.bytes(11, &value("x", dims).0).bytes(12, &output.0);
    Message::default().int(1, 8).bytes(7, &graph.0).bytes(8, &Message::default().bytes(1, b"").int(2, 17).0).0
}

/// Numbers without a pattern, from −1 to 1.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
