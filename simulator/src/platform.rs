//! [`Virtual`]: a platform whose clock is the cost table, and what faults add to it.

use plan::{ConfigId, CutId, Image, SegmentId, TargetId};
use runtime::{Budget, Event, Outcome, Platform};

use crate::faults::Faults;
use crate::replay::ImageSet;
use crate::scenario::{Conditions, Scenario};

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
    /// Ticks that were gone when it began.
    pub late: u64,
    /// How much slower than the target the core ran, in 1/256.
    pub slowdown_in_256: u32,
    /// State of the scenario: charge in 1/100, degrees, or whether another task was awake.
    pub state: u32,
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

/// A change of path inside the frame under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Where.
    pub cut: CutId,
    /// Config until here.
    pub from: ConfigId,
    /// Config from here.
    pub to: ConfigId,
}

/// Who watches a replay while it runs.
pub trait Watch {
    /// A segment was run, at this virtual time.
    fn segment(&mut self, _segment: SegmentId, _ticks: u64) {}
    /// The path changed.
    fn switched(&mut self, _switch: Switch) {}
    /// The output of a frame that is done; [`Watch::frame`] comes next.
    fn answer(&mut self, _output: &[i8]) {}
    /// A frame is done. `false` ends the replay.
    fn frame(&mut self, row: &Row) -> bool;
}

/// Feeds pictures in turn, gives each frame the scenario's budget, and tells a [`Watch`] what becomes of it.
pub(crate) struct Virtual<'a, W> {
    image: Image<'a>,
    pictures: ImageSet<'a>,
    scenario: Scenario,
    faults: Faults,
    frames: u32,
    next: u32,
    ended: bool,
    ticks: u64,
    /// What the next segment pays for a change of config.
    cold: u32,
    row: Row,
    conditions: Conditions,
    /// What the device was told last.
    told: Budget,
    watch: &'a mut W,
}

impl<'a, W: Watch> Virtual<'a, W> {
    pub fn new(
        image: Image<'a>,
        pictures: ImageSet<'a>,
        scenario: Scenario,
        faults: Faults,
        frames: u32,
        watch: &'a mut W,
    ) -> Self {
        let budget = Budget::default();
        let conditions = Conditions { budget, slowdown_in_256: 256, contended: false, state: 0 };
        let row = Row { frame: 0, budget, outcome: None, stolen: 0, late: 0, slowdown_in_256: 256, state: 0, label: 0 };
        let (next, ended, ticks, cold) = (0, false, 0, 0);
        let told = budget;
        Self { image, pictures, scenario, faults, frames, next, ended, ticks, cold, row, conditions, told, watch }
    }

    /// Ticks that a segment takes in the frame under way, and how many of them are stolen.
    pub fn takes(&self, segment: SegmentId) -> (u64, u64) {
        let cost = self.image.cost(TargetId(0), segment);
        let slow = |ticks: u64| (ticks * u64::from(self.conditions.slowdown_in_256)).div_ceil(256);
        // Cold caches are within the bound.
        let bound = u64::from(cost.bound_ticks);
        let own = slow((u64::from(cost.ticks) + u64::from(self.cold)).min(bound.max(cost.ticks.into())));
        let bound = slow(bound);
        let taken = self.faults.ticks(self.row.frame, segment, self.conditions.contended, own, bound);
        (taken, taken - own)
    }

    fn input(&self, pixels: &[u8], input: &mut [i8]) {
        let channels = self.image.cut(self.image.meta().input).shape[2];
        let tables: Vec<&[u8]> = (0..channels).map(|channel| self.image.preprocess(channel)).collect();
        for ((value, &pixel), table) in input.iter_mut().zip(pixels).zip(tables.iter().cycle()) {
            *value = table.get(usize::from(pixel)).copied().unwrap_or_default().cast_signed();
        }
    }

    /// The frame under way is done.
    pub fn end(&mut self, outcome: Option<Outcome>) {
        self.row.outcome = outcome;
        let (ticks, energy_uj) = outcome.map_or((0, 0), |outcome| (outcome.elapsed, outcome.energy_uj));
        self.scenario.used(ticks, energy_uj);
        self.ended = !self.watch.frame(&self.row);
    }
}

impl<W: Watch> Platform for Virtual<'_, W> {
    fn now(&mut self) -> u64 {
        self.ticks
    }

    fn slowdown_in_256(&mut self) -> u32 {
        self.conditions.slowdown_in_256
    }

    fn next_frame(&mut self, input: &mut [i8]) -> Option<Budget> {
        let frame = Some(self.next).filter(|&frame| frame < self.frames && !self.ended)?;
        self.next += 1;
        let (pixels, label) = self.pictures.get(frame as usize)?;
        self.input(pixels, input);
        self.conditions = self.scenario.next(frame);
        if !self.faults.silent(frame) {
            self.told = self.conditions.budget;
        }
        let mut budget = self.told;
        let late = budget.time.map_or(0, |time| self.faults.late(frame, time.amount));
        if let Some(time) = &mut budget.time {
            time.amount -= late;
        }
        let Conditions { slowdown_in_256, state, .. } = self.conditions;
        self.row = Row { frame, budget, outcome: None, stolen: 0, late, slowdown_in_256, state, label };
        Some(budget)
    }

    fn answer(&mut self, output: &[i8]) {
        self.watch.answer(output);
    }

    fn report(&mut self, event: &Event) {
        match *event {
            Event::Segment { segment } => {
                let (taken, stolen) = self.takes(segment);
                self.ticks += taken;
                self.cold = 0;
                self.row.stolen += stolen;
                if self.faults.clock_jumps(self.row.frame, segment) {
                    self.ticks = self.ticks.saturating_sub(2 * taken + 1);
                }
                self.watch.segment(segment, self.ticks);
            }
            Event::Switch { cut, from, to } => {
                self.cold = self.image.target(TargetId(0)).switch_ticks;
                self.watch.switched(Switch { cut, from, to });
            }
            Event::Frame(outcome) => self.end(Some(outcome)),
            Event::Refused(_) => self.end(None),
        }
    }
}
