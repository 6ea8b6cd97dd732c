//! Operations with gradients, over batches `[N, H, W, C]` in f32 on the CPU.
//!
//! Candle's own convolution has a gradient too, but takes channels first and is several times slower here: gathered windows
//! and one matrix product per tile keep everything in the cache. Its result is the judge in the tests. Another device than
//! the CPU gets [`portable`], which is made of candle's operations only.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};

use super::portable;
use crate::graph::{Clamp, PoolKind, Window};

/// Positions of the output that are gathered at once; a tile of them stays in the cache.
const TILE: usize = 1024;

/// A convolution, as [`Conv`] has it.
pub fn conv(op: Conv, input: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if input.device().is_cpu() {
        return input.contiguous()?.apply_op3(weights, bias, op);
    }
    portable::conv(&op, input, weights, bias)
}

/// A sum, as [`Add`] has it.
pub fn add(a: &Tensor, b: &Tensor, clamp: Clamp) -> Result<Tensor> {
    if a.device().is_cpu() { a.apply_op2(b, Add(clamp)) } else { portable::clamped(&(a + b)?, clamp) }
}

/// A pooling, as [`Gather::pool`] has it.
pub fn pool(
    map: &Tensor,
    kind: PoolKind,
    window: &Window,
    input: [usize; 3],
    output: [usize; 3],
    clamp: Clamp,
) -> Result<Tensor> {
    if map.device().is_cpu() {
        return map.contiguous()?.apply_op1(Gather::pool(kind, window, input, output, clamp));
    }
    portable::pool(map, kind, window, output, clamp)
}

/// A movement, as [`Gather::moved`] has it.
pub fn moved(
    map: &Tensor,
    input: [usize; 3],
    output: [usize; 3],
    origin: [isize; 3],
    step: [usize; 2],
    repeat: [usize; 2],
    clamp: Clamp,
) -> Result<Tensor> {
    if map.device().is_cpu() {
        return map.contiguous()?.apply_op1(Gather::moved(input, output, origin, step, repeat, clamp));
    }
    portable::moved(map, output, origin, step, repeat, clamp)
}

/// Contiguous values of a storage.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("an operand that is not contiguous"),
    }
}

/// Lets `look` see the values of a tensor.
fn with<T>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => look(slice(storage, layout)?),
        _ => bail!("a tensor that is not on the CPU"),
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// `gradient` where the clamp let the value pass.
fn passed(clamp: Clamp, result: &[f32], gradient: &[f32]) -> Vec<f32> {
    let inside = |value: f32| value > clamp.min && value < clamp.max;
    result.iter().zip(gradient).map(|(&value, &gradient)| if inside(value) { gradient } else { 0.0 }).collect()
}

/// Convolution `[N, H, W, I]`, weights `[O, KH·KW·I/groups]`, bias `[O]`, then the clamp.
pub struct Conv {
    /// Of one image.
    pub input: [usize; 3],
    /// Of one image.
    pub output: [usize; 3],
    /// Window.
    pub window: Window,
    /// Groups; divide both channel counts.
    pub groups: usize,
    /// Fused activation.
    pub clamp: Clamp,
}

impl Conv {
    fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    fn inputs(&self) -> usize {
        self.input[2] / self.groups
    }

    fn outputs(&self) -> usize {
        self.output[2] / self.groups
    }

