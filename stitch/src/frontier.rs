//! Which configs are worth shipping: no other is both cheaper and better, and all of them fit the flash.

use crate::emit::Measured;
use crate::network::Placed;

/// What speaks for and against a config.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Predicted ticks.
    pub ticks: u64,
    /// Arena, bytes.
    pub arena_bytes: u32,
    /// Correct answers in 10,000.
    pub score: u16,
    /// Anchors are always kept.
    pub anchor: bool,
    /// Its segments.
    pub segments: Vec<usize>,
    /// Flash of its overlays and records, which it shares with nobody.
    pub own_bytes: u64,
}

/// Which configs to ship.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All: a config off the frontier may still be the only way on from where a frame is.
    #[default]
    All,
    /// The anchors and the frontier.
    Frontier,
}

/// Marks the configs on the frontier of `(ticks, arena, score)`; of equal ones the first.
#[must_use]
pub fn frontier(configs: &[Candidate]) -> Vec<bool> {
    let beats = |(other, a): (usize, &Candidate), (index, b): (usize, &Candidate)| {
        let no_worse = a.ticks <= b.ticks && a.arena_bytes <= b.arena_bytes && a.score >= b.score;
        let better = a.ticks < b.ticks || a.arena_bytes < b.arena_bytes || a.score > b.score;
        no_worse && (better || other < index)
    };
    let beaten = |config| configs.iter().enumerate().any(|other| beats(other, config));
    configs.iter().enumerate().map(|config| !beaten(config)).collect()
}

/// Marks the configs to ship. While their segments (`segment_bytes` each, stored once) and their own bytes exceed
/// `flash_bytes`, the config goes that costs least score for the flash that it alone uses; anchors stay, so the
/// result may still be too large if they are.
#[must_use]
pub fn choose(configs: &[Candidate], segment_bytes: &[u64], keep: Keep, flash_bytes: Option<u64>) -> Vec<bool> {
    let on_frontier = frontier(configs);
    let mut kept: Vec<bool> =
        configs.iter().zip(on_frontier).map(|(config, on)| on || config.anchor || keep == Keep::All).collect();
    let Some(limit) = flash_bytes else { return kept };
    loop {
        let mut users = vec![0; segment_bytes.len()];
        for (config, _) in configs.iter().zip(&kept).filter(|(_, kept)| **kept) {
            for &segment in &config.segments {
                users[segment] += 1;
            }
        }
        let alone = |config: &Candidate| {
            let segments = config.segments.iter().filter(|&&segment| users[segment] == 1);
            segments.map(|&segment| segment_bytes[segment]).sum::<u64>() + config.own_bytes
        };
        let shared: u64 =
            segment_bytes.iter().zip(&users).filter(|(_, users)| **users > 0).map(|(bytes, _)| bytes).sum();
        let total =
            shared + configs.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(c, _)| c.own_bytes).sum::<u64>();
        // Score that its loss costs: what the best config that is no dearer would give instead.
        let loss = |index: usize| {
            let others = configs
                .iter()
                .enumerate()
                .filter(|&(other, config)| other != index && kept[other] && config.ticks <= configs[index].ticks);
            let instead = others.map(|(_, config)| config.score).max().unwrap_or(0);
            u64::from(configs[index].score.saturating_sub(instead))
        };
        let droppable = (0..configs.len()).filter(|&index| kept[index] && !configs[index].anchor);
        // loss / bytes, compared without division; of equal losses the one that frees most.
        let worst = droppable.min_by(|&a, &b| {
            let (free_a, free_b) = (alone(&configs[a]), alone(&configs[b]));
            (loss(a) * free_b).cmp(&(loss(b) * free_a)).then(free_b.cmp(&free_a)).then(b.cmp(&a))
        });
        match worst {
            Some(index) if total > limit => kept[index] = false,
            _ => return kept,
        }
    }
}

/// Removes the configs that are not kept, the segments that nobody runs any more, and what was measured of them.
pub fn retain(placed: &mut Placed, measured: &mut Measured, kept: &[bool]) {
    fn filter<T>(values: &mut Vec<T>, kept: &[bool]) {
        let mut kept = kept.iter();
        values.retain(|_| kept.next().copied().unwrap_or(true));
    }
    let family = &mut placed.quantized;
    filter(&mut family.paths, kept);
    filter(&mut measured.scores, kept);
    filter(&mut measured.float_scores, kept);
    filter(&mut measured.outputs, kept);
    let used: Vec<bool> =
        (0..family.segments.len()).map(|s| family.paths.iter().any(|path| path.segments.contains(&s))).collect();
    let new: Vec<usize> =
        used.iter().scan(0, |next, &used| Some(std::mem::replace(next, *next + usize::from(used)))).collect();
    filter(&mut family.segments, &used);
    filter(&mut placed.placements, &used);
    for path in &mut family.paths {
        path.segments.iter_mut().for_each(|segment| *segment = new[*segment]);
        path.corrections.iter_mut().for_each(|correction| correction.segment = new[correction.segment]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(ticks: u64, arena_bytes: u32, score: u16) -> Candidate {
        Candidate { ticks, arena_bytes, score, anchor: false, segments: vec![], own_bytes: 0 }
    }

    #[test]
    fn keeps_what_nothing_beats() {
        let configs = [(10, 9, 80), (20, 9, 90), (15, 9, 79), (20, 9, 90), (30, 9, 95), (31, 9, 95), (31, 8, 95)];
        let configs = configs.map(|(ticks, arena, score)| candidate(ticks, arena, score));
        assert_eq!(frontier(&configs), [true, true, false, false, true, false, true]);
    }

    /// Anchors 0 and 1; 2 is beaten; 3 is worth much score, 4 little, both have a segment of 10 bytes.
    fn family() -> Vec<Candidate> {
        let mut configs = [(10, 60), (50, 90), (20, 55), (30, 80), (40, 81)].map(|(t, s)| candidate(t, 1, s)).to_vec();
        for (number, config) in configs.iter_mut().enumerate() {
            config.anchor = number < 2;
            config.segments = vec![number];
            config.own_bytes = 1;
        }
        configs
    }

    #[test]
    fn drops_nothing_unasked_and_never_an_anchor() {
        let (configs, bytes) = (family(), [10; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::All, None), [true; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::Frontier, None), [true, true, false, true, true]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(0)), [true, true, false, false, false]);
    }

    #[test]
    fn drops_what_costs_least_score_per_byte_until_the_flash_is_enough() {
        let (configs, bytes) = (family(), [10; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(55)), [true; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(54)), [true, true, false, true, true]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(43)), [true, true, false, true, false]);
    }
}
