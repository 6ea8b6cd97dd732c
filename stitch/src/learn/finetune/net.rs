//! A family as parameters, and the forward pass of one path over a batch.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};

use super::ops::{self, Conv};
use crate::graph::{Node, Op};
use crate::network::{Correction, Kind, Path, Segment, Stitched};

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Stitches and the biases that each stitched path has of its own; anchors stay as they are, to the bit.
    Stitches,
    /// Also the anchors' weights, at a rate of their own (SN-Net §3).
    #[default]
    All,
}

/// Where a parameter belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `[O, KH·KW·I/groups]` of a convolution.
    Weights {
        /// Segment.
        segment: usize,
        /// Node of the segment.
        node: usize,
    },
    /// `[O]` of a convolution, in all paths that have none of their own.
    Bias {
        /// Segment.
        segment: usize,
        /// Node of the segment.
        node: usize,
    },
    /// `[O]` of a convolution in one path.
    OwnBias {
        /// Path.
        path: usize,
        /// Segment.
        segment: usize,
        /// Node of the segment.
        node: usize,
    },
    /// `[rank, I]`: the first factor of what is added to a stitch's weights.
    Down {
        /// Segment.
        segment: usize,
    },
    /// `[O, rank]`: the second factor.
    Up {
        /// Segment.
        segment: usize,
    },
}

/// One tensor of numbers, trained or not.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Where it belongs.
    pub place: Place,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
    /// Whether gradients change it.
    pub trained: bool,
    /// Whether it belongs to an anchor.
    pub anchor: bool,
}

/// A family and its parameters; the weights in `stitched` are those that training began with. Stitches of one layer have
/// one set of parameters, so they stay equal.
#[derive(Clone)]
pub struct Net {
    /// The family.
    pub stitched: Stitched,
    /// All parameters.
    pub parameters: Vec<Parameter>,
    places: HashMap<Place, usize>,
}

impl Net {
    /// Parameters of a family. With a `rank`, stitches keep their weights and learn a product of two thin matrices
    /// beside them (SN-Netv2's low-rank update); the first factor is drawn by `draw` from −1..1, the second is 0.
    #[must_use]
    pub fn new(mut stitched: Stitched, what: What, rank: Option<usize>, draw: &mut dyn FnMut() -> f32) -> Self {
        own_biases(&mut stitched);
        let mut parameters = vec![];
        for (segment, found) in stitched.segments.iter().enumerate() {
            if owner(&stitched, segment) != segment {
                continue;
            }
            let anchor = found.kind == Kind::Block;
            let trained = !anchor || what == What::All;
            for (node, found) in found.nodes.iter().enumerate() {
                let Op::Conv { weights, bias, .. } = &found.op else { continue };
                let (outputs, inputs) = (bias.len(), weights.len() / bias.len().max(1));
                let low = rank.filter(|&rank| !anchor && rank < inputs.min(outputs));
                let mut add = |place, shape, values, trained| {
                    parameters.push(Parameter { place, shape, values, trained, anchor });
                };
                let values = weights.iter().copied().collect();
                add(Place::Weights { segment, node }, vec![outputs, inputs], values, trained && low.is_none());
                add(Place::Bias { segment, node }, vec![outputs], bias.clone(), trained);
                if let Some(rank) = low {
                    let scale = 1.0 / (inputs as f32).sqrt();
                    let values = (0..rank * inputs).map(|_| draw() * scale).collect();
                    add(Place::Down { segment }, vec![rank, inputs], values, true);
                    add(Place::Up { segment }, vec![outputs, rank], vec![0.0; outputs * rank], true);
                }
            }
        }
        for (path, found) in stitched.paths.iter().enumerate() {
            for Correction { segment, node, bias } in &found.corrections {
                let place = Place::OwnBias { path, segment: *segment, node: *node };
                let (shape, values) = (vec![bias.len()], bias.clone());
                parameters.push(Parameter { place, shape, values, trained: true, anchor: false });
            }
        }
        let places = parameters.iter().enumerate().map(|(number, parameter)| (parameter.place, number)).collect();
        Self { stitched, parameters, places }
    }

    /// A family none of whose parameters is trained.
    #[must_use]
    pub fn frozen(stitched: Stitched) -> Self {
        let mut net = Self::new(stitched, What::Stitches, None, &mut || 0.0);
        net.parameters.iter_mut().for_each(|parameter| parameter.trained = false);
        net
    }

    /// The parameters as tensors on a device, for one step; those that are trained can be differentiated by.
    ///
    /// # Errors
    /// What candle refuses.
    pub fn tensors(&self, device: &Device) -> Result<Vec<Tensor>> {
        let tensor = |parameter: &Parameter| {
            let tensor = Tensor::from_vec(parameter.values.clone(), &parameter.shape[..], device)?;
            Ok(if parameter.trained { Var::from_tensor(&tensor)?.into_inner() } else { tensor })
        };
        self.parameters.iter().map(tensor).collect()
    }

