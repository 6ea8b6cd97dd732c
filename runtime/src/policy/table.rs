//! [`Policy`]: the cost table in the caller's memory, ahead of every cut of every config.

use plan::{ConfigId, Cost, Image, SegmentId, TargetId};

use super::delays::Delays;
use super::path_order::compare;
use crate::error::RunError;
use crate::sort::sort;

/// What a segment is predicted to cost: the image's number, corrected by what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Ticks.
    pub ticks: u32,
    /// Microjoules.
    pub energy_uj: u32,
}

/// What lies ahead of a config from one of its segments on. Sums stop at `u32::MAX`, which never fits a budget
/// below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Predicted ticks to the end.
    pub ticks: u32,
    /// Predicted microjoules to the end.
    pub energy_uj: u32,
    /// Bound of the next segment and of the cheapest way to finish behind it, ticks.
    pub need_ticks: u32,
    /// The same in microjoules, along the same way.
    pub need_energy_uj: u32,
    /// Least ticks under which the path is gone to its end if all that is ahead takes what is predicted: every need on the
    /// way is met when it comes up.
    pub reach_ticks: u32,
    /// The same in microjoules.
    pub reach_energy_uj: u32,
    /// Score to expect if it takes longer, so that the path must be left: the mean over the cuts that are to come.
    pub fallback: u16,
}

/// A config in the order of paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Its number in the image.
    pub config: u16,
    /// First of its [`Ahead`] records.
    pub first: u32,
    /// Segments.
    pub segments: u16,
    /// Segments in common with the next route.
    pub shared: u16,
    /// Correct answers in 10,000.
    pub score: u16,
    /// Arena, bytes.
    pub arena_bytes: u32,
    /// Not of this route: where the config that has this route's index as its number is in the order of paths.
    pub place: u16,
}

/// What the policy works in, from the caller. `segments` has one record per segment of the image, `routes` one per
/// config, `ahead` one per entry of all paths: [`Memory::needed`] counts them.
#[derive(Debug)]
pub struct Memory<'a> {
    /// One per segment.
    pub segments: &'a mut [Estimate],
    /// One per config.
    pub routes: &'a mut [Route],
    /// One per segment of every config.
    pub ahead: &'a mut [Ahead],
}

impl Ahead {
    /// Nothing; what statics start with.
    pub const EMPTY: Self = Self {
        ticks: 0,
        energy_uj: 0,
        need_ticks: 0,
        need_energy_uj: 0,
        reach_ticks: 0,
        reach_energy_uj: 0,
        fallback: 0,
    };
}

impl Route {
    /// Nothing; what statics start with.
    pub const EMPTY: Self = Self { config: 0, first: 0, segments: 0, shared: 0, score: 0, arena_bytes: 0, place: 0 };
}

impl Memory<'_> {
    /// Records that an image needs: `[segments, routes, ahead]`.
    #[must_use]
    pub fn needed(image: &Image<'_>) -> [usize; 3] {
        let entries = (0..image.configs()).map(|number| usize::from(image.config(ConfigId(number)).segments)).sum();
        [image.segments(), image.configs().into(), entries]
    }
}

/// How careful a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settings {
    /// A frame begins on a better config than the last frame did only if this much of its predicted cost is to
    /// spare, in 1/256. Keeps a budget that trembles from changing the config with every frame.
    pub hysteresis_in_256: u32,
    /// The part of the measurements that an estimate should not be below, in 1/100: 50 settles at the median. 0 leaves
    /// the image's numbers as they are.
    pub quantile_percent: u8,
    /// Whether a run may change its config at a cut.
    pub switch_at_cuts: bool,
    /// A frame begins on a config that costs more only if it is expected to score so much more, in 1/10,000: less than
    /// that a test of some thousand pictures does not tell apart.
    pub least_gain: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { hysteresis_in_256: 8, quantile_percent: 50, switch_at_cuts: true, least_gain: 10 }
    }
}

/// The cost table of one target, ahead of every cut. See the module.
#[derive(Debug)]
pub struct Policy<'a> {
    pub(super) memory: Memory<'a>,
    pub(super) switch_ticks: u32,
    pub(super) settings: Settings,
    /// How much slower than the target the clock is, 256 = as fast.
    pub(super) slowdown_in_256: u32,
    /// Where the last frame began.
    pub(super) last: Option<u16>,
    pub(super) delays: Delays,
    frames: u32,
    target: TargetId,
    stale: bool,
}

