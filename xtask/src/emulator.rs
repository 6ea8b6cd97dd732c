//! Firmware on an emulated board: built with what it carries, run, its log read line by line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::call;

/// Target of Cortex-M4 and M7.
pub const TARGET: &str = "thumbv7em-none-eabihf";

/// A board that QEMU models.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// Name: of a Cortex-M board QEMU's and the firmware's feature, of AArch64 the CPU in QEMU's machine `virt`.
    pub name: &'static str,
    /// Core, in the names of files.
    pub core: &'static str,
    target: &'static str,
}

/// Boards; the first is the one that nobody has to name. Those of AArch64 run kernels alone.
pub const BOARDS: [Board; 5] = [
    Board { name: "mps2-an386", core: "m4", target: TARGET },
    // A Cortex-M7 runs the kernels of a Cortex-M4, so that it must take as many instructions.
    Board { name: "mps2-an500", core: "m4", target: TARGET },
    Board { name: "mps3-an547", core: "m55", target: "thumbv8m.main-none-eabihf" },
    Board { name: "cortex-a76", core: "a76", target: AARCH64 },
    Board { name: "neoverse-n2", core: "n2", target: AARCH64 },
];

/// Target of AArch64 without an operating system.
const AARCH64: &str = "aarch64-unknown-none";

impl Board {
    /// The board of a name.
    pub fn named(name: &str) -> Result<Self> {
        let found = BOARDS.into_iter().find(|board| board.name == name);
        found.with_context(|| {
            format!("there is no board {name}; there are {}", BOARDS.map(|board| board.name).join(", "))
        })
    }

    /// Splits `--board NAME` off a command line.
    pub fn split<'a>(arguments: &[&'a str]) -> Result<(Self, Vec<&'a str>)> {
        let mut rest = arguments.to_vec();
        let Some(at) = rest.iter().position(|&argument| argument == "--board") else { return Ok((BOARDS[0], rest)) };
        let name = rest.get(at + 1).context("--board needs a name")?;
        let board = Self::named(name)?;
        rest.drain(at..at + 2);
        Ok((board, rest))
    }
}

/// The firmware's clock counts on 2^6 ns an instruction.
const ICOUNT: &str = "shift=6,sleep=off";
/// A run of the bundled family takes some minutes, on a machine with other work half an hour; one that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Builds a binary with an image inside, and vectors if it needs them.
pub fn build(board: Board, binary: &str, image: &Path, vectors: Option<&Path>) -> Result<PathBuf> {
    ensure!(board.target != AARCH64, "{} is for layers-bench; there is no firmware for it", board.name);
    let mut command = cargo_build(board, binary, &[board.name, "detector"]);
    command.env("STITCHNET_IMAGE", std::path::absolute(image)?);
    match vectors {
        Some(vectors) => command.env("STITCHNET_VECTORS", std::path::absolute(vectors)?),
        None => command.env_remove("STITCHNET_VECTORS"),
    };
    call(command)?;
    Ok(self::binary(board.target, "release", binary))
}

/// Builds the binary of the kernels alone, with their reference; it carries no image.
pub fn build_kernels(board: Board) -> Result<PathBuf> {
    if board.target == AARCH64 {
        let mut command = Command::new("cargo");
        command.args(["build", "--quiet", "--release", "--locked", "--package", "aarch64", "--target", board.target]);
        command.current_dir("firmware");
        call(command)?;
        return Ok(binary(board.target, "release", "layers-aarch64"));
    }
    build_reference(board, "layers")
}

/// Builds a binary of a Cortex-M that carries no image.
pub fn build_reference(board: Board, name: &str) -> Result<PathBuf> {
    call(cargo_build(board, name, &[board.name, "reference"]))?;
    Ok(binary(board.target, "release", name))
}

fn cargo_build(board: Board, binary: &str, features: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--bin", binary, "--target", board.target]);
    command.args(["--no-default-features", "--features", &features.join(",")]).current_dir("firmware");
    command
}

/// Where cargo leaves a binary.
pub fn binary(target: &str, profile: &str, name: &str) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "firmware/target".into(), PathBuf::from);
    folder.join(target).join(profile).join(name)
}

/// Runs a firmware with more arguments for QEMU; `line` takes its log as it comes. Fails where the firmware fails, and where
/// `line` does. Returns the log.
pub fn run(
    board: Board,
    elf: &Path,
    arguments: &[&OsStr],
    mut line: impl FnMut(&str) -> Result<()> + Send,
) -> Result<Vec<String>> {
    let bytes = fs::read(elf).with_context(|| format!("{}", elf.display()))?;
    // Without one the log is text.
    let table = Table::parse(&bytes)?;
    let (program, machine) = if board.target == AARCH64 {
        ("qemu-system-aarch64", vec!["-M", "virt", "-m", "512", "-nodefaults", "-cpu", board.name])
    } else {
        ("qemu-system-arm", vec!["-M", board.name])
    };
    let mut qemu = Command::new(program)
        .args(machine)
        .args(["-icount", ICOUNT, "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args(arguments)
        .arg("-kernel")
        .arg(elf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} cannot be started; scripts/setup-arm.sh installs it"))?;
    let stream = qemu.stdout.take().context("QEMU's output is piped")?;
    let (status, lines) = thread::scope(|scope| {
        let log = scope.spawn(|| match &table {
            Some(table) => read_log(table, stream, &mut line),
            None => read_text(stream, &mut line),
        });
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

/// Lines of a log that is text.
fn read_text(stream: impl Read, line: &mut impl FnMut(&str) -> Result<()>) -> Result<Vec<String>> {
    let mut lines = vec![];
    for text in BufReader::new(stream).lines() {
        let text = text?;
        line(&text)?;
        lines.push(text);
    }
    Ok(lines)
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

#[cfg(test)]
mod tests {
    use super::Board;

    #[test]
    fn a_board_is_named_anywhere_or_not_at_all() {
        let (board, rest) = Board::split(&["--count", "2", "--board", "mps3-an547", "--image", "x"]).unwrap();
        assert_eq!((board.name, rest), ("mps3-an547", vec!["--count", "2", "--image", "x"]));
        let (board, rest) = Board::split(&["--count", "2"]).unwrap();
        assert_eq!((board.name, rest), ("mps2-an386", vec!["--count", "2"]));
        assert!(Board::split(&["--board"]).is_err());
        assert!(
            Board::split(&["--board", "mps3"]).unwrap_err().to_string().contains("mps2-an500, mps3-an547, cortex-a76")
        );
    }
}
