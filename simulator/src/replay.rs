//! [`replay`]: an image, pictures and a trace in, rows out.

use std::fmt::Write;

use kernels::Isa;
use plan::{ConfigId, Image, ImageError};
use runtime::policy::Settings;
use runtime::{Engine, Limit, Outcome, RunError, Verdict};

use crate::faults::Faults;
use crate::platform::{Row, Virtual, Watch};
use crate::scenario::Scenario;
use crate::strategy::Strategy;
use crate::trace::Trace;

/// Pictures of one size with their classes.
#[derive(Clone, Copy, Debug)]
pub struct ImageSet<'a> {
    /// Pixels `[n, H, W, C]`, 0..=255.
    pub pixels: &'a [u8],
    /// Class of each picture: `n` numbers.
    pub labels: &'a [u16],
}

impl<'a> ImageSet<'a> {
    /// Picture number `index`, counted round: pixels `[H, W, C]` and class.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&'a [u8], u16)> {
        let index = index.checked_rem(self.labels.len())?;
        let size = self.pixels.len() / self.labels.len();
        Some((self.pixels.get(index * size..(index + 1) * size)?, *self.labels.get(index)?))
    }
}

/// Why nothing was replayed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes are no image.
    #[error("{0}")]
    Image(ImageError),
    /// There is no picture.
    #[error("there is no picture to run")]
    NoPictures,
    /// The pictures are not of the image's input size.
    #[error("{found} bytes of pixels for {pictures} pictures: the image takes {height}x{width}x{channels} bytes each")]
    PictureSize {
        /// Bytes of all pixels.
        found: usize,
        /// Labels given.
        pictures: usize,
        /// Rows of the input.
        height: u16,
        /// Columns of the input.
        width: u16,
        /// Channels of the input.
        channels: u16,
    },
    /// The runtime refused the image.
    #[error("the runtime refused: {0}")]
    Run(RunError),
}

/// Rows of a replay, and what is needed to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// One per frame.
    pub rows: Vec<Row>,
    /// Names of the configs.
    pub configs: Vec<String>,
    /// Their scores: correct answers in 10,000.
    pub scores: Vec<u16>,
}

/// A replay in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Frames.
    pub frames: usize,
    /// Frames with the right answer.
    pub correct: usize,
    /// Frames that took more time or energy than they were allowed.
    pub missed: usize,
    /// Frames that no config fits.
    pub refused: usize,
    /// Frames that ended on a worse config than they began with.
    pub degraded: usize,
    /// Segments that took longer than their bound.
    pub overruns: usize,
    /// Mean expected score of the frames, 0..=1: that of the config which answered; 0 if the budget was missed or the
    /// frame refused.
    pub mean_score: f64,
    /// Mean limits of the frames: ticks and microjoules; frames without a limit do not count.
    pub mean_allowed: [Option<u64>; 2],
    /// Changes of path inside a frame.
    pub switches: usize,
    /// Configs that gave an answer.
    pub configs: usize,
    /// Mean ticks of the frames that were run.
    pub mean_ticks: f64,
}

impl Summary {
    /// Right answers of all frames, 0..=1; a frame that was refused, or came too late, counts as wrong.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.frames.max(1) as f64
    }
}

/// What is replayed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where budgets come from.
    pub scenario: Scenario,
    /// Frames; the pictures start again when they are used up.
    pub frames: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// Who decides.
    pub strategy: Strategy,
    /// How careful the policy is.
    pub settings: Settings,
}

impl Setup {
    /// A trace of budgets and the runtime's own choice at every cut.
    #[must_use]
    pub fn of(trace: Trace, frames: u32, steal_seed: Option<u64>) -> Self {
        let (scenario, faults) = (Scenario::Trace(trace), Faults::steal(steal_seed));
        Self { scenario, frames, faults, strategy: Strategy::PerCut, settings: Settings::default() }
    }
}

/// Runs frames of `pictures` with the fastest kernels of this machine (all give equal bytes) and keeps every row.
/// Equal arguments give equal rows, everywhere.
///
/// # Errors
/// If the bytes are no image or the pictures do not fit it. A frame whose budget is below every config is a
/// row, not an error.
pub fn replay(image_bytes: &[u8], pictures: ImageSet<'_>, setup: &Setup) -> Result<Replay, Error> {
    let mut rows = Rows(vec![]);
    watch(image_bytes, pictures, setup, &mut rows)?;
    let image = Image::parse(image_bytes).map_err(Error::Image)?;
    let configs = || (0..image.configs()).map(|number| image.config(ConfigId(number)));
    let names = (0..image.configs()).map(|number| image.config_name(ConfigId(number)).to_string()).collect();
    Ok(Replay { rows: rows.0, configs: names, scores: configs().map(|config| config.score).collect() })
}

struct Rows(Vec<Row>);

impl Watch for Rows {
    fn frame(&mut self, row: &Row) -> bool {
        self.0.push(*row);
        true
    }
}

