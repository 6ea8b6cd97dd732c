//! Which config to be on: pure functions of the image, the path so far and what is left of the budget.

use plan::{Config, ConfigId, Image};

use crate::budget::Budget;
use crate::error::RunError;

/// The best config for a whole frame: highest score among those that fit; of equal ones the cheapest, then the
/// first.
///
/// # Errors
/// [`RunError::BudgetTooSmall`] with what the cheapest config needs.
pub fn choose(image: &Image<'_>, budget: Budget) -> Result<ConfigId, RunError> {
    let fits = |config: &Config| {
        budget.ticks.is_none_or(|ticks| u64::from(config.ticks) <= ticks)
            && budget.arena_bytes.is_none_or(|bytes| config.arena_bytes <= bytes)
    };
    let mut best: Option<(ConfigId, Config)> = None;
    let (mut needed_ticks, mut needed_bytes) = (u64::MAX, u32::MAX);
    for number in 0..image.configs() {
        let id = ConfigId(number);
        let config = image.config(id);
        needed_ticks = needed_ticks.min(config.ticks.into());
        needed_bytes = needed_bytes.min(config.arena_bytes);
        if fits(&config) && best.as_ref().is_none_or(|(_, than)| better(&config, than)) {
            best = Some((id, config));
        }
    }
    best.map(|(id, _)| id).ok_or(RunError::BudgetTooSmall { needed_ticks, needed_bytes })
}

fn better(config: &Config, than: &Config) -> bool {
    (config.score, than.ticks) > (than.score, config.ticks)
}

/// The config to be on from a cut: the best-scored of those that share the first `done` segments of `current`
/// and whose remaining ticks fit `left`; if none fits, the one that is finished soonest. `arena_bytes` bounds
/// the memory of the candidates.
#[must_use]
pub fn reconsider(image: &Image<'_>, current: ConfigId, done: u16, left: u64, arena_bytes: u32) -> ConfigId {
    let running = image.config(current);
    let mut best = (current, remaining(image, &running, done), running.score);
    for number in 0..image.configs() {
        let id = ConfigId(number);
        let config = image.config(id);
        if id == current || config.arena_bytes > arena_bytes || !shares(image, &running, &config, done) {
            continue;
        }
        let ticks = remaining(image, &config, done);
        let (_, best_ticks, best_score) = best;
        let prefer = match (ticks <= left, best_ticks <= left) {
            (true, true) => (config.score, best_ticks) > (best_score, ticks),
            (true, false) => true,
            (false, true) => false,
            (false, false) => ticks < best_ticks,
        };
        if prefer {
            best = (id, ticks, config.score);
        }
    }
    best.0
}

/// Predicted ticks of a config after its first `done` segments.
#[must_use]
pub fn remaining(image: &Image<'_>, config: &Config, done: u16) -> u64 {
    (done..config.segments).map(|step| u64::from(image.segment(image.path_segment(config, step)).ticks)).sum()
}

/// Whether two configs compute the same in their first `done` segments: the same segments, with the same biases.
#[must_use]
pub fn shares(image: &Image<'_>, a: &Config, b: &Config, done: u16) -> bool {
    done <= a.segments
        && done <= b.segments
        && image.path_prefix(a, done) == image.path_prefix(b, done)
        && same_biases(image, a, b, done)
}

/// Whether the overlays of the first `done` segments are equal. They lie in the order of the path.
fn same_biases(image: &Image<'_>, a: &Config, b: &Config, done: u16) -> bool {
    let met = |config: &Config, index: u16| {
        let overlay = (index < config.overlays).then(|| image.overlay(config, index));
        overlay.filter(|overlay| overlay.step < done)
    };
    let mut index = 0;
    loop {
        match (met(a, index), met(b, index)) {
            (None, None) => return true,
            (Some(of_a), Some(of_b)) if of_a == of_b => index += 1,
            _ => return false,
        }
    }
}
