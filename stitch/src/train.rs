//! `stitchnet train`: fine-tunes the stitches of a family, and goes on where it was stopped.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use stitch::cut::Blocks;
use stitch::family::{self, FamilySpec};
use stitch::images::ImageSet;
use stitch::learn::finetune::{Device, Options, Pixels, Training, Verdict, What, state};
use stitch::learn::{self, learned};
use stitch::network::Stitched;
use stitch::pipeline;

pub const EXAMPLES: &str = "Examples:
  stitchnet train models/cifar-cnn/family.toml --images models/recipe/cache/train -o out/train
  stitchnet train models/cifar-cnn/family.toml --images models/recipe/cache/train -o out/stitches --what stitches --rank 16
  stitchnet train models/cifar-cnn/family.toml -o out/more --from out/train/learned.safetensors --anchors-keep 0.5 --what stitches

The images are the anchors' training images, as sheets; labels are not used. Started again with the same arguments, it goes
on. When it is done, name the file in the family: learned = \"learned.safetensors\" under [stitch].";

/// Images that are measured with and never trained on: the last of the set.
const HELD_OUT: usize = 128;
/// The state is written at least so often: what a killed training repeats.
const SAVE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Train {
    /// Family description
    family: PathBuf,
    /// Folder of training images; without it, `data.train` of the family
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder for what was learned and for the state to go on from
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What is trained
    #[arg(long, value_enum, default_value = "all")]
    what: What,
    /// Start from what was learned before, not from least squares; the anchors as their files have them still teach
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Part of what the anchors learned in that file that stays: 0 are the anchors as their files have them
    #[arg(long, value_name = "PART", requires = "from")]
    anchors_keep: Option<f32>,
    /// Train only these configs, by name
    #[arg(long, value_name = "CONFIG,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Learn only a product of matrices of this rank beside the weights of each stitch
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u16).range(1..))]
    rank: Option<u16>,
    /// Passes over the images
    #[arg(long, default_value_t = 10.0)]
    epochs: f64,
    /// Images of a step
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Configs of a step
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    configs: u16,
    /// Largest learning rate of stitches and of the biases that paths have of their own
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Largest learning rate of the anchors
    #[arg(long, default_value_t = 1e-4)]
    anchor_rate: f64,
    /// Steps between two measurements; the state is written after each
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    round: u32,
    /// Equal seeds train equally, on one device
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: `cpu`, all cores; `cuda` or `cuda:1`, an NVIDIA GPU, if built with `--features cuda`
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: Device,
}

