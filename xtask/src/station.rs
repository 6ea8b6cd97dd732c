//! `station`: the sensing firmware on an emulated board whose temperature and supply change from outside.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};

use crate::emulator;

/// The emulator's monitor.
const MONITOR: &str = "out/station.qmp";
/// Nobody waits longer for the monitor.
const PATIENCE: Duration = Duration::from_secs(10);

/// A change from outside, behind a frame.
struct Change {
    after: u32,
    device: &'static str,
    property: &'static str,
    value: i64,
}

/// Cool and full; hot; cool again; nearly empty; full again.
const CHANGES: [Change; 4] = [
    Change { after: 3, device: "thermometer", property: "temperature", value: 85_000 },
    Change { after: 8, device: "thermometer", property: "temperature", value: 25_000 },
    Change { after: 11, device: "supply", property: "vin", value: 10_000 },
    Change { after: 16, device: "supply", property: "vin", value: 12_500 },
];

/// Runs the firmware three times: sensed, with sensors that change; without any sensor; and with one.
pub fn check(image: &Path) -> Result<()> {
    let elf = emulator::build("sense", image, None)?;
    changing(&elf)?;
    silent(&elf)
}

/// One frame of the log.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    number: u32,
    config: String,
}

fn frame(line: &str) -> Option<Frame> {
    let (number, rest) = line.strip_prefix("frame ")?.split_once(':')?;
    let (_, config) = rest.split_once(" config ")?;
    let (config, _) = config.split_once(',')?;
    Some(Frame { number: number.parse().ok()?, config: config.to_owned() })
}

/// A number of the line of statistics.
fn statistic(lines: &[String], name: &str) -> Result<u32> {
    let line = lines.iter().find_map(|line| line.strip_prefix("statistics: ")).context("there are no statistics")?;
    let mut words = line.split(' ').skip_while(|&word| word != name);
    words.nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("no `{name}` in `{line}`"))
}

fn changing(elf: &Path) -> Result<()> {
    let _ = fs::remove_file(MONITOR);
    fs::create_dir_all("out")?;
    let monitor: Mutex<Option<Monitor>> = Mutex::new(None);
    let server = format!("unix:{MONITOR},server=on,wait=off");
    let arguments = [
        "-qmp",
        &server,
        "-device",
        "tmp105,id=thermometer,bus=i2c,address=0x48",
        "-device",
        "adm1272,id=supply,bus=i2c,address=0x10",
    ];
    let mut frames: Vec<Frame> = vec![];
    let lines = emulator::run(elf, &arguments.map(OsStr::new), |line| {
        println!("{line}");
        let mut monitor = monitor.lock().map_err(|_| anyhow::anyhow!("the monitor broke"))?;
        let Some(frame) = frame(line) else { return Ok(()) };
        let monitor = match &mut *monitor {
            Some(monitor) => monitor,
            empty => empty.insert(Monitor::connect()?),
        };
        for change in CHANGES.iter().filter(|change| change.after == frame.number) {
            println!("  {} {} becomes {}", change.device, change.property, change.value);
            monitor.set(change)?;
        }
        frames.push(frame);
        Ok(())
    })?;
    let _ = fs::remove_file(MONITOR);
    judge(&frames, &lines)
}

/// The config follows temperature and supply, down and up, and no frame misses its budget.
fn judge(frames: &[Frame], lines: &[String]) -> Result<()> {
    let missed = statistic(lines, "missed")? + statistic(lines, "refused")?;
    ensure!(missed == 0, "{missed} frames missed their budget or were refused");
    ensure!(statistic(lines, "careful")? == 0, "both sensors are there, but some frames were run without them");
    let at = |number: u32| {
        let frame = frames.iter().find(|frame| frame.number == number);
        frame.map(|frame| frame.config.as_str()).with_context(|| format!("there is no frame {number}"))
    };
    // A change is there for the frame after the next at the latest.
    let [cool, hot, cooled, empty, full] = [3, 7, 11, 15, 19].map(at);
    let (cool, hot, cooled, empty, full) = (cool?, hot?, cooled?, empty?, full?);
    println!("cool {cool}, hot {hot}, cool again {cooled}, nearly empty {empty}, full again {full}");
    ensure!(cool != hot && hot != cooled, "the config does not follow the temperature");
    ensure!(cooled != empty && empty != full, "the config does not follow the supply");
    ensure!(cool == cooled && cooled == full, "the config does not come back");
    Ok(())
}

/// Without sensors every frame is run, carefully.
fn silent(elf: &Path) -> Result<()> {
    let lines = emulator::run(elf, &[], |line| {
        println!("{line}");
        Ok(())
    })?;
    let (frames, careful) = (statistic(&lines, "frames")?, statistic(&lines, "careful")?);
    ensure!(frames > 0 && frames == careful, "{careful} of {frames} frames were careful, without any sensor");
    ensure!(statistic(&lines, "met")? == frames, "not every frame met its budget without sensors");
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

    fn set(&mut self, change: &Change) -> Result<()> {
        let Change { device, property, value, .. } = change;
        self.say(&format!(
            r#"{{"execute":"qom-set","arguments":{{"path":"/machine/peripheral/{device}","property":"{property}","value":{value}}}}}"#
        ))
    }
}
