//! Score over predicted time, one mark per config.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::label::Places;
use super::{Area, BLUE, Drawing, FAINT, INK, Mark, Panel, SOFT, Scale, VERMILLION, WIDTH, legend, svg, write};
use crate::report::{Facts, Row};

const HEIGHT: u32 = 540;

/// The picture.
pub fn frontier(facts: &Facts) -> String {
    svg(HEIGHT, |area| draw(area, facts))
}

fn draw(area: &Area<'_>, facts: &Facts) -> Drawing {
    let panel = panel(facts);
    write(area, "score", 13, SOFT, (panel.x.from - 10, panel.y.to - 14), (HPos::Right, VPos::Center))?;
    panel.rows(area, 7, " %", true)?;
    panel.columns(area, 8, " ms", "predicted time of one frame")?;
    let line = frontier_line(&panel, facts);
    area.draw(&PathElement::new(line.clone(), INK.mix(0.55).stroke_width(2)))?;
    let point = |row: &Row| (panel.x.at(row.milliseconds), panel.y.at(row.score));
    let mut places = Places::new([panel.x.from, panel.y.to - 20, panel.x.to + 20, panel.y.from]);
    places.keep_path(&line);
    for row in &facts.rows {
        places.keep(point(row), 8);
    }
    let order = |row: &Row| (row.anchor, row.frontier);
    let mut rows: Vec<&Row> = facts.rows.iter().collect();
    rows.sort_by_key(|row| order(row));
    for row in &rows {
        let (mark, size) = mark(row);
        mark.draw(area, point(row), size)?;
    }
    for row in rows.iter().rev().filter(|row| row.anchor || row.frontier) {
        let color = if row.anchor { BLUE } else { VERMILLION };
        let size = if row.anchor { 15 } else { 12 };
        let text = if row.anchor { format!("{} {:.1} %", row.name, row.score) } else { row.name.clone() };
        if let Some([left, top, right, bottom]) = places.place(&text, size, point(row), row.anchor) {
            let (x, side) = if right <= point(row).0 { (right, HPos::Right) } else { (left, HPos::Left) };
            write(area, &text, size, color, (x, i32::midpoint(top, bottom)), (side, VPos::Center))?;
        }
    }
    let entries = [
        (Mark::Diamond(BLUE), "anchor: a trained network"),
        (Mark::Disc(VERMILLION), "stitched, on the frontier"),
        (Mark::Ring(FAINT), "beaten by another config"),
        (Mark::Line(INK), "best score for a time"),
    ];
    legend(area, (panel.x.from, 14), &entries)
}

fn mark(row: &Row) -> (Mark, i32) {
    match (row.anchor, row.frontier) {
        (true, _) => (Mark::Diamond(BLUE), 7),
        (false, true) => (Mark::Disc(VERMILLION), 6),
        (false, false) => (Mark::Ring(FAINT), 4),
    }
}

fn panel(facts: &Facts) -> Panel {
    let span = |part: fn(&Row) -> f64| {
        let values = facts.rows.iter().map(part);
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (_, slowest) = span(|row| row.milliseconds);
    let (worst, best) = span(|row| row.score);
    let margin = ((best - worst) * 0.12).max(0.5);
    Panel {
        x: Scale { low: 0.0, high: slowest.max(f64::MIN_POSITIVE) * 1.06, from: 70, to: WIDTH as i32 - 24 },
        y: Scale { low: (worst - margin).max(0.0), high: best + margin, from: HEIGHT as i32 - 54, to: 60 },
    }
}

/// The best score that a time buys: up at each config of the frontier, then level to the right edge.
fn frontier_line(panel: &Panel, facts: &Facts) -> Vec<(i32, i32)> {
    let mut points: Vec<(f64, f64)> = vec![];
    for row in facts.rows.iter().filter(|row| row.frontier) {
        points.push((row.milliseconds, row.score));
    }
    if let Some(&(_, best)) = points.last() {
        points.push((panel.x.high, best));
    }
    panel.steps(&points)
}
