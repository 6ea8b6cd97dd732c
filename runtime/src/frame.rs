//! [`Frame`]: one inference under a budget, a segment at a time, so that whoever drives it may yield in between.

use core::future::poll_fn;
use core::task::Poll;

use kernels::Isa;
use plan::{ConfigId, Image, SegmentId};

use crate::budget::{Budget, Limit};
use crate::engine::{Engine, Progress};
use crate::error::RunError;
use crate::platform::{Event, Platform};
use crate::policy::{Left, Policy};

/// How a frame ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// Within its budget, on a config no worse than the one it began with.
    Met,
    /// Within its budget, on a worse config than the one it began with.
    Degraded,
    /// It took longer than it was allowed.
    Late {
        /// Ticks above the limit.
        by: u64,
    },
    /// In time, but it used more energy than it was allowed.
    Overdrawn {
        /// Microjoules above the limit.
        by_uj: u64,
    },
}

impl Verdict {
    /// How a frame ended that used so much of its budget; `worse`: on a worse config than the one it began with.
    #[must_use]
    pub fn of(budget: &Budget, ticks: u64, energy_uj: u64, worse: bool) -> Self {
        let above = |limit: Option<Limit>, used: u64| limit.map_or(0, |limit| used.saturating_sub(limit.amount));
        match (above(budget.time, ticks), above(budget.energy, energy_uj)) {
            (0, 0) if worse => Self::Degraded,
            (0, 0) => Self::Met,
            (0, by_uj) => Self::Overdrawn { by_uj },
            (by, _) => Self::Late { by },
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Config chosen at the start.
    pub first: ConfigId,
    /// Config that gave the answer.
    pub last: ConfigId,
    /// Changes of path inside the frame.
    pub switches: u16,
    /// Ticks used.
    pub elapsed: u64,
    /// Microjoules used, measured or by the cost table.
    pub energy_uj: u64,
    /// What was allowed.
    pub budget: Budget,
    /// How it ended.
    pub verdict: Verdict,
    /// Segments that took longer than their bound: the cost table is wrong, or another task has taken their time.
    pub overruns: u16,
    /// Times that the clock went back.
    pub clock_faults: u16,
    /// Class with the highest score; of equal ones the first.
    pub class: u16,
}

impl Outcome {
    /// Whether every limit was held.
    #[must_use]
    pub fn met(&self) -> bool {
        matches!(self.verdict, Verdict::Met | Verdict::Degraded)
    }
}

/// A frame under way. It owns nothing of the engine: dropping it, or [`Engine::cancel`], ends the inference.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    budget: Budget,
    first: ConfigId,
    switches: u16,
    overruns: u16,
    clock_faults: u16,
    /// The clock when it was read last.
    clock: u64,
    elapsed: u64,
    /// The meter when it was read last.
    meter: Option<u64>,
    energy_uj: u64,
}

impl Frame {
    /// Begins the frame whose input is in the engine, under a budget that started to count at `started`.
    ///
    /// # Errors
    /// [`RunError::BudgetTooSmall`] if nothing fits; then nothing has begun.
    pub fn begin<I: Isa>(
        engine: &mut Engine<'_, I>,
        policy: &mut Policy<'_>,
        budget: Budget,
        started: u64,
        platform: &mut impl Platform,
    ) -> Result<Self, RunError> {
        let clock = platform.now();
        let elapsed = clock.saturating_sub(started);
        let first = policy.choose(&Left::of(&budget, engine.arena_bytes(), elapsed, 0))?;
        engine.begin(first)?;
        let clock_faults = u16::from(clock < started);
        let meter = platform.energy_uj();
        Ok(Self { budget, first, switches: 0, overruns: 0, clock_faults, clock, elapsed, meter, energy_uj: 0 })
    }

