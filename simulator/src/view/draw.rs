//! The picture: budget, path through the family, sums, the last frames; beside them what a detector found.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Rectangle};
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline};
use runtime::{Limit, Verdict};

use super::State;

const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;
/// Colours of the classes, counted round.
const CLASSES: [Color; 5] = [Color::Red, Color::Yellow, Color::Cyan, Color::Magenta, Color::Blue];

/// Draws the whole picture.
pub(super) fn draw(state: &State, frame: &mut Frame<'_>) {
    let [head, mut area] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(frame.area());
    frame.render_widget(title(state), head);
    if let Some((size, labels)) = &state.detector {
        let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
        draw_boxes(state, *size, labels, frame, right);
        area = left;
    }
    let family = state.anchors.len() as u16 + 3;
    let rows = [
        Constraint::Length(3),
        Constraint::Length(3),
        Constraint::Length(family),
        Constraint::Length(5),
        Constraint::Min(4),
    ];
    let [time, energy, path, sums, curve] = Layout::vertical(rows).areas(area);
    let outcome = state.row.and_then(|row| row.outcome);
    let budget = state.row.map(|row| row.budget).unwrap_or_default();
    frame.render_widget(gauge("time, ticks", budget.time, outcome.map(|outcome| outcome.elapsed)), time);
    frame.render_widget(gauge("energy, µJ", budget.energy, outcome.map(|outcome| outcome.energy_uj)), energy);
    frame.render_widget(network(state), path);
    frame.render_widget(totals(state), sums);
    draw_curve(state, frame, curve);
}

fn title(state: &State) -> Line<'_> {
    let paused = if state.paused { ", paused" } else { "" };
    Line::from(format!(
        " {}: frame {} of {}, {} a second{paused}   space pause   + - speed   q quit",
        state.family, state.done, state.frames, state.per_second
    ))
    .style(Style::new().add_modifier(Modifier::REVERSED))
}

/// What was used of a limit.
fn gauge(name: &str, limit: Option<Limit>, used: Option<u64>) -> Gauge<'static> {
    let block = Block::bordered().title(name.to_owned());
    let spent = used.map_or("refused".to_owned(), |used| used.to_string());
    let Some(limit) = limit else {
        return Gauge::default().block(block).ratio(0.0).label(format!("{spent}, no limit"));
    };
    let part = used.unwrap_or(0) as f64 / limit.amount.max(1) as f64;
    let kind = if limit.hard { "hard" } else { "soft" };
    let colour = if part > 1.0 || used.is_none() { BAD } else { GOOD };
    Gauge::default()
        .block(block)
        .gauge_style(colour)
        .ratio(part.clamp(0.0, 1.0))
        .label(format!("{spent} of {} ({kind})", limit.amount))
}

/// A row for each anchor; the cuts that the frame reached are filled, the blocks between them are heavy.
fn network(state: &State) -> Paragraph<'_> {
    let width = state.anchors.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<Line<'_>> = vec![];
    for (anchor, (name, cuts)) in (0u16..).zip(&state.anchors) {
        let mut spans = vec![Span::raw(format!(" {name:<width$} "))];
        for position in 1..=*cuts {
            let reached = state.path.contains(&(anchor, position));
            let block = reached
                && (position == 1
                    || state.path.windows(2).any(|pair| pair == [(anchor, position - 1), (anchor, position)]));
            let style = if reached { Style::new().fg(GOOD) } else { Style::new() };
            spans.push(Span::styled(if block { "━━" } else { "──" }, if block { style } else { Style::new() }));
            spans.push(Span::styled(if reached { "●" } else { "○" }, style));
        }
        lines.push(Line::from(spans));
    }
    let config = state.row.and_then(|row| row.outcome).and_then(|outcome| state.configs.get(outcome.last.index()));
    let config = config.map_or("refused", String::as_str);
    let turns =
        if state.switches.is_empty() { String::new() } else { format!("   turned: {}", state.switches.join(", ")) };
    lines.push(Line::from(format!(" {config}{turns}")));
    Paragraph::new(lines).block(Block::bordered().title("path"))
}

