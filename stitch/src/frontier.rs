//! Stage 11: which configs ship. A config is worth shipping if no other is both cheaper and better; and all that ship
//! must fit the flash.

use std::fmt;

use plan::{ConfigId, Image, SegmentId};

use crate::emit::Measured;
use crate::network::Placed;

/// What speaks for and against a config.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name.
    pub name: String,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// All: a config off the frontier may still be the only way on from where a frame is.
    #[default]
    All,
    /// The anchors and the frontier.
    Frontier,
}

/// What became of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ships.
    Ships,
    /// Another config is no dearer and no worse.
    Beaten {
        /// That config.
        by: usize,
    },
    /// It gave way to the flash limit: of those left it cost least score for the flash that it alone used.
    TooLarge {
        /// Flash that its absence frees, bytes.
        freed: u64,
    },
}

/// Output of the stage.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Every config and what became of it.
    pub rows: Vec<(Candidate, Verdict)>,
}

impl Choice {
    /// Whether each config ships.
    #[must_use]
    pub fn kept(&self) -> Vec<bool> {
        self.rows.iter().map(|(_, verdict)| *verdict == Verdict::Ships).collect()
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (config, verdict) in &self.rows {
            let score = f64::from(config.score) / 100.0;
            write!(f, "{}: {score:.2} %, {} ticks, arena {}: ", config.name, config.ticks, config.arena_bytes)?;
            match verdict {
                Verdict::Ships => writeln!(f, "ships")?,
                Verdict::Beaten { by } => writeln!(f, "left out, {} is no dearer and no worse", self.rows[*by].0.name)?,
                Verdict::TooLarge { freed } => writeln!(f, "left out for the flash limit, frees {freed} bytes")?,
            }
        }
        Ok(())
    }
}

/// Chooses among the configs of an image that holds all of them. `scores` are theirs, correct answers in 10,000;
/// `flash_bytes` is what the image with the chosen ones may have. Its size is estimated: what several configs store once
/// (equal biases, say) is counted for each, so the caller compares the bytes that are emitted. Anchors always ship.
#[must_use]
pub fn choose(image: &Image<'_>, scores: &[u16], keep: Keep, flash_bytes: Option<u64>) -> Choice {
    let candidates: Vec<Candidate> = (0..image.configs()).map(|number| candidate(image, number, scores)).collect();
    let segment_bytes: Vec<u64> =
        (0..image.segments()).map(|number| u64::from(image.segment(SegmentId(number as u16)).flash_bytes)).collect();
    let parts = segment_bytes.iter().sum::<u64>() + candidates.iter().map(|config| config.own_bytes).sum::<u64>();
    // Header, records of segments, labels, tables: what does not go with a config.
    let fixed = (image.bytes().len() as u64).saturating_sub(parts);
    let room = flash_bytes.map(|bytes| bytes.saturating_sub(fixed));
    let verdicts = verdicts(&candidates, &segment_bytes, keep, room);
    Choice { rows: candidates.into_iter().zip(verdicts).collect() }
}

fn candidate(image: &Image<'_>, number: u16, scores: &[u16]) -> Candidate {
    let config = image.config(ConfigId(number));
    let segments: Vec<usize> = image.path(&config).map(SegmentId::index).collect();
    let shared: u32 = segments.iter().map(|&segment| image.segment(SegmentId(segment as u16)).flash_bytes).sum();
    let stored = config.record_bytes() + config.name.len + image.test_output(ConfigId(number)).len() as u32;
    Candidate {
        name: image.text(config.name).to_owned(),
        ticks: config.ticks.into(),
        arena_bytes: config.arena_bytes,
        score: scores.get(usize::from(number)).copied().unwrap_or(0),
        anchor: number < image.meta().anchors,
        segments,
        own_bytes: u64::from(config.flash_bytes - shared) + u64::from(stored),
    }
}

/// Whether a config with the first `(ticks, arena_bytes, score)` is no dearer and no worse than one with the second, and not
/// the same.
#[must_use]
pub fn beats(a: (u64, u32, u16), b: (u64, u32, u16)) -> bool {
    a.0 <= b.0 && a.1 <= b.1 && a.2 >= b.2 && a != b
}

/// For each config the first of those still `in_play` that beats it on `(ticks, arena, score)`; of equal ones the first is
/// not beaten.
fn beaten_by(configs: &[Candidate], in_play: &[bool]) -> Vec<Option<usize>> {
    let beats = |(other, a): (usize, &Candidate), (index, b): (usize, &Candidate)| {
        let [first, second] = [a, b].map(|config| (config.ticks, config.arena_bytes, config.score));
        in_play[other] && (beats(first, second) || first == second && other < index)
    };
    let first = |config| configs.iter().enumerate().find(|&other| beats(other, config)).map(|(other, _)| other);
    configs.iter().enumerate().map(first).collect()
}