/// Ways out are looked for among so many routes on either side: the time to make a policy is linear in the configs,
/// whatever an image brings, and a way out that is not found only makes a need larger.
const NEAR: usize = 256;
/// A measurement moves an estimate by at most this part of it, so one outlier moves it little.
const MOST: u64 = 16;
/// So often, in frames, estimates lose one part in [`FADE`] of what they differ by from the image's numbers.
const FADE_EVERY: u32 = 16;
/// See [`FADE_EVERY`].
const FADE: u32 = 8;
/// An estimate stays within this factor of the image's number.
const RANGE: u32 = 8;

impl<'a> Policy<'a> {
    /// The policy of an image on a target. Memory is for as long as the policy lives.
    ///
    /// # Errors
    /// [`RunError::NoSuchTarget`]; [`RunError::PolicyMemory`] if a slice of `memory` is too short.
    pub fn new(image: &Image<'_>, target: TargetId, settings: Settings, memory: Memory<'a>) -> Result<Self, RunError> {
        if target.0 >= image.targets() {
            return Err(RunError::NoSuchTarget { target: target.0, targets: image.targets() });
        }
        let needed = Memory::needed(image);
        let found = [memory.segments.len(), memory.routes.len(), memory.ahead.len()];
        if let Some((&needed, &found)) = needed.iter().zip(&found).find(|(needed, found)| needed > found) {
            return Err(RunError::PolicyMemory { found: found as u32, needed: needed as u32 });
        }
        let Memory { segments, routes, ahead } = memory;
        let [segment_count, route_count, entries] = needed;
        let memory = Memory {
            segments: segments.get_mut(..segment_count).unwrap_or_default(),
            routes: routes.get_mut(..route_count).unwrap_or_default(),
            ahead: ahead.get_mut(..entries).unwrap_or_default(),
        };
        let switch_ticks = image.target(target).switch_ticks;
        let mut policy = Self {
            memory,
            switch_ticks,
            settings,
            slowdown_in_256: 256,
            last: None,
            delays: Delays::NONE,
            frames: 0,
            target,
            stale: false,
        };
        for (estimate, index) in policy.memory.segments.iter_mut().zip(0..) {
            let Cost { ticks, energy_uj, .. } = image.cost(target, SegmentId(index));
            *estimate = Estimate { ticks, energy_uj };
        }
        policy.order(image);
        policy.bound(image);
        if settings.switch_at_cuts {
            policy.ways_out(image);
        }
        policy.fallbacks();
        policy.predict(image);
        Ok(policy)
    }

    /// Sorts the configs by path.
    fn order(&mut self, image: &Image<'_>) {
        let mut first = 0;
        for (route, number) in self.memory.routes.iter_mut().zip(0..) {
            let config = image.config(ConfigId(number));
            let (segments, score, arena_bytes) = (config.segments, config.score, config.arena_bytes);
            *route = Route { config: number, first, segments, shared: 0, score, arena_bytes, place: 0 };
            first += u32::from(config.segments);
        }
        let config = |route: &Route| image.config(ConfigId(route.config));
        // Equal paths keep the order of their numbers.
        sort(self.memory.routes, |a, b| {
            compare(image, &config(a), &config(b), u16::MAX).1.then(a.config.cmp(&b.config)).is_lt()
        });
        for index in 0..self.memory.routes.len() {
            let number = self.memory.routes.get(index).map_or(0, |route| usize::from(route.config));
            if let Some(route) = self.memory.routes.get_mut(number) {
                route.place = index as u16;
            }
        }
        let mut after: Option<Route> = None;
        for route in self.memory.routes.iter_mut().rev() {
            route.shared = after.map_or(0, |next| compare(image, &config(route), &config(&next), u16::MAX).0);
            after = Some(*route);
        }
    }

    /// Follows the estimates along every path, from its end.
    fn predict(&mut self, image: &Image<'_>) {
        for index in 0..self.memory.routes.len() {
            let Some(route) = self.memory.routes.get(index).copied() else { continue };
            let config = image.config(ConfigId(route.config));
            let mut behind = Ahead::EMPTY;
            for step in (0..route.segments).rev() {
                let segment = image.path_segment(&config, step).index();
                let Estimate { ticks, energy_uj } = self.memory.segments.get(segment).copied().unwrap_or_default();
                let Some(ahead) = self.ahead(&route, step) else { continue };
                ahead.ticks = behind.ticks.saturating_add(ticks);
                ahead.energy_uj = behind.energy_uj.saturating_add(energy_uj);
                ahead.reach_ticks = behind.reach_ticks.saturating_add(ticks).max(ahead.need_ticks);
                ahead.reach_energy_uj = behind.reach_energy_uj.saturating_add(energy_uj).max(ahead.need_energy_uj);
                behind = *ahead;
            }
        }
        self.stale = false;
    }

