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

/// Target of Cortex-M4 and M7.
pub const TARGET: &str = "thumbv7em-none-eabihf";

/// A board that QEMU models. Its name is QEMU's, and the firmware's feature.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// Name.
    pub name: &'static str,
    /// Core, in the names of files.
    pub core: &'static str,
    target: &'static str,
}

/// Boards; the first is the one that nobody has to name.
pub const BOARDS: [Board; 2] = [
    Board { name: "mps2-an386", core: "m4", target: TARGET },
    Board { name: "mps3-an547", core: "m55", target: "thumbv8m.main-none-eabihf" },
];

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
    let mut command = cargo_build(board, binary, &[board.name, "detector"]);
    command.env("STITCHNET_IMAGE", std::path::absolute(image)?);
    match vectors {
        Some(vectors) => command.env("STITCHNET_VECTORS", std::path::absolute(vectors)?),
        None => command.env_remove("STITCHNET_VECTORS"),
    };
    call(command)?;
    Ok(self::binary(board.target, "release", binary))
}

/// Builds a binary that carries no image: kernels alone, with their reference.
pub fn build_kernels(board: Board, binary: &str) -> Result<PathBuf> {
    call(cargo_build(board, binary, &[board.name, "reference"]))?;
    Ok(self::binary(board.target, "release", binary))
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
    let table = Table::parse(&bytes)?.context("the firmware has no defmt table")?;
    let mut qemu = Command::new("qemu-system-arm")
        .args(["-M", board.name, "-icount", ICOUNT, "-nographic", "-monitor", "none", "-serial", "none"])
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
        assert!(Board::split(&["--board", "mps3"]).unwrap_err().to_string().contains("mps2-an386, mps3-an547"));
    }
}
