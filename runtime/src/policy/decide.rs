//! The two decisions: where a frame begins, and where it goes on from a cut.

use plan::ConfigId;

use super::delays::CERTAIN;
use super::table::{Ahead, Policy, Route};
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
    /// What must be left at a cut must not exceed these: they are above the limit if it is soft.
    hard_ticks: u32,
    hard_energy_uj: u32,
    /// No more than `arena_bytes`.
    soft_bytes: u32,
    arena_bytes: u32,
}

impl Caps {
    /// What a config may be predicted to take that it costs so many ticks to change to, with a part of it to spare.
    fn less(&self, ticks: u32, spare_in_256: u32) -> Self {
        let part = |cap: u32| match (cap, spare_in_256) {
            (u32::MAX, _) | (_, 0) => cap,
            // At most 256/256 of the cap.
            _ => (u64::from(cap) * 256 / (256 + u64::from(spare_in_256))) as u32,
        };
        let after = if self.ticks == u32::MAX { u32::MAX } else { self.ticks.saturating_sub(ticks) };
        Self { ticks: part(after), energy_uj: part(self.energy_uj), ..*self }
    }
}

/// How good a way on is: the larger, the better. From the top: what fits, its score, what it spares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// What fits, then a score of 16 bits.
    top: u32,
    spares: u32,
}

/// What fits goes before what only may be begun, and that before what may not. Below `SAFE` a run gets only if bounds
/// were exceeded; then a deadline goes before energy.
mod fit {
    /// The arena is too small, or a hard limit of memory.
    pub const NEVER: u32 = 0;
    /// Both hard limits may break.
    pub const UNSAFE: u32 = 1;
    /// The hard limit of time may break.
    pub const LATE: u32 = 2;
    /// The hard limit of energy may break.
    pub const OVERDRAWN: u32 = 3;
    /// Hard limits hold, but it is not predicted to finish within all limits.
    pub const SAFE: u32 = 4;
    /// It is predicted to finish within all limits.
    pub const PREDICTED: u32 = 5;
}

impl Rank {
    #[inline]
    fn new(fit: u32, score: u16, cost: u32) -> Self {
        Self { top: fit << 16 | u32::from(score), spares: !cost }
    }

    fn is_safe(self) -> bool {
        self.top >= fit::SAFE << 16
    }

    /// The least rank that fits as well and has at most so much less score.
    fn less(self, score: u16) -> Self {
        Self { top: self.top - self.top.min(score.into()).min(self.top & 0xffff), spares: 0 }
    }

    fn cost(self) -> u32 {
        !self.spares
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
        let best = self.ranks(caps).map(|(rank, _)| rank).max().filter(|rank| rank.is_safe());
        let Some(best) = best else { return Err(self.refusal()) };
        // Of those that are worth it the cheapest; the first of equal ones.
        let least = best.less(self.settings.least_gain);
        let chosen = self.ranks(caps).filter(|(rank, _)| *rank >= least).min_by_key(|(rank, _)| rank.cost());
        let index = chosen.map_or(0, |(_, index)| index);
        self.last = Some(index);
        self.delays.begin();
        Ok(ConfigId(self.memory.routes.get(usize::from(index)).map_or(0, |route| route.config)))
    }

    /// How good each route is for a whole frame, and its index.
    fn ranks(&self, caps: Caps) -> impl Iterator<Item = (Rank, u16)> {
        let last = self.last.and_then(|last| self.memory.routes.get(usize::from(last)));
        let other = caps.less(self.switch_ticks, 0);
        let better = caps.less(self.switch_ticks, self.settings.hysteresis_in_256);
        // In this order: a count of 16 bits that goes first would step once behind the last of 65,535 configs.
        self.memory.routes.iter().zip(0u16..).map(move |(route, index)| {
            let caps = match last {
                Some(last) if last.score < route.score => &better,
                Some(last) if last.config != route.config => &other,
                _ => &caps,
            };
            (self.rank(route, self.at(route, 0), caps), index)
        })
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
        let mut best = self.rank(running, self.at(running, done), &caps);
        let mut choice = current.0;
        let caps = caps.less(self.switch_ticks, 0);
        for route in routes {
            // Whatever it fits, a lower score than that of a path that fits is not better.
            if Rank::new(fit::PREDICTED, route.score, 0) <= best || route.config == current.0 {
                continue;
            }
            let rank = self.rank(route, self.at(route, done), &caps);
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
            soft_bytes: cap(left.soft_bytes).min(left.arena_bytes),
            arena_bytes: left.arena_bytes,
        }
    }

    #[inline]
    fn rank(&self, route: &Route, ahead: &Ahead, caps: &Caps) -> Rank {
        if ahead.reach_ticks <= caps.hard_ticks
            && ahead.ticks <= caps.ticks
            && ahead.reach_energy_uj <= caps.hard_energy_uj
            && ahead.energy_uj <= caps.energy_uj
            && route.arena_bytes <= caps.soft_bytes
        {
            let slack = (caps.ticks - ahead.ticks).min(caps.hard_ticks - ahead.reach_ticks);
            return Rank::new(fit::PREDICTED, self.value(route, ahead, slack), ahead.ticks);
        }
        if route.arena_bytes > caps.arena_bytes {
            // No matter of hope: it cannot run at all.
            return Rank::new(fit::NEVER, 0, u32::MAX);
        }
        match (ahead.need_ticks <= caps.hard_ticks, ahead.need_energy_uj <= caps.hard_energy_uj) {
            (true, true) => Rank::new(fit::SAFE, 0, ahead.ticks),
            (true, false) => Rank::new(fit::OVERDRAWN, 0, ahead.need_energy_uj),
            (false, true) => Rank::new(fit::LATE, 0, ahead.need_ticks),
            (false, false) => Rank::new(fit::UNSAFE, 0, ahead.need_ticks),
        }
    }

    /// The score to expect of a route that may take so many ticks more than predicted: its own if it does not take more, else
    /// that of the ways out.
    #[inline]
    fn value(&self, route: &Route, ahead: &Ahead, slack: u32) -> u16 {
        let chance = self.delays.chance(slack, ahead.ticks);
        let loss = u32::from(route.score.saturating_sub(ahead.fallback)) * (CERTAIN - chance) / CERTAIN;
        route.score - loss as u16
    }

    /// The least of each resource that some config asks for.
    fn refusal(&self) -> RunError {
        let routes = || self.memory.routes.iter();
        let least = |of: fn(&Ahead) -> u32| routes().map(|route| of(self.at(route, 0))).min().unwrap_or(0);
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