/// Flash of the configs that are kept: their segments once, and what is their own.
fn flash(configs: &[Candidate], segment_bytes: &[u64], kept: &[bool]) -> u64 {
    let users = users(configs, segment_bytes.len(), kept);
    let shared: u64 = segment_bytes.iter().zip(users).filter(|(_, users)| *users > 0).map(|(bytes, _)| bytes).sum();
    shared + configs.iter().zip(kept).filter(|(_, kept)| **kept).map(|(config, _)| config.own_bytes).sum::<u64>()
}

/// How many of the kept configs run each segment.
fn users(configs: &[Candidate], segments: usize, kept: &[bool]) -> Vec<usize> {
    let mut users = vec![0; segments];
    for (config, _) in configs.iter().zip(kept).filter(|(_, kept)| **kept) {
        config.segments.iter().for_each(|&segment| users[segment] += 1);
    }
    users
}

/// What becomes of each config when segments (`segment_bytes` each, stored once) and own bytes may take `room`. While
/// they exceed it, the config goes that costs least score for the flash that it alone uses; anchors stay, so the result
/// may still be too large if they are.
fn verdicts(configs: &[Candidate], segment_bytes: &[u64], keep: Keep, room: Option<u64>) -> Vec<Verdict> {
    // Flash that each config gave back, of those that had to go.
    let mut freed: Vec<Option<u64>> = vec![None; configs.len()];
    loop {
        // A config is not beaten by one that does not ship.
        let in_play: Vec<bool> = freed.iter().map(Option::is_none).collect();
        let verdicts: Vec<Verdict> = configs
            .iter()
            .zip(beaten_by(configs, &in_play))
            .zip(&freed)
            .map(|((config, by), freed)| match (freed, by) {
                (Some(freed), _) => Verdict::TooLarge { freed: *freed },
                (None, Some(by)) if keep == Keep::Frontier && !config.anchor => Verdict::Beaten { by },
                _ => Verdict::Ships,
            })
            .collect();
        let kept: Vec<bool> = verdicts.iter().map(|verdict| *verdict == Verdict::Ships).collect();
        let users = users(configs, segment_bytes.len(), &kept);
        let alone = |config: &Candidate| {
            let segments = config.segments.iter().filter(|&&segment| users[segment] == 1);
            segments.map(|&segment| segment_bytes[segment]).sum::<u64>() + config.own_bytes
        };
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
            Some(index) if room.is_some_and(|room| flash(configs, segment_bytes, &kept) > room) => {
                freed[index] = Some(alone(&configs[index]));
            }
            _ => return verdicts,
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
        let name = String::new();
        Candidate { name, ticks, arena_bytes, score, anchor: false, segments: vec![], own_bytes: 0 }
    }

    #[test]
    fn keeps_what_nothing_beats() {
        let configs = [(10, 9, 80), (20, 9, 90), (15, 9, 79), (20, 9, 90), (30, 9, 95), (31, 9, 95), (31, 8, 95)];
        let configs = configs.map(|(ticks, arena, score)| candidate(ticks, arena, score));
        assert_eq!(beaten_by(&configs, &[true; 7]), [None, None, Some(0), Some(1), None, Some(4), None]);
    }

    fn choose(configs: &[Candidate], segment_bytes: &[u64], keep: Keep, room: Option<u64>) -> Vec<bool> {
        verdicts(configs, segment_bytes, keep, room).iter().map(|verdict| *verdict == Verdict::Ships).collect()
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
    fn a_config_is_not_beaten_by_one_that_had_to_go() {
        let mut configs = [(10, 60), (20, 70), (21, 69)].map(|(t, s)| candidate(t, 1, s)).to_vec();
        configs[0].anchor = true;
        (configs[1].own_bytes, configs[2].own_bytes) = (100, 1);
        let kept = |room| choose(&configs, &[], Keep::Frontier, Some(room));
        assert_eq!(kept(100), [true, true, false]);
        assert_eq!(kept(99), [true, false, true]);
    }

    #[test]
    fn says_why_a_config_is_left_out() {
        let (mut configs, bytes) = (family(), [10; 5]);
        for (number, config) in configs.iter_mut().enumerate() {
            config.name = format!("c{number}");
        }
        let verdicts = verdicts(&configs, &bytes, Keep::Frontier, Some(43));
        let choice = Choice { rows: configs.into_iter().zip(verdicts).collect() };
        assert_eq!(
            choice.to_string(),
            "c0: 0.60 %, 10 ticks, arena 1: ships\n\
             c1: 0.90 %, 50 ticks, arena 1: ships\n\
             c2: 0.55 %, 20 ticks, arena 1: left out, c0 is no dearer and no worse\n\
             c3: 0.80 %, 30 ticks, arena 1: ships\n\
             c4: 0.81 %, 40 ticks, arena 1: left out for the flash limit, frees 11 bytes\n"
        );
    }

    #[test]
    fn drops_what_costs_least_score_per_byte_until_the_flash_is_enough() {
        let (configs, bytes) = (family(), [10; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(55)), [true; 5]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(54)), [true, true, false, true, true]);
        assert_eq!(choose(&configs, &bytes, Keep::All, Some(43)), [true, true, false, true, false]);
    }
}
