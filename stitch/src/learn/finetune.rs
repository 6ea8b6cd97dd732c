//! Gradient steps on a stitched family: every path learns to answer as the largest anchor does.
//!
//! The largest anchor, as it came, is the teacher (Hinton, Vinyals, Dean 2015); labels are not used. Each step draws a
//! batch, and for it some configs; their gradients are summed. Configs are drawn as SN-Netv2 does (resource-constrained
//! sampling: first a group of similar cost, then one of the group), so that the anchors, alone in their groups, are not
//! forgotten. Adam, with one rate for stitches and the paths' own biases and a lower one for the anchors.
//!
//! A step depends on the seed and on its number only: a training that goes on after a break takes the same steps.

mod net;
mod ops;
mod portable;
mod sample;
pub mod state;

pub use candle_core::Device;
use candle_core::Tensor;
use rayon::prelude::*;

pub use net::{Net, Parameter, Place, What};
pub use sample::Pixels;
use sample::{Sampler, batch};
use simulator::Draw;

use crate::error::Error;
use crate::network::Stitched;

/// Softens the answers that are compared; the anchors' recipe has the same.
const TEMPERATURE: f64 = 4.0;
/// Images of one forward and backward pass: more would leave the cache.
const PART: usize = 32;
/// Part of the steps in which the rates rise.
const WARM_UP: f64 = 0.05;
/// A measured loss above the best one by this factor is divergence.
const DIVERGED: f64 = 4.0;
const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

/// How to train.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is trained.
    pub what: What,
    /// Paths that are trained; all if there is none.
    pub only: Vec<usize>,
    /// Rank of what is added to stitches; without it, all their weights are trained.
    pub rank: Option<usize>,
    /// Steps in all.
    pub steps: u64,
    /// Images of a step.
    pub batch: usize,
    /// Configs of a step.
    pub configs: usize,
    /// Largest rate of stitches and own biases.
    pub rate: f64,
    /// Largest rate of the anchors.
    pub anchor_rate: f64,
    /// Equal seeds train equally.
    pub seed: u64,
}

/// Adam's moments of one parameter; empty until its first step.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    /// Mean gradient.
    pub first: Vec<f32>,
    /// Mean squared gradient.
    pub second: Vec<f32>,
    /// Steps that changed the parameter.
    pub steps: u32,
}

/// A training.
pub struct Training {
    /// The family.
    pub net: Net,
    /// Of each parameter.
    pub moments: Vec<Moments>,
    /// Steps done.
    pub step: u64,
    /// Least measured loss, and the values of all parameters then.
    pub best: Option<(f64, Vec<Vec<f32>>)>,
    teacher: Net,
    /// Its parameters, which never change.
    teacher_tensors: Vec<Tensor>,
    sampler: Sampler,
    options: Options,
    device: Device,
    /// Checksum of the parameters before the first step.
    start: u32,
}

/// What [`Training::measure`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// So far the least loss.
    Best(f64),
    /// Not the least.
    Worse(f64),
    /// Far above the least, or no number: what follows would not get better.
    Diverged(f64),
}

