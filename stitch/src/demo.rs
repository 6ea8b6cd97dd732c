//! `stitchnet demo`: the whole product on the bundled family, without an argument and without a download.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use plan::{Image, TargetId};
use simulator::{Replay, Setup, Trace};
use stitch::detection::coco::BoxSet;
use stitch::detection::draw::{Mark, draw};
use stitch::detection::picture::Picture;
use stitch::family;
use stitch::pipeline::{self, Compiled, Scoring, Stage};
use stitch::report::{Facts, html, milliseconds, table};

use crate::detect;
use crate::progress::Bars;

/// Frames of the replay.
const FRAMES: u32 = 600;
/// Test images behind each score: fewer than `compile` takes, so that the demo is quick.
const SCORE_IMAGES: usize = 1000;
/// Least probability of a box that is drawn.
const THRESHOLD: f64 = 0.3;
/// Colour of captions: that of a class which no detector here has.
const CAPTION: u16 = 7;
/// Seed of the time that other tasks steal.
const STEAL: u64 = 1;

/// A family that the repository carries.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Bundled {
    /// Residual networks on CIFAR-10
    Cnn,
    /// Vision transformers on CIFAR-10
    Vit,
    /// A detector of blood cells with a sparse head; also writes every picture with its boxes
    Detect,
    /// The same with a dense head and suppression
    DetectDense,
    /// A sparse detector of ten classes on drawn scenes
    DetectScenes,
}

impl Bundled {
    /// Its description: under the working directory, or where this program was built.
    fn find(self) -> Result<PathBuf> {
        let file = match self {
            Self::Cnn => "models/cifar-cnn/family.toml",
            Self::Vit => "models/cifar-vit/family.toml",
            Self::Detect => "models/blood-cells/family.toml",
            Self::DetectDense => "models/blood-cells-dense/family.toml",
            Self::DetectScenes => "models/scenes/family.toml",
        };
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        [PathBuf::from(file), built]
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("{file} is not here; run the demo from the repository's root"))
    }
}

/// Compiles, replays, writes and tells.
pub fn demo(bundled: Bundled, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let path = bundled.find()?;
    let spec = family::read(&path)?;
    println!("Compiling {}: {} anchors become one image.", spec.name, spec.anchors.len());
    let bars = Bars::new();
    let options = pipeline::Options {
        score_images: SCORE_IMAGES,
        scoring: Scoring::Here,
        stop_after: Stage::Verify,
        auto16: None,
    };
    let compiled = pipeline::compile(&spec, options, &bars);
    bars.finish();
    let Compiled::Image(bytes) = compiled? else { bail!("the compiler stopped before it wrote an image") };
    let image = crate::parse(&bytes, &path)?;
    let facts = Facts::of(&image);
    println!("\n{}", table(&facts));

    let boxed = image.is_detector().then(|| BoxSet::read(&spec.data.test)).transpose()?;
    let frames = boxed.as_ref().map_or(FRAMES, |set| set.pictures.len() as u32);
    let trace = Trace::fall_and_recover(&image, frames);
    println!("Replaying {frames} test images while the budget falls and recovers and other tasks steal time.");
    let replay = crate::simulate::replay(&image, &spec.data.test, &Setup::of(trace, frames, Some(STEAL)))?;
    println!("{}", crate::simulate::told(&replay, &image));

    let file = |name: &str| folder.join(name);
    if let Some(set) = boxed {
        draw_frames(&image, &set, &replay, &file("frames"))?;
    }
    crate::write(&file("family.snet"), &bytes)?;
    crate::write(&file("report.html"), html(&facts, Some(&replay)).as_bytes())?;
    crate::write(&file("replay.csv"), replay.csv().as_bytes())?;
    println!(
        "\nDone in {:.0} s. Open {} in a browser; then try\n  stitchnet bench {}\n  stitchnet inspect {}",
        start.elapsed().as_secs_f64(),
        file("report.html").display(),
        file("family.snet").display(),
        path.display()
    );
    Ok(())
}

/// Writes each picture with what the config that answered has found.
fn draw_frames(image: &Image<'_>, set: &BoxSet, replay: &Replay, folder: &Path) -> Result<()> {
    let ticks_per_second = f64::from(image.target(TargetId(0)).ticks_per_second.max(1));
    let bar = indicatif::ProgressBar::new(replay.rows.len() as u64);
    for (row, boxed) in replay.rows.iter().zip(set.pictures.iter().cycle()) {
        let picture = Picture::read(&boxed.path)?;
        let allowed = row.budget.time.map_or(0.0, |limit| limit.amount as f64) / ticks_per_second * 1000.0;
        let (name, mut marks) = match row.outcome {
            Some(outcome) => {
                let found = detect::boxes(image, outcome.last, &picture, THRESHOLD)?;
                (image.config_name(outcome.last).to_string(), detect::marks(image, &found))
            }
            None => ("refused".into(), vec![]),
        };
        let label = format!("frame {}: {} allowed, {name}, {} boxes", row.frame, milliseconds(allowed), marks.len());
        marks.insert(0, Mark { corners: [0.0; 4], class: CAPTION, label });
        crate::write_quietly(&folder.join(format!("{:03}.png", row.frame)), &draw(&picture, &marks).png())?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("wrote {} pictures with their boxes to {}", replay.rows.len(), folder.display());
    Ok(())
}
