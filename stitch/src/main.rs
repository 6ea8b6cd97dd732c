//! The command `stitchnet`: reads arguments and files, calls the library, prints.
#![forbid(unsafe_code)]

mod bench;
mod demo;
mod detect;
mod inspect;
mod progress;
mod score;
mod simulate;
mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use plan::Image;
use stitch::cost_table::{CostTable, Margins};
use stitch::detection::coco::BoxSet;
use stitch::family::FamilySpec;
use stitch::layers::Text;
use stitch::learn::Start;
use stitch::pipeline::{self, Compiled, Scoring, Stage};
use stitch::report::{self, Facts, html, table};
use stitch::{family, images};

use progress::Bars;

/// One flash image for a whole family of networks: the device picks one per frame and may change its mind inside it.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = "Start here:\n  stitchnet demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show anchors, blocks, cuts and stitches of a family, and what is not supported
    #[command(after_help = "Example:\n  stitchnet inspect models/cifar-cnn/family.toml")]
    Inspect {
        /// Family description
        family: PathBuf,
    },
    /// Learn stitches, quantise, place, verify, and write the image
    #[command(after_help = "Examples:\n  stitchnet compile models/cifar-cnn/family.toml -o cifar.snet\n  \
        stitchnet compile models/cifar-cnn/family.toml --stop-after place --print\n  \
        stitchnet compile models/cifar-cnn/family.toml --auto16 0.5 -o cifar.snet\n  \
        stitchnet compile models/cifar-cnn/family.toml --unscored -o all.snet\n  \
        stitchnet compile models/cifar-cnn/family.toml --scores merged.txt -o cifar.snet")]
    Compile {
        /// Family description
        family: PathBuf,
        /// Image to write
        #[arg(short, long, default_value = "family.snet")]
        output: PathBuf,
        /// Test images behind each score
        #[arg(long, default_value_t = 2000)]
        score_images: usize,
        /// Write every config, without scores: the image to evaluate on many machines
        #[arg(long, conflicts_with = "score_images")]
        unscored: bool,
        /// Choose by what `evaluate` and `merge` counted with the unscored image
        #[arg(long, value_name = "FILE", conflicts_with_all = ["score_images", "unscored"])]
        scores: Option<PathBuf>,
        /// Weights of stitches as before any fine-tuning, whatever was learned: to compare with
        #[arg(long, value_enum)]
        start: Option<Start>,
        /// Give tensors 16 bits, as few as will do, until no config loses more points by integers on the calibration images
        #[arg(long, value_name = "POINTS")]
        auto16: Option<f64>,
        /// Stop after this stage; no image is written
        #[arg(long, value_enum, default_value = "verify", hide_default_value = true)]
        stop_after: Stage,
        /// Print what the last stage decided
        #[arg(long)]
        print: bool,
    },
    /// Fine-tune the stitches of a family on its training images
    #[command(after_help = train::EXAMPLES)]
    Train(train::Train),
    /// One line per config: score, work, memory, predicted time
    #[command(
        after_help = "Examples:\n  stitchnet report cifar.snet\n  stitchnet report cifar.snet --html report.html\n  \
            stitchnet report cifar.snet --max-loss 1.0\n  \
            stitchnet report random.snet --beside cifar.snet --html beside.html\n  \
            stitchnet report models/cifar-cnn/family.toml --layers large"
    )]
    Report {
        /// Image; with --layers a family description
        image: PathBuf,
        /// Also write a page with pictures
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Print the table as Markdown
        #[arg(long)]
        markdown: bool,
        /// Print only scores, beside those of another image's configs of the same names; can be given again
        #[arg(long, value_name = "IMAGE", conflicts_with = "markdown")]
        beside: Vec<PathBuf>,
        /// Fail if integers cost any config more than so many points of its float score
        #[arg(long, value_name = "POINTS")]
        max_loss: Option<f64>,
        /// Print how far each tensor of a config is from float, and what to do about the noisiest ones
        #[arg(long, value_name = "CONFIG", conflicts_with_all = ["html", "markdown", "beside", "max_loss"])]
        layers: Option<String>,
        /// Test pictures behind --layers
        #[arg(long, value_name = "COUNT", default_value = "16", requires = "layers")]
        pictures: u16,
    },
    /// Score every config of an image on pictures, each shared start of their paths once
    #[command(after_help = score::EXAMPLES)]
    Evaluate(score::Evaluate),
    /// Put together what the shards of an evaluation have counted
    #[command(after_help = "Example:\n  stitchnet merge 1.txt 2.txt 3.txt 4.txt -o scores.txt")]
    Merge {
        /// One file per shard, as `evaluate --output` wrote it
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// File to write
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Run the real runtime on pictures and virtual time under a changing budget
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::Simulate),
    /// Measure every config and segment on this machine, or take what a device measured, and write costs into an image
    #[command(after_help = "Examples:\n  stitchnet bench cifar.snet --repeats 100\n  \
        stitchnet bench cifar.snet --csv host.csv -o cifar.snet\n  \
        stitchnet bench cifar.snet --from board.log -o cifar.snet --milliwatts 100")]
    Bench(Bench),
    /// Write inputs and their exact outputs, for a device to compare itself with
    #[command(after_help = "Example:\n  \
        stitchnet vectors cifar.snet --images models/cifar-cnn/data/test --count 8 -o vectors.bin")]
    Vectors {
        /// Image
        image: PathBuf,
        /// Folder of pictures: sheets and labels.txt; without it, the input of the image's self test
        #[arg(long, value_name = "DIR")]
        images: Option<PathBuf>,
        /// Pictures, from the first on
        #[arg(long, default_value_t = 8, requires = "images")]
        count: usize,
        /// File to write
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Show what a detector finds on pictures
    #[command(after_help = detect::EXAMPLES)]
    Detect(detect::Detect),
    /// Compile a bundled family, replay a falling and recovering budget, write image, page and rows
    #[command(
        after_help = "Examples:\n  stitchnet demo\n  stitchnet demo --family vit -o elsewhere\n  stitchnet demo --family detect"
    )]
    Demo {
        /// Bundled family
        #[arg(long, value_enum, default_value = "cnn")]
        family: demo::Bundled,
        /// Folder to write to
        #[arg(short, long, default_value = "out")]
        output: PathBuf,
    },
}

