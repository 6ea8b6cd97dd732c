//! `stitchnet bench`: how long this machine takes, config by config and segment by segment.
//!
//! Instruction sets and configs take turns inside every repeat, so a busy moment hits all of them alike. Every
//! output is compared with the image's self test first: a wrong answer has no speed.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kernels::{Isa, Level, with_isa};
use plan::layout::SHARED;
use plan::{ConfigId, CutId, Image, SegmentId, SegmentKind};
use runtime::{Engine, Progress};
use stitch::cost_table::{self, CostTable};
use stitch::report::milliseconds;

/// An engine without its instruction set in the type.
trait Runner {
    /// `scalar`, `avx2`, `vnni`.
    fn name(&self) -> &'static str;
    /// Time of a whole run.
    fn config(&mut self, config: ConfigId) -> Result<Duration>;
    /// Time of each segment of a run.
    fn segments(&mut self, config: ConfigId, each: &mut dyn FnMut(SegmentId, Duration)) -> Result<()>;
}

fn rewind<I: Isa>(engine: &mut Engine<'_, I>) {
    let input = engine.image().test_input();
    for (value, &byte) in engine.input_mut().iter_mut().zip(input) {
        *value = byte.cast_signed();
    }
}

impl<I: Isa> Runner for Engine<'_, I> {
    fn name(&self) -> &'static str {
        I::NAME
    }

    fn config(&mut self, config: ConfigId) -> Result<Duration> {
        rewind(self);
        let image = *self.image();
        let start = Instant::now();
        let output = self.run_config(config)?;
        let time = start.elapsed();
        let same = output.iter().map(|value| value.cast_unsigned()).eq(image.test_output(config).iter().copied());
        ensure!(same, "config {} on {}: the output is not that of the self test", config.0, I::NAME);
        Ok(time)
    }

    fn segments(&mut self, config: ConfigId, each: &mut dyn FnMut(SegmentId, Duration)) -> Result<()> {
        rewind(self);
        self.begin(config)?;
        loop {
            let start = Instant::now();
            let progress = self.step()?;
            each(self.last_segment(), start.elapsed());
            if progress == Progress::Done {
                return Ok(());
            }
        }
    }
}

/// One engine for each instruction set of this machine.
fn runners<'a>(image: Image<'a>, arenas: &'a mut [Vec<i8>]) -> Result<Vec<Box<dyn Runner + 'a>>> {
    let mut runners: Vec<Box<dyn Runner + 'a>> = vec![];
    for (level, arena) in Level::available().zip(arenas) {
        let runner: Box<dyn Runner + 'a> = with_isa!(level, |isa| Box::new(Engine::new(isa, image, arena)?));
        runners.push(runner);
    }
    Ok(runners)
}

/// Times, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that `percent` of all do not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

/// Measures; returns the two tables for people, and the cost table of the fastest instruction set, in nanoseconds, under
/// the name `target`.
pub fn bench(image: Image<'_>, repeats: usize, target: Option<&str>) -> Result<(String, CostTable)> {
    let mut arenas = vec![vec![0; image.meta().arena_bytes as usize]; Level::available().count()];
    let mut runners = runners(image, &mut arenas)?;
    let configs: Vec<ConfigId> = (0..image.configs()).map(ConfigId).collect();
    let mut whole = vec![vec![vec![]; configs.len()]; runners.len()];
    let mut parts = vec![vec![vec![]; image.segments()]; runners.len()];
    let mut cold = vec![Duration::ZERO; image.segments()];
    let fastest = runners.len() - 1;
    for repeat in 0..=repeats {
        for &config in &configs {
            for (index, runner) in runners.iter_mut().enumerate() {
                let time = runner.config(config).context("bench")?;
                let mut steps = vec![];
                runner.segments(config, &mut |segment, time| steps.push((segment, time)))?;
                // The first round fills the caches.
                if repeat == 0 && index == fastest {
                    for &(segment, time) in &steps {
                        cold[segment.index()] = cold[segment.index()].max(time);
                    }
                }
                if repeat > 0 {
                    whole[index][config.index()].push(time);
                    for (segment, time) in steps {
                        parts[index][segment.index()].push(time);
                    }
                }
            }
        }
    }
    let names: Vec<_> = runners.iter().map(|runner| runner.name()).collect();
    let mut text = format!("this machine, {repeats} repeats, one thread; outputs equal the self test's\n\n");
    let name = target.map_or_else(|| format!("this machine, {}", names[fastest]), str::to_owned);
    let costs = cost_table(name, parts[fastest].clone(), &cold);
    config_table(&mut text, &image, &names, whole);
    segment_table(&mut text, &image, &names, parts);
    Ok((text, costs))
}

