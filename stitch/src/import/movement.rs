//! Operators that move values and compute none: other shapes, pads, slices, joins, repeats.

use tract_onnx::pb;

use super::{Attributes, Import, LARGEST, Value};
use crate::error::Error;
use crate::graph::{Clamp, Op};

impl Import<'_> {
    pub(super) fn flatten(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, _) = self.map(node, 0)?;
        let elements: usize = self.graph.tensors[input].iter().product();
        let supported = match node.op_type.as_str() {
            "Flatten" => Attributes(node).integer("axis", 1) == 1,
            "Squeeze" => {
                let axes = self.integers_of(node, "axes", 1)?.unwrap_or_default();
                self.graph.tensors[input][..2] == [1, 1] && matches!(axes[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2])
            }
            _ => match self.integers(node, 1)?[..] {
                [-1..=1, features] => features == -1 || usize::try_from(features) == Ok(elements),
                _ => false,
            },
        };
        if !supported {
            return Err(self.refuse(node, "only a reshape to [1, features] is supported"));
        }
        self.bind(node, Value::Map { tensor: input, flat: true });
        Ok(())
    }

    /// `[1, C]` back to `[1, C, 1, 1]`.
    pub(super) fn unsqueeze(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, flat) = self.map(node, 0)?;
        let axes = self.integers_of(node, "axes", 1)?.unwrap_or_default();
        let spatial = matches!(axes[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2]);
        if !flat || !spatial || self.graph.tensors[input][..2] != [1, 1] {
            return Err(self.refuse(node, format!("axes = {axes:?}; only [2, 3] of [1, channels] is supported")));
        }
        self.bind(node, Value::Map { tensor: input, flat: false });
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let [height, width, channels] = self.graph.tensors[input];
        let mode = Attributes(node).text("mode", "constant");
        let value = if self.has(node, 2) { self.floats(node, 2)?.1.first().copied() } else { None };
        if mode != "constant" || value.unwrap_or(Attributes(node).float("value", 0.0)) != 0.0 {
            return Err(self.refuse(node, format!("mode = {mode}; only a constant 0 is supported")));
        }
        let pads = self.integers_of(node, "pads", 1)?.unwrap_or_default();
        let bound = -(LARGEST as i64)..=LARGEST as i64;
        let (true, &[0, channel, top, left, 0, channel_end, bottom, right]) =
            (pads.iter().all(|pad| bound.contains(pad)), &pads[..])
        else {
            return Err(self.refuse(node, format!("pads = {pads:?}; eight numbers, none for the batch, are expected")));
        };
        let side = |side: usize, pads: [i64; 2]| {
            usize::try_from(side as i64 + pads[0] + pads[1]).ok().filter(|&side| side > 0)
        };
        let sides = (side(height, [top, bottom]), side(width, [left, right]), side(channels, [channel, channel_end]));
        let (Some(height), Some(width), Some(channels)) = sides else {
            return Err(self.refuse(node, format!("pads = {pads:?} leave nothing")));
        };
        let origin = [-top as isize, -left as isize, -channel as isize];
        let op = Op::Move { origin, step: [1; 2], repeat: [1; 2], clamp: Clamp::NONE };
        self.push(node, op, vec![input], [height, width, channels], false)?;
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let shape = self.graph.tensors[input];
        let starts = self.integers_of(node, "starts", 1)?.unwrap_or_default();
        let ends = self.integers_of(node, "ends", 2)?.unwrap_or_default();
        let axes = self.integers_of(node, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = if self.has(node, 4) { self.integers(node, 4)? } else { vec![1; starts.len()] };
        let lengths = [starts.len(), ends.len(), axes.len(), steps.len()];
        let repeated = axes.iter().enumerate().any(|(place, axis)| axes[..place].contains(axis));
        if lengths != [starts.len(); 4] || repeated {
            let found = format!("{lengths:?} starts, ends, axes and steps, axes {axes:?}");
            return Err(self.refuse(node, format!("{found}; one of each for every axis is expected")));
        }
        let (mut origin, mut step, mut sides) = ([0; 3], [1; 3], shape);
        for (((&start, &end), &axis), &by) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            // Axis of ours for C, H, W of ONNX.
            let Some(&ours) = [2, 0, 1].get((if axis < 0 { axis + 4 } else { axis } - 1) as usize) else {
                return Err(self.refuse(node, format!("axis {axis}")));
            };
            let side = shape[ours] as i64;
            let place = |value: i64| (if value < 0 { value.saturating_add(side) } else { value }).clamp(0, side);
            let (start, end) = (place(start), place(end));
            if by < 1 || end <= start {
                return Err(self.refuse(node, format!("start {start}, end {end}, step {by} on axis {axis}")));
            }
            (origin[ours], step[ours]) = (start as isize, by as usize);
            sides[ours] = (end - start) as usize;
            sides[ours] = sides[ours].div_ceil(by as usize);
        }
        if step[2] != 1 {
            return Err(self.refuse(node, "a step over channels"));
        }
        let op = Op::Move { origin, step: [step[0], step[1]], repeat: [1; 2], clamp: Clamp::NONE };
        self.push(node, op, vec![input], sides, false)?;
        Ok(())
    }

    pub(super) fn concat(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let axis = Attributes(node).integer("axis", 1);
        let maps = (0..node.input.len()).map(|operand| self.map(node, operand)).collect::<Result<Vec<_>, Error>>()?;
        let flat = maps.first().is_some_and(|&(_, flat)| flat);
        if maps.iter().any(|&(_, other)| other != flat) {
            return Err(self.refuse(node, "flattened and other maps"));
        }
        let inputs: Vec<_> = maps.iter().map(|&(input, _)| input).collect();
        let shapes: Vec<_> = inputs.iter().map(|&input| self.graph.tensors[input]).collect();
        let (1 | -3, Some([height, width, _])) = (axis, shapes.first()) else {
            return Err(self.refuse(node, format!("axis = {axis}; only channels, 1, are supported")));
        };
        if shapes.iter().any(|shape| shape[0] != *height || shape[1] != *width) {
            return Err(self.refuse(node, format!("maps of different size: {shapes:?}")));
        }
        let channels = shapes.iter().map(|shape| shape[2]).sum();
        self.push(node, Op::Concat { clamp: Clamp::NONE }, inputs, [*height, *width, channels], flat)?;
        Ok(())
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
        let factors: Vec<f32> = if self.has(node, scales) && !self.floats(node, scales)?.1.is_empty() {
            self.floats(node, scales)?.1.to_vec()
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
        self.push(node, op, vec![input], [height * repeat[0], width * repeat[1], channels], false)?;
        Ok(())
    }
}