/// Like [`replay`], but keeps nothing: `watch` sees each segment and each row as it comes.
///
/// # Errors
/// Those of [`replay`].
pub fn watch(image_bytes: &[u8], pictures: ImageSet<'_>, setup: &Setup, watch: &mut impl Watch) -> Result<(), Error> {
    let image = Image::parse(image_bytes).map_err(Error::Image)?;
    let [height, width, channels] = image.cut(image.meta().input).shape;
    let size = usize::from(height) * usize::from(width) * usize::from(channels);
    if pictures.labels.is_empty() {
        return Err(Error::NoPictures);
    }
    if pictures.pixels.len() != size * pictures.labels.len() {
        let (found, pictures) = (pictures.pixels.len(), pictures.labels.len());
        return Err(Error::PictureSize { found, pictures, height, width, channels });
    }
    let mut platform = Virtual::new(image, pictures, setup.scenario.clone(), setup.faults, setup.frames, watch);
    kernels::with_isa!(kernels::Level::best(), |isa| run(isa, image, setup, &mut platform))
}

fn run<W: Watch>(isa: impl Isa, image: Image<'_>, setup: &Setup, platform: &mut Virtual<'_, W>) -> Result<(), Error> {
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(isa, image, &mut arena).map_err(Error::Run)?;
    setup.strategy.run(&mut engine, platform, setup.settings).map_err(Error::Run)
}

impl Replay {
    /// The replay in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let outcomes = || self.rows.iter().filter_map(|row| row.outcome);
        let run = outcomes().count();
        let score =
            |outcome: Outcome| self.scores.get(outcome.last.index()).map_or(0.0, |&score| f64::from(score) / 10_000.0);
        let mean = |limit: fn(&Row) -> Option<Limit>| {
            let limits: Vec<u64> = self.rows.iter().filter_map(limit).map(|limit| limit.amount).collect();
            let sum: u128 = limits.iter().map(|&amount| u128::from(amount)).sum();
            sum.checked_div(limits.len() as u128).map(|mean| u64::try_from(mean).unwrap_or(u64::MAX))
        };
        let used = (0..self.configs.len()).filter(|&config| outcomes().any(|outcome| outcome.last.index() == config));
        Summary {
            frames: self.rows.len(),
            correct: self
                .rows
                .iter()
                .filter(|row| row.correct() && row.outcome.is_some_and(|outcome| outcome.met()))
                .count(),
            missed: outcomes().filter(|outcome| !outcome.met()).count(),
            refused: self.rows.len() - run,
            degraded: outcomes().filter(|outcome| outcome.verdict == Verdict::Degraded).count(),
            overruns: outcomes().map(|outcome| usize::from(outcome.overruns)).sum(),
            mean_score: outcomes().filter(Outcome::met).map(score).fold(0.0, |sum, score| sum + score)
                / self.rows.len().max(1) as f64,
            mean_allowed: [mean(|row| row.budget.time), mean(|row| row.budget.energy)],
            switches: outcomes().map(|outcome| usize::from(outcome.switches)).sum(),
            configs: used.count(),
            mean_ticks: outcomes().map(|outcome| outcome.elapsed as f64).sum::<f64>() / run.max(1) as f64,
        }
    }

    /// One line per frame under a header. What is empty is "no limit", or a frame that was refused.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "frame,budget_ticks,budget_energy_uj,budget_arena_bytes,first_config,last_config,switches,\
                        elapsed_ticks,stolen_ticks,late_ticks,energy_uj,slowdown_in_256,state,met,class,label,correct\n"
            .to_owned();
        for row in &self.rows {
            let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
            let outcome = row.outcome;
            let name = |id: Option<ConfigId>| {
                id.and_then(|id| self.configs.get(id.index())).map(|name| quoted(name)).unwrap_or_default()
            };
            let fields = [
                row.frame.to_string(),
                number(row.budget.time.map(|limit| limit.amount)),
                number(row.budget.energy.map(|limit| limit.amount)),
                number(row.budget.memory.map(|limit| limit.amount)),
                name(outcome.map(|outcome| outcome.first)),
                name(outcome.map(|outcome| outcome.last)),
                number(outcome.map(|outcome| u64::from(outcome.switches))),
                number(outcome.map(|outcome| outcome.elapsed)),
                row.stolen.to_string(),
                row.late.to_string(),
                number(outcome.map(|outcome| outcome.energy_uj)),
                row.slowdown_in_256.to_string(),
                row.state.to_string(),
                outcome.is_some_and(|outcome| outcome.met()).to_string(),
                number(outcome.map(|outcome| u64::from(outcome.class))),
                row.label.to_string(),
                row.correct().to_string(),
            ];
            let _ = writeln!(text, "{}", fields.join(","));
        }
        text
    }
}

/// A CSV field, in quotes if it must be.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[cfg(test)]
mod tests;
