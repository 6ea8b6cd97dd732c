//! A replay: budget and used time above, the chosen config's score below.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use simulator::Replay;

use super::label::spread;
use super::{
    Area, BLUE, Drawing, FAINT, GRID, INK, Mark, ORANGE, Panel, SOFT, Scale, VERMILLION, WIDTH, legend, svg, write,
};
use crate::report::{Facts, Row};

const HEIGHT: u32 = 660;
/// Bottom of the upper panel.
const MIDDLE: i32 = 350;
/// Least distance of two names.
const NAME_GAP: i32 = 16;

/// The picture.
pub fn timeline(facts: &Facts, replay: &Replay) -> String {
    svg(HEIGHT, |area| draw(area, facts, replay))
}

fn draw(area: &Area<'_>, facts: &Facts, replay: &Replay) -> Drawing {
    let x = Scale { low: 0.0, high: replay.rows.len().max(1) as f64, from: 70, to: WIDTH as i32 - 150 };
    time(area, x, facts, replay)?;
    score(area, x, facts, replay)
}

/// Budget, used time, misses and refusals.
fn time(area: &Area<'_>, x: Scale, facts: &Facts, replay: &Replay) -> Drawing {
    let ms = |ticks: u64| ticks as f64 / facts.ticks_per_millisecond;
    let used = |row: &simulator::Row| row.outcome.map(|outcome| ms(outcome.elapsed));
    let most = replay
        .rows
        .iter()
        .flat_map(|row| [row.budget.time.map(|limit| ms(limit.amount)), used(row)])
        .flatten()
        .fold(0.0, f64::max);
    let panel = Panel { x, y: Scale { low: 0.0, high: most.max(f64::MIN_POSITIVE) * 1.06, from: MIDDLE, to: 50 } };
    let budget: Vec<(f64, f64)> =
        limits(replay).into_iter().map(|(frame, ticks)| (frame, ticks.map_or(panel.y.high, ms))).collect();
    let line = panel.steps(&budget);
    let mut ground = line.clone();
    ground.extend([(x.to, MIDDLE), (x.from, MIDDLE)]);
    area.draw(&Polygon::new(ground, ORANGE.mix(0.10).filled()))?;
    panel.rows(area, 6, " ms", true)?;
    area.draw(&PathElement::new(vec![(x.from, MIDDLE), (x.to, MIDDLE)], FAINT))?;
    area.draw(&PathElement::new(line, ORANGE.stroke_width(3)))?;
    for row in &replay.rows {
        let at = panel.x.at(f64::from(row.frame) + 0.5);
        match row.outcome {
            Some(outcome) if outcome.met() => Mark::Disc(BLUE).draw(area, (at, panel.y.at(ms(outcome.elapsed))), 2)?,
            Some(outcome) => Mark::Cross(VERMILLION).draw(area, (at, panel.y.at(ms(outcome.elapsed))), 4)?,
            None => Mark::Ring(VERMILLION).draw(area, (at, MIDDLE), 3)?,
        }
    }
    let summary = replay.summary();
    let missed = format!("budget missed ({})", summary.missed);
    let refused = format!("refused ({})", summary.refused);
    let mut entries = vec![
        (Mark::Line(ORANGE), "budget"),
        (Mark::Disc(BLUE), "time used by a frame"),
        (Mark::Cross(VERMILLION), missed.as_str()),
    ];
    if summary.refused > 0 {
        entries.push((Mark::Ring(VERMILLION), &refused));
    }
    legend(area, (x.from, 14), &entries)
}

/// Frame and ticks at each change of the budget, and at the end.
fn limits(replay: &Replay) -> Vec<(f64, Option<u64>)> {
    let mut limits: Vec<(f64, Option<u64>)> = vec![];
    for row in &replay.rows {
        if limits.last().is_none_or(|&(_, ticks)| ticks != row.budget.time.map(|limit| limit.amount)) {
            limits.push((f64::from(row.frame), row.budget.time.map(|limit| limit.amount)));
        }
    }
    if let Some(&(_, ticks)) = limits.last() {
        limits.push((replay.rows.len() as f64, ticks));
    }
    limits
}

/// Score of the config that gave the answer, with the names of the configs at the right.
fn score(area: &Area<'_>, x: Scale, facts: &Facts, replay: &Replay) -> Drawing {
    let last = |row: &simulator::Row| row.outcome.map(|outcome| outcome.last.index());
    let used: Vec<_> =
        facts.rows.iter().filter(|config| replay.rows.iter().any(|row| last(row) == Some(config.number))).collect();
    let low = used.iter().map(|config| config.score).fold(f64::MAX, f64::min);
    let high = used.iter().map(|config| config.score).fold(0.0, f64::max);
    let margin = ((high - low) * 0.15).max(0.5);
    let bottom = HEIGHT as i32 - 54;
    let y = Scale { low: (low.min(high) - margin).max(0.0), high: high + margin, from: bottom, to: MIDDLE + 50 };
    let panel = Panel { x, y };
    write(area, "score of the config that answered", 14, INK, (x.from, MIDDLE + 30), (HPos::Left, VPos::Center))?;
    panel.rows(area, 5, " %", false)?;
    panel.columns(area, 10, "", "frame")?;
    let room = ((bottom - y.to) / NAME_GAP) as usize;
    let named: Vec<_> = used.iter().filter(|config| used.len() <= room || config.anchor).copied().collect();
    names(area, &panel, named)?;
    for (start, end, number) in runs(replay) {
        let Some(config) = used.iter().find(|config| config.number == number) else { continue };
        let (left, right) = (panel.x.at(start), panel.x.at(end));
        let level = panel.y.at(config.score);
        let color = if config.anchor { BLUE } else { VERMILLION };
        area.draw(&PathElement::new(vec![(left, level), (right.max(left + 1), level)], color.stroke_width(5)))?;
    }
    Ok(())
}

/// A faint line at the score of each config, and its name at the right end.
fn names(area: &Area<'_>, panel: &Panel, mut named: Vec<&Row>) -> Drawing {
    named.sort_by(|a, b| b.score.total_cmp(&a.score));
    let levels: Vec<i32> = named.iter().map(|config| panel.y.at(config.score)).collect();
    let heights = spread(&levels, NAME_GAP, panel.y.from);
    for ((config, &level), &height) in named.iter().zip(&levels).zip(&heights) {
        let line = vec![(panel.x.from, level), (panel.x.to, level), (panel.x.to + 14, height)];
        area.draw(&PathElement::new(line, GRID))?;
        let color = if config.anchor { BLUE } else { SOFT };
        write(area, &config.name, 12, color, (panel.x.to + 18, height), (HPos::Left, VPos::Center))?;
    }
    Ok(())
}

/// First frame, frame behind the last, and config of each run of frames that one config answered.
fn runs(replay: &Replay) -> Vec<(f64, f64, usize)> {
    let mut runs: Vec<(f64, f64, usize)> = vec![];
    for row in &replay.rows {
        let Some(outcome) = row.outcome else { continue };
        let (frame, config) = (f64::from(row.frame), outcome.last.index());
        match runs.last_mut() {
            Some((_, end, last)) if *last == config && *end >= frame => *end = frame + 1.0,
            _ => runs.push((frame, frame + 1.0, config)),
        }
    }
    runs
}