#[derive(clap::Args)]
struct Bench {
    /// Image
    image: PathBuf,
    /// Runs of each config
    #[arg(long, default_value_t = 50)]
    repeats: usize,
    /// Name of the target; without it, this machine's instruction set
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    target: Option<String>,
    /// Take the costs from this log of the firmware's `latency`, or from a table, instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write the cost table as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the image with the costs of this target
    #[arg(short, long, value_name = "IMAGE")]
    output: Option<PathBuf>,
    /// Bound of a segment over the most that was measured, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 125, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    bound: u32,
    /// Power while it computes, for the energy of a segment; 0: not known
    #[arg(long, value_name = "MW", default_value_t = 0)]
    milliwatts: u32,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect { family } => inspect::inspect(&family),
        Command::Compile { family, output, score_images, unscored, scores, start, auto16, stop_after, print } => {
            let scoring = match scores {
                Some(path) => Scoring::Given(path.clone(), score::read(&path)?),
                None if unscored => Scoring::Later,
                None => Scoring::Here,
            };
            let options = pipeline::Options { score_images, scoring, stop_after, auto16 };
            let mut spec = family::read(&family)?;
            if let Some(start) = start {
                (spec.stitch.start, spec.stitch.learned) = (start, None);
            }
            compile(&spec, &output, options, print)
        }
        Command::Train(arguments) => train::train(&arguments),
        Command::Report { image: family, layers: Some(config), pictures, .. } => {
            let bars = Bars::new();
            let layers = pipeline::layers(&family::read(&family)?, &config, pictures.into(), &bars);
            bars.finish();
            print!("{}", Text(&layers?));
            Ok(())
        }
        Command::Report { image, html: page, markdown, beside, max_loss, .. } => {
            let facts = facts(&image)?;
            if !beside.is_empty() {
                return compare(&[&[image], &beside[..]].concat(), page.as_deref());
            }
            print!("{}", if markdown { report::markdown(&facts) } else { table(&facts) });
            page.map_or(Ok(()), |page| write(&page, html(&facts, None).as_bytes()))?;
            match (max_loss, facts.largest_loss()) {
                (Some(most), Some((row, loss))) if loss > most || most.is_nan() => Err(anyhow!(
                    "{}: {} loses {loss:.2} points by integers, at most {most} are allowed",
                    image.display(),
                    row.name
                )),
                _ => Ok(()),
            }
        }
        Command::Evaluate(arguments) => score::evaluate(&arguments),
        Command::Merge { parts, output } => score::merge(&parts, output.as_deref()),
        Command::Simulate(arguments) => simulate::simulate(&arguments),
        Command::Bench(arguments) => measure(&arguments),
        Command::Vectors { image, images, count, output } => vectors(&image, images.as_deref(), count, &output),
        Command::Detect(arguments) => detect::detect(&arguments),
        Command::Demo { family, output } => demo::demo(family, &output),
    }
}

