//! [`Scenario`]: what a device meets from frame to frame, and its state, which depends on what was run.

use plan::{ConfigId, Image, TargetId};
use runtime::{Budget, Limit};

use crate::faults::Draw;
use crate::trace::Trace;

/// What holds for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// What the device is told.
    pub budget: Budget,
    /// How much slower than the target the core runs, in 1/256.
    pub slowdown_in_256: u32,
    /// Whether another task wants the core.
    pub contended: bool,
    /// For people: charge in 1/100, or degrees.
    pub state: u32,
}

/// Where budgets come from.
#[derive(Clone, Debug)]
pub enum Scenario {
    /// A table of budgets.
    Trace(Trace),
    /// A battery that must last for all frames: each frame may use its share of what is left.
    Battery {
        /// Charge at the start, microjoules.
        capacity_uj: u64,
        /// Charge that is left.
        left_uj: u64,
        /// Frames that are still to come.
        frames: u64,
        /// Deadline of every frame.
        ticks: u64,
    },
    /// A chip that warms up with what it computes and slows its clock down when it is hot.
    Thermal {
        /// Millidegrees above the surroundings.
        heat: u64,
        /// Deadline of every frame.
        ticks: u64,
    },
    /// A task of higher priority that wakes up in bursts and takes time from every segment.
    Bursty {
        /// Decides when it wakes up.
        draw: Draw,
        /// Frames until it wakes up or sleeps.
        frames: u64,
        /// Whether it is awake.
        awake: bool,
        /// Deadline of every frame.
        ticks: u64,
    },
}

/// Above it the clock slows down, millidegrees above the surroundings.
const WARM: u64 = 35_000;
/// At it the clock is at its slowest.
const HOT: u64 = 55_000;
/// The slowest clock: half as fast.
const SLOWEST_IN_256: u64 = 512;
/// Of the heat this part is gone with each frame.
const COOLING: u64 = 64;

impl Scenario {
    /// A battery that holds for `frames` frames what a run between the cheapest and the costliest config uses, with
    /// time for every config.
    #[must_use]
    pub fn battery(image: &Image<'_>, frames: u32) -> Self {
        let span = Span::of(image);
        let each = span.least_energy + (span.most_energy - span.least_energy) * 2 / 5;
        let capacity_uj = each * u64::from(frames);
        Self::Battery { capacity_uj, left_uj: capacity_uj, frames: frames.into(), ticks: span.most_bound }
    }

    /// A chip whose deadline the costliest config meets only while it is cool.
    #[must_use]
    pub fn thermal(image: &Image<'_>) -> Self {
        let span = Span::of(image);
        Self::Thermal { heat: 0, ticks: span.most_ticks + span.most_ticks / 10 }
    }

    /// A deadline that the costliest config meets only while nobody takes time from it.
    #[must_use]
    pub fn bursty(image: &Image<'_>, seed: u64) -> Self {
        let span = Span::of(image);
        Self::Bursty { draw: Draw::new(seed ^ 0xb0b5), frames: 0, awake: false, ticks: span.most_ticks * 23 / 20 }
    }

    /// What holds for the frame to come.
    pub fn next(&mut self, frame: u32) -> Conditions {
        let plain = |budget| Conditions { budget, slowdown_in_256: 256, contended: true, state: 0 };
        match self {
            Self::Trace(trace) => plain(trace.budget(frame)),
            Self::Battery { capacity_uj, left_uj, frames, ticks } => {
                let share = *left_uj / (*frames).max(1);
                *frames = frames.saturating_sub(1);
                let budget = Budget { time: Some(Limit::hard(*ticks)), energy: Some(Limit::hard(share)), memory: None };
                Conditions { state: (100 * *left_uj / (*capacity_uj).max(1)) as u32, ..plain(budget) }
            }
            Self::Thermal { heat, ticks } => {
                let above = heat.saturating_sub(WARM).min(HOT - WARM);
                let slowdown_in_256 = (256 + (SLOWEST_IN_256 - 256) * above / (HOT - WARM)) as u32;
                Conditions { slowdown_in_256, state: (25 + *heat / 1000) as u32, ..plain(Budget::deadline(*ticks)) }
            }
            Self::Bursty { draw, frames, awake, ticks } => {
                if *frames == 0 {
                    *awake = !*awake;
                    *frames = if *awake { 5 + draw.next() % 40 } else { 20 + draw.next() % 150 };
                }
                *frames -= 1;
                let state = u32::from(*awake);
                Conditions { contended: *awake, state, ..plain(Budget::deadline(*ticks)) }
            }
        }
    }

    /// Takes into account what a frame used.
    pub fn used(&mut self, ticks: u64, energy_uj: u64) {
        match self {
            Self::Battery { left_uj, .. } => *left_uj = left_uj.saturating_sub(energy_uj),
            // A frame of full load for all of its time warms by a degree; some goes with every frame.
            Self::Thermal { heat, ticks: allowed } => {
                *heat += 1000 * ticks / (*allowed).max(1);
                *heat -= *heat / COOLING;
            }
            Self::Trace(_) | Self::Bursty { .. } => {}
        }
    }
}

/// Between what the configs of an image cost on target 0.
struct Span {
    most_ticks: u64,
    most_bound: u64,
    least_energy: u64,
    most_energy: u64,
}

impl Span {
    fn of(image: &Image<'_>) -> Self {
        let costs = |number| {
            let config = image.config(ConfigId(number));
            let sum = |of: fn(plan::Cost) -> u32| {
                image.path(&config).map(|segment| u64::from(of(image.cost(TargetId(0), segment)))).sum::<u64>()
            };
            [sum(|cost| cost.ticks), sum(|cost| cost.bound_ticks), sum(|cost| cost.bound_energy_uj)]
        };
        let all = || (0..image.configs()).map(costs);
        let most = |index: usize| all().map(|costs| costs[index]).max().unwrap_or(0);
        Self {
            most_ticks: most(0),
            most_bound: most(1),
            least_energy: all().map(|costs| costs[2]).min().unwrap_or(0),
            most_energy: most(2),
        }
    }
}
