//! Functions of one map, and sums and products of two values.

use tract_onnx::pb;

use super::view::CHANNELS;
use super::{Attributes, Import, Mapped, Value, name_of};
use crate::error::Error;
use crate::graph::{Clamp, Function, Op};

impl Import<'_> {
    /// Composes a function with the one that the map is seen through.
    pub(super) fn curve(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let argument = || Box::new(Function::Argument);
        let function = match node.op_type.as_str() {
            "Erf" => Function::Erf(argument()),
            "Sigmoid" => Function::Sigmoid(argument()),
            "Tanh" => Function::Tanh(argument()),
            "HardSwish" => Function::Argument.times(Function::hard_sigmoid(1.0 / 6.0, 0.5)),
            "HardSigmoid" => {
                let attributes = Attributes(node);
                Function::hard_sigmoid(attributes.float("alpha", 0.2), attributes.float("beta", 0.5))
            }
            "Pow" => self.power(node)?,
            _ => match Attributes(node).text("approximate", "none").as_str() {
                "none" => Function::gelu(),
                "tanh" => Function::gelu_by_tanh(),
                other => return Err(self.refuse(node, format!("approximate = {other}; none and tanh are supported"))),
            },
        };
        let mapped = self.mapped(node, 0)?;
        self.see(node, Mapped { function: function.of(&mapped.function), ..mapped });
        Ok(())
    }

    /// A power of a map: squares and cubes.
    fn power(&self, node: &pb::NodeProto) -> Result<Function, Error> {
        let power = match self.value(node, 1)? {
            Value::Floats(values) if values.len() == 1 => values.first().copied(),
            Value::Integers(values) if values.len() == 1 => values.first().map(|&power| power as f32),
            _ => None,
        };
        let square = || Function::Argument.times(Function::Argument);
        match power {
            Some(2.0) => Ok(square()),
            Some(3.0) => Ok(square().times(Function::Argument)),
            _ => Err(self.refuse(node, "only the powers 2 and 3 are supported")),
        }
    }

    /// Binds a map as it is seen through another function.
    fn see(&mut self, node: &pb::NodeProto, mapped: Mapped) {
        self.bind(node, Value::Map(Mapped { maker: name_of(node), ..mapped }));
    }

    /// Sum, difference, product or quotient.
    pub(super) fn combine(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        match (self.value(node, 0)?, self.value(node, 1)?) {
            (Value::Map(a), Value::Map(b)) => {
                let (a, b) = (a.clone(), b.clone());
                self.combine_maps(node, a, b)
            }
            (Value::Map(map), Value::Floats(_)) => {
                let map = map.clone();
                self.with_constant(node, map, [0, 1])
            }
            (Value::Floats(_), Value::Map(map)) => {
                let map = map.clone();
                self.with_constant(node, map, [1, 0])
            }
            (Value::Scores(_), Value::Floats(_)) => self.adjust_scores(node, [0, 1]),
            (Value::Floats(_), Value::Scores(_)) => self.adjust_scores(node, [1, 0]),
            _ => Err(self.refuse(node, "operands that are neither maps nor constants of floats")),
        }
    }

    fn combine_maps(&mut self, node: &pb::NodeProto, a: Mapped, b: Mapped) -> Result<(), Error> {
        let bare = a.function == Function::Argument && b.function == Function::Argument;
        if a.tensor == b.tensor && a.view == b.view && !(bare && node.op_type == "Add") {
            let function = combined(&node.op_type, a.function.clone(), b.function);
            self.see(node, Mapped { function, ..a });
            return Ok(());
        }
        if node.op_type != "Add" {
            return Err(self.refuse(node, "of two different maps only the sum is supported"));
        }
        let ((a, view), (b, other)) = (self.map(node, 0)?, self.map(node, 1)?);
        if view != other {
            let detail = format!("maps of {:?} and {:?}; broadcasting is not supported", view.shape(), other.shape());
            return Err(self.refuse(node, detail));
        }
        self.push(node, Op::Add { clamp: Clamp::NONE }, vec![a, b], view)
    }

    /// A map with a constant: of one element, one a channel, or one an element.
    fn with_constant(&mut self, node: &pb::NodeProto, mapped: Mapped, order: [usize; 2]) -> Result<(), Error> {
        let [map, constant] = order;
        let op = node.op_type.as_str();
        let values = self.floats(node, constant)?.to_owned();
        if let (1, Some(&value)) = (values.len(), values.first()) {
            let (function, value) = (mapped.function, Function::Constant(value));
            let function = if map == 0 { combined(op, function, value) } else { combined(op, value, function) };
            let view = mapped.view.with_rank(values.ndim());
            self.see(node, Mapped { function, view, ..mapped });
            return Ok(());
        }
        let (input, view) = self.map(node, map)?;
        let view = view.with_rank(values.ndim());
        let depends = view.depends(values.shape());
        let Some(table) = view.spread(&values) else {
            let detail = format!("a constant of shape {:?} for a map of {:?}", values.shape(), view.shape());
            return Err(self.refuse(node, detail));
        };
        if depends[..CHANNELS] == [false, false] {
            let channels = view.extents[CHANNELS];
            let table = &table[..channels];
            let inverse = |values: &[f32]| values.iter().map(|value| 1.0 / value).collect();
            let negative = |values: &[f32]| values.iter().map(|value| -value).collect();
            let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
            let (factor, offset) = match (op, map) {
                ("Add", _) => (ones, table.to_vec()),
                ("Sub", 0) => (ones, negative(table)),
                ("Sub", _) => (negative(&ones), table.to_vec()),
                ("Mul", _) => (table.to_vec(), zeros),
                ("Div", 0) => (inverse(table), zeros),
                _ => return Err(self.refuse(node, "a quotient by a map")),
            };
            if factor.iter().chain(&offset).any(|value: &f32| !value.is_finite()) {
                return Err(self.refuse(node, "a quotient by 0"));
            }
            return self.push(node, Op::Scale { factor, offset }, vec![input], view);
        }
        if op != "Add" {
            return Err(self.refuse(node, "a constant that depends on the position; only its sum is supported"));
        }
        self.push(node, Op::Offset { values: table }, vec![input], view)
    }
}

/// The function that an operator makes of two.
fn combined(op: &str, a: Function, b: Function) -> Function {
    match op {
        "Add" => a.plus(b),
        "Sub" => a.plus(Function::Constant(-1.0).times(b)),
        "Mul" => a.times(b),
        _ => a.over(b),
    }
}
