//! `stitchnet detect`: boxes on pictures.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kernels::{Level, with_isa};
use plan::{ConfigId, Image, TargetId};
use runtime::Engine;
use stitch::detection::average_precision::{Found, Precision};
use stitch::detection::draw::{Mark, draw};
use stitch::detection::evaluate::found;
use stitch::detection::picture::Picture;
use stitch::report::milliseconds;

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  stitchnet detect cells.snet models/blood-cells/data/pictures/BloodImage_00007.jpg -o out/boxes
  stitchnet detect cells.snet *.jpg --config small --threshold 0.5
  stitchnet detect cells.snet *.jpg --budget 300 --json > found.jsonl

Corners are pixels of the picture: left, top, right, bottom.";

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Detect {
    /// Image of a detector
    image: PathBuf,
    /// JPEG or PNG files
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// Config to run; without it, the best one
    #[arg(long, value_name = "NAME")]
    config: Option<String>,
    /// The best config that is predicted to take so many milliseconds at most
    #[arg(long, value_name = "MS", conflicts_with = "config")]
    budget: Option<f64>,
    /// Least probability of what is shown
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.3)]
    threshold: f64,
    /// Print one JSON object per picture
    #[arg(long)]
    json: bool,
    /// Folder for the pictures with their boxes, as PNG files
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Runs one config on each picture.
pub fn detect(arguments: &Detect) -> Result<()> {
    let bytes = crate::read_image(&arguments.image)?;
    let image = crate::parse(&bytes, &arguments.image)?;
    let config = config(&image, arguments)?;
    if !(0.0..=1.0).contains(&arguments.threshold) {
        bail!("--threshold is {}; a probability from 0 to 1 is expected", arguments.threshold);
    }
    if arguments.output.is_some() {
        distinct(&arguments.pictures)?;
    }
    if !arguments.json {
        let ticks_per_second = f64::from(image.target(TargetId(0)).ticks_per_second.max(1));
        let predicted = image.ticks(&image.config(config)) as f64 / ticks_per_second * 1000.0;
        println!("{}: {} predicted on the device\n", image.config_name(config), milliseconds(predicted));
    }
    for path in &arguments.pictures {
        let picture = Picture::read(path)?;
        let shown = boxes(&image, config, &picture, arguments.threshold)?;
        print!("{}", told(&image, path, &picture, &shown, arguments.json));
        if let Some(folder) = &arguments.output {
            let name = path.file_stem().context("a picture without a name")?;
            let file = folder.join(name).with_extension("png");
            let drawn = draw(&picture, &marks(&image, &shown)).png();
            if arguments.json { crate::write_quietly(&file, &drawn) } else { crate::write(&file, &drawn) }?;
        }
    }
    Ok(())
}

/// Refuses two pictures whose boxes would be drawn into one file.
fn distinct(pictures: &[PathBuf]) -> Result<()> {
    let mut names: HashMap<_, &Path> = HashMap::new();
    for path in pictures {
        if let Some(other) = names.insert(path.file_stem(), path) {
            bail!(
                "--output: {} and {} would be written to one file; give them two folders",
                other.display(),
                path.display()
            );
        }
    }
    Ok(())
}

/// The config to run.
fn config(image: &Image<'_>, Detect { config, budget, image: path, .. }: &Detect) -> Result<ConfigId> {
    if !image.is_detector() {
        bail!("{}: the image is no detector; it has no boxes to show", path.display());
    }
    let all = || (0..image.configs()).map(ConfigId);
    if let Some(name) = config {
        let names: Vec<String> = all().map(|id| image.config_name(id).to_string()).collect();
        let known = || format!("no config is called `{name}`; there are {}", names.join(", "));
        return all().zip(&names).find(|(_, other)| *other == name).map(|(id, _)| id).with_context(known);
    }
    let ticks = |id: &ConfigId| image.ticks(&image.config(*id));
    let per_millisecond = f64::from(image.target(TargetId(0)).ticks_per_second.max(1)) / 1000.0;
    let fits = |id: &ConfigId| budget.is_none_or(|most| ticks(id) as f64 <= most * per_millisecond);
    let best = all().filter(fits).max_by_key(|id| (image.config(*id).score, std::cmp::Reverse(ticks(id))));
    best.with_context(|| {
        let least = all().map(|id| ticks(&id)).min().unwrap_or(0) as f64 / per_millisecond;
        format!("--budget: no config takes so little; the cheapest is predicted to take {}", milliseconds(least))
    })
}

