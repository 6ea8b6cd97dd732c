//! `stitchnet evaluate` and `stitchnet merge`: scores of every config of an image, on one machine or on many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plan::{ConfigId, Image, SegmentKind};
use stitch::detection::{self, coco::BoxSet};
use stitch::evaluate::tally::{self, Shard, Tally};
use stitch::evaluate::{self, Way, tree::Tree};
use stitch::images::{ImageSet, Sheets};
use stitch::pipeline::{Progress, Stage};
use stitch::report::grouped;

use crate::progress::Bars;

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  stitchnet evaluate cifar.snet --images models/cifar-cnn/data/test
  stitchnet evaluate cifar.snet --images models/cifar-cnn/data/test --compare
  stitchnet evaluate cifar.snet --images models/cifar-cnn/data/test --shard 2/4 -o 2.txt
  stitchnet evaluate cells.snet --images models/blood-cells/data/test.json

A shard is a run of its own, on any machine; `stitchnet merge` puts them together, and `compile --scores` chooses by them what
ships. With -o, a run that was killed goes on where it was. A detector is scored by average precision, on one machine.";

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub struct Evaluate {
    /// Image
    image: PathBuf,
    /// Folder of pictures: sheets and labels.txt; of a detector a COCO file
    #[arg(long, value_name = "DIR|FILE")]
    images: PathBuf,
    /// Pictures, from the first on; without it, all
    #[arg(long)]
    count: Option<usize>,
    /// Only a part of the pictures: 2/4 has every fourth from the second on
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    shard: Shard,
    /// File for the right answers, brought up to date after every batch
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Pictures in a batch
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Run every config from the input on, shared starts again and again
    #[arg(long)]
    alone: bool,
    /// Run each batch both ways, in turn, and compare bytes and time
    #[arg(long, conflicts_with_all = ["alone", "output"])]
    compare: bool,
}

/// Scores every config.
pub fn evaluate(arguments: &Evaluate) -> Result<()> {
    let bytes = crate::read_image(&arguments.image)?;
    let image = crate::parse(&bytes, &arguments.image)?;
    if image.is_detector() {
        return boxes(&image, arguments);
    }
    let shape = image.cut(image.meta().input).shape.map(usize::from);
    let sheets = Sheets::open(&arguments.images, shape, image.meta().classes.into())?;
    let sheets = sheets.first(arguments.count.unwrap_or(usize::MAX));
    let shard = arguments.shard;
    let mut tally = Tally::new(&image, sheets.checksum()?, sheets.len(), shard);
    let share = shard.share(sheets.len());
    ensure!(share > 0, "{} pictures: none is left for shard {} of {}", sheets.len(), shard.number, shard.of);
    if let Some(path) = &arguments.output {
        resume(path, &mut tally)?;
    }
    let tree = evaluate::tree_of(&image);
    let way = if arguments.alone { Way::Alone } else { Way::Shared(&tree) };
    let begun = tally.done;
    let bars = Bars::new();
    bars.stage(Stage::Evaluate, (share - begun) as u64);
    let started = Instant::now();
    let mut ratios = vec![];
    for batch in sheets.batches(arguments.batch.into(), |image| shard.has(image) && image / shard.of >= begun) {
        let batch = batch?;
        let answers = if arguments.compare {
            let (answers, ratio) = both(&image, &tree, &batch, ratios.len() % 2 == 1)?;
            ratios.push(ratio);
            batch.labels.iter().for_each(|_| bars.advance());
            answers
        } else {
            evaluate::batch(&image, way, &batch, &|| bars.advance())?
        };
        answers.iter().zip(&batch.labels).for_each(|(answers, &label)| tally.add(answers, label));
        if let Some(path) = &arguments.output {
            save(path, &tally)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    bars.finish();
    print!("{}", table(&tally));
    println!("{} pictures in {seconds:.2} s", grouped((tally.done - begun) as u64));
    print!("{}", executions(&image, &tree));
    if let Some(median) = median(&mut ratios) {
        println!(
            "time of shared starts over each config alone: {median:.3} (median of {} batches, the same bytes)",
            ratios.len()
        );
    }
    Ok(())
}

/// Scores every config of a detector.
fn boxes(image: &Image<'_>, arguments: &Evaluate) -> Result<()> {
    let Evaluate { images, count, shard, output, alone, compare, .. } = arguments;
    let whole = *shard == Shard::ALL && output.is_none() && !alone && !compare;
    ensure!(
        whole,
        "a detector is scored on all pictures at once: --shard, --output, --alone and --compare are not for it"
    );
    let set = BoxSet::read(images)?.first(count.unwrap_or(usize::MAX));
    let bars = Bars::new();
    bars.stage(Stage::Evaluate, set.pictures.len() as u64);
    let scores = detection::evaluate::scores(image, &set, &|| bars.advance());
    bars.finish();
    print!("{}", crate::detect::table(image, &scores?));
    println!("{} pictures", grouped(set.pictures.len() as u64));
    Ok(())
}

/// Goes on from what a file holds, if there is one.
fn resume(path: &Path, tally: &mut Tally) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let found = Tally::parse(&text, path)?;
    let refuse = |what: String| anyhow!("{}: {what}; name another file, or remove it", path.display());
    found.same_run(tally).map_err(refuse)?;
    if found.shard != tally.shard {
        return Err(refuse(format!("it is of shard {}, not of shard {}", found.shard.number, tally.shard.number)));
    }
    println!("{} of {} pictures were done", found.done, found.shard.share(found.images));
    *tally = found;
    Ok(())
}

/// Replaces a file as a whole: whoever is killed leaves the old one or the new one.
fn save(path: &Path, tally: &Tally) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let refused = || format!("{}: cannot write", path.display());
    fs::write(&fresh, tally.to_string()).with_context(refused)?;
    fs::rename(&fresh, path).with_context(refused)
}

