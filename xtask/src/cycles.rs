//! `cycles`: an estimate of what layers take on a Cortex-M4, from a trace of their instructions and the timings of the Cortex-M4
//! Technical Reference Manual (ARM DDI 0439, table 3-1). No flash wait states, no stalls of the bus: silicon takes more.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::bench::{self, Row};
use crate::call;
use crate::emulator::{self, BOARDS, Board};
use crate::readme::replaced;

/// The firmware's function that begins and ends a layer.
const MARK: &str = "cycles_mark";
/// The trace, while it is read.
const TRACE: &str = "out/cycles.trace";
const DOCUMENT: &str = "docs/kernels.md";
/// Cycles to fill the pipeline behind a branch that is taken: 1 to 3.
const REFILL: u64 = 2;
/// A division: 2 to 12.
const DIVISION: u64 = 7;
/// What the same model makes of TFLite Micro and CMSIS-NN, in cycles for a multiply-accumulate, and those.
const PEERS: [(&str, f64, f64); 2] = [("ResNet-8", 2.89, 12_501_632.0), ("MobileNetV1-0.25 96x96", 3.90, 7_489_664.0)];

/// What a layer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    instructions: u64,
    cycles: u64,
}

/// Prints the table, and with `update` writes the sums into the document.
pub fn check(update: bool) -> Result<()> {
    let board = BOARDS[0];
    let elf = emulator::build_reference(board, "cycles")?;
    let (log, taken) = traced(board, &elf)?;
    let rows = log.iter().filter_map(|line| line.strip_prefix("layer|")).map(bench::row).collect::<Result<Vec<_>>>()?;
    ensure!(rows.len() == taken.len(), "{} layers in the log, {} in the trace", rows.len(), taken.len());
    println!("{:<36} {:>11} {:>11} {:>10} {:>10}", "layer", "instr", "cycles", "/instr", "/MAC");
    for (row, taken) in rows.iter().zip(&taken) {
        let (instructions, cycles) = (taken.instructions as f64, taken.cycles as f64);
        println!(
            "{:<36} {instructions:>11} {cycles:>11} {:>10.2} {:>10.3}",
            row.name,
            cycles / instructions,
            cycles / row.work
        );
    }
    let table = table(&rows, &taken);
    print!("{table}");
    if update {
        let text = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
        fs::write(DOCUMENT, replaced(DOCUMENT, &text, "cycles", &table)?).context(DOCUMENT)?;
    }
    Ok(())
}

/// The sums of the networks.
fn table(rows: &[Row], taken: &[Taken]) -> String {
    let mut text = "| network, the sum of its layers | million cycles, an estimate | for an instruction | for a multiply-accumulate | \
                    CMSIS-NN's, the same estimate |\n|---|---:|---:|---:|---:|\n"
        .to_owned();
    for (model, (name, peer, work)) in PEERS.into_iter().enumerate() {
        let sum = |of: fn(&Taken) -> u64| {
            let times = rows.iter().map(|row| row.times.get(model).copied().unwrap_or(0.0));
            times.zip(taken).map(|(times, taken)| times * of(taken) as f64).sum::<f64>()
        };
        let (instructions, cycles) = (sum(|taken| taken.instructions), sum(|taken| taken.cycles));
        text += &format!(
            "| {name} | {:.2} | {:.2} | {:.3} | {peer:.2} |\n",
            cycles / 1e6,
            cycles / instructions,
            cycles / work
        );
    }
    text
}

/// Runs the firmware with a trace of every instruction: its log, and what happened between marks.
fn traced(board: Board, elf: &std::path::Path) -> Result<(Vec<String>, Vec<Taken>)> {
    fs::create_dir_all("out")?;
    let _ = fs::remove_file(TRACE);
    // A pipe: the trace has gigabytes.
    let mut pipe = Command::new("mkfifo");
    pipe.arg(TRACE);
    call(pipe)?;
    let options = ["-accel", "tcg,one-insn-per-tb=on", "-d", "in_asm,exec,nochain", "-D", TRACE].map(OsStr::new);
    let found = thread::scope(|scope| {
        let reader = scope.spawn(|| anyhow::Ok(taken(BufReader::with_capacity(1 << 20, File::open(TRACE)?))?));
        let log = emulator::run(board, elf, &options, |_| Ok(()))?;
        let taken = reader.join().map_err(|_| anyhow::anyhow!("the trace's reader broke"))??;
        anyhow::Ok((log, taken))
    });
    let _ = fs::remove_file(TRACE);
    found
}

/// An instruction at an address, as a trace shows it before it first runs.
#[derive(Clone, Copy, Default)]
struct Instruction {
    len: u32,
    /// Cycles, if the next one follows in memory.
    cycles: u64,
    /// One load or store of one word or less.
    single: bool,
    /// An empty one is not known.
    known: bool,
}

