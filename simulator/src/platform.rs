//! [`Virtual`]: a platform whose clock is the cost table.

use plan::Image;
use runtime::{Budget, Event, Outcome, Platform};

use crate::faults::Theft;
use crate::replay::ImageSet;
use crate::trace::Trace;

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Frame, counted from 0.
    pub frame: u32,
    /// What it was allowed.
    pub budget: Budget,
    /// Outcome; `None` if no config fits the budget and nothing was run.
    pub outcome: Option<Outcome>,
    /// Ticks that other tasks stole; part of the outcome's `elapsed`.
    pub stolen: u64,
    /// Class of the picture.
    pub label: u16,
}

impl Row {
    /// Whether the answer is right. A refused frame has none.
    #[must_use]
    pub fn correct(&self) -> bool {
        self.outcome.is_some_and(|outcome| outcome.class == self.label)
    }
}

/// Feeds pictures in turn, gives each frame the trace's budget, and keeps a [`Row`] per frame.
#[derive(Debug)]
pub struct Virtual<'a> {
    image: Image<'a>,
    pictures: ImageSet<'a>,
    trace: &'a Trace,
    frames: u32,
    theft: Theft,
    ticks: u64,
    rows: Vec<Row>,
}

impl<'a> Virtual<'a> {
    /// Runs `frames` frames; the pictures start again when they are used up.
    #[must_use]
    pub fn new(image: Image<'a>, pictures: ImageSet<'a>, trace: &'a Trace, frames: u32, theft: Theft) -> Self {
        Self { image, pictures, trace, frames, theft, ticks: 0, rows: vec![] }
    }

    /// The rows of the frames that were run.
    #[must_use]
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

impl Platform for Virtual<'_> {
    fn now(&mut self) -> u64 {
        self.ticks
    }

    fn next_frame(&mut self, input: &mut [i8]) -> Option<Budget> {
        let frame = u32::try_from(self.rows.len()).ok().filter(|&frame| frame < self.frames)?;
        let (pixels, label) = self.pictures.get(frame as usize)?;
        let channels = self.image.cut(self.image.meta().input).shape[2];
        let tables: Vec<&[u8]> = (0..channels).map(|channel| self.image.preprocess(channel)).collect();
        for ((value, &pixel), table) in input.iter_mut().zip(pixels).zip(tables.iter().cycle()) {
            *value = table.get(usize::from(pixel)).copied().unwrap_or_default().cast_signed();
        }
        let budget = self.trace.budget(frame);
        self.rows.push(Row { frame, budget, outcome: None, stolen: 0, label });
        Some(budget)
    }

    fn report(&mut self, event: &Event) {
        let Some(row) = self.rows.last_mut() else { return };
        match *event {
            Event::Segment { predicted, .. } => {
                let stolen = self.theft.after(predicted);
                self.ticks += u64::from(predicted) + stolen;
                row.stolen += stolen;
            }
            Event::Frame(outcome) => row.outcome = Some(outcome),
            Event::Switch { .. } | Event::Refused(_) => {}
        }
    }
}