fn totals(state: &State) -> Paragraph<'_> {
    let done = f64::from(state.done.max(1));
    let (real, slow, at) = state
        .row
        .map_or((0, 256, 0), |row| (row.outcome.map_or(0, |outcome| outcome.elapsed), row.slowdown_in_256, row.state));
    let verdict = state.row.and_then(|row| row.outcome).map_or("refused".to_owned(), |outcome| match outcome.verdict {
        Verdict::Met => "met".to_owned(),
        Verdict::Degraded => "degraded".to_owned(),
        Verdict::Late { by } => format!("late by {by}"),
        Verdict::Overdrawn { by_uj } => format!("{by_uj} µJ too much"),
    });
    // Boxes are not right or wrong: `evaluate` scores them.
    let right = match &state.detector {
        Some(_) => String::new(),
        None => format!(" right {:.2} %,", 100.0 * f64::from(state.right) / done),
    };
    let lines = vec![
        Line::from(format!(
            " this frame: {verdict}; predicted {} ticks, took {real}; clock at 1/{:.2}, state {at}",
            state.predicted,
            f64::from(slow) / 256.0
        )),
        Line::from(format!(
            " so far: score {:.2} %,{right} {:.1} mJ",
            state.score / done,
            state.energy_uj as f64 / 1000.0
        )),
        Line::from(format!(" missed {}, refused {}, degraded {}", state.missed, state.refused, state.degraded)),
    ];
    Paragraph::new(lines).block(Block::bordered().title("score"))
}

fn draw_curve(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width.saturating_sub(2));
    let skip = state.history.len().saturating_sub(width);
    let last: Vec<u64> = state.history.iter().skip(skip).copied().collect();
    let most = last.iter().copied().max().unwrap_or(0).max(100);
    let block =
        Block::bordered().title(format!("time used of time allowed, last {} frames; the top is {most} %", last.len()));
    frame.render_widget(Sparkline::default().block(block).data(&last).max(most).style(GOOD), area);
}

/// The frame's boxes where they lie in the picture, and below it class, probability and corners of each, best first.
fn draw_boxes(state: &State, [columns, rows]: [f64; 2], labels: &[String], frame: &mut Frame<'_>, area: Rect) {
    // A character is about twice as tall as it is wide.
    let tall = f64::from(area.width.saturating_sub(2)) / 2.0 * rows / columns.max(1.0);
    let split = [Constraint::Length((tall.ceil() as u16).saturating_add(2)), Constraint::Min(4)];
    let [picture, list] = Layout::vertical(split).areas(area);
    let colour = |class: u16| CLASSES[usize::from(class) % CLASSES.len()];
    let canvas =
        Canvas::default().block(Block::bordered().title("boxes")).x_bounds([0.0, columns]).y_bounds([0.0, rows]).paint(
            |context| {
                for found in &state.found {
                    let [left, top, right, bottom] = found.corners.map(|corner| f64::from(corner) / 16.0);
                    // Rows are counted from below here.
                    let (y, width, height) = (rows - bottom, right - left, bottom - top);
                    context.draw(&Rectangle { x: left, y, width, height, color: colour(found.class) });
                }
            },
        );
    frame.render_widget(canvas, picture);
    let lines = state.found.iter().map(|found| {
        let label = labels.get(usize::from(found.class)).map_or("", String::as_str);
        let probability = 1.0 / (1.0 + (-f64::from(found.logit) / 4096.0).exp());
        let [left, top, right, bottom] = found.corners.map(|corner| (i32::from(corner) + 8) >> 4);
        let text = format!(" {label} {probability:.2}  {left} {top} {right} {bottom}");
        Line::styled(text, colour(found.class))
    });
    let block = Block::bordered().title(format!("{} found", state.found.len()));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), list);
}