/// Counts what lies between the first mark and the second, the third and the fourth, …
fn taken(mut trace: impl BufRead) -> Result<Vec<Taken>> {
    // The code of a firmware lies in its first megabyte, at even addresses.
    let mut code = vec![Instruction::default(); 1 << 19];
    let (mut all, mut current): (Vec<Taken>, Option<Taken>) = (vec![], None);
    let mut before: Option<(u32, Instruction)> = None;
    let mut line = vec![];
    loop {
        line.clear();
        if trace.read_until(b'\n', &mut line)? == 0 {
            return Ok(all);
        }
        let text = line.trim_ascii_end();
        if text.starts_with(b"0x") {
            let text = std::str::from_utf8(text)?;
            let (address, instruction) = listed(text).with_context(|| format!("no instruction: {text}"))?;
            *code.get_mut(address as usize / 2).with_context(|| format!("no code: {text}"))? = instruction;
        } else if text.starts_with(b"Trace") {
            let address = executed(text).context("an instruction without its address")?;
            let ends = text.ends_with(MARK.as_bytes());
            let instruction = code.get(address as usize / 2).copied().unwrap_or_default();
            ensure!(instruction.known, "{address:#x} runs, but was never listed");
            if let (Some(taken), Some((last, earlier))) = (&mut current, before) {
                // What a jump costs is known where it leads.
                taken.cycles += if last + earlier.len == address { 0 } else { REFILL };
            }
            if ends && !before.is_some_and(|(last, _)| last + 2 == address || last == address) {
                match current.take() {
                    Some(taken) => all.push(taken),
                    None => current = Some(Taken::default()),
                }
            } else if let Some(taken) = &mut current {
                let behind = before.is_some_and(|(_, earlier)| earlier.single);
                taken.instructions += 1;
                taken.cycles += if instruction.single && behind { 1 } else { instruction.cycles };
            }
            before = Some((address, instruction));
        }
    }
}

/// `0x0000f00c:  b580       push     {r7, lr}`
fn listed(text: &str) -> Option<(u32, Instruction)> {
    let (address, rest) = text.strip_prefix("0x")?.split_once(':')?;
    let mut words = rest.split_whitespace().peekable();
    let mut len = 0;
    while words.peek().is_some_and(|word| word.len() == 4 && word.bytes().all(|digit| digit.is_ascii_hexdigit())) {
        // A mnemonic of four such letters would be one: there is none.
        words.next();
        len += 2;
    }
    let mnemonic = words.next()?;
    let operands = words.collect::<Vec<_>>().join(" ");
    let (cycles, single) = timing(mnemonic, &operands);
    Some((u32::from_str_radix(address, 16).ok()?, Instruction { len, cycles, single, known: true }))
}

/// `Trace 0: 0x7f28e8000240 [00800408/000000000000f00c/00000110/ff020201] name`
fn executed(text: &[u8]) -> Option<u32> {
    let fields = text.split(|&byte| byte == b'/').nth(1)?;
    u32::from_str_radix(std::str::from_utf8(fields).ok()?, 16).ok()
}

/// Cycles of an instruction that does not jump, and whether it is one load or store.
fn timing(mnemonic: &str, operands: &str) -> (u64, bool) {
    let name = mnemonic.split('.').next().unwrap_or_default();
    let registers = || {
        let list = operands.split_once('{').and_then(|(_, list)| list.split_once('}')).map_or("", |(list, _)| list);
        list.split(',').filter(|name| !name.trim().is_empty()).map(span).sum::<u64>()
    };
    match name {
        _ if ["ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop"]
            .iter()
            .any(|kind| name.starts_with(kind)) =>
        {
            (1 + registers(), false)
        }
        _ if name.starts_with("ldrd") || name.starts_with("strd") => (3, false),
        _ if ["ldr", "str", "vldr", "vstr"].iter().any(|kind| name.starts_with(kind)) => (2, true),
        _ if name.starts_with("sdiv") || name.starts_with("udiv") => (DIVISION, false),
        _ => (1, false),
    }
}

/// Registers of `r4` or `r4-r7`.
fn span(names: &str) -> u64 {
    let number = |name: &str| name.trim().trim_start_matches(char::is_alphabetic).parse::<u64>().ok();
    match names.split_once('-').map(|(first, last)| (number(first), number(last))) {
        Some((Some(first), Some(last))) => last.saturating_sub(first) + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Taken, taken, timing};

    #[test]
    fn timings_are_those_of_the_manual() {
        let cases = [
            ("smlad", "r4, r8, lr, r4", (1, false)),
            ("ldr", "r12, [r1], #4", (2, true)),
            ("ldrd", "r0, r2, [sp, #0x18]", (3, false)),
            ("ldm.w", "r0!, {r8, r9, r10, r11}", (5, false)),
            ("pop.w", "{r4-r11, pc}", (10, false)),
            ("strbne", "r0, [r1]", (2, true)),
            ("udiv", "r0, r0, r1", (7, false)),
        ];
        for (mnemonic, operands, expected) in cases {
            assert_eq!(timing(mnemonic, operands), expected, "{mnemonic} {operands}");
        }
    }

    #[test]
    fn what_lies_between_marks_is_counted() {
        let run = |address: u32, name: &str| format!("Trace 0: 0x7f0 [0/{address:016x}/0/0] {name}\n");
        let mut trace = "0x00000010:  4770       bx       lr\n0x00000020:  6800       ldr      r0, [r0]\n\
                         0x00000022:  f851 2b04  ldr      r2, [r1], #4\n0x00000026:  e7fb       b        #0x20\n"
            .to_owned();
        for (address, name) in
            [(0x10, "cycles_mark"), (0x20, "f"), (0x22, "f"), (0x26, "f"), (0x20, "f"), (0x10, "cycles_mark")]
        {
            trace += &run(address, name);
        }
        // The way back from the mark, 2 + 1 + (1 + 2) + 2, and the way to the next mark.
        assert_eq!(taken(trace.as_bytes()).unwrap(), [Taken { instructions: 4, cycles: 2 + 8 + 2 }]);
        assert!(taken(run(0x30, "f").as_bytes()).is_err());
    }
}
