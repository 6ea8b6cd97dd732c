//! Score over what a config takes, one mark per config.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::label::Places;
use super::{Area, BLUE, Drawing, FAINT, INK, Mark, Panel, SOFT, Scale, VERMILLION, WIDTH, legend, svg, write};
use crate::report::{Facts, Row};

const HEIGHT: u32 = 540;

/// What a config takes.
#[derive(Clone, Copy, Debug)]
pub enum Price {
    /// Predicted time on the first target.
    Time,
    /// Multiply-accumulates.
    Macs,
    /// Arena.
    Arena,
}

impl Price {
    /// Of a config, in the unit of the axis.
    fn of(self, row: &Row) -> f64 {
        match self {
            Self::Time => row.milliseconds,
            Self::Macs => row.macs as f64 / 1e6,
            Self::Arena => f64::from(row.arena_bytes) / 1024.0,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Time => " ms",
            Self::Macs => " M",
            Self::Arena => " KiB",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Time => "predicted time of one frame",
            Self::Macs => "multiply-accumulates of one frame",
            Self::Arena => "arena",
        }
    }
}

/// The picture.
pub fn frontier(facts: &Facts, price: Price) -> String {
    svg(HEIGHT, |area| draw(area, facts, price))
}

/// The configs to which none is cheaper and no worse, or as cheap and better; cheapest first.
fn best(facts: &Facts, price: Price) -> Vec<&Row> {
    let mut rows: Vec<&Row> = facts.rows.iter().collect();
    rows.sort_by(|a, b| price.of(a).total_cmp(&price.of(b)).then(b.score.total_cmp(&a.score)));
    let mut most = f64::MIN;
    rows.retain(|row| {
        row.score > most && {
            most = row.score;
            true
        }
    });
    rows
}

fn draw(area: &Area<'_>, facts: &Facts, price: Price) -> Drawing {
    let panel = panel(facts, price);
    let best = best(facts, price);
    let is_best = |row: &Row| best.iter().any(|other| other.number == row.number);
    write(area, "score", 13, SOFT, (panel.x.from - 10, panel.y.to - 14), (HPos::Right, VPos::Center))?;
    panel.rows(area, 7, " %", true)?;
    panel.columns(area, 8, price.unit(), price.words())?;
    let anchors = facts.anchors().map(|row| (panel.x.at(price.of(row)), panel.y.at(row.score)));
    area.draw(&PathElement::new(anchors.collect::<Vec<_>>(), BLUE.mix(0.35).stroke_width(1)))?;
    let line = best_line(&panel, &best, price);
    area.draw(&PathElement::new(line.clone(), INK.mix(0.55).stroke_width(2)))?;
    let point = |row: &Row| (panel.x.at(price.of(row)), panel.y.at(row.score));
    let mut places = Places::new([panel.x.from, panel.y.to - 20, panel.x.to + 20, panel.y.from]);
    places.keep_path(&line);
    for row in &facts.rows {
        places.keep(point(row), 8);
    }
    let mut rows: Vec<&Row> = facts.rows.iter().collect();
    rows.sort_by_key(|row| (row.anchor, is_best(row)));
    for row in &rows {
        let (mark, size) = match (row.anchor, is_best(row)) {
            (true, _) => (Mark::Diamond(BLUE), 7),
            (false, true) => (Mark::Disc(VERMILLION), 6),
            (false, false) => (Mark::Ring(FAINT), 4),
        };
        mark.draw(area, point(row), size)?;
    }
    for row in rows.iter().rev().filter(|row| row.anchor || is_best(row)) {
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
        (Mark::Disc(VERMILLION), "stitched, none as cheap is as good"),
        (Mark::Ring(FAINT), "stitched, beaten here"),
        (Mark::Line(INK), "best score for a price"),
    ];
    legend(area, (panel.x.from, 14), &entries)
}

fn panel(facts: &Facts, price: Price) -> Panel {
    let span = |part: &dyn Fn(&Row) -> f64| {
        let values = facts.rows.iter().map(part);
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (_, dearest) = span(&|row| price.of(row));
    let (worst, best) = span(&|row| row.score);
    let margin = ((best - worst) * 0.12).max(0.5);
    Panel {
        x: Scale { low: 0.0, high: dearest.max(f64::MIN_POSITIVE) * 1.06, from: 70, to: WIDTH as i32 - 24 },
        y: Scale { low: (worst - margin).max(0.0), high: best + margin, from: HEIGHT as i32 - 54, to: 60 },
    }
}

/// The best score that a price buys: up at each config, then level to the right edge.
fn best_line(panel: &Panel, best: &[&Row], price: Price) -> Vec<(i32, i32)> {
    let mut points: Vec<(f64, f64)> = best.iter().map(|row| (price.of(row), row.score)).collect();
    if let Some(&(_, best)) = points.last() {
        points.push((panel.x.high, best));
    }
    panel.steps(&points)
}

#[cfg(test)]
mod tests {
    use plan::{Image, sample};

    use super::{Facts, Price, best};

    #[test]
    fn each_price_has_its_own_best() {
        let bytes = sample::writer().finish();
        let mut facts = Facts::of(&Image::parse(&bytes).expect("the sample is valid"));
        // Scores 1, 2 and 3; the dearer the better in time, one price for all in MACs, the other way round in arena.
        for (row, number) in facts.rows.iter_mut().zip(1u32..) {
            (row.score, row.milliseconds) = (f64::from(number), f64::from(number));
            (row.macs, row.arena_bytes) = (1_000_000, 4096 - 1024 * number);
        }
        let scores = |price| best(&facts, price).iter().map(|row| row.score).collect::<Vec<_>>();
        assert_eq!(scores(Price::Time), [1.0, 2.0, 3.0]);
        assert_eq!(scores(Price::Macs), [3.0]);
        assert_eq!(scores(Price::Arena), [3.0]);
    }
}
