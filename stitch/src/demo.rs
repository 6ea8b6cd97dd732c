//! `stitchnet demo`: the whole product on the bundled family, without an argument and without a download.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use simulator::{Setup, Trace};
use stitch::family;
use stitch::pipeline::{self, Compiled, Scoring, Stage};
use stitch::report::{Facts, html, table};

use crate::progress::Bars;

/// Frames of the replay.
const FRAMES: u32 = 600;
/// Test images behind each score: fewer than `compile` takes, so that the demo is quick.
const SCORE_IMAGES: usize = 1000;
/// Seed of the time that other tasks steal.
const STEAL: u64 = 1;

/// A family that the repository carries.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Bundled {
    /// Residual networks on CIFAR-10
    Cnn,
    /// Vision transformers on CIFAR-10
    Vit,
}

impl Bundled {
    /// Its description: under the working directory, or where this program was built.
    fn find(self) -> Result<PathBuf> {
        let file = match self {
            Self::Cnn => "models/cifar-cnn/family.toml",
            Self::Vit => "models/cifar-vit/family.toml",
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

    let trace = Trace::fall_and_recover(&image, FRAMES);
    println!("Replaying {FRAMES} test images while the budget falls and recovers and other tasks steal time.");
    let replay = crate::simulate::replay(&image, &spec.data.test, &Setup::of(trace, FRAMES, Some(STEAL)))?;
    println!("{}", crate::simulate::told(&replay, &image));

    let file = |name: &str| folder.join(name);
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
