//! A layer norm that the file spells out: mean of the channels, what is left without it, its variance, a quotient. Each
//! operator only says which part it has made; the quotient is the norm. A factor and an offset that follow are a scale,
//! which `simplify` folds into it.

use tract_onnx::pb;

use super::view::View;
use super::{Import, Mapped, Value};
use crate::error::Error;
use crate::graph::{Function, Op};

/// A part of the norm of a map.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Norm {
    tensor: usize,
    view: View,
    part: Part,
}

/// What was computed of it, per position.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Mean of the channels.
    Mean,
    /// Channels less their mean.
    Centred,
    /// Their squares.
    Squares,
    /// Mean of these.
    Variance,
    /// With a number added to it.
    Raised(f32),
    /// Square root of that.
    Deviation(f32),
}

impl Norm {
    fn with(&self, part: Part) -> Value {
        Value::Norm(Box::new(Self { part, ..self.clone() }))
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.tensor, &self.view) == (other.tensor, &other.view)
    }
}

impl Import<'_> {
    /// The mean over the channels of a map.
    pub(super) fn channel_mean(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (tensor, view) = self.tokens(node, 0)?;
        // The patches of a merging are joined here, and what follows is to read the same map.
        if let Some(name) = node.input.first() {
            let (function, maker) = (Function::Argument, super::name_of(node));
            self.values.insert(name.clone(), Value::Map(Mapped { tensor, view: view.clone(), function, maker }));
        }
        self.bind(node, Value::Norm(Box::new(Norm { tensor, view, part: Part::Mean })));
        Ok(())
    }

    /// An operator on a part of a norm: the next part, or the norm.
    pub(super) fn norm_part(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let number = |value: &Value| match value {
            Value::Floats(values) if values.len() == 1 => values.first().copied(),
            Value::Integers(values) if values.len() == 1 => values.first().map(|&value| value as f32),
            _ => None,
        };
        let first = self.value(node, 0)?;
        let second = if self.has(node, 1) { Some(self.value(node, 1)?) } else { None };
        let next = match (node.op_type.as_str(), first, second) {
            ("Sub", Value::Map(map), Some(Value::Norm(norm)))
                if norm.part == Part::Mean
                    && (map.tensor, &map.view, &map.function) == (norm.tensor, &norm.view, &Function::Argument) =>
            {
                Some(norm.with(Part::Centred))
            }
            ("Mul", Value::Norm(a), Some(Value::Norm(b))) if a == b && a.part == Part::Centred => {
                Some(a.with(Part::Squares))
            }
            ("Pow", Value::Norm(norm), Some(power)) if norm.part == Part::Centred && number(power) == Some(2.0) => {
                Some(norm.with(Part::Squares))
            }
            ("ReduceMean", Value::Norm(norm), _) if norm.part == Part::Squares => Some(norm.with(Part::Variance)),
            ("Add", Value::Norm(norm), Some(other)) | ("Add", other, Some(Value::Norm(norm)))
                if norm.part == Part::Variance =>
            {
                number(other).filter(|epsilon| *epsilon > 0.0).map(|epsilon| norm.with(Part::Raised(epsilon)))
            }
            ("Sqrt", Value::Norm(norm), _) => match norm.part {
                Part::Raised(epsilon) => Some(norm.with(Part::Deviation(epsilon))),
                _ => None,
            },
            ("Div", Value::Norm(norm), Some(Value::Norm(by))) if norm.part == Part::Centred && norm.is_of(by) => {
                let Part::Deviation(epsilon) = by.part else { return Err(self.no_norm(node)) };
                let (input, view) = (norm.tensor, norm.view.clone());
                let channels = self.graph.tensors[input][super::CHANNELS];
                let (factor, offset) = (vec![1.0; channels], vec![0.0; channels]);
                return self.push(node, Op::LayerNorm { factor, offset, epsilon }, vec![input], view);
            }
            _ => None,
        };
        let next = next.ok_or_else(|| self.no_norm(node))?;
        self.bind(node, next);
        Ok(())
    }

    fn no_norm(&self, node: &pb::NodeProto) -> Error {
        self.refuse(node, "a mean over channels that is not part of a layer norm")
    }
}