fn device(text: &str) -> Result<Device, String> {
    let number = match text {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    let number = number.ok_or("`cpu`, `cuda` or `cuda:NUMBER` is expected")?;
    if !cfg!(feature = "cuda") {
        return Err("built without it; `cargo run --release --features cuda --bin stitchnet -- train …` has it".into());
    }
    Device::new_cuda(number).map_err(|error| error.to_string())
}

/// Trains to the end, or until it diverges.
pub fn train(arguments: &Train) -> Result<()> {
    let spec = family::read(&arguments.family)?;
    let images = images(arguments, &spec)?;
    let held_out = HELD_OUT.min(images.len() / 8);
    let of_image = images.pixels.len() / images.len();
    let (seen, unseen) = images.pixels.split_at((images.len() - held_out) * of_image);
    let pixels = |values| Pixels { values, shape: images.shape, mean: &spec.input.mean, std: &spec.input.std };
    if ![arguments.epochs, arguments.rate, arguments.anchor_rate]
        .iter()
        .all(|number| number.is_finite() && *number >= 0.0)
    {
        bail!("--epochs, --rate and --anchor-rate are numbers from 0");
    }
    let batch = usize::from(arguments.batch);
    let blocks = pipeline::blocks(&spec)?;
    let anchors = learn::random(&blocks, 0);
    let options = Options {
        what: arguments.what,
        only: arguments.only.iter().map(|name| config(&anchors, name)).collect::<Result<_>>()?,
        rank: arguments.rank.map(usize::from),
        steps: (arguments.epochs * (images.len() - held_out) as f64 / batch as f64).ceil() as u64,
        batch,
        configs: arguments.configs.into(),
        rate: arguments.rate,
        anchor_rate: arguments.anchor_rate,
        seed: arguments.seed,
    };
    let steps = options.steps;
    let mut training =
        Training::new(start(arguments, &spec, &blocks, &anchors)?, anchors, options, arguments.device.clone())?;
    std::fs::create_dir_all(&arguments.output).with_context(|| format!("{}", arguments.output.display()))?;
    let file = arguments.output.join("state.safetensors");
    if file.exists() {
        state::read(&file, &mut training)?;
        println!("going on from step {} of {steps}", training.step);
    }
    let learned_file = arguments.output.join("learned.safetensors");
    let checksum = pipeline::anchors_checksum(&spec)?;
    let save = |training: &Training| learned::write(&learned_file, &training.family()?, checksum);
    let report = Report::new(training.step, steps);
    if training.best.is_none() {
        report.measured(0, None, training.measure(&pixels(unseen))?);
    }
    let (mut losses, mut saved) = (vec![], Instant::now());
    while training.step < steps {
        let loss = training.step(&pixels(seen))?;
        losses.push(loss);
        report.stepped();
        let measured = training.step.is_multiple_of(arguments.round.into()) || training.step == steps;
        if measured || !loss.is_finite() {
            let verdict = training.measure(&pixels(unseen))?;
            report.measured(training.step, Some(losses.iter().sum::<f64>() / losses.len() as f64), verdict);
            losses.clear();
            if let Verdict::Diverged(_) = verdict {
                println!("it diverged: the best state is kept; try a lower --rate or --anchor-rate in another folder");
                break;
            }
            save(&training)?;
        }
        if measured || saved.elapsed() > SAVE {
            state::write(&file, &training)?;
            saved = Instant::now();
        }
    }
    report.bar.finish_and_clear();
    // Also where nothing was left to do: a run may have been killed between its last step and this.
    save(&training)?;
    println!(
        "wrote {}\nNext: name it in {}, under [stitch]: learned = \"…\"",
        learned_file.display(),
        arguments.family.display()
    );
    Ok(())
}

/// The number of a config.
fn config(family: &Stitched, name: &str) -> Result<usize> {
    let number = family.paths.iter().position(|path| path.name == name);
    number.with_context(|| format!("--only: no config `{name}`; `stitchnet report IMAGE` lists them"))
}

/// What training begins with.
fn start(arguments: &Train, spec: &FamilySpec, blocks: &Blocks, anchors: &Stitched) -> Result<Stitched> {
    if let Some(file) = &arguments.from {
        let mut stitched = pipeline::learned(spec, blocks, file)?;
        if let Some(keep) = arguments.anchors_keep {
            if !(0.0..=1.0).contains(&keep) {
                bail!("--anchors-keep is {keep}; a number from 0 to 1 is expected");
            }
            learned::pull_back(&mut stitched, anchors, keep);
        }
        return Ok(stitched);
    }
    let shape = [spec.input.height, spec.input.width, spec.input.channels];
    let calibration = ImageSet::read(&spec.data.calibration, shape, spec.labels.len())?;
    let sample = |number| calibration.normalised(number, &spec.input.mean, &spec.input.std);
    let samples: Vec<Vec<f32>> = (0..calibration.len()).map(sample).collect();
    let learn::Learned { stitched, fits } = pipeline::fitted(spec, blocks, &samples, &|| ())?;
    fits.iter().filter_map(learn::fit::Fit::note).for_each(|note| eprintln!("{note}"));
    Ok(stitched)
}

fn images(arguments: &Train, spec: &FamilySpec) -> Result<ImageSet> {
    let Some(folder) = arguments.images.as_deref().or(spec.data.train.as_deref()) else {
        bail!(
            "{}: no training images; give --images DIR, or `train` under [data] (`python models/recipe/data.py train` \
             writes those of CIFAR-10)",
            arguments.family.display()
        );
    };
    let shape = [spec.input.height, spec.input.width, spec.input.channels];
    let set = ImageSet::read(folder, shape, spec.labels.len())?;
    if set.len() < 2 * 8 {
        bail!("{}: {} images; at least 16 are needed", folder.display(), set.len());
    }
    Ok(set)
}

/// How far it is: a bar on a terminal, a line per round everywhere.
struct Report {
    bar: ProgressBar,
    steps: u64,
    first: u64,
    since: Instant,
}

impl Report {
    fn new(done: u64, steps: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("  fine-tune {bar:40.blue/dim} {pos}/{len} {eta} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(done);
        Self { bar, steps, first: done, since: Instant::now() }
    }

    fn stepped(&self) {
        self.bar.inc(1);
    }

    fn measured(&self, step: u64, loss: Option<f64>, verdict: Verdict) {
        let (held_out, word) = match verdict {
            Verdict::Best(loss) => (loss, "the best so far"),
            Verdict::Worse(loss) => (loss, "not the best"),
            Verdict::Diverged(loss) => (loss, "diverged"),
        };
        let done = (step - self.first.min(step)).max(1);
        let left = self.since.elapsed().as_secs_f64() / done as f64 * self.steps.saturating_sub(step) as f64;
        let left = if step > self.first {
            format!("; {} left", HumanDuration(Duration::from_secs_f64(left)))
        } else {
            String::new()
        };
        let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}, "));
        let line = format!("step {step} of {}: {loss}on held-out images {held_out:.4}, {word}{left}", self.steps);
        self.bar.suspend(|| println!("{line}"));
    }
}
