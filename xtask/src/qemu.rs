//! `qemu`: the conformance firmware on an emulated Cortex-M4, against what the host computed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::call;

/// Target of the firmware.
const TARGET: &str = "thumbv7em-none-eabihf";
/// Board that QEMU models.
const MACHINE: &str = "mps2-an386";
/// The firmware's clock counts on 2^6 ns an instruction.
const ICOUNT: &str = "shift=6,sleep=off";
/// A run of the bundled family takes some minutes; one that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The bundled family, and what is made of it.
const FAMILY: &str = "models/cifar-cnn/family.toml";
const FAMILY_IMAGE: &str = "out/qemu.snet";
const FAMILY_PICTURES: &str = "models/cifar-cnn/data/test";

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// Image; the bundled family's is made if there is none.
    image: Option<PathBuf>,
    /// Pictures that the inputs are taken from.
    pictures: PathBuf,
    /// Inputs.
    count: String,
    /// Vectors that were made before; then no picture is read.
    vectors: Option<PathBuf>,
}

impl Options {
    /// Reads the command line.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { image: None, pictures: FAMILY_PICTURES.into(), count: "1".into(), vectors: None };
        let mut arguments = arguments.iter();
        while let Some(&option) = arguments.next() {
            let value = *arguments.next().with_context(|| format!("{option} needs a value"))?;
            let path = || std::path::absolute(value);
            match option {
                "--image" => options.image = Some(path()?),
                "--images" => options.pictures = path()?,
                "--vectors" => options.vectors = Some(path()?),
                "--count" => options.count = value.into(),
                _ => bail!("there is no option {option}"),
            }
        }
        Ok(options)
    }
}

/// Makes image, vectors and firmware as far as they are missing, and runs.
pub fn check(options: &Options) -> Result<()> {
    let image = match &options.image {
        Some(image) => image.clone(),
        None => bundled_image()?,
    };
    let vectors = match &options.vectors {
        Some(vectors) => vectors.clone(),
        None => {
            let vectors = image.with_extension("svec");
            let mut command = stitchnet();
            command.arg("vectors").arg(&image).arg("--images").arg(&options.pictures);
            command.args(["--count", &options.count]).arg("-o").arg(&vectors);
            call(command)?;
            vectors
        }
    };
    let elf = build(&std::path::absolute(image)?, &std::path::absolute(vectors)?)?;
    run(&elf)
}

/// The command of the product.
pub fn stitchnet() -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--quiet", "--package", "stitch", "--bin", "stitchnet", "--"]);
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

/// The firmware with image and vectors inside.
fn build(image: &Path, vectors: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--bin", "conformance", "--target", TARGET]);
    command.current_dir("firmware").env("STITCHNET_IMAGE", image).env("STITCHNET_VECTORS", vectors);
    call(command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "firmware/target".into(), PathBuf::from);
    Ok(target.join(TARGET).join("release/conformance"))
}

/// Runs the firmware, prints its log as it comes, and fails where it fails.
fn run(elf: &Path) -> Result<()> {
    let bytes = fs::read(elf).with_context(|| format!("{}", elf.display()))?;
    let table = Table::parse(&bytes)?.context("the firmware has no defmt table")?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", MACHINE, "-icount", ICOUNT, "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(elf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-arm cannot be started; scripts/setup-arm.sh installs it")?;
    let stream = qemu.stdout.take().context("QEMU's output is piped")?;
    let reader = thread::scope(|scope| {
        let log = scope.spawn(|| print_log(&table, stream));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = qemu.try_wait()? {
                break Some(status);
            }
            if started.elapsed() > TIME_LIMIT {
                qemu.kill()?;
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let lines = log.join().map_err(|_| anyhow::anyhow!("the log's reader broke"))??;
        anyhow::Ok((status, lines))
    });
    let (status, lines) = reader?;
    let status = status.with_context(|| format!("the firmware did not end within {TIME_LIMIT:?}"))?;
    ensure!(status.success(), "the firmware failed: {status}");
    ensure!(lines.last().is_some_and(|line| line == "passed"), "the firmware ended without a verdict");
    Ok(())
}

/// Formats the log that comes in as bytes; returns its lines.
fn print_log(table: &Table, mut stream: impl Read) -> Result<Vec<String>> {
    let mut decoder = table.new_stream_decoder();
    let mut lines = vec![];
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(lines);
        }
        decoder.received(buffer.get(..count).unwrap_or_default());
        print_frames(decoder.as_mut(), &mut lines)?;
    }
}

fn print_frames(decoder: &mut dyn StreamDecoder, lines: &mut Vec<String>) -> Result<()> {
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let line = frame.display_message().to_string();
                let level = frame.level().map_or("", |level| level.as_str());
                println!("{level:5} {line}");
                lines.push(line);
            }
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            Err(DecodeError::Malformed) => bail!("the log is damaged"),
        }
    }
}