    /// Writes the needs of runs that stay on their path: the bounds to its end.
    fn bound(&mut self, image: &Image<'_>) {
        for index in 0..self.memory.routes.len() {
            let Some(route) = self.memory.routes.get(index).copied() else { continue };
            let config = image.config(ConfigId(route.config));
            let (mut ticks, mut energy_uj) = (0u32, 0u32);
            for step in (0..route.segments).rev() {
                let cost = image.cost(self.target, image.path_segment(&config, step));
                ticks = ticks.saturating_add(cost.bound_ticks);
                energy_uj = energy_uj.saturating_add(cost.bound_energy_uj);
                if let Some(ahead) = self.ahead(&route, step) {
                    *ahead = Ahead { need_ticks: ticks, need_energy_uj: energy_uj, ..Ahead::EMPTY };
                }
            }
        }
    }

    /// Replaces, in every need, the way to the end behind the next segment by the cheapest way out there. A way out
    /// needs no more arena and no more energy than the path itself, so whoever may begin a path may leave it. From the
    /// first step on: when a step is rewritten, the later ones are still plain bounds.
    fn ways_out(&mut self, image: &Image<'_>) {
        let longest = self.memory.routes.iter().map(|route| route.segments).max().unwrap_or(0);
        for step in 0..longest {
            for index in 0..self.memory.routes.len() {
                self.way_out(image, index, step);
            }
        }
    }

    fn way_out(&mut self, image: &Image<'_>, index: usize, step: u16) {
        let Some(route) = self.memory.routes.get(index).copied() else { return };
        if step + 1 >= route.segments {
            return;
        }
        let own = *self.at(&route, step + 1);
        let mut best = (own.need_ticks, own.need_energy_uj);
        let rescue = own.need_ticks / 4 * 3;
        let mut fallback = 0;
        let sharing = self.sharing(index, step + 1);
        let near = sharing.start.max(index.saturating_sub(NEAR))..sharing.end.min(index.saturating_add(NEAR));
        for other in near {
            let Some(way) = self.memory.routes.get(other).filter(|way| way.arena_bytes <= route.arena_bytes) else {
                continue;
            };
            let ahead = self.at(way, step + 1);
            if ahead.need_energy_uj > own.need_energy_uj {
                continue;
            }
            if ahead.need_ticks < best.0 {
                best = (ahead.need_ticks, ahead.need_energy_uj);
            }
            if ahead.need_ticks <= rescue {
                fallback = way.score.max(fallback);
            }
        }
        let cost = image.cost(self.target, image.path_segment(&image.config(ConfigId(route.config)), step));
        if let Some(ahead) = self.ahead(&route, step) {
            ahead.need_ticks = cost.bound_ticks.saturating_add(best.0);
            ahead.need_energy_uj = cost.bound_energy_uj.saturating_add(best.1);
            ahead.fallback = fallback;
        }
    }

    /// Means of the scores that a path can be left for behind each of its segments, over those that are ahead; its own
    /// where it cannot be left.
    fn fallbacks(&mut self) {
        for index in 0..self.memory.routes.len() {
            let Some(route) = self.memory.routes.get(index).copied() else { continue };
            let (mut sum, mut ways) = (0u32, 0u32);
            for step in (0..route.segments).rev() {
                let Some(ahead) = self.ahead(&route, step) else { continue };
                if ahead.fallback > 0 {
                    (sum, ways) = (sum + u32::from(ahead.fallback), ways + 1);
                }
                ahead.fallback = sum.checked_div(ways).map_or(route.score, |mean| route.score.min(mean as u16));
            }
        }
    }

    /// The routes that share the first `done` segments of route `index`, itself included.
    pub(super) fn sharing(&self, index: usize, done: u16) -> core::ops::Range<usize> {
        let routes = &*self.memory.routes;
        let (before, from) = routes.split_at(index.min(routes.len()));
        let start = index - before.iter().rev().take_while(|route| route.shared >= done).count();
        let end = index + 1 + from.iter().take_while(|route| route.shared >= done).count();
        start..end.min(routes.len())
    }

