//! Tasks of the repository: `cargo xtask` lists them.
#![forbid(unsafe_code)]

mod arm_linux;
mod bench;
mod cycles;
mod emulator;
mod layers;
mod matrix;
mod qemu;
mod readme;
mod sizes;
mod station;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
cargo xtask TASK

  ci                     every check, as scripts/test.sh runs them
  layers                 no dependency that the architecture forbids
  matrix                 the table of docs/kernels.md: which operation has kernels of its own on which instruction set
  readme FAMILY IMAGE [OTHER]…
                         the tables of README.md about cifar-cnn or cifar-vit, from its image, a path in the repository;
                         others side by side
  qemu [--board NAME] [--image FILE] [--images DIR] [--count N] [--vectors FILE]
                         outputs, switches and memory of the firmware on an emulated board, mps2-an386 (Cortex-M4) or
                         mps3-an547 (Cortex-M55), compared with the host; without --image on the bundled family
  latency [--board NAME] [--image FILE]
                         what segments, configs, changes of config and decisions take there, as a log for
                         `stitchnet bench --from`
  layers-bench [--board NAME] [--update]
                         every kernel against the reference there, and the instructions of each layer against
                         benches/baselines/CORE.toml, which --update writes, and against a peer's; also on the board
                         mps2-an500 (Cortex-M7, against the figures of the Cortex-M4), and on the CPUs cortex-a76 (AArch64 with dot products) and neoverse-n2 (with matrix products)
  cycles [--update]      an estimate of the cycles that the layers of ResNet-8 and MobileNetV1-0.25 take on a Cortex-M4, from
                         a trace of their instructions and the timings of its manual
  arm-linux              the tests of the kernels as programs of AArch64 Linux, on an emulated CPU of each kind
  sizes --image FILE     flash, memory and stack of every firmware on every board, against the declared limits
  detect [--board NAME] --image FILE [--images FILE] [--count N]
                         what every config of a detector finds there on the picture of its self test, compared with the host;
                         with --images what the head takes on N of those pictures
  station [--board NAME] --image FILE
                         the sensing firmware there, while its temperature and its supply change; the image has the costs
                         of `latency`";

fn main() -> ExitCode {
    match task() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["layers"] => {
            env::set_current_dir(root)?;
            layers::check()
        }
        ["matrix"] => {
            env::set_current_dir(root)?;
            matrix::write()
        }
        ["qemu", options @ ..] => {
            // Paths of the command line count from where it was typed.
            let options = qemu::Options::parse(options)?;
            env::set_current_dir(root)?;
            qemu::check(&options)
        }
        ["latency", options @ ..] => {
            let options = qemu::Options::parse(options)?;
            env::set_current_dir(root)?;
            qemu::latency(&options)
        }
        ["layers-bench", option @ ..] => {
            let (board, option) = emulator::Board::split(option)?;
            ensure!(matches!(*option, [] | ["--update"]), "layers-bench knows --board and --update only");
            env::set_current_dir(root)?;
            bench::check(board, !option.is_empty())
        }
        ["cycles", option @ ..] => {
            ensure!(matches!(*option, [] | ["--update"]), "cycles knows --update only");
            env::set_current_dir(root)?;
            cycles::check(!option.is_empty())
        }
        ["arm-linux"] => {
            env::set_current_dir(root)?;
            arm_linux::check()
        }
        ["sizes", "--image", image] => {
            let image = std::path::absolute(image)?;
            env::set_current_dir(root)?;
            sizes::check(&image)
        }
        ["detect", options @ ..] => {
            let options = qemu::Options::parse(options)?;
            env::set_current_dir(root)?;
            qemu::detect(&options)
        }
        ["station", options @ ..] => {
            let (board, options) = emulator::Board::split(options)?;
            let ["--image", image] = *options else { bail!("station needs --image FILE") };
            let image = std::path::absolute(image)?;
            env::set_current_dir(root)?;
            station::check(board, &image)
        }
        ["readme", family, image, beside @ ..] => {
            env::set_current_dir(root)?;
            readme::write(family, image, beside)
        }
        ["ci"] => call(Command::new(root.join("scripts/test.sh"))),
        [] | ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(())
        }
        [other, ..] => bail!("there is no task `{other}`\n\n{USAGE}"),
    }
}

/// Runs a program to its end.
fn call(mut command: Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{name} cannot be started"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}
