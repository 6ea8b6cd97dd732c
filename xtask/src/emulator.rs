//! Firmware on an emulated board: built with what it carries, run, its log read line by line.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::call;

/// Target of the firmware.
pub const TARGET: &str = "thumbv7em-none-eabihf";
/// Board that QEMU models.
const MACHINE: &str = "mps2-an386";
/// The firmware's clock counts on 2^6 ns an instruction.
const ICOUNT: &str = "shift=6,sleep=off";
/// A run of the bundled family takes some minutes; one that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Builds a binary with an image inside, and vectors if it needs them.
pub fn build(binary: &str, image: &Path, vectors: Option<&Path>) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--bin", binary, "--target", TARGET]);
    command.current_dir("firmware").env("STITCHNET_IMAGE", std::path::absolute(image)?);
    match vectors {
        Some(vectors) => command.env("STITCHNET_VECTORS", std::path::absolute(vectors)?),
        None => command.env_remove("STITCHNET_VECTORS"),
    };
    call(command)?;
    Ok(self::binary(binary))
}

/// Builds a binary that carries no image: kernels alone, with their reference.
pub fn build_kernels(binary: &str) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--bin", binary, "--target", TARGET]);
    command.args(["--features", "reference"]).current_dir("firmware");
    call(command)?;
    Ok(self::binary(binary))
}

/// Where cargo leaves a binary.
pub fn binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "firmware/target".into(), PathBuf::from);
    target.join(TARGET).join("release").join(name)
}

/// Runs a firmware with more arguments for QEMU; `line` takes its log as it comes. Fails where the firmware fails, and where
/// `line` does. Returns the log.
pub fn run(elf: &Path, arguments: &[&OsStr], mut line: impl FnMut(&str) -> Result<()> + Send) -> Result<Vec<String>> {
    let bytes = fs::read(elf).with_context(|| format!("{}", elf.display()))?;
    let table = Table::parse(&bytes)?.context("the firmware has no defmt table")?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", MACHINE, "-icount", ICOUNT, "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args(arguments)
        .arg("-kernel")
        .arg(elf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu-system-arm cannot be started; scripts/setup-arm.sh installs it")?;
    let stream = qemu.stdout.take().context("QEMU's output is piped")?;
    let (status, lines) = thread::scope(|scope| {
        let log = scope.spawn(|| read_log(&table, stream, &mut line));
        let status = wait(&mut qemu, || log.is_finished())?;
        let lines = log.join().map_err(|_| anyhow::anyhow!("the log's reader broke"))?;
        anyhow::Ok((status, lines?))
    })?;
    let status = status.with_context(|| format!("the firmware did not end within {TIME_LIMIT:?}"))?;
    ensure!(status.success(), "the firmware failed: {status}");
    ensure!(lines.last().is_some_and(|line| line == "passed"), "the firmware ended without a verdict");
    Ok(lines)
}

/// Waits for the emulator; kills it if it hangs, or if nobody reads its log any more.
fn wait(qemu: &mut Child, log_ended: impl Fn() -> bool) -> Result<Option<std::process::ExitStatus>> {
    let started = Instant::now();
    let mut ended: Option<Instant> = None;
    loop {
        if let Some(status) = qemu.try_wait()? {
            return Ok(Some(status));
        }
        if log_ended() {
            ended.get_or_insert_with(Instant::now);
        }
        let orphaned = ended.is_some_and(|since| since.elapsed() > Duration::from_secs(2));
        if orphaned || started.elapsed() > TIME_LIMIT {
            qemu.kill()?;
            qemu.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Formats the log that comes in as bytes; returns its lines.
fn read_log(table: &Table, mut stream: impl Read, line: &mut impl FnMut(&str) -> Result<()>) -> Result<Vec<String>> {
    let mut decoder = table.new_stream_decoder();
    let mut lines = vec![];
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(lines);
        }
        decoder.received(buffer.get(..count).unwrap_or_default());
        let first = lines.len();
        decode(decoder.as_mut(), &mut lines)?;
        for message in lines.get(first..).unwrap_or_default() {
            line(message)?;
        }
    }
}

fn decode(decoder: &mut dyn StreamDecoder, lines: &mut Vec<String>) -> Result<()> {
    loop {
        match decoder.decode() {
            Ok(frame) => lines.push(frame.display_message().to_string()),
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            Err(DecodeError::Malformed) => bail!("the log is damaged"),
        }
    }
}
