//! [`View`]: a replay in a terminal. What is drawn is a function of [`State`] alone.

mod draw;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use plan::layout::SHARED;
use plan::{ConfigId, Image, SegmentId, TargetId};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use runtime::Detection;

use crate::platform::{Row, Switch, Watch};

/// Frames whose time is kept for the curve at the bottom.
const HISTORY: usize = 200;
/// Least logit, Q12, of a box that is shown: a probability of 0.3, as in the demo.
const SHOWN: i16 = -3470;

/// What is known of the replay so far.
#[derive(Clone, Debug, Default)]
struct State {
    /// Family, and its anchors with the number of their cuts.
    family: String,
    anchors: Vec<(String, u16)>,
    configs: Vec<String>,
    scores: Vec<u16>,
    /// Columns and rows of the input and names of the classes, of a detector.
    detector: Option<([f64; 2], Vec<String>)>,
    /// What it found in this frame.
    found: Vec<Detection>,
    frames: u32,
    /// Cuts that the frame has reached, `(anchor, position)`, in order.
    path: Vec<(u16, u16)>,
    switches: Vec<String>,
    /// Ticks of the cost table for what was run.
    predicted: u64,
    row: Option<Row>,
    done: u32,
    right: u32,
    missed: u32,
    refused: u32,
    degraded: u32,
    score: f64,
    energy_uj: u64,
    /// Ticks used of those allowed, in 1/100.
    history: VecDeque<u64>,
    paused: bool,
    per_second: u32,
}

impl State {
    fn of(image: &Image<'_>, frames: u32, per_second: u32) -> Self {
        let cuts = || (0..image.cuts()).map(|index| image.cut(plan::CutId(index as u16)));
        let most = |anchor: u16| cuts().filter(|cut| cut.anchor == anchor).map(|cut| cut.position).max().unwrap_or(0);
        let names = image.text(image.meta().anchor_names).lines();
        let configs = || (0..image.configs()).map(|number| image.config(ConfigId(number)));
        Self {
            family: image.text(image.meta().name).to_owned(),
            anchors: names.zip(0..).map(|(name, anchor)| (name.to_owned(), most(anchor))).collect(),
            configs: (0..image.configs()).map(|number| image.config_name(ConfigId(number)).to_string()).collect(),
            scores: configs().map(|config| config.score).collect(),
            detector: image.is_detector().then(|| {
                let [height, width, _] = image.cut(image.meta().input).shape.map(f64::from);
                ([width, height], (0..image.meta().classes).map(|class| image.label(class.into()).to_owned()).collect())
            }),
            frames,
            per_second: per_second.max(1),
            ..Self::default()
        }
    }

    fn segment(&mut self, image: &Image<'_>, id: SegmentId) {
        // The first segment of another frame.
        self.leave();
        self.predicted += u64::from(image.cost(TargetId(0), id).ticks);
        let cut = image.cut(image.segment(id).to);
        if cut.anchor != SHARED {
            self.path.push((cut.anchor, cut.position));
        }
    }

    /// Clears what belongs to the last frame, if it is done.
    fn leave(&mut self) {
        if self.row.take().is_some() {
            self.path.clear();
            self.switches.clear();
            self.found.clear();
            self.predicted = 0;
        }
    }

    fn switched(&mut self, switch: Switch) {
        let name = |id: ConfigId| self.configs.get(id.index()).map_or("", String::as_str);
        self.switches.push(format!("{} → {}", name(switch.from), name(switch.to)));
    }

    fn answer(&mut self, output: &[i8]) {
        if self.detector.is_some() {
            self.found = runtime::detections(output).filter(|found| found.logit >= SHOWN).collect();
        }
    }

    fn frame(&mut self, row: &Row) {
        // Refused: no segment has cleared the last one.
        self.leave();
        self.row = Some(*row);
        self.done += 1;
        let Some(outcome) = row.outcome else {
            self.refused += 1;
            return;
        };
        let met = outcome.met();
        self.missed += u32::from(!met);
        self.right += u32::from(met && row.correct());
        self.degraded += u32::from(outcome.verdict == runtime::Verdict::Degraded);
        let score = self.scores.get(outcome.last.index()).copied().unwrap_or(0);
        self.score += if met { f64::from(score) / 100.0 } else { 0.0 };
        self.energy_uj += outcome.energy_uj;
        if let Some(limit) = row.budget.time {
            self.history.push_back(outcome.elapsed.saturating_mul(100) / limit.amount.max(1));
        }
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}

/// Shows a replay, frame by frame. Keys: space pauses, `+` and `-` change the speed, `q` ends.
#[derive(Debug)]
pub struct View<'a> {
    image: Image<'a>,
    terminal: DefaultTerminal,
    state: State,
    error: Option<io::Error>,
}

impl<'a> View<'a> {
    /// Takes the terminal until it is dropped, also by a panic. `per_second` frames are shown.
    ///
    /// # Errors
    /// If standard output is no terminal, or it cannot be drawn on.
    pub fn new(image: Image<'a>, frames: u32, per_second: u32) -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other(
                "standard output is no terminal: leave the view out, or write --csv or --html",
            ));
        }
        let terminal = ratatui::try_init()?;
        Ok(Self { image, terminal, state: State::of(&image, frames, per_second), error: None })
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// What drawing ran into.
    pub fn finish(mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Draws, and waits for the next frame's turn or a key. `false` ends the replay.
    fn show(&mut self) -> io::Result<bool> {
        let started = Instant::now();
        loop {
            self.terminal.draw(|frame| draw::draw(&self.state, frame))?;
            let turn = Duration::from_secs(1) / self.state.per_second;
            let left =
                if self.state.paused { Duration::from_millis(100) } else { turn.saturating_sub(started.elapsed()) };
            if event::poll(left)? {
                match event::read()? {
                    Event::Key(key) if key.is_press() => match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(false),
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(false),
                        KeyCode::Char(' ') => self.state.paused = !self.state.paused,
                        KeyCode::Char('+') => {
                            self.state.per_second = self.state.per_second.saturating_mul(2).min(10_000)
                        }
                        KeyCode::Char('-') => self.state.per_second = (self.state.per_second / 2).max(1),
                        _ => {}
                    },
                    _ => {}
                }
            } else if !self.state.paused {
                return Ok(true);
            }
        }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Watch for View<'_> {
    fn segment(&mut self, segment: SegmentId, _: u64) {
        self.state.segment(&self.image, segment);
    }

    fn switched(&mut self, switch: Switch) {
        self.state.switched(switch);
    }

    fn answer(&mut self, output: &[i8]) {
        self.state.answer(output);
    }

    fn frame(&mut self, row: &Row) -> bool {
        self.state.frame(row);
        self.show().unwrap_or_else(|error| {
            self.error = Some(error);
            false
        })
    }
}

#[cfg(test)]
mod tests;
