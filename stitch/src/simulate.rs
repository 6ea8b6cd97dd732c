//! `stitchnet simulate`: the real runtime on pictures and virtual time.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plan::Image;
use runtime::policy::Settings;
use simulator::{Faults, Replay, Scenario, Setup, Strategy, Summary, Trace};
use stitch::report::{Facts, html, milliseconds};

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  stitchnet simulate cifar.snet --images models/cifar-cnn/data/test --csv replay.csv
  stitchnet simulate cifar.snet --images models/cifar-cnn/data/test --trace battery.csv --html replay.html
  stitchnet simulate cifar.snet --images models/cifar-cnn/data/test --scenario bursty --frames 10000 --compare
  stitchnet simulate cifar.snet --images models/cifar-cnn/data/test --scenario thermal --view

A trace is CSV: a header `frame,ticks[,arena_bytes[,energy_uj]]`, then one line for each change of the budget.
Limits are hard; an empty field is no limit.";

/// Where budgets come from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Source {
    /// Time falls and recovers
    Fall,
    /// A battery that must last for all frames
    Battery,
    /// A chip that slows down when it is hot
    Thermal,
    /// A task of higher priority that comes in bursts
    Bursty,
}

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Simulate {
    /// Image
    image: PathBuf,
    /// Folder of pictures: sheets and labels.txt; of a detector a COCO file
    #[arg(long, value_name = "DIR|FILE")]
    images: PathBuf,
    /// Budgets from a file
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    trace: Option<PathBuf>,
    /// Budgets from a model
    #[arg(long, value_enum, default_value = "fall")]
    scenario: Source,
    /// Frames to run
    #[arg(long, default_value_t = 600)]
    frames: u32,
    /// Let other tasks steal time, by this seed; it stays within the bounds of the cost table
    #[arg(long, value_name = "SEED")]
    steal: Option<u64>,
    /// With a seed: frames come late, flash is slow now and then, the sensor falls silent
    #[arg(long, requires = "steal")]
    faults: bool,
    /// With a seed: stolen time may break the bounds, and the clock may jump back
    #[arg(long, requires = "steal")]
    beyond_bounds: bool,
    /// The part of the measured times that an estimate should not be below
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    quantile: u8,
    /// Begin a frame on a better config than the last only with so much of its cost to spare
    #[arg(long, value_name = "PERCENT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    hysteresis: u32,
    /// Run every strategy on the same frames and compare them
    #[arg(long)]
    compare: bool,
    /// Fail if the choice at each cut misses a budget, or scores less than the choice for each frame, or than so much of
    /// the oracle
    #[arg(long, value_name = "PERCENT", requires = "compare")]
    at_least: Option<f64>,
    /// Show it in the terminal, frame by frame
    #[arg(long, conflicts_with_all = ["compare", "csv", "html"])]
    view: bool,
    /// Frames shown in a second
    #[arg(long, value_name = "FRAMES", default_value_t = 10, requires = "view")]
    speed: u32,
    /// Write one row per frame
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with pictures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Simulate {
    fn setup(&self, image: &Image<'_>) -> Result<Setup> {
        // Bursts without stolen time would be no bursts.
        let bursty = matches!(self.scenario, Source::Bursty) && self.trace.is_none();
        let seed = self.steal.or(bursty.then_some(1));
        let scenario = match (&self.trace, self.scenario) {
            (Some(path), _) => {
                let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
                Scenario::Trace(Trace::parse(&text).with_context(|| format!("{}", path.display()))?)
            }
            (None, Source::Fall) => Scenario::Trace(Trace::fall_and_recover(image, self.frames)),
            (None, Source::Battery) => Scenario::battery(image, self.frames),
            (None, Source::Thermal) => Scenario::thermal(image),
            (None, Source::Bursty) => Scenario::bursty(image, seed.unwrap_or(1)),
        };
        let faults = Faults { seed, all: self.faults, beyond_bounds: self.beyond_bounds };
        let hysteresis_in_256 = self.hysteresis * 256 / 100;
        let settings = Settings { hysteresis_in_256, quantile_percent: self.quantile, ..Settings::default() };
        Ok(Setup { scenario, frames: self.frames, faults, strategy: Strategy::PerCut, settings })
    }
}

/// Replays, and writes what was asked for.
pub fn simulate(arguments: &Simulate) -> Result<()> {
    let bytes = crate::read_image(&arguments.image)?;
    let image = crate::parse(&bytes, &arguments.image)?;
    let setup = arguments.setup(&image)?;
    if arguments.view {
        return view(&image, &arguments.images, &setup, arguments.speed);
    }
    let replayed = if arguments.compare {
        let Compared { text, replay, per_frame, oracle } = compare(&image, &arguments.images, &setup)?;
        print!("{text}");
        let Summary { missed, mean_score, .. } = replay.summary();
        let of_oracle = 100.0 * mean_score / oracle.max(f64::MIN_POSITIVE);
        if let Some(least) = arguments.at_least {
            ensure!(missed == 0, "{missed} budgets were missed");
            ensure!(
                mean_score >= per_frame - NOISE,
                "the mean score is {:.2} %, that of a choice for each frame {:.2} %",
                100.0 * mean_score,
                100.0 * per_frame
            );
            ensure!(
                of_oracle >= least,
                "the mean score is {of_oracle:.2} % of the oracle's, at least {least} is asked for"
            );
        }
        replay
    } else {
        let replayed = replay(&image, &arguments.images, &setup)?;
        print!("{}", told(&replayed, &image));
        replayed
    };
    if let Some(path) = &arguments.csv {
        crate::write(path, replayed.csv().as_bytes())?;
    }
    if let Some(path) = &arguments.html {
        crate::write(path, html(&Facts::of(&image), Some(&replayed)).as_bytes())?;
    }
    Ok(())
}

/// Shows it in the terminal.
fn view(image: &Image<'_>, folder: &Path, setup: &Setup, per_second: u32) -> Result<()> {
    let pictures = crate::pictures(image, folder)?;
    let pictures = simulator::ImageSet { pixels: &pictures.pixels, labels: &pictures.labels };
    let mut view = simulator::View::new(*image, setup.frames, per_second).context("--view")?;
    let result = simulator::watch(image.bytes(), pictures, setup, &mut view);
    view.finish()?;
    Ok(result?)
}

/// Mean scores that differ by less are equal: a few frames that set out on the wrong path.
const NOISE: f64 = 0.0005;

/// What a comparison says.
struct Compared {
    /// The table.
    text: String,
    /// The choice at each cut.
    replay: Replay,
    /// Mean score of the choice for each frame.
    per_frame: f64,
    /// Mean score of the oracle.
    oracle: f64,
}

/// Every strategy on the same frames, two at a time.
fn compare(image: &Image<'_>, folder: &Path, setup: &Setup) -> Result<Compared> {
    let base = replay(image, folder, setup)?;
    let strategies = Strategy::compared(image, base.summary().mean_allowed);
    let bar = indicatif::ProgressBar::new(strategies.len() as u64);
    let run = |strategy: &Strategy| -> Result<Summary> {
        let summary = match strategy {
            Strategy::PerCut => base.summary(),
            _ => replay(image, folder, &Setup { strategy: *strategy, ..setup.clone() })?.summary(),
        };
        bar.inc(1);
        Ok(summary)
    };
    let mut summaries = vec![];
    for pair in strategies.chunks(2) {
        let results: Vec<Result<Summary>> = std::thread::scope(|scope| {
            let threads: Vec<_> = pair.iter().map(|(_, strategy)| scope.spawn(|| run(strategy))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a replay broke")))
                .collect()
        });
        summaries.extend(results);
    }
    bar.finish_and_clear();
    let summaries = summaries.into_iter().collect::<Result<Vec<_>>>()?;
    let names: Vec<&str> = strategies.iter().map(|(name, _)| name.as_str()).collect();
    let of = |wanted: Strategy| {
        let mut found = strategies.iter().zip(&summaries).filter(|((_, strategy), _)| *strategy == wanted);
        found.next().map_or(0.0, |(_, summary)| summary.mean_score)
    };
    let (per_frame, oracle) = (of(Strategy::PerFrame), of(Strategy::Oracle));
    Ok(Compared { text: comparison(&names, &summaries), replay: base, per_frame, oracle })
}

/// One line per strategy; the last is the oracle.
fn comparison(names: &[&str], summaries: &[Summary]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$} {:>8} {:>8} {:>11} {:>10} {:>9} {:>9} {:>9}\n",
        "strategy", "missed", "refused", "mean score", "of oracle", "right", "switches", "overruns"
    );
    let oracle = summaries.last().map_or(0.0, |summary| summary.mean_score);
    for (name, summary) in names.iter().zip(summaries) {
        let _ = writeln!(
            text,
            "{name:<width$} {:>8} {:>8} {:>9.2} % {:>8.2} % {:>7.2} % {:>9} {:>9}",
            summary.missed,
            summary.refused,
            summary.mean_score * 100.0,
            100.0 * summary.mean_score / oracle.max(f64::MIN_POSITIVE),
            100.0 * summary.accuracy(),
            summary.switches,
            summary.overruns,
        );
    }
    text += "A frame that missed its budget or was refused scores nothing and is wrong.\n";
    text
}

