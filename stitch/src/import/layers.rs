//! Operators that compute: convolutions, dense layers, norms, means and maxima, clamps.

use ndarray::Array4;
use tract_onnx::pb;

use super::view::{CHANNELS, View};
use super::{Attributes, Import, LARGEST, LARGEST_WINDOW, Value, constant};
use crate::error::Error;
use crate::graph::{Clamp, Function, Op, PoolKind, Window};

impl Import<'_> {
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

    pub(super) fn conv(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let input = self.spatial(node, 0)?;
        let shape = self.graph.tensors[input];
        let values = self.floats(node, 1)?;
        let &[outputs, inputs, rows, columns] = values.shape() else {
            let detail = format!("weights of shape {:?}; only two-dimensional windows are supported", values.shape());
            return Err(self.refuse(node, detail));
        };
        let groups = usize::try_from(Attributes(node).integer("group", 1)).unwrap_or(0);
        if groups == 0 || inputs.checked_mul(groups) != Some(shape[2]) || outputs % groups != 0 || values.is_empty() {
            let detail =
                format!("{groups} groups of {inputs} input channels for a map of {} and {outputs} outputs", shape[2]);
            return Err(self.refuse(node, detail));
        }
        let mut weights = Array4::zeros([outputs, rows, columns, inputs]);
        for ((o, y, x, i), weight) in weights.indexed_iter_mut() {
            *weight = values[[o, i, y, x]];
        }
        let bias = if self.has(node, 2) { self.floats(node, 2)?.iter().copied().collect() } else { vec![0.0; outputs] };
        if bias.len() != outputs {
            return Err(self.refuse(node, format!("{} biases for {outputs} output channels", bias.len())));
        }
        let window = self.window(node, [rows, columns], shape)?;
        let [height, width] = self.windowed(node, &window, shape)?;
        let op = Op::Conv { weights, bias, window, groups, clamp: Clamp::NONE };
        self.push(node, op, vec![input], View::channels_first([height, width, outputs]))
    }

    pub(super) fn batch_norm(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, view) = self.map(node, 0)?;
        let channels = self.graph.tensors[input][CHANNELS];
        if view.dims.len() < 2 || !view.is_axis(1, CHANNELS) {
            let detail = format!("a map of {:?} whose second dimension is not that of channels", view.shape());
            return Err(self.refuse(node, detail));
        }
        if Attributes(node).integer("training_mode", 0) != 0 {
            return Err(self.refuse(node, "training_mode = 1; export the network in evaluation mode"));
        }
        let epsilon = Attributes(node).float("epsilon", 1e-5);
        let table = |operand: usize| self.table(node, operand, channels);
        let (gamma, beta, mean, variance) = (table(1)?, table(2)?, table(3)?, table(4)?);
        let factor: Vec<f32> =
            gamma.iter().zip(&variance).map(|(gamma, variance)| gamma / (variance + epsilon).sqrt()).collect();
        let offset: Vec<f32> =
            beta.iter().zip(mean.iter().zip(&factor)).map(|(beta, (mean, factor))| beta - mean * factor).collect();
        if factor.iter().chain(&offset).any(|value| !value.is_finite()) {
            return Err(self.refuse(node, "a variance that is not positive"));
        }
        self.push(node, Op::Scale { factor, offset }, vec![input], view)
    }

    pub(super) fn layer_norm(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, view) = self.tokens(node, 0)?;
        let axis = constant::place(Attributes(node).integer("axis", -1), view.dims.len());
        if axis != Some(view.dims.len() - 1) {
            return Err(self.refuse(node, "only the last axis is supported"));
        }
        let channels = view.extents[CHANNELS];
        let factor = self.table(node, 1, channels)?;
        let offset = if self.has(node, 2) { self.table(node, 2, channels)? } else { vec![0.0; channels] };
        let epsilon = Attributes(node).float("epsilon", 1e-5);
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(self.refuse(node, format!("epsilon = {epsilon}; a positive number is expected")));
        }
        self.push(node, Op::LayerNorm { factor, offset, epsilon }, vec![input], view)
    }

    pub(super) fn clip(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let bound = |operand: usize, name: &str, default: f32| -> Result<f32, Error> {
            if self.has(node, operand) {
                let bound = self.floats(node, operand)?.first().copied();
                return bound.ok_or_else(|| self.refuse(node, "an empty bound"));
            }
            Ok(Attributes(node).float(name, default))
        };
        let clamp = Clamp { min: bound(1, "min", f32::NEG_INFINITY)?, max: bound(2, "max", f32::INFINITY)? };
        if clamp.min.is_nan() || clamp.max.is_nan() || clamp.min > clamp.max {
            return Err(self.refuse(node, format!("min {}, max {}; min up to max is expected", clamp.min, clamp.max)));
        }
        self.clamp(node, clamp)
    }

    /// Bounds of a map, or of the function that a map is seen through.
    pub(super) fn clamp(&mut self, node: &pb::NodeProto, clamp: Clamp) -> Result<(), Error> {
        let mut mapped = self.mapped(node, 0)?;
        if mapped.function != Function::Argument {
            mapped.function = Function::Clamp(Box::new(mapped.function), clamp);
            mapped.maker = super::name_of(node);
            self.bind(node, Value::Map(mapped));
            return Ok(());
        }
        let (input, view) = self.map(node, 0)?;
        self.push(node, Op::Move { origin: [0; 3], step: [1; 2], repeat: [1; 2], clamp }, vec![input], view)
    }

    pub(super) fn pool(&mut self, node: &pb::NodeProto, kind: PoolKind) -> Result<(), Error> {
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
        let view = View::channels_first([height, width, shape[2]]);
        self.push(node, Op::Pool { kind, window, clamp: Clamp::NONE }, vec![input], view)
    }

    pub(super) fn reduce_mean(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        let (input, view) = self.map(node, 0)?;
        let rank = view.dims.len();
        let given = self.integers_of(node, "axes", 1)?.unwrap_or_default();
        let axes: Option<Vec<usize>> = given.iter().map(|&axis| constant::place(axis, rank)).collect();
        let axes = axes.ok_or_else(|| self.refuse(node, format!("axes = {given:?} of {:?}", view.shape())))?;
        let channels = |dim: usize| view.dims[dim].iter().any(|run| run.axis == CHANNELS);
        if axes == [rank - 1] && channels(rank - 1) && Attributes(node).integer("keepdims", 1) != 0 {
            return self.channel_mean(node);
        }
        self.mean(node, input, &view, &axes, Attributes(node).integer("keepdims", 1) != 0)
    }

    /// The mean over all positions: `axes` are the dimensions that hold them.
    pub(super) fn mean(
        &mut self,
        node: &pb::NodeProto,
        input: usize,
        view: &View,
        axes: &[usize],
        keep: bool,
    ) -> Result<(), Error> {
        let over = |dim: usize| axes.contains(&dim);
        let positions =
            (0..view.dims.len()).all(|dim| view.dims[dim].iter().all(|run| (run.axis != CHANNELS) == over(dim)));
        if !positions {
            let detail =
                format!("axes = {axes:?} of {:?}; only a mean over all rows and columns is supported", view.shape());
            return Err(self.refuse(node, detail));
        }
        let [height, width, channels] = self.graph.tensors[input];
        if height.max(width) > LARGEST_WINDOW {
            let found = format!("a mean over {height}x{width}");
            return Err(self.refuse(node, format!("{found}; up to {LARGEST_WINDOW}x{LARGEST_WINDOW} is supported")));
        }
        let window = Window { kernel: [height, width], stride: [1, 1], pad: [0; 4] };
        let op = Op::Pool { kind: PoolKind::Average, window, clamp: Clamp::NONE };
        let dims = (0..view.dims.len()).filter(|&dim| keep || !over(dim));
        let dims = dims.map(|dim| if over(dim) { vec![] } else { view.dims[dim].clone() }).collect();
        self.push(node, op, vec![input], View { extents: vec![1, 1, channels], start: vec![0; 3], dims })
    }

    /// A map whose last dimension is that of channels.
    pub(super) fn tokens(&mut self, node: &pb::NodeProto, operand: usize) -> Result<(usize, View), Error> {
        let (tensor, view) = self.map(node, operand)?;
        if view.is_channels_last() {
            return Ok((tensor, view));
        }
        let detail = format!("input {operand} of {:?}; its last dimension is not that of channels", view.shape());
        self.merged_patches(node, tensor, &view)?.ok_or_else(|| self.refuse(node, detail))
    }

    pub(super) fn matmul(&mut self, node: &pb::NodeProto) -> Result<(), Error> {
        if matches!(self.value(node, 1)?, Value::Map(_)) {
            return self.product(node);
        }
        let attributes = Attributes(node);
        let values = self.floats(node, 1)?.clone();
        let &[first, second] = values.shape() else {
            let detail = format!("weights of shape {:?}; two dimensions are expected", values.shape());
            return Err(self.refuse(node, detail));
        };
        if attributes.integer("transA", 0) != 0 {
            return Err(self.refuse(node, "transA = 1; only 0 is supported"));
        }
        let transposed = attributes.integer("transB", 0) != 0;
        let (outputs, features) = if transposed { (first, second) } else { (second, first) };
        let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
        let weight = |output: usize, feature: usize| {
            alpha * values[if transposed { [output, feature] } else { [feature, output] }]
        };
        let bias = if self.has(node, 2) {
            let bias: Vec<f32> = self.floats(node, 2)?.iter().map(|bias| beta * bias).collect();
            match bias[..] {
                [one] => vec![one; outputs],
                _ if bias.len() == outputs => bias,
                _ => return Err(self.refuse(node, format!("{} biases for {outputs} outputs", bias.len()))),
            }
        } else {
            vec![0.0; outputs]
        };
        let (input, view) = self.map(node, 0)?;
        let last = view.dims.len().checked_sub(1).ok_or_else(|| self.refuse(node, "a map of no dimension"))?;
        // One row of all features of the map, in the order of its runs; else features are the channels of each position.
        let flat = view.dims.iter().take(last).all(Vec::is_empty) && !view.is_channels_last();
        let (input, view) = if flat { (input, view) } else { self.tokens(node, 0)? };
        let [height, width, channels] = self.graph.tensors[input];
        let kernel = if flat { [height, width] } else { [1, 1] };
        if features != kernel[0] * kernel[1] * channels {
            let detail = format!("{features} weights a row for {} features", kernel[0] * kernel[1] * channels);
            return Err(self.refuse(node, detail));
        }
        let mut weights = Array4::zeros([outputs, kernel[0], kernel[1], channels]);
        for feature in 0..features {
            let mut at = [0; 3];
            let mut rest = feature;
            for run in view.dims[last].iter().rev() {
                at[run.axis] += rest % run.size * run.step;
                rest /= run.size;
            }
            (0..outputs).for_each(|output| weights[[output, at[0], at[1], at[2]]] = weight(output, feature));
        }
        let view = if flat {
            let mut dims = vec![vec![]; view.dims.len()];
            dims[last] = View::of_axes(&[1, 1, outputs], &[Some(CHANNELS)]).dims.remove(0);
            View { extents: vec![1, 1, outputs], start: vec![0; 3], dims }
        } else {
            view.with_channels(last, outputs)
        };
        let window = Window { kernel, stride: [1, 1], pad: [0; 4] };
        self.push(node, Op::Conv { weights, bias, window, groups: 1, clamp: Clamp::NONE }, vec![input], view)
    }
}