fn cost_table(target: String, parts: Vec<Vec<Duration>>, cold: &[Duration]) -> CostTable {
    let ticks = |milliseconds: f64| (milliseconds * 1e6) as u32;
    let segments = parts.into_iter().zip(cold).map(|(times, cold)| {
        let times = Times::new(times);
        let [least, median, p99, most] = [0, 50, 99, 100].map(|percent| ticks(times.percentile(percent)));
        cost_table::Times { least, median, p99, most, cold: ticks(cold.as_secs_f64() * 1e3) }
    });
    CostTable { target, ticks_per_second: 1_000_000_000, segments: segments.collect() }
}

fn config_table(text: &mut String, image: &Image<'_>, names: &[&str], mut whole: Vec<Vec<Vec<Duration>>>) {
    let title = |number| image.config_name(ConfigId(number)).to_string();
    let width = (0..image.configs()).map(|number| title(number).chars().count()).max().unwrap_or(0).max(6);
    let _ = writeln!(text, "{:<width$}  isa     {:>10}{:>10}{:>10}{:>12}", "config", "min", "median", "p99", "MACs/ns");
    for number in 0..image.configs() {
        for (index, name) in names.iter().enumerate() {
            let times = Times::new(std::mem::take(&mut whole[index][usize::from(number)]));
            let [min, median, p99] = [0, 50, 99].map(|percent| times.percentile(percent));
            let config = if index == 0 { title(number) } else { String::new() };
            let speed = image.macs(&image.config(ConfigId(number))) as f64 / (median.max(f64::MIN_POSITIVE) * 1e6);
            let [min, median, p99] = [min, median, p99].map(milliseconds);
            let _ = writeln!(text, "{config:<width$}  {name:<8}{min:>10}{median:>10}{p99:>10}{speed:>12.2}");
        }
    }
}

fn segment_table(text: &mut String, image: &Image<'_>, names: &[&str], mut parts: Vec<Vec<Vec<Duration>>>) {
    let titles: Vec<String> = (0..image.segments()).map(|index| segment_name(image, index)).collect();
    let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or(0).max(7);
    let head: String = names.iter().fold(String::new(), |mut head, name| {
        let _ = write!(head, "{name:>10}");
        head
    });
    let _ = writeln!(text, "\n{:<width$}{:>12}{:>12}{head}   (median)", "segment", "MACs", "ticks");
    for (index, title) in titles.iter().enumerate() {
        let segment = image.segment(SegmentId(index as u16));
        let _ = write!(
            text,
            "{title:<width$}{:>12}{:>12}",
            segment.macs,
            image.cost(plan::TargetId(0), SegmentId(index as u16)).ticks
        );
        for part in &mut parts {
            let median = Times::new(std::mem::take(&mut part[index])).percentile(50);
            let _ = write!(text, "{:>10}", milliseconds(median));
        }
        text.push('\n');
    }
}

/// `small.2 to small.3`, `small.2 stitched to medium.4`.
fn segment_name(image: &Image<'_>, index: usize) -> String {
    let segment = image.segment(SegmentId(index as u16));
    let anchors = image.text(image.meta().anchor_names);
    let cut = |id: CutId| {
        let cut = image.cut(id);
        match anchors.lines().nth(cut.anchor.into()) {
            Some(anchor) if cut.anchor != SHARED => format!("{anchor}.{}", cut.position),
            _ if id == image.meta().input => "input".to_owned(),
            _ => "output".to_owned(),
        }
    };
    let way = if segment.kind == SegmentKind::Stitch { "stitched to" } else { "to" };
    format!("{} {way} {}", cut(segment.from), cut(segment.to))
}

#[cfg(test)]
mod tests {
    use super::Times;
    use std::time::Duration;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = Times::new([4, 1, 3, 2].map(Duration::from_millis).into());
        assert_eq!([0, 50, 99, 100].map(|percent| times.percentile(percent)), [1.0, 2.0, 4.0, 4.0]);
    }
}