/// Answers, and the time that shared starts took over that of each config alone.
fn both(image: &Image<'_>, tree: &Tree, batch: &ImageSet, alone_first: bool) -> Result<(Vec<evaluate::Answers>, f64)> {
    let timed = |way| -> Result<(Vec<evaluate::Answers>, Duration)> {
        let started = Instant::now();
        let answers = evaluate::batch(image, way, batch, &|| ())?;
        Ok((answers, started.elapsed()))
    };
    let early = alone_first.then(|| timed(Way::Alone)).transpose()?;
    let (answers, time) = timed(Way::Shared(tree))?;
    let (alone, time_alone) = early.map_or_else(|| timed(Way::Alone), Ok)?;
    ensure!(answers == alone, "a config gives other bytes through shared starts than alone: a fault of this program");
    Ok((answers, time.as_secs_f64() / time_alone.as_secs_f64()))
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// How often segments run for one picture.
fn executions(image: &Image<'_>, tree: &Tree) -> String {
    let block = |config: usize, step: usize| {
        let segment = image.path_segment(&image.config(ConfigId(config as u16)), step as u16);
        image.segment(segment).kind == SegmentKind::Block
    };
    let lengths = (0..image.configs()).map(|number| usize::from(image.config(ConfigId(number)).segments));
    let alone: usize = lengths.clone().sum();
    let all_steps = (0..).zip(lengths).flat_map(|(config, length)| (0..length).map(move |step| (config, step)));
    let blocks_alone = all_steps.filter(|&(config, step)| block(config, step)).count();
    let blocks = tree.steps.iter().filter(|step| block(step.path, step.done)).count();
    format!(
        "for each picture {blocks} blocks run, alone {blocks_alone}; with stitches {}, alone {alone}\n",
        tree.steps.len()
    )
}

fn table(tally: &Tally) -> String {
    let width = tally.configs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$}     score     right\n", "config");
    for ((name, right), score) in tally.configs.iter().zip(tally.scores()) {
        let score = f64::from(score) / 100.0;
        text.push_str(&format!("{name:<width$}  {score:>6.2} %  {:>8}\n", grouped(*right as u64)));
    }
    text
}

/// Reads what `evaluate` or `merge` wrote.
pub fn read(path: &Path) -> Result<Tally> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    Ok(Tally::parse(&text, path)?)
}

/// Puts shards together.
pub fn merge(parts: &[PathBuf], output: Option<&Path>) -> Result<()> {
    let read = |path: &PathBuf| -> Result<(PathBuf, Tally)> { Ok((path.clone(), read(path)?)) };
    let merged = tally::merge(&parts.iter().map(read).collect::<Result<Vec<_>>>()?)?;
    print!("{}", table(&merged));
    println!("{} pictures in {} shards", grouped(merged.done as u64), parts.len());
    output.map_or(Ok(()), |path| crate::write(path, merged.to_string().as_bytes()))
}