fn facts(path: &Path) -> Result<Facts> {
    Ok(Facts::of(&parse(&read_image(path)?, path)?))
}

/// Prints scores side by side, and writes them as a page.
fn compare(images: &[PathBuf], page: Option<&Path>) -> Result<()> {
    let named =
        |path: &PathBuf| Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), facts(path)?));
    let named = images.iter().map(named).collect::<Result<Vec<_>>>()?;
    let columns: Vec<(&str, &Facts)> = named.iter().map(|(name, facts)| (&**name, facts)).collect();
    print!("{}", report::curves(&columns));
    page.map_or(Ok(()), |page| write(page, report::beside(&columns).as_bytes()))
}

fn compile(spec: &FamilySpec, output: &Path, options: pipeline::Options, print: bool) -> Result<()> {
    let bars = Bars::new();
    let compiled = pipeline::compile(spec, options, &bars);
    bars.finish();
    match compiled? {
        Compiled::Image(bytes) => {
            write(output, &bytes)?;
            if print {
                print!("{}", table(&Facts::of(&parse(&bytes, output)?)));
            }
            println!("Next: stitchnet report {}", output.display());
        }
        Compiled::Stopped(text) if print => print!("{text}"),
        Compiled::Stopped(_) => println!("stopped; --print shows what was decided"),
    }
    Ok(())
}

fn measure(arguments: &Bench) -> Result<()> {
    let bytes = read_image(&arguments.image)?;
    let image = parse(&bytes, &arguments.image)?;
    let costs = if let Some(path) = &arguments.from {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        CostTable::parse(&text, image.segments()).with_context(|| format!("{}", path.display()))?
    } else {
        let (text, costs) = bench::bench(image, arguments.repeats.max(1), arguments.target.as_deref())?;
        print!("{text}");
        costs
    };
    if let Some(path) = &arguments.csv {
        write(path, costs.text().as_bytes())?;
    }
    if let Some(path) = &arguments.output {
        let margins = Margins { bound_percent: arguments.bound, milliwatts: arguments.milliwatts };
        let written = costs.put_into(&image, margins);
        // What is written is an image, or nothing is written.
        let with = parse(&written, path)?;
        println!("costs of {} targets: the last written are those of `{}`", with.targets(), costs.target);
        write(path, &written)?;
    }
    Ok(())
}

fn vectors(path: &Path, folder: Option<&Path>, count: usize, output: &Path) -> Result<()> {
    let bytes = read_image(path)?;
    let image = parse(&bytes, path)?;
    let Some(folder) = folder else {
        let input = image.test_input().iter().map(|value| value.cast_signed()).collect();
        return write(output, &stitch::vectors::vectors(&bytes, &[input])?);
    };
    let pictures = pictures(&image, folder)?.first(count);
    let channels = image.cut(image.meta().input).shape[2];
    let value = |(channel, &pixel): (u16, &u8)| image.preprocess(channel)[usize::from(pixel)].cast_signed();
    let input = |number| (0..channels).cycle().zip(pictures.image(number)).map(value).collect();
    let inputs: Vec<Vec<i8>> = (0..pictures.len()).map(input).collect();
    write(output, &stitch::vectors::vectors(&bytes, &inputs)?)
}

/// The pictures of a folder, or for a detector of a COCO file, of the size that an image takes.
fn pictures(image: &Image<'_>, folder: &Path) -> Result<images::ImageSet> {
    let shape = image.cut(image.meta().input).shape.map(usize::from);
    if image.is_detector() {
        return Ok(BoxSet::read(folder)?.images(shape)?);
    }
    Ok(images::ImageSet::read(folder, shape, image.meta().classes.into())?)
}

fn read_image(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| {
        format!("{}: cannot read the image; `stitchnet compile FAMILY.toml -o {0}` writes one", path.display())
    })
}

fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<Image<'a>> {
    Image::parse(bytes)
        .map_err(|error| anyhow!("{}: {error} `stitchnet compile FAMILY.toml` writes a valid one.", path.display()))
}

/// Writes a file, makes its folder, and says so.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_quietly(path, bytes)?;
    println!("wrote {} ({})", path.display(), stitch::report::kib(bytes.len() as u64));
    Ok(())
}

/// Writes a file and makes its folder.
fn write_quietly(path: &Path, bytes: &[u8]) -> Result<()> {
    let refused = || format!("{}: cannot write", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(refused)?;
    }
    fs::write(path, bytes).with_context(refused)
}