    /// What lies ahead of a route after its first `done` segments.
    pub(super) fn at(&self, route: &Route, done: u16) -> &Ahead {
        self.memory.ahead.get(route.first as usize + usize::from(done)).unwrap_or(&Ahead::EMPTY)
    }

    fn ahead(&mut self, route: &Route, done: u16) -> Option<&mut Ahead> {
        self.memory.ahead.get_mut(route.first as usize + usize::from(done))
    }

    /// Where a config is in the order of paths.
    pub(super) fn position(&self, config: ConfigId) -> usize {
        self.memory.routes.get(config.index()).map_or(0, |route| route.place.into())
    }

    /// Takes a measurement of a segment: ticks of the platform's clock, and microjoules if it has a meter.
    pub fn learn(&mut self, image: &Image<'_>, segment: SegmentId, ticks: u64, energy_uj: Option<u64>) {
        let base = image.cost(self.target, segment);
        let ticks = self.as_target(ticks);
        let Some(estimate) = self.memory.segments.get_mut(segment.index()) else { return };
        self.delays.add(estimate.ticks, ticks);
        if self.settings.quantile_percent == 0 {
            return;
        }
        estimate.ticks = nearer(estimate.ticks, ticks, base.ticks, self.settings.quantile_percent);
        if let Some(energy_uj) = energy_uj {
            estimate.energy_uj = nearer(estimate.energy_uj, energy_uj, base.energy_uj, self.settings.quantile_percent);
        }
        self.stale = true;
    }

    /// Brings what lies ahead up to date with what was learned. Called after each frame.
    pub fn refresh(&mut self, image: &Image<'_>) {
        self.delays.end();
        self.frames = self.frames.wrapping_add(1);
        if self.frames.is_multiple_of(FADE_EVERY) && self.settings.quantile_percent > 0 {
            for (estimate, index) in self.memory.segments.iter_mut().zip(0..) {
                let base = image.cost(self.target, SegmentId(index));
                estimate.ticks = faded(estimate.ticks, base.ticks);
                estimate.energy_uj = faded(estimate.energy_uj, base.energy_uj);
            }
            self.stale = true;
        }
        if self.stale {
            self.predict(image);
        }
    }

    /// Tells how much slower than the target the core's clock runs now, in 1/256: 512 is half as fast. Bounds and
    /// predictions stretch alike.
    pub fn set_slowdown(&mut self, in_256: u32) {
        self.slowdown_in_256 = in_256.max(1);
    }

    /// Ticks of the platform's clock as ticks of the target.
    pub(super) fn as_target(&self, ticks: u64) -> u64 {
        if self.slowdown_in_256 == 256 {
            return ticks;
        }
        u64::try_from(u128::from(ticks) * 256 / u128::from(self.slowdown_in_256)).unwrap_or(u64::MAX)
    }

    /// The bound of a segment in ticks of the platform's clock.
    #[must_use]
    pub fn bound_ticks(&self, image: &Image<'_>, segment: SegmentId) -> u64 {
        let ticks = u64::from(image.cost(self.target, segment).bound_ticks);
        (ticks * u64::from(self.slowdown_in_256)).div_ceil(256)
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> TargetId {
        self.target
    }

    /// What the image's segments are predicted to cost now.
    #[must_use]
    pub fn estimates(&self) -> &[Estimate] {
        self.memory.segments
    }
}

/// An estimate nearer to the image's number, so that a segment which was slow when it ran last is tried again some day.
fn faded(estimate: u32, base: u32) -> u32 {
    let away = estimate.abs_diff(base).div_ceil(FADE);
    if estimate > base { estimate - away } else { estimate + away }
}

/// One bounded step of an estimate towards a measurement, within a range around the image's number. Steps up and down
/// are as `q` to `1 - q`, so they cancel where the part `q` of the measurements is below: stochastic approximation of a
/// quantile (Robbins and Monro, 1951).
fn nearer(estimate: u32, measured: u64, base: u32, quantile_percent: u8) -> u32 {
    let measured = u32::try_from(measured).unwrap_or(u32::MAX);
    let up = quantile_percent.min(100);
    let most = |percent: u8| (u64::from(estimate) * u64::from(percent) / (100 * MOST)) as u32 + 1;
    let moved = if measured > estimate {
        estimate.saturating_add((measured - estimate).min(most(up)))
    } else {
        estimate - (estimate - measured).min(most(100 - up))
    };
    moved.clamp(base / RANGE, base.max(1).saturating_mul(RANGE))
}
