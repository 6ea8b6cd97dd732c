//! `layers-bench`: instructions of every layer on an emulated core, against the figures of the last change and
//! those of a peer.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::emulator::{self, Board};
use crate::readme::replaced;

/// Instructions of each layer when they were last accepted.
fn baseline(board: Board) -> String {
    format!("benches/baselines/{}.toml", board.core)
}
/// The document with a table for each core.
const DOCUMENT: &str = "docs/kernels.md";
/// What the table calls the groups.
const GROUPS: [(&str, &str); 8] = [
    ("Dense", "3x3, 1x1 and dense"),
    ("Shallow", "point 16 to 32 at 32x32"),
    ("Stem", "stem 3x3, 3 to 16"),
    ("Depthwise", "depthwise 3x3"),
    ("Add", "addition"),
    ("Pool", "pools"),
    ("Softmax", "softmax"),
    ("Token", "parts of a transformer"),
];
/// A layer may take this many times the accepted instructions.
const TOLERANCE: f64 = 1.02;

/// What the firmware says of a layer.
#[derive(Debug, PartialEq)]
pub struct Row {
    group: String,
    /// Shapes in words.
    pub name: String,
    /// Multiply-accumulates.
    pub work: f64,
    peer: f64,
    instructions: f64,
    /// In each model.
    pub times: Vec<f64>,
}

/// Runs the firmware, prints the table, and compares; or, with `update`, accepts what was found.
pub fn check(board: Board, update: bool) -> Result<()> {
    let first =
        emulator::BOARDS.into_iter().find(|other| other.core == board.core).map_or(board.name, |other| other.name);
    ensure!(!update || board.name == first, "{} must take what {first} takes; update that", board.name);
    let elf = emulator::build_kernels(board)?;
    let log = emulator::run(board, &elf, &[], |line| {
        if !line.starts_with("layer|") && !line.starts_with("model|") {
            println!("{line}");
        }
        Ok(())
    })?;
    let rows = log.iter().filter_map(|line| line.strip_prefix("layer|")).map(row).collect::<Result<Vec<_>>>()?;
    let models = log.iter().filter_map(|line| line.strip_prefix("model|")).map(model).collect::<Result<Vec<_>>>()?;
    print(&rows);
    print!("{}", table(&rows, &models));
    if update {
        return accept(board, &rows, &models);
    }
    let path = baseline(board);
    let text = fs::read_to_string(&path).with_context(|| format!("{path}; `--update` writes it"))?;
    let accepted = toml::from_str(&text).with_context(|| path.clone())?;
    let worse = compare(&rows, &accepted);
    ensure!(worse.is_empty(), "instructions against {path}:\n  {}", worse.join("\n  "));
    println!("no layer takes more than {TOLERANCE} of {path}");
    let accepted: Vec<Row> = rows
        .into_iter()
        .map(|row| Row { instructions: accepted.get(&row.name).copied().unwrap_or(row.instructions), ..row })
        .collect();
    let text = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    let current = replaced(DOCUMENT, &text, board.core, &table(&accepted, &models))?;
    ensure!(text == current, "the table of {DOCUMENT} is not that of {path}; `--update` writes both");
    Ok(())
}

/// Name and instructions of a network's peer.
fn model(line: &str) -> Result<(String, f64)> {
    let (name, peer) = line.split_once('|').context("a model has a name and a figure")?;
    Ok((name.into(), peer.parse()?))
}

/// What every group of layers, and every network, takes of its peer's instructions.
fn table(rows: &[Row], models: &[(String, f64)]) -> String {
    let mut text = "| layers | shapes | ours / peer, geometric mean | most |\n|---|---:|---:|---:|\n".to_owned();
    for (group, name) in GROUPS {
        let ratio = |row: &Row| row.instructions / row.peer;
        let rows = || rows.iter().filter(|row| row.group == group && row.peer > 0.0);
        if rows().count() == 0 {
            continue;
        }
        let mean = (rows().map(|row| ratio(row).ln()).sum::<f64>() / rows().count() as f64).exp();
        let Some(worst) = rows().max_by(|a, b| ratio(a).total_cmp(&ratio(b))) else { continue };
        text += &format!("| {name} | {} | {mean:.2} | {:.2}, {} |\n", rows().count(), ratio(worst), worst.name);
    }
    for (model, (name, peer)) in models.iter().enumerate() {
        let total: f64 = rows.iter().map(|row| row.times.get(model).copied().unwrap_or(0.0) * row.instructions).sum();
        // A network that this core does not run, or has no peer for, says nothing.
        if total == 0.0 || *peer == 0.0 {
            continue;
        }
        let millions = |count: f64| count / 1e6;
        text += &format!(
            "| {name}, the sum of its layers: {:.2} of {:.2} million | | {:.2} | |\n",
            millions(total),
            millions(*peer),
            total / peer
        );
    }
    text
}

/// A layer's line, behind `layer|`.
pub fn row(line: &str) -> Result<Row> {
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

fn accept(board: Board, rows: &[Row], models: &[(String, f64)]) -> Result<()> {
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
    let document = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    fs::write(DOCUMENT, replaced(DOCUMENT, &document, board.core, &table(rows, models))?).context(DOCUMENT)?;
    println!("wrote {path}, and the table of {DOCUMENT}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{compare, row, table};

    #[test]
    fn a_group_has_its_mean_and_its_worst_and_a_network_its_sum() {
        let rows = [
            row("Add|a|10|100|50|1|0").unwrap(),
            row("Add|b|10|100|200|2|0").unwrap(),
            row("Part|c|1|0|7|0|1").unwrap(),
        ];
        let text = table(&rows, &[("N".into(), 900.0)]);
        assert!(text.ends_with(
            "| addition | 2 | 1.00 | 2.00, b |\n| N, the sum of its layers: 0.00 of 0.00 million | | 0.50 | |\n"
        ));
    }

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
