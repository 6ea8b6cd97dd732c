//! The table of the terminal.

use std::fmt::Write;

use super::{Facts, HEADS, cells, grouped};

/// One line per config, cheapest first, and what the image saves.
#[must_use]
pub fn table(facts: &Facts) -> String {
    let rows: Vec<_> = facts.rows.iter().map(cells).collect();
    let mut widths = HEADS.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
    let mut text = format!(
        "{}: {} configs from {} anchors · costs of {} · scores on {} images\n\n",
        facts.name,
        facts.rows.len(),
        facts.anchors().count(),
        facts.target,
        grouped(facts.score_images.into())
    );
    line(&mut text, &widths, &HEADS.map(str::to_owned));
    let _ = writeln!(text, "{rule}");
    for row in &rows {
        line(&mut text, &widths, row);
    }
    let _ = writeln!(text, "{rule}");
    text.push_str("least: no placement of the tensors can need less · own: flash that no other config uses\n\n");
    for sentence in facts.sentences() {
        let _ = writeln!(text, "{sentence}");
    }
    text
}

/// The same as a table in Markdown, without the sentences.
#[must_use]
pub fn markdown(facts: &Facts) -> String {
    let row = |cells: &[String; HEADS.len()]| format!("| {} |\n", cells.join(" | "));
    let mut text = row(&HEADS.map(str::to_owned));
    text.push_str("|---|---|");
    text.push_str(&"---:|".repeat(HEADS.len() - 2));
    text.push('\n');
    facts.rows.iter().map(cells).for_each(|cells| text.push_str(&row(&cells)));
    text
}

/// Words to the left, numbers to the right.
fn line(text: &mut String, widths: &[usize; HEADS.len()], cells: &[String; HEADS.len()]) {
    let mut line = String::new();
    for (index, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let gap = if index == 0 { "" } else { "  " };
        let _ = if index < 2 { write!(line, "{gap}{cell:<width$}") } else { write!(line, "{gap}{cell:>width$}") };
    }
    let _ = writeln!(text, "{}", line.trim_end());
}
