//! `station`: the sensing firmware on an emulated board whose temperature and supply change from outside.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};

use crate::emulator::{self, Board};

/// The emulator's monitor.
const MONITOR: &str = "out/station.qmp";
/// Nobody waits longer for the monitor.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is set from outside, and how the firmware must answer.
struct Phase {
    what: &'static str,
    device: &'static str,
    property: &'static str,
    value: i64,
    /// Whether the costliest config must run, or the cheapest.
    most: bool,
}

const fn phase(what: &'static str, device: &'static str, property: &'static str, value: i64, most: bool) -> Phase {
    Phase { what, device, property, value, most }
}

/// The last one leaves the firmware on its quickest config until it ends.
const PHASES: [Phase; 6] = [
    phase("full", "supply", "vin", 25_000, true),
    phase("hot", "thermometer", "temperature", 85_000, false),
    phase("cool again", "thermometer", "temperature", 25_000, true),
    phase("nearly empty", "supply", "vin", 19_000, false),
    phase("full again", "supply", "vin", 25_000, true),
    phase("hot again", "thermometer", "temperature", 85_000, false),
];
/// A reading is within this of what was set: steps of the sensors, in thousandths.
const STEP: i64 = 300;

const THERMOMETER: &str = "tmp105,id=thermometer,bus=i2c,address=0x48";
const SUPPLY: &str = "adm1272,id=supply,bus=i2c,address=0x10";

/// Runs the firmware with both sensors, which change; without any; and with one.
pub fn check(board: Board, image: &Path) -> Result<()> {
    let elf = emulator::build(board, "sense", image, None)?;
    changing(board, &elf)?;
    careful(board, &elf, &[])?;
    careful(board, &elf, &["-device", THERMOMETER])?;
    careful(board, &elf, &["-device", SUPPLY])
}

/// One frame of the log.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    millidegrees: Option<i64>,
    millivolts: Option<i64>,
    config: String,
}

fn frame(line: &str) -> Option<Frame> {
    let rest = line.strip_prefix("frame ")?;
    let reading = |name: &str| {
        let (_, rest) = rest.split_once(name)?;
        rest.strip_prefix(": Some(")?.split_once(')')?.0.parse().ok()
    };
    let (_, config) = rest.split_once(" config ")?;
    let (config, _) = config.split_once(',')?;
    Some(Frame { millidegrees: reading("millidegrees"), millivolts: reading("millivolts"), config: config.to_owned() })
}

impl Frame {
    /// Whether the firmware has read what a phase has set.
    fn has_read(&self, phase: &Phase) -> bool {
        let reading = if phase.device == "supply" { self.millivolts } else { self.millidegrees };
        reading.is_some_and(|reading| (reading - phase.value).abs() <= STEP)
    }
}

/// A number of the line of statistics.
fn statistic(lines: &[String], name: &str) -> Result<u32> {
    let line = lines.iter().find_map(|line| line.strip_prefix("statistics: ")).context("there are no statistics")?;
    let mut words = line.split(' ').skip_while(|&word| word != name);
    words.nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("no `{name}` in `{line}`"))
}

fn changing(board: Board, elf: &Path) -> Result<()> {
    let _ = fs::remove_file(MONITOR);
    fs::create_dir_all("out")?;
    let server = format!("unix:{MONITOR},server=on,wait=off");
    let arguments = ["-qmp", &server, "-device", THERMOMETER, "-device", SUPPLY];
    let mut monitor: Option<Monitor> = None;
    let mut phases = PHASES.iter();
    let mut current: Option<&Phase> = None;
    let mut answers: Vec<(&Phase, String)> = vec![];
    let lines = emulator::run(board, elf, &arguments.map(OsStr::new), |line| {
        println!("{line}");
        let Some(frame) = frame(line) else { return Ok(()) };
        // The emulator does not wait: a phase is over when a frame has read what it set.
        if current.is_some_and(|phase| !frame.has_read(phase)) {
            return Ok(());
        }
        answers.extend(current.map(|phase| (phase, frame.config)));
        current = phases.next();
        let Some(next) = current else { return Ok(()) };
        println!("  {}: {} {} becomes {}", next.what, next.device, next.property, next.value);
        let monitor = match &mut monitor {
            Some(monitor) => monitor,
            empty => empty.insert(Monitor::connect()?),
        };
        monitor.set(next)
    })?;
    let _ = fs::remove_file(MONITOR);
    judge(&answers, &lines)
}

/// The config follows temperature and supply, down and up, and no frame misses its budget.
fn judge(answers: &[(&Phase, String)], lines: &[String]) -> Result<()> {
    let missed = statistic(lines, "missed")? + statistic(lines, "refused")?;
    ensure!(missed == 0, "{missed} frames missed their budget or were refused");
    ensure!(statistic(lines, "careful")? == 0, "both sensors are there, but some frames were run without them");
    ensure!(answers.len() == PHASES.len(), "the firmware ended after {} of {} phases", answers.len(), PHASES.len());
    let config = |most: bool| answers.iter().find(|(phase, _)| phase.most == most).map(|(_, config)| config);
    ensure!(config(true) != config(false), "the config does not follow the sensors");
    for (phase, found) in answers {
        let expected = config(phase.most);
        ensure!(Some(found) == expected, "{}: config {found}, {expected:?} is expected", phase.what);
        println!("{}: {found}", phase.what);
    }
    Ok(())
}

/// With a sensor missing every frame is run, carefully.
fn careful(board: Board, elf: &Path, arguments: &[&str]) -> Result<()> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let lines = emulator::run(board, elf, &arguments, |_| Ok(()))?;
    let (frames, careful) = (statistic(&lines, "frames")?, statistic(&lines, "careful")?);
    ensure!(frames > 0 && frames == careful, "{careful} of {frames} frames were careful, with a sensor missing");
    ensure!(statistic(&lines, "met")? == frames, "not every frame met its budget with a sensor missing");
    println!("with {arguments:?}: {frames} frames, all careful, all within their budget");
    Ok(())
}

/// QEMU's machine protocol.
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    fn connect() -> Result<Self> {
        let started = Instant::now();
        let stream = loop {
            match UnixStream::connect(MONITOR) {
                Ok(stream) => break stream,
                Err(_) if started.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error).context("the emulator's monitor"),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.answer("QMP")?;
        monitor.say(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    fn say(&mut self, command: &str) -> Result<()> {
        writeln!(self.stream.get_mut(), "{command}")?;
        self.answer("return")
    }

    /// Reads to the answer that is expected; events may come before it.
    fn answer(&mut self, expected: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "the emulator's monitor closed");
            ensure!(!line.contains(r#""error""#), "the emulator's monitor: {line}");
            if line.contains(&format!("\"{expected}\"")) {
                return Ok(());
            }
        }
    }

    fn set(&mut self, phase: &Phase) -> Result<()> {
        let Phase { device, property, value, .. } = phase;
        self.say(&format!(
            r#"{{"execute":"qom-set","arguments":{{"path":"/machine/peripheral/{device}","property":"{property}","value":{value}}}}}"#
        ))
    }
}
