//! [`replay`]: an image, pictures and a trace in, rows out.

use std::fmt::Write;

use kernels::Isa;
use plan::{ConfigId, Image, ImageError};
use runtime::{Engine, RunError};

use crate::faults::Theft;
use crate::platform::{Row, Virtual};
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
}

/// A replay in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Frames.
    pub frames: usize,
    /// Frames with the right answer.
    pub correct: usize,
    /// Frames that took more than they were allowed.
    pub missed: usize,
    /// Frames that no config fits.
    pub refused: usize,
    /// Changes of path inside a frame.
    pub switches: usize,
    /// Configs that gave an answer.
    pub configs: usize,
    /// Mean ticks of the frames that were run.
    pub mean_ticks: f64,
}

impl Summary {
    /// Right answers of all frames, 0..=1; a refused frame counts as wrong.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.frames.max(1) as f64
    }
}

/// Runs `frames` frames of `pictures` under `trace`, with the fastest kernels of this machine (all give equal
/// bytes). `steal_seed` lets other tasks steal time. Equal arguments give equal rows, everywhere.
///
/// # Errors
/// If the bytes are no image or the pictures do not fit it. A frame whose budget is below every config is a
/// row, not an error.
pub fn replay(
    image_bytes: &[u8],
    pictures: ImageSet<'_>,
    trace: &Trace,
    frames: u32,
    steal_seed: Option<u64>,
) -> Result<Replay, Error> {
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
    let platform = Virtual::new(image, pictures, trace, frames, Theft::new(steal_seed));
    let rows = kernels::with_isa!(kernels::Level::best(), |isa| run(isa, image, platform))?;
    let configs = (0..image.configs()).map(|number| image.text(image.config(ConfigId(number)).name).to_owned());
    Ok(Replay { rows, configs: configs.collect() })
}

fn run(isa: impl Isa, image: Image<'_>, mut platform: Virtual<'_>) -> Result<Vec<Row>, Error> {
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(isa, image, &mut arena).map_err(Error::Run)?;
    runtime::run(&mut engine, &mut platform).map_err(Error::Run)?;
    Ok(platform.into_rows())
}

impl Replay {
    /// The replay in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let outcomes = || self.rows.iter().filter_map(|row| row.outcome);
        let run = outcomes().count();
        let used = (0..self.configs.len()).filter(|&config| outcomes().any(|outcome| outcome.last.index() == config));
        Summary {
            frames: self.rows.len(),
            correct: self.rows.iter().filter(|row| row.correct()).count(),
            missed: outcomes().filter(|outcome| !outcome.met).count(),
            refused: self.rows.len() - run,
            switches: outcomes().map(|outcome| usize::from(outcome.switches)).sum(),
            configs: used.count(),
            mean_ticks: outcomes().map(|outcome| outcome.elapsed as f64).sum::<f64>() / run.max(1) as f64,
        }
    }

    /// One line per frame under a header. What is empty is "no limit", or a frame that was refused.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "frame,budget_ticks,budget_arena_bytes,first_config,last_config,switches,elapsed_ticks,\
                        stolen_ticks,met,class,label,correct\n"
            .to_owned();
        for row in &self.rows {
            let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
            let outcome = row.outcome;
            let name = |id: Option<ConfigId>| {
                id.and_then(|id| self.configs.get(id.index())).map(|name| quoted(name)).unwrap_or_default()
            };
            let fields = [
                row.frame.to_string(),
                number(row.budget.ticks),
                number(row.budget.arena_bytes.map(u64::from)),
                name(outcome.map(|outcome| outcome.first)),
                name(outcome.map(|outcome| outcome.last)),
                number(outcome.map(|outcome| u64::from(outcome.switches))),
                number(outcome.map(|outcome| outcome.elapsed)),
                row.stolen.to_string(),
                outcome.is_some_and(|outcome| outcome.met).to_string(),
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
