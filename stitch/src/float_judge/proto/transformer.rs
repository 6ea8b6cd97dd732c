//! What [`crate::graph::Op`] has for transformers, in operators that every reader of ONNX knows.

use super::{Writer, int, ints};
use crate::graph::{Attention, Function, Heads};

impl Writer<'_> {
    /// Normalises channels, the second of `[1, C, H, W]`.
    pub(super) fn layer_norm(&mut self, value: String, factor: &[f32], offset: &[f32], epsilon: f32) -> String {
        let mean = |writer: &mut Self, value: String| {
            writer.node("ReduceMean", vec![value], vec![ints("axes", &[1]), int("keepdims", 1)])
        };
        let average = mean(self, value.clone());
        let centred = self.node("Sub", vec![value, average], vec![]);
        let squares = self.node("Mul", vec![centred.clone(), centred.clone()], vec![]);
        let variance = mean(self, squares);
        let epsilon = self.constant(&[], &[epsilon]);
        let more = self.node("Add", vec![variance, epsilon], vec![]);
        let spread = self.node("Sqrt", vec![more], vec![]);
        let normal = self.node("Div", vec![centred, spread], vec![]);
        let shape = [1, factor.len(), 1, 1];
        let factor = self.constant(&shape, factor);
        let scaled = self.node("Mul", vec![normal, factor], vec![]);
        let offset = self.constant(&shape, offset);
        self.node("Add", vec![scaled, offset], vec![])
    }

    /// A function of each element.
    pub(super) fn function(&mut self, function: &Function, argument: &str) -> String {
        match function {
            Function::Argument => argument.to_owned(),
            Function::Constant(value) => self.constant(&[], &[*value]),
            Function::Erf(a) => self.apply("Erf", &[a], argument),
            Function::Sigmoid(a) => self.apply("Sigmoid", &[a], argument),
            Function::Tanh(a) => self.apply("Tanh", &[a], argument),
            Function::Add(a, b) => self.apply("Add", &[a, b], argument),
            Function::Multiply(a, b) => self.apply("Mul", &[a, b], argument),
            Function::Divide(a, b) => self.apply("Div", &[a, b], argument),
            Function::Clamp(a, clamp) => {
                let (value, result) = (self.function(a, argument), self.fresh());
                self.clamp(*clamp, value, result.clone());
                result
            }
        }
    }

    fn apply(&mut self, op: &str, operands: &[&Function], argument: &str) -> String {
        let operands = operands.iter().map(|operand| self.function(operand, argument)).collect();
        self.node(op, operands, vec![])
    }

    /// A constant map `[H, W, C]` as `[1, C, H, W]`.
    pub(super) fn map(&mut self, [height, width, channels]: [usize; 3], values: &[f32]) -> String {
        let of_channel = |channel| values.iter().skip(channel).step_by(channels);
        let values: Vec<f32> = (0..channels).flat_map(of_channel).copied().collect();
        self.constant(&[1, channels, height, width], &values)
    }

    fn reshape(&mut self, value: String, shape: &[usize]) -> String {
        let shape = self.integers(&shape.iter().map(|&side| side as i64).collect::<Vec<_>>());
        self.node("Reshape", vec![value, shape], vec![])
    }

    fn slice(&mut self, value: &str, axis: i64, from: usize, to: usize) -> String {
        let numbers = [from as i64, to as i64, axis].map(|number| self.integers(&[number]));
        self.node("Slice", [value.to_owned()].into_iter().chain(numbers).collect(), vec![])
    }

    /// Tokens `[tokens, C]`, then the positions of a map.
    pub(super) fn prepend(&mut self, value: String, [height, width, channels]: [usize; 3], tokens: &[f32]) -> String {
        let row = self.reshape(value, &[1, channels, 1, height * width]);
        let tokens = self.map([1, tokens.len() / channels, channels], tokens);
        self.node("Concat", vec![tokens, row], vec![int("axis", 3)])
    }

    /// Cyclic shift of rows and columns.
    pub(super) fn roll(&mut self, mut value: String, shape: [usize; 3], by: [usize; 2]) -> String {
        for (axis, by) in by.into_iter().enumerate() {
            if by > 0 {
                let dimension = axis as i64 + 2;
                let parts = vec![self.slice(&value, dimension, by, shape[axis]), self.slice(&value, dimension, 0, by)];
                value = self.node("Concat", parts, vec![int("axis", axis + 2)]);
            }
        }
        value
    }

    /// Head by head: `softmax(scale·Q·Kᵀ + bias + mask)·V` over windows.
    pub(super) fn attention(
        &mut self,
        attention: &Attention,
        inputs: [(&str, [usize; 3]); 3],
        output: [usize; 3],
    ) -> String {
        let [queries, keys] = [attention.queries(), attention.keys()];
        let windows = output[0] * output[1] / queries;
        let heads = (0..attention.heads)
            .map(|head| {
                let mut part = |(map, shape): (&str, [usize; 3]), part: Heads, window: [usize; 2], last: bool| {
                    self.windows(map, shape, part, head, window, last)
                };
                let query = part(inputs[0], attention.query, attention.query_window, true);
                let key = part(inputs[1], attention.key, attention.key_window, false);
                let values = part(inputs[2], attention.value, attention.key_window, true);
                let products = self.node("MatMul", vec![query, key], vec![]);
                let scale = self.constant(&[], &[attention.scale]);
                let mut scores = self.node("Mul", vec![products, scale], vec![]);
                let size = queries * keys;
                if let Some(bias) = attention.bias.get(head * size..(head + 1) * size) {
                    let bias = self.constant(&[1, queries, keys], bias);
                    scores = self.node("Add", vec![scores, bias], vec![]);
                }
                if !attention.mask.is_empty() {
                    let mask = self.constant(&[windows, queries, keys], &attention.mask);
                    scores = self.node("Add", vec![scores, mask], vec![]);
                }
                let weights = self.node("Softmax", vec![scores], vec![int("axis", 2)]);
                let mixed = self.node("MatMul", vec![weights, values], vec![]);
                let ([down, across], wide) = (attention.query_window, attention.value.width);
                let sides = [output[0] / down, output[1] / across, down, across, wide];
                let apart = self.reshape(mixed, &sides);
                let turned = self.node("Transpose", vec![apart], vec![ints("perm", &[4, 0, 2, 1, 3])]);
                self.reshape(turned, &[1, wide, output[0], output[1]])
            })
            .collect();
        self.node("Concat", heads, vec![int("axis", 1)])
    }

    /// One head's channels of a map, window by window: `[windows, positions, width]`, or with the last two swapped.
    fn windows(
        &mut self,
        map: &str,
        shape: [usize; 3],
        part: Heads,
        head: usize,
        [down, across]: [usize; 2],
        channels_last: bool,
    ) -> String {
        let first = part.first + head * part.per_head;
        let channels = self.slice(map, 1, first, first + part.width);
        let [rows, columns] = [shape[0] / down, shape[1] / across];
        let apart = self.reshape(channels, &[part.width, rows, down, columns, across]);
        let order = if channels_last { [1, 3, 2, 4, 0] } else { [1, 3, 0, 2, 4] };
        let turned = self.node("Transpose", vec![apart], vec![ints("perm", &order)]);
        let sides = if channels_last { [down * across, part.width] } else { [part.width, down * across] };
        self.reshape(turned, &[rows * columns, sides[0], sides[1]])
    }
}
