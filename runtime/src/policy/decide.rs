//! The two decisions: where a frame begins, and where it goes on from a cut.

use plan::ConfigId;

use super::table::{Policy, Route};
use crate::budget::{Budget, Limit};
use crate::error::RunError;

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Ticks, and whether the limit is hard.
    pub time: Option<Limit>,
    /// Microjoules, likewise.
    pub energy: Option<Limit>,
    /// Arena that should do, bytes: a soft limit.
    pub soft_bytes: Option<u64>,
    /// Arena that there is, bytes: the engine's, or a hard limit below it.
    pub arena_bytes: u32,
}

impl Left {
    /// A budget of which so much is gone.
    #[must_use]
    pub fn of(budget: &Budget, arena_bytes: u32, ticks: u64, energy_uj: u64) -> Self {
        let less = |limit: Option<Limit>, gone: u64| {
            limit.map(|limit| Limit { amount: limit.amount.saturating_sub(gone), ..limit })
        };
        let (time, energy) = (less(budget.time, ticks), less(budget.energy, energy_uj));
        let soft_bytes = budget.memory.filter(|limit| !limit.hard).map(|limit| limit.amount);
        let hard_bytes = budget.memory.filter(|limit| limit.hard).map_or(u64::MAX, |limit| limit.amount);
        let arena_bytes = u32::try_from(hard_bytes).unwrap_or(u32::MAX).min(arena_bytes);
        Self { time, energy, soft_bytes, arena_bytes }
    }
}

/// What is left, as the largest numbers that fit: no limit is `u32::MAX`, where sums stop.
#[derive(Clone, Copy)]
struct Caps {
    /// What is predicted must not exceed these.
    ticks: u32,
    energy_uj: u32,
    /// Needs must not exceed these: they are above the limit if it is soft.
    hard_ticks: u32,
    hard_energy_uj: u32,
    soft_bytes: u32,
    arena_bytes: u32,
}

/// How good a way on is: the larger, the better. From the top: what fits, its score, what it spares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

/// What fits goes before what only may be begun, and that before what may not. Below `SAFE` a run gets only if bounds
/// were exceeded; then a deadline goes before energy.
mod fit {
    /// The arena is too small, or a hard limit of memory.
    pub const NEVER: u64 = 0;
    /// Both hard limits may break.
    pub const UNSAFE: u64 = 1;
    /// The hard limit of time may break.
    pub const LATE: u64 = 2;
    /// The hard limit of energy may break.
    pub const OVERDRAWN: u64 = 3;
    /// Hard limits hold, but it is not predicted to finish within all limits.
    pub const SAFE: u64 = 4;
    /// It is predicted to finish within all limits.
    pub const PREDICTED: u64 = 5;
}

impl Rank {
    #[inline]
    fn new(fit: u64, score: u16, cost: u32) -> Self {
        Self(fit << 48 | u64::from(score) << 32 | u64::from(!cost))
    }

    fn is_safe(self) -> bool {
        self.0 >= fit::SAFE << 48
    }
}

