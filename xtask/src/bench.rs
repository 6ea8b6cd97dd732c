//! `layers-bench`: instructions of every layer on an emulated core, against the figures of the last change and
//! those of a peer.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::emulator::{self, Board};

/// Instructions of each layer when they were last accepted.
fn baseline(board: Board) -> String {
    format!("benches/baselines/{}.toml", board.core)
}
/// A layer may take this many times the accepted instructions.
const TOLERANCE: f64 = 1.02;

/// What the firmware says of a layer.
#[derive(Debug, PartialEq)]
struct Row {
    group: String,
    name: String,
    work: f64,
    peer: f64,
    instructions: f64,
    /// In each model.
    times: Vec<f64>,
}

/// Runs the firmware, prints the table, and compares; or, with `update`, accepts what was found.
pub fn check(board: Board, update: bool) -> Result<()> {
    let elf = emulator::build_kernels(board, "layers")?;
    let log = emulator::run(board, &elf, &[], |line| {
        if !line.starts_with("layer|") && !line.starts_with("model|") {
            println!("{line}");
        }
        Ok(())
    })?;
    let rows = log.iter().filter_map(|line| line.strip_prefix("layer|")).map(row).collect::<Result<Vec<_>>>()?;
    print(&rows);
    for (model, line) in log.iter().filter_map(|line| line.strip_prefix("model|")).enumerate() {
        let (name, peer) = line.split_once('|').context("a model has a name and a figure")?;
        let sum = |value: fn(&Row) -> f64| -> f64 {
            rows.iter().map(|row| row.times.get(model).copied().unwrap_or(0.0) * value(row)).sum()
        };
        let (total, peer) = (sum(|row| row.instructions), peer.parse::<f64>()?);
        println!("{name}, the sum of its layers: {total:.0} instructions, {:.3} of {peer:.0}", total / peer);
    }
    if update {
        return accept(board, &rows);
    }
    let path = baseline(board);
    let text = fs::read_to_string(&path).with_context(|| format!("{path}; `--update` writes it"))?;
    let worse = compare(&rows, &toml::from_str(&text).with_context(|| path.clone())?);
    ensure!(worse.is_empty(), "instructions against {path}:\n  {}", worse.join("\n  "));
    println!("no layer takes more than {TOLERANCE} of {path}");
    Ok(())
}

fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split('|').collect();
    let [group, name, numbers @ ..] = fields.as_slice() else { bail!("no layer: {line}") };
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<f64>, _>>().context("a number")?;
    let [work, peer, instructions, ref times @ ..] = numbers[..] else { bail!("no layer: {line}") };
    Ok(Row { group: (*group).into(), name: (*name).into(), work, peer, instructions, times: times.into() })
}

fn print(rows: &[Row]) {
    println!("{:<36} {:>11} {:>7} {:>11} {:>6}", "layer", "instr", "/MAC", "peer", "ratio");
    for row in rows {
        let (per_work, ratio) = (row.instructions / row.work, row.instructions / row.peer);
        print!("{:<36} {:>11} {per_work:>7.3}", row.name, row.instructions);
        println!("{}", if row.peer > 0.0 { format!(" {:>11} {ratio:>6.3}", row.peer) } else { String::new() });
    }
    // In the order in which they are seen first.
    let mut groups: Vec<&str> = vec![];
    for row in rows.iter().filter(|row| row.peer > 0.0) {
        if !groups.contains(&&*row.group) {
            groups.push(&row.group);
        }
    }
    for group in groups {
        let ratios: Vec<f64> =
            rows.iter().filter(|row| row.group == group).map(|row| row.instructions / row.peer).collect();
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!("{group}: geometric mean {mean:.3} of the peer, at most {most:.3}, over {} layers", ratios.len());
    }
}

/// Layers that got worse, that the baseline lacks, or that it has and nobody runs.
fn compare(rows: &[Row], accepted: &BTreeMap<String, f64>) -> Vec<String> {
    let mut findings = vec![];
    for row in rows {
        match accepted.get(&row.name) {
            None => findings.push(format!("{}: not there", row.name)),
            Some(&before) if row.instructions > before * TOLERANCE => {
                findings.push(format!("{}: {} instead of {before}", row.name, row.instructions));
            }
            Some(&before) if row.instructions * TOLERANCE < before => {
                println!("{}: {} instead of {before}; `--update` accepts it", row.name, row.instructions);
            }
            Some(_) => {}
        }
    }
    let gone = accepted.keys().filter(|name| rows.iter().all(|row| row.name != **name));
    findings.extend(gone.map(|name| format!("{name}: no such layer any more")));
    findings
}

fn accept(board: Board, rows: &[Row]) -> Result<()> {
    let mut text = format!(
        "# Instructions of each layer on {} in QEMU. `cargo xtask layers-bench --board {0} --update` writes it.\n",
        board.name
    );
    for row in rows {
        text += &format!("\"{}\" = {}\n", row.name, row.instructions);
    }
    let path = baseline(board);
    fs::create_dir_all("benches/baselines")?;
    fs::write(&path, text).with_context(|| path.clone())?;
    println!("wrote {path}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{compare, row};

    #[test]
    fn only_what_got_worse_is_found() {
        let rows = [row("Dense|a|10|100|102|1|0").unwrap(), row("Dense|b|10|100|103|1|0").unwrap()];
        let accepted = |text| toml::from_str(text).unwrap();
        let found = compare(&rows, &accepted("a = 100.0\nb = 100.0\nc = 1.0"));
        assert_eq!(found, ["b: 103 instead of 100", "c: no such layer any more"]);
        assert_eq!(compare(&rows, &accepted("a = 102.0")), ["b: not there"]);
        assert!(row("Dense|a|10|x|102|1|0").is_err());
    }
}