impl Training {
    /// Before the first step; the largest anchor of `teacher` is what all learn to answer as. Where it runs is no part of
    /// what a training is: it can go on on another device.
    ///
    /// # Errors
    /// [`Error::Family`] if there is nothing to train.
    pub fn new(stitched: Stitched, teacher: Stitched, options: Options, device: Device) -> Result<Self, Error> {
        // Where anchors stay as they are, a step on one would change nothing.
        let first = if options.what == What::All { 0 } else { stitched.anchors.len() };
        let chosen = |path: &usize| options.only.is_empty() || options.only.contains(path);
        let paths: Vec<usize> = (first..stitched.paths.len()).filter(chosen).collect();
        if stitched.paths.len() <= stitched.anchors.len() || paths.is_empty() {
            return Err(Error::Family("no stitched path: there is nothing to fine-tune".into()));
        }
        let sampler = Sampler::new(&stitched, &paths);
        let teacher = Net::frozen(teacher);
        let teacher_tensors = teacher.tensors(&device).map_err(refused)?;
        let mut random = Draw::new(options.seed);
        let mut draw = || (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let net = Net::new(stitched, options.what, options.rank, &mut draw);
        let moments = vec![Moments::default(); net.parameters.len()];
        let numbers = net.parameters.iter().flat_map(|parameter| &parameter.values);
        let start = plan::crc32(&numbers.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        Ok(Self { net, moments, step: 0, best: None, teacher, teacher_tensors, sampler, options, device, start })
    }

    /// What two trainings must have in common so that one can go on from the other.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let count = self.net.parameters.len();
        format!("{:?} and {count} parameters, at first of checksum {:08x}", self.options, self.start)
    }

    /// One step; returns its loss.
    ///
    /// # Errors
    /// [`Error::Stage`] with what the differentiation refuses.
    pub fn step(&mut self, pixels: &Pixels<'_>) -> Result<f64, Error> {
        let mut random = Draw::new(self.options.seed ^ self.step.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let images = batch(pixels, self.options.batch, &mut random);
        let configs: Vec<usize> = (0..self.options.configs).map(|_| self.sampler.draw(&mut random)).collect();
        let (loss, gradients) = self.gradients(&images, pixels.shape, &configs).map_err(refused)?;
        self.update(&gradients);
        self.step += 1;
        Ok(loss)
    }

    /// Mean loss and its gradient by each parameter; parts are summed in order, so threads do not change the result.
    fn gradients(
        &self,
        images: &[f32],
        shape: [usize; 3],
        configs: &[usize],
    ) -> candle_core::Result<(f64, Vec<Option<Vec<f32>>>)> {
        let size: usize = shape.iter().product();
        let total = (images.len() / size * configs.len()) as f64;
        let tensor = |part| images_tensor(part, shape, &self.device);
        let parts = images.chunks(PART * size).map(tensor).collect::<Result<Vec<_>, _>>()?;
        let goals = parts
            .par_iter()
            .with_min_len(self.at_once(parts.len()))
            .map(|part| self.goal(part))
            .collect::<Result<Vec<_>, _>>()?;
        let tensors = self.net.tensors(&self.device)?;
        let jobs: Vec<(usize, usize)> =
            (0..parts.len()).flat_map(|part| configs.iter().map(move |&config| (part, config))).collect();
        let results = jobs
            .par_iter()
            .with_min_len(self.at_once(jobs.len()))
            .map(|&(part, config)| {
                let answers = self.net.answers(config, &tensors, &parts[part])?;
                let loss = (distance(&answers, &goals[part])? / total)?;
                let gradients = loss.backward()?;
                let of = |tensor: &Tensor| {
                    gradients.get(tensor).map(|gradient| gradient.flatten_all()?.to_vec1::<f32>()).transpose()
                };
                let gradients = tensors.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let mut sums: Vec<Option<Vec<f32>>> = vec![None; tensors.len()];
        let mut loss = 0.0;
        for (part, gradients) in results {
            loss += part;
            for (sum, gradient) in sums.iter_mut().zip(gradients) {
                match (sum, gradient) {
                    (Some(sum), Some(gradient)) => sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value),
                    (sum @ None, gradient) => *sum = gradient,
                    (Some(_), None) => {}
                }
            }
        }
        Ok((loss, sums))
    }

    /// Least parts for one thread: all cores share them, while another device takes one after the other.
    fn at_once(&self, parts: usize) -> usize {
        if self.device.is_cpu() { 1 } else { parts.max(1) }
    }

    /// What the teacher says, softened.
    fn goal(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let teacher = self.teacher.stitched.anchors.len() - 1;
        let answers = self.teacher.answers(teacher, &self.teacher_tensors, images)?;
        log_softmax(&(answers / TEMPERATURE)?)?.exp()
    }

    /// Adam (Kingma, Ba 2015); a parameter that no drawn config has is left alone.
    fn update(&mut self, gradients: &[Option<Vec<f32>>]) {
        let done = self.step as f64 / self.options.steps.max(1) as f64;
        let part = (done / WARM_UP).min((1.0 - done) / (1.0 - WARM_UP)).clamp(0.0, 1.0);
        for ((parameter, moments), gradient) in self.net.parameters.iter_mut().zip(&mut self.moments).zip(gradients) {
            let Some(gradient) = gradient.as_ref().filter(|_| parameter.trained) else { continue };
            moments.first.resize(gradient.len(), 0.0);
            moments.second.resize(gradient.len(), 0.0);
            moments.steps += 1;
            let rate = if parameter.anchor { self.options.anchor_rate } else { self.options.rate };
            let [left, left_squared] = BETAS.map(|beta| 1.0 - beta.powi(moments.steps as i32));
            let rate = (rate * part) as f32 / left;
            let values = parameter.values.iter_mut().zip(gradient);
            for ((value, gradient), (first, second)) in values.zip(moments.first.iter_mut().zip(&mut moments.second)) {
                *first += (1.0 - BETAS[0]) * (gradient - *first);
                *second += (1.0 - BETAS[1]) * (gradient * gradient - *second);
                *value -= rate * *first / ((*second / left_squared).sqrt() + EPSILON);
            }
        }
    }

    /// Loss over all trained configs on images that are not trained on; keeps the best state.
    ///
    /// # Errors
    /// [`Error::Stage`] with what the evaluation refuses.
    pub fn measure(&mut self, pixels: &Pixels<'_>) -> Result<Verdict, Error> {
        let loss = self.loss(pixels).map_err(refused)?;
        let best = self.best.as_ref().map_or(f64::INFINITY, |(loss, _)| *loss);
        if loss < best {
            let values = self.net.parameters.iter().map(|parameter| parameter.values.clone()).collect();
            self.best = Some((loss, values));
            return Ok(Verdict::Best(loss));
        }
        Ok(if loss <= DIVERGED * best { Verdict::Worse(loss) } else { Verdict::Diverged(loss) })
    }

    fn loss(&self, pixels: &Pixels<'_>) -> candle_core::Result<f64> {
        let size: usize = pixels.shape.iter().product();
        let (images, tensors) = (pixels.normalised(), self.net.tensors(&self.device)?);
        let parts = images.chunks(PART * size).collect::<Vec<_>>();
        let configs = self.sampler.paths();
        let losses = parts
            .par_iter()
            .with_min_len(self.at_once(parts.len()))
            .map(|part| {
                let part = images_tensor(part, pixels.shape, &self.device)?;
                let goal = self.goal(&part)?;
                let of = |config| distance(&self.net.answers(config, &tensors, &part)?, &goal)?.to_scalar::<f32>();
                configs.clone().map(of).sum::<candle_core::Result<f32>>()
            })
            .collect::<candle_core::Result<Vec<f32>>>()?;
        Ok(losses.into_iter().map(f64::from).sum::<f64>() / (images.len() / size * configs.count()) as f64)
    }

    /// The family in its best state so far, or as it is if nothing was measured.
    ///
    /// # Errors
    /// [`Error::Stage`] with what candle refuses.
    pub fn family(&self) -> Result<Stitched, Error> {
        let mut net = self.net.clone();
        if let Some((_, best)) = &self.best {
            net.parameters.iter_mut().zip(best).for_each(|(parameter, values)| parameter.values.clone_from(values));
        }
        net.family().map_err(refused)
    }
}

fn refused(error: candle_core::Error) -> Error {
    Error::Stage { stage: "learn", what: error.to_string() }
}

fn images_tensor(
    images: &[f32],
    [height, width, channels]: [usize; 3],
    device: &Device,
) -> candle_core::Result<Tensor> {
    let count = images.len() / (height * width * channels);
    Tensor::from_vec(images.to_vec(), (count, height, width, channels), device)
}

/// Sum over the images of the divergence of softened answers from the goal, `temperature² · Σ g·(log g − log a)`.
fn distance(answers: &Tensor, goal: &Tensor) -> candle_core::Result<Tensor> {
    let difference = ((goal + 1e-30)?.log()? - log_softmax(&(answers / TEMPERATURE)?)?)?;
    (goal * difference)?.sum_all()? * (TEMPERATURE * TEMPERATURE)
}

fn log_softmax(values: &Tensor) -> candle_core::Result<Tensor> {
    let values = values.broadcast_sub(&values.max_keepdim(1)?.detach())?;
    values.broadcast_sub(&values.exp()?.sum_keepdim(1)?.log()?)
}

#[cfg(test)]
mod tests;