    /// Runs the next segment and decides how to go on; `None` as long as the frame is not done.
    ///
    /// # Errors
    /// What [`Engine::step`] and [`Engine::switch`] return.
    pub fn step<I: Isa>(
        &mut self,
        engine: &mut Engine<'_, I>,
        policy: &mut Policy<'_>,
        platform: &mut impl Platform,
    ) -> Result<Option<Outcome>, RunError> {
        let progress = engine.step()?;
        let segment = engine.last_segment();
        platform.report(&Event::Segment { segment });
        self.charge(engine.image(), segment, policy, platform);
        let Progress::Cut(cut) = progress else {
            policy.refresh(engine.image());
            return Ok(Some(self.outcome(engine)));
        };
        let current = engine.config();
        let left = Left::of(&self.budget, engine.arena_bytes(), self.elapsed, self.energy_uj);
        let next = policy.reconsider(current, engine.done(), &left);
        if next != current {
            engine.switch(next)?;
            self.switches += 1;
            platform.report(&Event::Switch { cut, from: current, to: next });
        }
        Ok(None)
    }

    /// Reads clock and meter, and tells the policy what the segment took.
    fn charge(&mut self, image: &Image<'_>, segment: SegmentId, policy: &mut Policy<'_>, platform: &mut impl Platform) {
        let (clock, meter) = (platform.now(), platform.energy_uj());
        let energy_uj = self.meter.zip(meter).and_then(|(before, now)| now.checked_sub(before));
        let bound = policy.bound_ticks(image, segment);
        match clock.checked_sub(self.clock) {
            Some(ticks) => {
                self.elapsed = self.elapsed.saturating_add(ticks);
                self.overruns = self.overruns.saturating_add((ticks > bound).into());
                policy.learn(image, segment, ticks, energy_uj);
            }
            None => {
                // What it took is unknown; nobody may count on less than the bound.
                self.elapsed = self.elapsed.saturating_add(bound);
                self.clock_faults = self.clock_faults.saturating_add(1);
            }
        }
        let charged = energy_uj.unwrap_or_else(|| image.cost(policy.target(), segment).energy_uj.into());
        self.energy_uj = self.energy_uj.saturating_add(charged);
        (self.clock, self.meter) = (clock, meter);
    }

    fn outcome<I: Isa>(&self, engine: &Engine<'_, I>) -> Outcome {
        let last = engine.config();
        let score = |config| engine.image().config(config).score;
        let worse = score(last) < score(self.first);
        let verdict = Verdict::of(&self.budget, self.elapsed, self.energy_uj, worse);
        Outcome {
            first: self.first,
            last,
            switches: self.switches,
            elapsed: self.elapsed,
            energy_uj: self.energy_uj,
            budget: self.budget,
            verdict,
            overruns: self.overruns,
            clock_faults: self.clock_faults,
            class: engine.class(),
        }
    }
}

impl<I: Isa> Engine<'_, I> {
    /// Runs the frame that is in the input under a budget that started to count at `started`. The choice is
    /// reconsidered at every cut with what is really left.
    ///
    /// # Errors
    /// What [`Frame::begin`] and [`Frame::step`] return.
    pub fn run_frame(
        &mut self,
        policy: &mut Policy<'_>,
        budget: Budget,
        started: u64,
        platform: &mut impl Platform,
    ) -> Result<Outcome, RunError> {
        let mut frame = Frame::begin(self, policy, budget, started, platform)?;
        loop {
            if let Some(outcome) = frame.step(self, policy, platform)? {
                return Ok(outcome);
            }
        }
    }

    /// [`Engine::run_frame`] for an executor: it lets other tasks run at every cut. Any executor will do; dropping the
    /// future cancels the frame at the cut where it is.
    ///
    /// # Errors
    /// What [`Frame::begin`] and [`Frame::step`] return.
    pub async fn run_frame_async(
        &mut self,
        policy: &mut Policy<'_>,
        budget: Budget,
        started: u64,
        platform: &mut impl Platform,
    ) -> Result<Outcome, RunError> {
        let mut frame = Frame::begin(self, policy, budget, started, platform)?;
        loop {
            if let Some(outcome) = frame.step(self, policy, platform)? {
                return Ok(outcome);
            }
            pause().await;
        }
    }
}

/// Not ready once: the executor may run something else.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