    /// Weights of one output channel.
    fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.inputs()
    }

    /// Images whose positions make a tile.
    fn tile(&self) -> usize {
        (TILE / self.positions()).max(1)
    }

    /// Calls `run(source, target, length)` for each run of values that a group's windows read, in the order of `target`:
    /// `source` counts in the image, `target` in the gathered windows `[positions, taps]`.
    fn runs(&self, group: usize, mut run: impl FnMut(usize, usize, usize)) {
        let ([height, width, channels], inputs, taps) = (self.input, self.inputs(), self.taps());
        let [rows, columns] = self.window.kernel;
        for position in 0..self.positions() {
            let y = position / self.output[1] * self.window.stride[0];
            let x = position % self.output[1] * self.window.stride[1];
            // Columns of the window that lie on the map.
            let from = self.window.pad[1].saturating_sub(x).min(columns);
            let to = (width + self.window.pad[1]).saturating_sub(x).min(columns).max(from);
            for row in 0..rows {
                let Some(source_y) = (y + row).checked_sub(self.window.pad[0]).filter(|&y| y < height) else {
                    continue;
                };
                let target = position * taps + row * columns * inputs;
                let source = |column: usize| (source_y * width + x + column - self.window.pad[1]) * channels;
                if self.groups == 1 && from < to {
                    run(source(from), target + from * inputs, (to - from) * inputs);
                } else {
                    for column in from..to {
                        run(source(column) + group * inputs, target + column * inputs, inputs);
                    }
                }
            }
        }
    }

    /// Gathered windows of some images, `[images · positions, taps]`.
    fn gathered(&self, images: &[f32], group: usize) -> Vec<f32> {
        let (size, rows) = (self.input.iter().product(), self.positions() * self.taps());
        let mut windows = Vec::with_capacity(images.len() / size * rows);
        for (number, image) in images.chunks_exact(size).enumerate() {
            self.runs(group, |source, target, length| {
                // What the runs leave out is padding.
                windows.resize(number * rows + target, 0.0);
                windows.extend_from_slice(&image[source..source + length]);
            });
            windows.resize((number + 1) * rows, 0.0);
        }
        windows
    }

    /// Adds gathered windows back to where they came from.
    fn scattered(&self, windows: &[f32], group: usize, images: &mut [f32]) {
        let (size, rows) = (self.input.iter().product(), self.positions() * self.taps());
        for (image, windows) in images.chunks_exact_mut(size).zip(windows.chunks_exact(rows)) {
            self.runs(group, |source, target, length| {
                let sums = image[source..source + length].iter_mut();
                sums.zip(&windows[target..target + length]).for_each(|(sum, value)| *sum += value);
            });
        }
    }

    /// Weights `[O, taps]` of a group.
    fn weights(&self, weights: &[f32], group: usize) -> Result<Tensor> {
        let size = self.outputs() * self.taps();
        tensor(weights[group * size..(group + 1) * size].to_vec(), (self.outputs(), self.taps()))
    }

    /// The channels of a group, `[rows, outputs]`.
    fn channels(&self, values: &[f32], group: usize) -> Result<Tensor> {
        let (all, own) = (self.output[2], self.outputs());
        if all == own {
            return tensor(values.to_vec(), (values.len() / all, own));
        }
        let rows = values.chunks_exact(all).flat_map(|pixel| &pixel[group * own..(group + 1) * own]);
        tensor(rows.copied().collect(), (values.len() / all, own))
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (input, weights) = (slice(input, input_layout)?, slice(weights, weights_layout)?);
        let bias = slice(bias, bias_layout)?;
        let (size, all, own) = (self.input.iter().product::<usize>(), self.output[2], self.outputs());
        let images = input.len() / size;
        let mut output = vec![0.0; images * self.positions() * all];
        for group in 0..self.groups {
            let weights = self.weights(weights, group)?.t()?;
            let tiles = input.chunks(self.tile() * size).zip(output.chunks_mut(self.tile() * self.positions() * all));
            for (images, output) in tiles {
                let windows = self.gathered(images, group);
                let rows = windows.len() / self.taps();
                let sums = tensor(windows, (rows, self.taps()))?.matmul(&weights)?;
                with(&sums, |sums| {
                    for (pixel, sums) in output.chunks_exact_mut(all).zip(sums.chunks_exact(own)) {
                        let first = group * own;
                        for ((value, sum), bias) in pixel[first..].iter_mut().zip(sums).zip(&bias[first..]) {
                            *value = self.clamp.apply(sum + bias);
                        }
                    }
                    Ok(())
                })?;
            }
        }
        let [height, width, channels] = self.output;
        Ok((CpuStorage::F32(output), (images, height, width, channels).into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weights: &Tensor,
        _bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = with(result, |result| with(gradient, |gradient| Ok(passed(self.clamp, result, gradient))))?;
        let (size, all) = (self.input.iter().product::<usize>(), self.output[2]);
        let mut to_bias = vec![0.0; all];
        for pixel in gradient.chunks_exact(all) {
            to_bias.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
        let mut to_input = vec![0.0; input.elem_count()];
        let mut to_weights = vec![];
        for group in 0..self.groups {
            let own = with(weights, |weights| self.weights(weights, group))?;
            let mut sum = Tensor::zeros((self.outputs(), self.taps()), candle_core::DType::F32, &Device::Cpu)?;
            let step = self.tile() * size;
            let tiles = gradient.chunks(self.tile() * self.positions() * all).zip(to_input.chunks_mut(step));
            for (number, (gradient, to_input)) in tiles.enumerate() {
                let gradient = self.channels(gradient, group)?;
                if weights.track_op() {
                    let windows = with(input, |input| {
                        let start = number * step;
                        Ok(self.gathered(&input[start..start + to_input.len()], group))
                    })?;
                    let windows = tensor(windows, (gradient.dim(0)?, self.taps()))?;
                    sum = (sum + gradient.t()?.matmul(&windows)?)?;
                }
                with(&gradient.matmul(&own)?, |windows| {
                    self.scattered(windows, group, to_input);
                    Ok(())
                })?;
            }
            to_weights.push(sum);
        }
        // Weights that do not learn cost no gradient.
        let to_weights = weights.track_op().then(|| Tensor::cat(&to_weights, 0)).transpose()?;
        Ok((Some(tensor(to_input, input.shape())?), to_weights, Some(tensor(to_bias, all)?)))
    }
}

/// Sum of two tensors of one shape, then the clamp.
pub struct Add(pub Clamp);

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sums = slice(a, a_layout)?.iter().zip(slice(b, b_layout)?).map(|(a, b)| self.0.apply(a + b));
        Ok((CpuStorage::F32(sums.collect()), a_layout.shape().clone()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = with(result, |result| with(gradient, |gradient| Ok(passed(self.0, result, gradient))))?;
        let gradient = tensor(gradient, a.shape())?;
        Ok((Some(gradient.clone()), Some(gradient)))
    }
}

/// An op each of whose outputs is one input (or 0), or the mean of some, of the same image: pooling, movement, clamp.
pub struct Gather {
    /// Values of one image of the input.
    pub input: usize,
    /// Of one image.
    pub output: [usize; 3],
    /// Per output value the inputs that it is made of.
    pub sources: Vec<Vec<u32>>,
    /// Weight of each source of a sum; the largest source is taken instead if `None`.
    pub weight: Option<f32>,
    /// Fused activation.
    pub clamp: Clamp,
}

impl Gather {
    /// Mean or maximum over a window.
    pub fn pool(kind: PoolKind, window: &Window, input: [usize; 3], output: [usize; 3], clamp: Clamp) -> Self {
        let [height, width, channels] = input;
        let [rows, columns] = window.kernel;
        let of_position = |position: usize, channel: usize| {
            let y = position / output[1] * window.stride[0];
            let x = position % output[1] * window.stride[1];
            let taps = (0..rows * columns).filter_map(|tap| {
                let y = (y + tap / columns).checked_sub(window.pad[0]).filter(|&y| y < height)?;
                let x = (x + tap % columns).checked_sub(window.pad[1]).filter(|&x| x < width)?;
                Some(((y * width + x) * channels + channel) as u32)
            });
            taps.collect()
        };
        let sources = (0..output[0] * output[1] * channels).map(|i| of_position(i / channels, i % channels)).collect();
        let weight = (kind == PoolKind::Average).then_some(1.0 / (rows * columns) as f32);
        Self { input: input.iter().product(), output, sources, weight, clamp }
    }

    /// [`crate::graph::Op::Move`].
    pub fn moved(
        input: [usize; 3],
        output: [usize; 3],
        origin: [isize; 3],
        step: [usize; 2],
        repeat: [usize; 2],
        clamp: Clamp,
    ) -> Self {
        let source = |index: [usize; 3]| {
            let mut place = 0;
            for axis in 0..3 {
                let moved = if axis < 2 { index[axis] * step[axis] / repeat[axis] } else { index[axis] };
                let from = usize::try_from(moved as isize + origin[axis]).ok().filter(|&from| from < input[axis])?;
                place = place * input[axis] + from;
            }
            Some(place as u32)
        };
        let index = |i: usize| [i / output[2] / output[1], i / output[2] % output[1], i % output[2]];
        let sources = (0..output.iter().product()).map(|i| source(index(i)).into_iter().collect()).collect();
        Self { input: input.iter().product(), output, sources, weight: Some(1.0), clamp }
    }

    /// The source that a maximum takes: the first of the largest.
    fn largest(image: &[f32], sources: &[u32]) -> Option<usize> {
        let value = |source: &u32| image[*source as usize];
        sources.iter().rev().max_by(|a, b| value(a).total_cmp(&value(b))).map(|&source| source as usize)
    }
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = slice(input, layout)?;
        let mut output = Vec::with_capacity(input.len() / self.input * self.sources.len());
        for image in input.chunks_exact(self.input) {
            output.extend(self.sources.iter().map(|sources| {
                let value = match self.weight {
                    Some(weight) => sources.iter().map(|&source| image[source as usize]).sum::<f32>() * weight,
                    None => Self::largest(image, sources).map_or(f32::NEG_INFINITY, |source| image[source]),
                };
                self.clamp.apply(value)
            }));
        }
        let [height, width, channels] = self.output;
        Ok((CpuStorage::F32(output), (input.len() / self.input, height, width, channels).into()))
    }

    fn bwd(&self, input: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = with(result, |result| with(gradient, |gradient| Ok(passed(self.clamp, result, gradient))))?;
        let mut to_input = vec![0.0; input.elem_count()];
        with(input, |input| {
            let images = input.chunks_exact(self.input).zip(to_input.chunks_exact_mut(self.input));
            for ((image, to_input), gradient) in images.zip(gradient.chunks_exact(self.sources.len())) {
                for (sources, gradient) in self.sources.iter().zip(gradient) {
                    match self.weight {
                        Some(weight) => {
                            sources.iter().for_each(|&source| to_input[source as usize] += gradient * weight)
                        }
                        None => {
                            if let Some(source) = Self::largest(image, sources) {
                                to_input[source] += gradient;
                            }
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(Some(tensor(to_input, input.shape())?))
    }
}