/// Runs an image on a folder of pictures.
pub fn replay(image: &Image<'_>, folder: &Path, setup: &Setup) -> Result<Replay> {
    let pictures = crate::pictures(image, folder)?;
    let pictures = simulator::ImageSet { pixels: &pictures.pixels, labels: &pictures.labels };
    Ok(simulator::replay(image.bytes(), pictures, setup)?)
}

/// A replay in lines.
pub fn told(replay: &Replay, image: &Image<'_>) -> String {
    let summary = replay.summary();
    let ticks_per_second = image.target(plan::TargetId(0)).ticks_per_second;
    let mean = summary.mean_ticks / f64::from(ticks_per_second) * 1000.0;
    // Boxes are not right or wrong: `evaluate` scores them.
    let right =
        if image.is_detector() { String::new() } else { format!(" {:.2} % right,", 100.0 * summary.accuracy()) };
    format!(
        "{} frames:{right} {} budgets missed, {} refused, {} degraded, {} segments above their bound\n{} of {} \
         configs used, {} changes of path inside a frame, {} predicted per frame\n",
        summary.frames,
        summary.missed,
        summary.refused,
        summary.degraded,
        summary.overruns,
        summary.configs,
        replay.configs.len(),
        summary.switches,
        milliseconds(mean)
    )
}