impl Policy<'_> {
    /// The config for a whole frame: the best score among those that are predicted to fit; if none is, the cheapest
    /// of those that hold every hard limit. A better config than the last frame's must fit with room to spare.
    ///
    /// # Errors
    /// [`RunError::BudgetTooSmall`] with the smallest budget that would do, if a hard limit excludes all.
    pub fn choose(&mut self, left: &Left) -> Result<ConfigId, RunError> {
        let caps = self.caps(left);
        let last = self.last.and_then(|last| self.memory.routes.get(usize::from(last))).copied();
        let mut best: Option<(u16, Rank)> = None;
        // In this order: a count of 16 bits that goes first would step once behind the last of 65,535 configs.
        for (route, index) in self.memory.routes.iter().zip(0u16..) {
            let rank = match last {
                Some(last) if last.config != route.config => {
                    let spare = if route.score > last.score { self.settings.hysteresis_in_256 } else { 0 };
                    self.rank(route, 0, &caps, self.switch_ticks, spare)
                }
                _ => self.rank(route, 0, &caps, 0, 0),
            };
            if best.is_none_or(|(_, than)| rank > than) {
                best = Some((index, rank));
            }
        }
        match best.filter(|(_, rank)| rank.is_safe()) {
            Some((index, _)) => {
                self.last = Some(index);
                Ok(ConfigId(self.memory.routes.get(usize::from(index)).map_or(0, |route| route.config)))
            }
            None => Err(self.refusal()),
        }
    }

    /// The config to be on from a cut, among those that share the first `done` segments of `current`; `current` if
    /// none is better.
    #[must_use]
    pub fn reconsider(&self, current: ConfigId, done: u16, left: &Left) -> ConfigId {
        if !self.settings.switch_at_cuts {
            return current;
        }
        let caps = self.caps(left);
        let index = self.position(current);
        let range = self.sharing(index, done);
        let routes = self.memory.routes.get(range).unwrap_or_default();
        let Some(running) = self.memory.routes.get(index) else { return current };
        let mut best = self.rank(running, done, &caps, 0, 0);
        let mut choice = current.0;
        for route in routes {
            // Whatever it fits, a lower score than that of a path that fits is not better.
            if Rank::new(fit::PREDICTED, route.score, 0) <= best || route.config == current.0 {
                continue;
            }
            let rank = self.rank(route, done, &caps, self.switch_ticks, 0);
            if rank > best {
                (best, choice) = (rank, route.config);
            }
        }
        ConfigId(choice)
    }

    /// `left` with the time in ticks of the target.
    fn caps(&self, left: &Left) -> Caps {
        let cap = |amount: Option<u64>| u32::try_from(amount.unwrap_or(u64::MAX)).unwrap_or(u32::MAX);
        let any = |limit: Option<Limit>| cap(limit.map(|limit| limit.amount));
        let hard = |limit: Option<Limit>| cap(limit.filter(|limit| limit.hard).map(|limit| limit.amount));
        let time = left.time.map(|limit| Limit { amount: self.as_target(limit.amount), ..limit });
        Caps {
            ticks: any(time),
            energy_uj: any(left.energy),
            hard_ticks: hard(time),
            hard_energy_uj: hard(left.energy),
            soft_bytes: cap(left.soft_bytes),
            arena_bytes: left.arena_bytes,
        }
    }

    #[inline]
    fn rank(&self, route: &Route, done: u16, caps: &Caps, switch_ticks: u32, spare_in_256: u32) -> Rank {
        if route.arena_bytes > caps.arena_bytes {
            // No matter of hope: it cannot run at all.
            return Rank::new(fit::NEVER, 0, u32::MAX);
        }
        let ahead = self.at(route, done);
        match (ahead.need_ticks <= caps.hard_ticks, ahead.need_energy_uj <= caps.hard_energy_uj) {
            (true, true) => {}
            (true, false) => return Rank::new(fit::OVERDRAWN, 0, ahead.need_energy_uj),
            (false, true) => return Rank::new(fit::LATE, 0, ahead.need_ticks),
            (false, false) => return Rank::new(fit::UNSAFE, 0, ahead.need_ticks),
        }
        let spare = |amount: u32| match spare_in_256 {
            0 => amount,
            part => (u64::from(amount) + u64::from(amount) * u64::from(part) / 256).try_into().unwrap_or(u32::MAX),
        };
        let fits = spare(ahead.ticks).saturating_add(switch_ticks) <= caps.ticks
            && spare(ahead.energy_uj) <= caps.energy_uj
            && route.arena_bytes <= caps.soft_bytes;
        if fits { Rank::new(fit::PREDICTED, route.score, ahead.ticks) } else { Rank::new(fit::SAFE, 0, ahead.ticks) }
    }

    /// The least of each resource that some config asks for.
    fn refusal(&self) -> RunError {
        let routes = || self.memory.routes.iter();
        let least = |of: fn(super::Ahead) -> u32| routes().map(|route| of(self.at(route, 0))).min().unwrap_or(0);
        let ticks = u64::from(least(|ahead| ahead.need_ticks)) * u64::from(self.slowdown_in_256);
        RunError::BudgetTooSmall {
            needed_ticks: ticks.div_ceil(256),
            needed_energy_uj: least(|ahead| ahead.need_energy_uj).into(),
            needed_bytes: routes().map(|route| route.arena_bytes).min().unwrap_or(0),
        }
    }

    /// Forgets where the last frame began: the next one chooses freely.
    pub fn forget(&mut self) {
        self.last = None;
    }
}
