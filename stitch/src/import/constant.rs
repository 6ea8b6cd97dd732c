//! Operators on constants: computed here, so that shapes which an exporter computes in the file are numbers.

use ndarray::{ArcArray, ArrayD, Axis, IxDyn, Slice, concatenate};
use tract_onnx::pb;

use super::{Attributes, Import, LARGEST_CONSTANT, Value};
use crate::error::Error;

/// A constant; clones share it.
pub(super) type Constant<T> = ArcArray<T, IxDyn>;

/// Index `-rank..rank` as `0..rank`.
pub(super) fn place(index: i64, rank: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(rank as i64)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < rank)
}

/// First, count and step of a slice of a dimension, as ONNX bounds them; `None` if nothing is left or it runs backwards.
pub(super) fn bounded(start: i64, end: i64, by: i64, size: usize) -> Option<[usize; 3]> {
    let side = size as i64;
    let bound = |value: i64| (if value < 0 { value.saturating_add(side) } else { value }).clamp(0, side);
    let (start, end) = (bound(start), bound(end));
    let by = usize::try_from(by).ok().filter(|&by| by > 0)?;
    (end > start).then(|| [start as usize, ((end - start) as usize).div_ceil(by), by])
}

/// The shape that a reshape of `from` asks for.
pub(super) fn reshaped(from: &[usize], wanted: &[i64], zero_is_zero: bool) -> Option<Vec<usize>> {
    let total = from.iter().product::<usize>();
    let mut shape = vec![];
    for (dim, &size) in wanted.iter().enumerate() {
        shape.push(match size {
            -1 => 1,
            0 if !zero_is_zero => *from.get(dim)?,
            size => usize::try_from(size).ok()?,
        });
    }
    let known = shape.iter().try_fold(1, |product: usize, &size| product.checked_mul(size))?;
    let free: Vec<usize> = (0..wanted.len()).filter(|&dim| wanted[dim] == -1).collect();
    match free[..] {
        [] => (known == total).then_some(shape),
        [dim] if known > 0 && total.is_multiple_of(known) => {
            shape[dim] = total / known;
            Some(shape)
        }
        _ => None,
    }
}

/// A value of an element type that constants have.
trait Element: Clone + Default {
    fn value(constant: Constant<Self>) -> Value;
}
impl Element for f32 {
    fn value(constant: Constant<Self>) -> Value {
        Value::Floats(constant)
    }
}
impl Element for i64 {
    fn value(constant: Constant<Self>) -> Value {
        Value::Integers(constant)
    }
}

