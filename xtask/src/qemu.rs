//! `qemu` and `latency`: firmware on an emulated board, against what the host computed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::call;
use crate::emulator::{self, Board};

/// Where `latency` writes the log.
pub const LATENCY_LOG: &str = "out/latency.log";
/// The bundled family, and what is made of it.
const FAMILY: &str = "models/cifar-cnn/family.toml";
const FAMILY_IMAGE: &str = "out/qemu.snet";

/// What to run.
#[derive(Debug)]
pub struct Options {
    board: Board,
    /// Image; the bundled family's is made if there is none.
    image: Option<PathBuf>,
    /// Pictures that the inputs are taken from; without them, the input of the self test.
    pictures: Option<PathBuf>,
    /// Inputs.
    count: String,
    /// Vectors that were made before; then no picture is read.
    vectors: Option<PathBuf>,
}

impl Options {
    /// Reads the command line.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let (board, arguments) = Board::split(arguments)?;
        let mut options = Self { board, image: None, pictures: None, count: "1".into(), vectors: None };
        let mut arguments = arguments.iter();
        while let Some(&option) = arguments.next() {
            let value = *arguments.next().with_context(|| format!("{option} needs a value"))?;
            let path = || std::path::absolute(value);
            match option {
                "--image" => options.image = Some(path()?),
                "--images" => options.pictures = Some(path()?),
                "--vectors" => options.vectors = Some(path()?),
                "--count" => options.count = value.into(),
                _ => bail!("there is no option {option}"),
            }
        }
        Ok(options)
    }

    /// The vectors; made from the pictures if there are none.
    fn vectors(&self, image: &Path) -> Result<PathBuf> {
        if let Some(vectors) = &self.vectors {
            return Ok(vectors.clone());
        }
        let vectors = image.with_extension("svec");
        let mut command = stitchnet();
        command.arg("vectors").arg(image).arg("-o").arg(&vectors);
        if let Some(pictures) = &self.pictures {
            command.arg("--images").arg(pictures).args(["--count", &self.count]);
        }
        call(command)?;
        Ok(vectors)
    }
}

/// What the firmware `detect` finds; with pictures or vectors, what its head takes on each, and of all.
pub fn detect(options: &Options) -> Result<()> {
    let image = options.image.as_ref().context("detect needs --image FILE")?;
    let many = options.pictures.is_some() || options.vectors.is_some();
    let vectors = many.then(|| options.vectors(image)).transpose()?;
    let elf = emulator::build(options.board, "detect", image, vectors.as_deref())?;
    let lines = emulator::run(options.board, &elf, &[], |line| {
        println!("{line}");
        Ok(())
    })?;
    ensure!(lines.iter().any(|line| line.contains("passed")), "detect did not pass");
    if many {
        println!("{}", head_of(&lines)?);
    }
    Ok(())
}

/// Mean, 95th percentile and most of what the log says of each picture.
fn head_of(lines: &[String]) -> Result<String> {
    let mut rows: [Vec<u64>; 3] = Default::default();
    for line in lines.iter().filter(|line| line.contains("instructions in the head")) {
        let numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        rows.iter_mut().zip(numbers).for_each(|(row, number)| row.push(number));
    }
    let told = ["patches", "boxes", "instructions in the head"].into_iter().zip(&mut rows).map(|(what, row)| {
        row.sort_unstable();
        let most = row.last().with_context(|| format!("the log says nothing of {what}"))?;
        let mean = row.iter().sum::<u64>() as f64 / row.len() as f64;
        let percentile = row[(row.len() - 1) * 95 / 100];
        Ok(format!("{what}: mean {mean:.2}, 95th percentile {percentile}, most {most}"))
    });
    Ok(told.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// Makes image, vectors and firmware as far as they are missing, and runs.
pub fn check(options: &Options) -> Result<()> {
    let image = match &options.image {
        Some(image) => image.clone(),
        None => bundled_image()?,
    };
    let elf = emulator::build(options.board, "conformance", &image, Some(&options.vectors(&image)?))?;
    emulator::run(options.board, &elf, &[], |line| {
        println!("{line}");
        Ok(())
    })?;
    Ok(())
}

/// What the board takes, segment by segment; the log goes to `out/latency.log`, for `stitchnet bench --from`.
pub fn latency(options: &Options) -> Result<()> {
    let image = match &options.image {
        Some(image) => image.clone(),
        None => bundled_image()?,
    };
    let elf = emulator::build(options.board, "latency", &image, None)?;
    let lines = emulator::run(options.board, &elf, &[], |line| {
        println!("{line}");
        Ok(())
    })?;
    fs::create_dir_all("out")?;
    fs::write(LATENCY_LOG, lines.join("\n") + "\n")?;
    println!("wrote {LATENCY_LOG}; next: stitchnet bench {} --from {LATENCY_LOG} -o {0}", image.display());
    Ok(())
}

/// The command of the product. Built from the root, not by `--package`: that selects other features of its dependencies, and
/// builds tract once more.
pub fn stitchnet() -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--quiet", "--bin", "stitchnet", "--"]);
    command
}

fn bundled_image() -> Result<PathBuf> {
    let image = PathBuf::from(FAMILY_IMAGE);
    if !image.exists() {
        let mut command = stitchnet();
        // Scores do not matter here; a few images are enough.
        command.args(["compile", FAMILY, "--score-images", "50", "-o", FAMILY_IMAGE]);
        call(command)?;
    }
    Ok(image)
}