/// What a config finds with at least a probability, best first.
pub fn boxes(image: &Image<'_>, config: ConfigId, picture: &Picture, threshold: f64) -> Result<Vec<Found>> {
    let [height, width, _] = image.cut(image.meta().input).shape.map(usize::from);
    let pixels = picture.stretched(height, width).pixels;
    let mut arena = vec![0; image.config(config).arena_bytes as usize];
    let detections: Vec<Found> = with_isa!(Level::best(), |isa| {
        let mut engine = Engine::new(isa, *image, &mut arena)?;
        engine.preprocess(&pixels)?;
        engine.run_config(config)?;
        Ok::<_, runtime::RunError>(engine.detections().map(|one| found(&one, [height, width])).collect())
    })?;
    Ok(detections.into_iter().filter(|found| probability(found) >= threshold).collect())
}

fn probability(found: &Found) -> f64 {
    1.0 / (1.0 + (-f64::from(found.score) / 4096.0).exp())
}

/// What to draw for it.
pub fn marks(image: &Image<'_>, found: &[Found]) -> Vec<Mark> {
    let mark = |found: &Found| {
        let label = format!("{} {:.2}", image.label(found.class.into()), probability(found));
        Mark { corners: found.corners, class: found.class, label }
    };
    found.iter().map(mark).collect()
}

/// The boxes of a picture as lines, or as one line of JSON.
fn told(image: &Image<'_>, path: &Path, picture: &Picture, found: &[Found], json: bool) -> String {
    let pixels = |found: &Found| {
        let [left, top, right, bottom] = found.corners;
        let (width, height) = (picture.width as f64, picture.height as f64);
        [left * width, top * height, right * width, bottom * height].map(f64::round)
    };
    let label = |found: &Found| image.label(found.class.into());
    if json {
        let row = |one: &Found| {
            let probability = (probability(one) * 1e4).round() / 1e4;
            serde_json::json!({ "class": label(one), "probability": probability, "corners": pixels(one) })
        };
        let boxes: Vec<serde_json::Value> = found.iter().map(row).collect();
        return format!("{}\n", serde_json::json!({ "picture": path.display().to_string(), "boxes": boxes }));
    }
    let width = found.iter().map(|found| label(found).chars().count()).max().unwrap_or(0);
    let mut text = format!("{}: {} boxes\n", path.display(), found.len());
    for found in found {
        let [left, top, right, bottom] = pixels(found);
        let (label, probability) = (label(found), probability(found));
        let _ = writeln!(text, "  {label:<width$}  {probability:.3}  {left:>5} {top:>5} {right:>5} {bottom:>5}");
    }
    text
}

/// Average precisions of every config, as a table.
pub fn table(image: &Image<'_>, scores: &[Precision]) -> String {
    let names: Vec<String> = (0..image.configs()).map(|id| image.config_name(ConfigId(id)).to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6);
    let labels: Vec<&str> = (0..image.meta().classes.into()).map(|class| image.label(class)).collect();
    let mut text = format!("{:<width$}    AP50      AP", "config");
    labels.iter().for_each(|label| text.push_str(&format!("  {label:>8}")));
    text.push('\n');
    for (name, precision) in names.iter().zip(scores) {
        let _ = write!(text, "{name:<width$}  {:>6.2}  {:>6.2}", 100.0 * precision.ap50(), 100.0 * precision.ap());
        for (label, class) in labels.iter().zip(&precision.classes) {
            let width = label.chars().count().max(8);
            let value = class.map_or("-".into(), |thresholds| format!("{:.2}", 100.0 * thresholds[0]));
            let _ = write!(text, "  {value:>width$}");
        }
        text.push('\n');
    }
    text.push_str("per cent; AP is the mean over overlaps from 0.50 to 0.95, of a class AP50\n");
    text
}