impl Import<'_> {
    /// Computes a node whose operands are all constants, and says whether it was one.
    pub(super) fn fold(&mut self, node: &pb::NodeProto) -> Result<bool, Error> {
        if node.op_type == "Shape" {
            let shape = match self.value(node, 0)? {
                Value::Map(mapped) => mapped.view.shape(),
                Value::Scores(scores) => scores.view.shape(),
                Value::Norm(_) => return Ok(false),
                Value::Floats(values) => values.shape().to_vec(),
                Value::Integers(values) => values.shape().to_vec(),
            };
            let sizes = shape.iter().map(|&size| size as i64).collect();
            self.bind(
                node,
                Value::Integers(ArrayD::from_shape_vec(vec![shape.len()], sizes).unwrap_or_default().into()),
            );
            return Ok(true);
        }
        let mut operands = vec![];
        for operand in (0..node.input.len()).filter(|&operand| self.has(node, operand)) {
            match self.value(node, operand)? {
                Value::Map(_) | Value::Scores(_) | Value::Norm(_) => return Ok(false),
                constant => operands.push(constant.clone()),
            }
        }
        let folded = match (&operands[..], node.op_type.as_str()) {
            ([], _) => return Ok(false),
            (_, "Cast") => vec![self.cast(node, &operands[0])?],
            (_, "ConstantOfShape") => vec![self.filled(node)?],
            ([Value::Integers(condition), a, b], "Where") => vec![self.chosen(node, condition, a, b)?],
            ([Value::Floats(a)], "Sqrt") => vec![Value::Floats(a.mapv(f32::sqrt).into())],
            ([a, b], "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Equal") => vec![self.arithmetic(node, a, b)?],
            ([Value::Floats(_), ..], _) => self.rearranged::<f32>(node, &operands)?,
            ([Value::Integers(_), ..], _) => self.rearranged::<i64>(node, &operands)?,
            _ => return Ok(false),
        };
        for (output, value) in folded.iter().enumerate() {
            self.bind_output(node, output, value.clone());
        }
        Ok(!folded.is_empty())
    }

    fn cast(&self, node: &pb::NodeProto, operand: &Value) -> Result<Value, Error> {
        Ok(match (Attributes(node).integer("to", 0), operand) {
            (1, Value::Integers(values)) => Value::Floats(values.mapv(|value| value as f32).into()),
            (6 | 7, Value::Floats(values)) => Value::Integers(values.mapv(|value| value as i64).into()),
            (1, Value::Floats(_)) | (6 | 7 | 9, Value::Integers(_)) => operand.clone(),
            (to, _) => return Err(self.refuse(node, format!("to = {to}; float32 and integers are supported"))),
        })
    }

    fn filled(&self, node: &pb::NodeProto) -> Result<Value, Error> {
        let shape = self.sizes(node, &self.integers(node, 0)?)?;
        let tensor = Attributes(node).get("value").and_then(|attribute| attribute.t.clone());
        let value = tensor.map(|tensor| self.constant("value", tensor)).transpose()?;
        Ok(match value {
            Some(Value::Integers(values)) => {
                Value::Integers(ArrayD::from_elem(shape, values.first().copied().unwrap_or(0)).into())
            }
            Some(Value::Floats(values)) => {
                Value::Floats(ArrayD::from_elem(shape, values.first().copied().unwrap_or(0.0)).into())
            }
            _ => Value::Floats(ArrayD::zeros(shape).into()),
        })
    }

    /// Sizes of a constant that is made here.
    fn sizes(&self, node: &pb::NodeProto, sizes: &[i64]) -> Result<Vec<usize>, Error> {
        let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
        let fits = |shape: &Vec<usize>| {
            let product = shape.iter().try_fold(1, |product: usize, &size| product.checked_mul(size.max(1)));
            product.is_some_and(|product| product <= LARGEST_CONSTANT)
        };
        shape.filter(fits).ok_or_else(|| {
            self.refuse(node, format!("a constant of {sizes:?}; up to {LARGEST_CONSTANT} elements are supported"))
        })
    }

    /// The shape that two constants have together.
    fn together(&self, node: &pb::NodeProto, a: &[usize], b: &[usize]) -> Result<Vec<usize>, Error> {
        let rank = a.len().max(b.len());
        let at = |shape: &[usize], dim: usize| (dim + shape.len()).checked_sub(rank).map_or(1, |dim| shape[dim]);
        let size = |dim: usize| match (at(a, dim), at(b, dim)) {
            (1, size) | (size, 1) => Some(size as i64),
            (a, b) => (a == b).then_some(a as i64),
        };
        let sizes: Option<Vec<i64>> = (0..rank).map(size).collect();
        let sizes = sizes.ok_or_else(|| self.refuse(node, format!("constants of shapes {a:?} and {b:?}")))?;
        self.sizes(node, &sizes)
    }

    fn arithmetic(&self, node: &pb::NodeProto, a: &Value, b: &Value) -> Result<Value, Error> {
        let op = node.op_type.as_str();
        match (a, b) {
            (Value::Floats(a), Value::Floats(b)) => {
                let combine = |a: f32, b: f32| match op {
                    "Add" => a + b,
                    "Sub" => a - b,
                    "Mul" => a * b,
                    "Div" => a / b,
                    _ => f32::NAN,
                };
                let shape = self.together(node, a.shape(), b.shape())?;
                let values = combined(&shape, a, b, |a, b| Some(combine(a, b)).filter(|value| value.is_finite()));
                values.map(Value::Floats)
            }
            (Value::Integers(a), Value::Integers(b)) => {
                let combine = |a: i64, b: i64| match op {
                    "Add" => a.checked_add(b),
                    "Sub" => a.checked_sub(b),
                    "Mul" => a.checked_mul(b),
                    "Div" => a.checked_div(b),
                    "Mod" => a.checked_rem_euclid(b),
                    _ => Some(i64::from(a == b)),
                };
                let shape = self.together(node, a.shape(), b.shape())?;
                combined(&shape, a, b, combine).map(Value::Integers)
            }
            _ => None,
        }
        .ok_or_else(|| self.refuse(node, "constants that give no finite number"))
    }

    fn chosen(&self, node: &pb::NodeProto, condition: &Constant<i64>, a: &Value, b: &Value) -> Result<Value, Error> {
        let (Value::Integers(a), Value::Integers(b)) = (a, b) else {
            return Err(self.refuse(node, "only a choice between integers is supported"));
        };
        let shape = self.together(node, a.shape(), b.shape())?;
        let shape = self.together(node, &shape, condition.shape())?;
        let pairs = combined(&shape, a, b, |a, b| Some((a, b)));
        let chosen = pairs.and_then(|pairs| {
            combined(&shape, condition, &pairs, |condition, (a, b)| Some(if condition == 0 { b } else { a }))
        });
        chosen.map(Value::Integers).ok_or_else(|| self.refuse(node, "shapes that do not fit"))
    }

    /// Operators that only move elements; no value for another operator.
    fn rearranged<T: Element>(&self, node: &pb::NodeProto, operands: &[Value]) -> Result<Vec<Value>, Error>
    where
        Constant<T>: TryFrom<Value>,
    {
        let arrays: Vec<Constant<T>> =
            operands.iter().map_while(|operand| Constant::<T>::try_from(operand.clone()).ok()).collect();
        let Some(first) = arrays.first() else { return Ok(vec![]) };
        let rank = first.ndim();
        let attributes = Attributes(node);
        let wrong = || self.refuse(node, format!("a constant of shape {:?} has no such part", first.shape()));
        let one = |array: Option<ArrayD<T>>| array.map(|array| vec![array]).ok_or_else(wrong);
        let parts: Vec<ArrayD<T>> = match node.op_type.as_str() {
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
                let shape = self.new_shape(node, first.shape())?;
                one(first.to_shape(shape).ok().map(|array| array.to_owned()))?
            }
            "Transpose" => {
                let order = self.order(node, rank)?;
                vec![first.clone().permuted_axes(order).to_owned()]
            }
            "Concat" => {
                let axis = place(attributes.integer("axis", 0), rank).ok_or_else(wrong)?;
                let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
                one(concatenate(Axis(axis), &views).ok().filter(|_| arrays.len() == operands.len()))?
            }
            "Gather" | "GatherND" => {
                let Some(Value::Integers(indices)) = operands.get(1) else { return Err(wrong()) };
                let mut shape = indices.shape().to_vec();
                if node.op_type == "GatherND" && (shape.pop() != Some(1) || attributes.integer("batch_dims", 0) != 0) {
                    return Err(wrong());
                }
                let axis = if node.op_type == "Gather" { attributes.integer("axis", 0) } else { 0 };
                let axis = place(axis, rank).ok_or_else(wrong)?;
                let indices: Option<Vec<usize>> = indices.iter().map(|&i| place(i, first.shape()[axis])).collect();
                let picked = indices.map(|indices| first.select(Axis(axis), &indices));
                let shape = [&first.shape()[..axis], &shape, &first.shape()[axis + 1..]].concat();
                one(picked.and_then(|picked| picked.to_shape(shape).ok().map(|array| array.to_owned())))?
            }
            "Slice" => {
                let mut array = first.to_owned();
                for (axis, [start, end, by]) in self.slices(node, rank)? {
                    let size = array.shape()[axis];
                    if by == -1 && start == -1 && end < -(size as i64) {
                        // From last to first: the only backward slice that exporters write.
                        array.invert_axis(Axis(axis));
                        continue;
                    }
                    if by < 1 {
                        return Err(wrong());
                    }
                    let [first, count, by] = bounded(start, end, by, size).unwrap_or([0, 0, 1]);
                    let end = first.saturating_add(count.saturating_mul(by)).min(size);
                    array = array
                        .slice_axis(Axis(axis), Slice::new(first as isize, Some(end as isize), by as isize))
                        .to_owned();
                }
                vec![array]
            }
            "Split" => {
                let (axis, sizes) = self.split_sizes(node, first.shape())?;
                let ends = sizes.iter().scan(0, |end, size| {
                    *end += size;
                    Some(*end)
                });
                let part = |(size, end): (&usize, usize)| {
                    first.slice_axis(Axis(axis), Slice::from(end - size..end)).to_owned()
                };
                sizes.iter().zip(ends).map(part).collect()
            }
            "Expand" => {
                let sizes = self.sizes(node, &self.integers(node, 1)?)?;
                let shape = self.together(node, first.shape(), &sizes)?;
                one(first.broadcast(shape).map(|array| array.to_owned()))?
            }
            _ => vec![],
        };
        Ok(parts.into_iter().map(|array| T::value(array.into())).collect())
    }
}

fn combined<A: Clone, B: Clone, C: Clone>(
    shape: &[usize],
    a: &Constant<A>,
    b: &Constant<B>,
    combine: impl Fn(A, B) -> Option<C>,
) -> Option<Constant<C>> {
    let (a, b) = (a.broadcast(shape)?, b.broadcast(shape)?);
    let values = a.iter().zip(b.iter()).map(|(a, b)| combine(a.clone(), b.clone())).collect::<Option<Vec<C>>>()?;
    Some(ArrayD::from_shape_vec(shape, values).ok()?.into())
}