    /// Answers `[N, classes]` of a path to `images` `[N, H, W, C]`, which are where `tensors` are.
    ///
    /// # Errors
    /// An op without a gradient, by name; what candle refuses.
    pub fn answers(&self, path: usize, tensors: &[Tensor], images: &Tensor) -> Result<Tensor> {
        let mut features = images.clone();
        for &number in &self.stitched.paths[path].segments {
            let segment = &self.stitched.segments[number];
            let mut maps: Vec<Option<Tensor>> = vec![None; segment.tensors.len()];
            maps[segment.input] = Some(features);
            for (position, node) in segment.nodes.iter().enumerate() {
                let result = self.node(path, number, position, tensors, &maps)?;
                maps[node.output] = Some(result);
            }
            features = map(&maps, segment.output, segment)?.clone();
        }
        features.flatten_from(1)
    }

    fn node(
        &self,
        path: usize,
        segment: usize,
        position: usize,
        tensors: &[Tensor],
        maps: &[Option<Tensor>],
    ) -> Result<Tensor> {
        let found = &self.stitched.segments[segment];
        let node = &found.nodes[position];
        let shape = |tensor: usize| found.tensors[tensor];
        let first = map(maps, node.inputs[0], found)?;
        let (input, output) = (shape(node.inputs[0]), shape(node.output));
        match &node.op {
            Op::Conv { window, groups, clamp, .. } => {
                let (weights, bias) = self.weights(path, segment, position, node, tensors)?;
                let op = Conv { input, output, window: *window, groups: *groups, clamp: *clamp };
                ops::conv(op, first, &weights, &bias)
            }
            Op::Add { clamp } => ops::add(first, map(maps, node.inputs[1], found)?, *clamp),
            Op::Pool { kind, window, clamp } => ops::pool(first, *kind, window, input, output, *clamp),
            Op::Move { origin, step, repeat, clamp } => {
                ops::moved(first, input, output, *origin, *step, *repeat, *clamp)
            }
            Op::Concat { clamp } if *clamp == crate::graph::Clamp::NONE => {
                let parts = node.inputs.iter().map(|&input| map(maps, input, found)).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&parts, 3)?.contiguous()
            }
            op => bail!("node `{}` ({}): fine-tuning has no gradient for it", node.name, op.name()),
        }
    }

    /// Weights and bias of a convolution as a path has them.
    fn weights(
        &self,
        path: usize,
        segment: usize,
        node: usize,
        found: &Node,
        tensors: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        let tensor = |place: Place| self.places.get(&place).map(|&number| tensors[number].clone());
        let own = tensor(Place::OwnBias { path, segment, node });
        let segment = owner(&self.stitched, segment);
        let bias = own.or_else(|| tensor(Place::Bias { segment, node }));
        let (Some(mut weights), Some(bias)) = (tensor(Place::Weights { segment, node }), bias) else {
            bail!("node `{}` has no weights", found.name)
        };
        if let (Some(down), Some(up)) = (tensor(Place::Down { segment }), tensor(Place::Up { segment })) {
            weights = (weights + up.matmul(&down)?)?;
        }
        Ok((weights, bias))
    }

    /// The family with the parameters as they are now.
    ///
    /// # Errors
    /// What candle refuses.
    pub fn family(&self) -> Result<Stitched> {
        let mut stitched = self.stitched.clone();
        let tensors = self.tensors(&Device::Cpu)?;
        for (number, path) in stitched.paths.iter_mut().enumerate() {
            for Correction { segment, node, bias } in &mut path.corrections {
                let place = Place::OwnBias { path: number, segment: *segment, node: *node };
                bias.clone_from(&self.parameters[self.places[&place]].values);
            }
        }
        for (number, segment) in stitched.segments.iter_mut().enumerate() {
            for (position, node) in segment.nodes.iter_mut().enumerate() {
                let values = self.weights(usize::MAX, number, position, node, &tensors);
                let Op::Conv { weights, bias, .. } = &mut node.op else { continue };
                let (new_weights, new_bias) = values?;
                *bias = new_bias.to_vec1()?;
                let values: Vec<f32> = new_weights.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                weights.iter_mut().zip(values).for_each(|(weight, value)| *weight = value);
            }
        }
        Ok(stitched)
    }
}

fn map<'a>(maps: &'a [Option<Tensor>], tensor: usize, segment: &Segment) -> Result<&'a Tensor> {
    match maps.get(tensor) {
        Some(Some(map)) => Ok(map),
        _ => bail!("{}: tensor {tensor} is read before it is written", segment.name),
    }
}

/// The first segment with the same layer, which has the parameters of all of them.
fn owner(stitched: &Stitched, segment: usize) -> usize {
    let Some(layer) = stitched.segments[segment].layer else { return segment };
    stitched.segments[..segment].iter().position(|other| other.layer == Some(layer)).unwrap_or(segment)
}

/// Gives every stitched path a bias of its own in each convolution behind its first stitch.
fn own_biases(stitched: &mut Stitched) {
    let Stitched { segments, paths, .. } = stitched;
    for Path { segments: route, corrections, .. } in paths {
        let start = route.iter().position(|&number| segments[number].kind == Kind::Stitch).unwrap_or(route.len());
        let mut all = vec![];
        for &segment in &route[start..] {
            if segments[segment].kind == Kind::Stitch {
                continue;
            }
            for (node, found) in segments[segment].nodes.iter().enumerate() {
                let Op::Conv { bias, .. } = &found.op else { continue };
                let known = corrections.iter().find(|own| own.segment == segment && own.node == node);
                all.push(known.cloned().unwrap_or_else(|| Correction { segment, node, bias: bias.clone() }));
            }
        }
        *corrections = all;
    }
}
