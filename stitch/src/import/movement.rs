//! Operators that move values and compute none: other shapes, pads, slices, joins, repeats.

use tract_onnx::pb;

use super::constant::{Constant, bounded, place, reshaped};
use super::view::{CHANNELS, Run, View};
use super::{Attributes, Import, LARGEST, Mapped, Value, name_of};
use crate::error::Error;
use crate::graph::{Clamp, Op};

/// A patch of more positions than this is not merged into channels.
const LARGEST_PATCH: usize = 16;

impl Import<'_> {
    /// The shape that a reshape, flatten, squeeze or unsqueeze gives a value.
    pub(super) fn new_shape(&self, node: &pb::NodeProto, shape: &[usize]) -> Result<Vec<usize>, Error> {
        let attributes = Attributes(node);
        let rank = shape.len();
        let axes = |rank: usize| -> Result<Option<Vec<usize>>, Error> {
            let axes = self.integers_of(node, "axes", 1)?;
            let placed = |axes: Vec<i64>| axes.iter().map(|&axis| place(axis, rank)).collect::<Option<Vec<usize>>>();
            axes.map(|axes| placed(axes).ok_or_else(|| self.refuse(node, format!("axes of {shape:?}")))).transpose()
        };
        let new = match node.op_type.as_str() {
            "Reshape" => reshaped(shape, &self.integers(node, 1)?, attributes.integer("allowzero", 0) != 0),
            "Flatten" => place(attributes.integer("axis", 1), rank + 1)
                .map(|axis| vec![shape[..axis].iter().product(), shape[axis..].iter().product()]),
            "Squeeze" => {
                let axes = axes(rank)?.unwrap_or_else(|| (0..rank).filter(|&dim| shape[dim] == 1).collect());
                let kept = (0..rank).filter(|dim| !axes.contains(dim)).map(|dim| shape[dim]).collect();
                axes.iter().all(|&dim| shape[dim] == 1).then_some(kept)
            }
            _ => {
                let added = self.integers_of(node, "axes", 1)?.unwrap_or_default().len();
                let axes = axes(rank + added)?.unwrap_or_default();
                let mut old = shape.iter().copied();
                let new = (0..rank + added).map(|dim| if axes.contains(&dim) { Some(1) } else { old.next() });
                new.collect()
            }
        };
        new.ok_or_else(|| self.refuse(node, format!("no such reshape of {shape:?}")))
    }

    /// The order of dimensions of a transpose.
    pub(super) fn order(&self, node: &pb::NodeProto, rank: usize) -> Result<Vec<usize>, Error> {
        let Some(given) = Attributes(node).integers("perm") else { return Ok((0..rank).rev().collect()) };
        let order: Option<Vec<usize>> = given.iter().map(|&dim| place(dim, rank)).collect();
        let every = |order: &Vec<usize>| order.len() == rank && (0..rank).all(|dim| order.contains(&dim));
        order.filter(every).ok_or_else(|| self.refuse(node, format!("perm = {given:?} of {rank} dimensions")))
    }

    /// Axis, start, end and step of each axis that a slice names.
    pub(super) fn slices(&self, node: &pb::NodeProto, rank: usize) -> Result<Vec<(usize, [i64; 3])>, Error> {
        let starts = self.integers_of(node, "starts", 1)?.unwrap_or_default();
        let ends = self.integers_of(node, "ends", 2)?.unwrap_or_default();
        let axes = self.integers_of(node, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = if self.has(node, 4) { self.integers(node, 4)? } else { vec![1; starts.len()] };
        let lengths = [starts.len(), ends.len(), axes.len(), steps.len()];
        let placed: Option<Vec<usize>> = axes.iter().map(|&axis| place(axis, rank)).collect();
        let once = |axes: &Vec<usize>| !axes.iter().enumerate().any(|(number, axis)| axes[..number].contains(axis));
        let Some(placed) = placed.filter(|axes| once(axes) && lengths == [starts.len(); 4]) else {
            let found = format!("{lengths:?} starts, ends, axes and steps, axes {axes:?}");
            return Err(self.refuse(node, format!("{found}; one of each for every axis is expected")));
        };
        let parts = starts.iter().zip(&ends).zip(&steps).map(|((&start, &end), &by)| [start, end, by]);
        Ok(placed.into_iter().zip(parts).collect())
    }

    /// Axis of a split, and the sizes of its parts.
    pub(super) fn split_sizes(&self, node: &pb::NodeProto, shape: &[usize]) -> Result<(usize, Vec<usize>), Error> {
        let given = Attributes(node).integer("axis", 0);
        let parts = node.output.len();
        let sizes = self.integers_of(node, "split", 1)?;
        let axis = place(given, shape.len()).filter(|_| parts > 0);
        let split = axis.and_then(|axis| {
            let equal = shape[axis].is_multiple_of(parts).then(|| vec![shape[axis] / parts; parts]);
            let wanted = |sizes: Vec<i64>| sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
            let sizes: Vec<usize> = sizes.map_or(equal, wanted)?;
            let sum = sizes.iter().try_fold(0, |sum: usize, &size| sum.checked_add(size));
            (sizes.len() == parts && sum == Some(shape[axis])).then_some((axis, sizes))
        });
        split.ok_or_else(|| self.refuse(node, format!("{parts} parts of axis {given} of {shape:?}")))
    }

    pub(super) fn reshape(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let value = self.value(node, 0)?.clone();
        let view = value.view().ok_or_else(|| self.refuse(node, "input 0 must be a map"))?;
        let shape = self.new_shape(node, &view.shape())?;
        let reshaped = view.reshape(&shape).ok_or_else(|| {
            self.refuse(
                node,
                format!("the reshape of {:?} to {shape:?} mixes rows, columns and channels", view.shape()),
            )
        })?;
        self.bind(node, value.with_view(reshaped));
        Ok(())
    }

    pub(super) fn transpose(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let value = self.value(node, 0)?.clone();
        let view = value.view().ok_or_else(|| self.refuse(node, "input 0 must be a map"))?;
        let order = self.order(node, view.dims.len())?;
        let transposed = view.transpose(&order).ok_or_else(|| self.refuse(node, format!("perm = {order:?}")))?;
        self.bind(node, value.with_view(transposed));
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let mapped = self.mapped(node, 0)?;
        let mut view = mapped.view;
        for (axis, [start, end, by]) in self.slices(node, view.dims.len())? {
            let part = bounded(start, end, by, view.shape()[axis]);
            let sliced = part.and_then(|[first, count, by]| view.slice(axis, first, count, by));
            view = sliced
                .ok_or_else(|| self.refuse(node, format!("start {start}, end {end}, step {by} on axis {axis}")))?;
        }
        self.bind(node, Value::Map(Mapped { view, ..mapped }));
        Ok(())
    }

    pub(super) fn split(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let mapped = self.mapped(node, 0)?;
        let (axis, sizes) = self.split_sizes(node, &mapped.view.shape())?;
        let mut first = 0;
        for (output, size) in sizes.into_iter().enumerate() {
            let part = mapped.view.slice(axis, first, size, 1);
            let view = part.ok_or_else(|| self.refuse(node, format!("{size} of axis {axis} from {first}")))?;
            self.bind_output(node, output, Value::Map(Mapped { view, ..mapped.clone() }));
            first += size;
        }
        Ok(())
    }

    /// One index of a dimension.
    pub(super) fn gather(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let mapped = self.mapped(node, 0)?;
        let rank = mapped.view.dims.len();
        let (Value::Integers(indices), Some(axis)) =
            (self.value(node, 1)?, place(Attributes(node).integer("axis", 0), rank))
        else {
            return Err(self.refuse(node, "a constant index of an axis is expected"));
        };
        let (scalar, index) = (indices.ndim() == 0, indices.first().filter(|_| indices.len() == 1).copied());
        let index = index.and_then(|index| place(index, mapped.view.shape()[axis]));
        let view = index.and_then(|index| mapped.view.slice(axis, index, 1, 1));
        let mut view = view.ok_or_else(|| self.refuse(node, "only one index of a dimension is supported"))?;
        if scalar {
            view.dims.remove(axis);
        }
        self.bind(node, Value::Map(Mapped { view, ..mapped }));
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let mode = Attributes(node).text("mode", "constant");
        let value = if self.has(node, 2) { self.floats(node, 2)?.first().copied() } else { None };
        if mode != "constant" || value.unwrap_or(Attributes(node).float("value", 0.0)) != 0.0 {
            return Err(self.refuse(node, format!("mode = {mode}; only a constant 0 is supported")));
        }
        let pads = self.integers_of(node, "pads", 1)?.unwrap_or_default();
        let mapped = self.mapped(node, 0)?;
        let rank = mapped.view.dims.len();
        let bound = -(LARGEST as i64)..=LARGEST as i64;
        if pads.len() != 2 * rank || !pads.iter().all(|pad| bound.contains(pad)) {
            return Err(self.refuse(node, format!("pads = {pads:?}; two numbers a dimension are expected")));
        }
        if pads.iter().all(|&pad| pad == 0) {
            self.bind(node, Value::Map(mapped));
            return Ok(());
        }
        let (input, mut view) = self.map(node, 0)?;
        let mut origin = [0; 3];
        for dim in (0..rank).filter(|&dim| (pads[dim], pads[dim + rank]) != (0, 0)) {
            let Some(axis) = (0..3).find(|&axis| view.extents[axis] > 1 && view.is_axis(dim, axis)) else {
                return Err(self.refuse(node, format!("pads = {pads:?} of {:?}; pad whole axes", view.shape())));
            };
            let size = usize::try_from(view.extents[axis] as i64 + pads[dim] + pads[dim + rank]).unwrap_or(0);
            if size == 0 {
                return Err(self.refuse(node, format!("pads = {pads:?} leave nothing")));
            }
            origin[axis] = -pads[dim] as isize;
            view.extents[axis] = size;
            view.dims[dim] = vec![Run { axis, size, step: 1 }];
        }
        let op = Op::Move { origin, step: [1; 2], repeat: [1; 2], clamp: Clamp::NONE };
        self.push(node, op, vec![input], view.merged())
    }

    /// Joins along channels; a cyclic shift, which is a join of two slices; constant tokens before the positions of a map.
    pub(super) fn concat(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        if let Ok(tokens) = self.floats(node, 0) {
            let tokens = tokens.clone();
            return self.prepend(node, &tokens);
        }
        let maps =
            (0..node.input.len()).map(|operand| self.mapped(node, operand)).collect::<Result<Vec<_>, Error>>()?;
        let Some(first) = maps.first() else { return Err(self.refuse(node, "no input")) };
        let axis = place(Attributes(node).integer("axis", 1), first.view.dims.len());
        let axis = axis.ok_or_else(|| self.refuse(node, format!("axis of {:?}", first.view.shape())))?;
        if let [first, second] = &maps[..]
            && let Some((by, view)) = rotation(first, second, axis)
        {
            let input = first.tensor;
            return self.push(node, Op::Roll { by }, vec![input], view);
        }
        let mut inputs = vec![];
        let mut views: Vec<View> = vec![];
        for operand in 0..node.input.len() {
            let (input, view) = self.map(node, operand)?;
            let detail = format!("axis = {axis} of {:?}; only channels are supported", view.shape());
            if axis >= view.dims.len() || !view.is_axis(axis, CHANNELS) {
                return Err(self.refuse(node, detail));
            }
            inputs.push(input);
            views.push(view);
        }
        let shapes: Vec<Vec<usize>> = views.iter().map(View::shape).collect();
        let channels = views.iter().map(|view| view.extents[CHANNELS]).sum();
        let joined: Vec<View> = views.iter().map(|view| view.with_channels(axis, channels)).collect();
        let Some(view) = joined.first().filter(|view| joined.iter().all(|other| other == *view)) else {
            return Err(self.refuse(node, format!("maps of different size: {shapes:?}")));
        };
        self.push(node, Op::Concat { clamp: Clamp::NONE }, inputs, view.clone())
    }

    /// Tokens `[1, n, C]` before the positions of a map `[1, N, C]`.
    fn prepend(&mut self, node: &pb::NodeProto, tokens: &Constant<f32>) -> Result<(), Error> {
        let expected = "only constant tokens [1, n, channels] before positions [1, N, channels] are supported";
        if node.input.len() != 2 {
            return Err(self.refuse(node, expected));
        }
        let (input, view) = self.tokens(node, 1)?;
        let [height, width, channels] = self.graph.tensors[input];
        let rows = view.reshape(&[1, height * width, channels]).is_some_and(|same| {
            same.dims[1] == View::of_axes(&[height, width], &[Some(0), Some(1)]).dims.concat()
                && same.shape() == view.shape()
        });
        let axis = place(Attributes(node).integer("axis", 0), 3);
        let &[1, count, width_of_token] = tokens.shape() else { return Err(self.refuse(node, expected)) };
        if !rows || axis != Some(1) || width_of_token != channels || count == 0 {
            return Err(self.refuse(node, format!("{:?} before {:?}; {expected}", tokens.shape(), view.shape())));
        }
        let view = View::of_axes(&[1, count + height * width, channels], &[None, Some(1), Some(CHANNELS)]);
        self.push(node, Op::Prepend { tokens: tokens.iter().copied().collect() }, vec![input], view)
    }

    /// The map of which the last dimension holds the channels of neighbouring positions: one slice for each of them,
    /// joined (a patch merging). `None` if it holds something else.
    pub(super) fn merged_patches(
        &mut self,
        node: &pb::NodeProto,
        tensor: usize,
        view: &View,
    ) -> Result<Option<(usize, View)>, Error> {
        let Some((last, others)) = view.dims.split_last() else { return Ok(None) };
        let shape = self.graph.tensors[tensor];
        let Some((channels, patch)) = last.split_last() else { return Ok(None) };
        let whole = Run { axis: CHANNELS, size: shape[CHANNELS], step: 1 };
        let positions: usize = patch.iter().map(|run| run.size).product();
        let inner = patch.iter().all(|run| run.axis != CHANNELS && run.step == 1);
        let once = patch.iter().enumerate().all(|(number, run)| patch[..number].iter().all(|p| p.axis != run.axis));
        if *channels != whole || !inner || !once || positions > LARGEST_PATCH {
            return Ok(None);
        }
        let size = |axis: usize| patch.iter().find(|run| run.axis == axis).map_or(1, |run| run.size);
        let step = [size(0), size(1)];
        let sides = [shape[0] / step[0], shape[1] / step[1], shape[CHANNELS]];
        let mut parts = vec![];
        for number in 0..positions {
            let mut origin = [0; 3];
            let mut rest = number;
            for run in patch.iter().rev() {
                origin[run.axis] = (rest % run.size) as isize;
                rest /= run.size;
            }
            let op = Op::Move { origin, step, repeat: [1; 2], clamp: Clamp::NONE };
            parts.push(self.append(node, name_of(node), op, vec![tensor], sides)?);
        }
        let joined = [sides[0], sides[1], positions * sides[2]];
        let tensor = self.append(node, name_of(node), Op::Concat { clamp: Clamp::NONE }, parts, joined)?;
        let mut dims = others.to_vec();
        for run in dims.iter_mut().flatten() {
            if !run.step.is_multiple_of(step[run.axis]) {
                return Ok(None);
            }
            run.step /= step[run.axis];
        }
        dims.push(vec![Run { axis: CHANNELS, size: joined[2], step: 1 }]);
        Ok(Some((tensor, View { extents: joined.to_vec(), start: vec![0; 3], dims }.merged())))
    }

    pub(super) fn resize(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let [height, width, channels] = self.graph.tensors[input];
        let mode = Attributes(node).text("mode", "nearest");
        if mode != "nearest" {
            return Err(self.refuse(node, format!("mode = {mode}; only nearest is supported")));
        }
        let rounding = Attributes(node).text("nearest_mode", "round_prefer_floor");
        let position = Attributes(node).text("coordinate_transformation_mode", "half_pixel");
        // For whole factors these give every source pixel the same block of copies.
        let agrees = match position.as_str() {
            "asymmetric" => rounding == "floor",
            "half_pixel" | "pytorch_half_pixel" => rounding == "round_prefer_floor" || rounding == "round_prefer_ceil",
            _ => false,
        };
        if node.op_type == "Resize" && !agrees {
            let detail = format!("coordinate_transformation_mode = {position} with nearest_mode = {rounding}");
            return Err(self.refuse(node, detail));
        }
        let scales = if node.op_type == "Upsample" { 1 } else { 2 };
        let factors: Vec<f32> = if self.has(node, scales) && !self.floats(node, scales)?.is_empty() {
            self.floats(node, scales)?.iter().copied().collect()
        } else if self.has(node, 3) {
            let sizes = self.integers(node, 3)?;
            let shape = [1, channels, height, width];
            sizes.iter().zip(shape).map(|(&size, side)| size as f32 / side as f32).collect()
        } else {
            vec![]
        };
        let &[batch, channel, rows, columns] = &factors[..] else {
            return Err(self.refuse(node, format!("factors {factors:?}; four are expected")));
        };
        let whole = |factor: f32| factor >= 1.0 && factor.fract() == 0.0 && factor <= 255.0;
        if batch != 1.0 || channel != 1.0 || !whole(rows) || !whole(columns) {
            return Err(
                self.refuse(node, format!("factors {factors:?}; whole ones for rows and columns are supported"))
            );
        }
        let repeat = [rows as usize, columns as usize];
        let op = Op::Move { origin: [0; 3], step: [1; 2], repeat, clamp: Clamp::NONE };
        let view = View::channels_first([height * repeat[0], width * repeat[1], channels]);
        self.push(node, op, vec![input], view)
    }
}

/// How far the join of two slices of one map along `axis` shifts it, and the shifted map.
fn rotation(first: &Mapped, second: &Mapped, axis: usize) -> Option<([usize; 2], View)> {
    // A slice of one index has no run.
    let run = first.view.dims.get(axis)?.first().or(second.view.dims.get(axis)?.first())?;
    let (size, start) = (first.view.extents[run.axis], first.view.start[run.axis]);
    let mut whole = first.view.clone();
    whole.start[run.axis] = 0;
    whole.dims[axis] = vec![Run { axis: run.axis, size, step: 1 }];
    let parts =
        whole.slice(axis, start, size - start, 1)? == first.view && whole.slice(axis, 0, start, 1)? == second.view;
    let same = first.tensor == second.tensor && first.function == second.function;
    let bare = first.function == crate::graph::Function::Argument;
    let mut by = [0; 2];
    *by.get_mut(run.axis)? = start;
    (parts && same && bare && whole.is_full()).then_some((by, whole))
}
