//! The frame loop: firmware's `main` and the simulator's are a few lines around it.

use kernels::Isa;
use plan::ConfigId;

use crate::budget::Budget;
use crate::engine::{Engine, Progress};
use crate::error::RunError;
use crate::platform::{Event, Platform};
use crate::policy;

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
    /// Ticks allowed.
    pub allowed: Option<u64>,
    /// Whether `elapsed` is within `allowed`.
    pub met: bool,
    /// Class with the highest score; of equal ones the first.
    pub class: u16,
}

/// Runs frames until the platform has no more. A frame that no config fits is reported and skipped.
///
/// # Errors
/// What [`Engine::run_frame`] returns, but for [`RunError::BudgetTooSmall`].
pub fn run<I: Isa>(engine: &mut Engine<'_, I>, platform: &mut impl Platform) -> Result<(), RunError> {
    while let Some(budget) = platform.next_frame(engine.input_mut()) {
        let started = platform.now();
        match engine.run_frame(budget, started, platform) {
            Ok(outcome) => platform.report(&Event::Frame(outcome)),
            Err(error @ RunError::BudgetTooSmall { .. }) => platform.report(&Event::Refused(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<I: Isa> Engine<'_, I> {
    /// Runs the frame that is in the input under a budget that started to count at `started`. The choice is
    /// reconsidered at every cut with the time that is really left.
    ///
    /// # Errors
    /// [`RunError::BudgetTooSmall`] if nothing fits; otherwise what [`Engine::step`] returns.
    pub fn run_frame(
        &mut self,
        budget: Budget,
        started: u64,
        platform: &mut impl Platform,
    ) -> Result<Outcome, RunError> {
        let own = self.arena_bytes();
        let arena_bytes = budget.arena_bytes.map_or(own, |bytes| bytes.min(own));
        let left = |now: u64| budget.ticks.map_or(u64::MAX, |ticks| ticks.saturating_sub(now.saturating_sub(started)));
        let ticks = budget.ticks.map(|_| left(platform.now()));
        let first = policy::choose(self.image(), Budget { ticks, arena_bytes: Some(arena_bytes) })?;
        let mut current = first;
        let mut switches = 0;
        self.begin(current)?;
        loop {
            let progress = self.step()?;
            let (segment, predicted) = self.last_segment();
            platform.report(&Event::Segment { segment, predicted });
            let Progress::Cut(cut) = progress else { break };
            let next = policy::reconsider(self.image(), current, self.done(), left(platform.now()), arena_bytes);
            if next != current {
                self.switch(next)?;
                platform.report(&Event::Switch { cut, from: current, to: next });
                current = next;
                switches += 1;
            }
        }
        let elapsed = platform.now().saturating_sub(started);
        let met = budget.ticks.is_none_or(|allowed| elapsed <= allowed);
        Ok(Outcome { first, last: current, switches, elapsed, allowed: budget.ticks, met, class: self.class() })
    }
}
