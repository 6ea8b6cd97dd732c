//! Stage 11: which configs ship. A config is worth shipping if no other is both cheaper and better, or if it is the
//! cheapest way on for a run that is under way; and all that ship must fit the limits.

mod step_down;

use std::cmp::Reverse;
use std::fmt;

use plan::{ConfigId, Image, SegmentId, TargetId};

use crate::emit::Measured;
use crate::family::Limits;
use crate::network::Placed;

/// What speaks for and against a config.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name.
    pub name: String,
    /// Predicted ticks.
    pub ticks: u64,
    /// Predicted ticks of each of its segments.
    pub segment_ticks: Vec<u64>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Arena, bytes.
    pub arena_bytes: u32,
    /// Correct answers in 10,000.
    pub score: u16,
    /// Anchors are always kept.
    pub anchor: bool,
    /// Its segments.
    pub segments: Vec<usize>,
    /// Its biases, as `(entry of the path, op, bias)`: with the segments, what it shares with others.
    pub overlays: Vec<[u32; 3]>,
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
    /// The anchors, the frontier, and step-downs: at every cut of a config that ships, a run finds the cheapest way
    /// on, even where that is no config anyone would begin.
    Frontier,
    /// The anchors, and the configs on or above the straight line between the anchors next to them in (MACs, score).
    Line,
}

/// What became of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ships.
    Ships,
    /// It ships, though it is beaten: from a cut of another config it is the cheapest way on.
    StepsDown {
        /// That config.
        from: usize,
        /// Segments that both have run there.
        done: usize,
        /// Ticks that it ends before any other way on.
        saves: u64,
    },
    /// It lies below the line between two anchors.
    BelowLine {
        /// The anchor before it in MACs; the last one if it is dearer than all.
        from: usize,
        /// The anchor behind it, or the last one.
        to: usize,
        /// Score of the line at its MACs, rounded up.
        line: u16,
    },
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
    /// It needs more arena than there is.
    NoRoom {
        /// Bytes that there are.
        limit: u32,
    },
    /// It gave way to the limit on configs: of those left it was missed least.
    TooMany {
        /// Configs that may ship.
        limit: usize,
    },
}

impl Verdict {
    fn ships(&self) -> bool {
        matches!(self, Self::Ships | Self::StepsDown { .. })
    }
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
        self.rows.iter().map(|(_, verdict)| verdict.ships()).collect()
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |config: &usize| &self.rows[*config].0.name;
        for (config, verdict) in &self.rows {
            let score = f64::from(config.score) / 100.0;
            write!(f, "{}: {score:.2} %, {} ticks, arena {}: ", config.name, config.ticks, config.arena_bytes)?;
            match verdict {
                Verdict::Ships => writeln!(f, "ships")?,
                Verdict::StepsDown { from, done, saves } => writeln!(
                    f,
                    "ships as a step-down, after {done} segments of {} it ends {saves} ticks before any other",
                    name(from)
                )?,
                Verdict::Beaten { by } => writeln!(f, "left out, {} is no dearer and no worse", name(by))?,
                Verdict::BelowLine { from, to, line } => writeln!(
                    f,
                    "left out, with {} MACs it is below the line from {} to {}, {:.2} %",
                    config.macs,
                    name(from),
                    name(to),
                    f64::from(*line) / 100.0
                )?,
                Verdict::TooLarge { freed } => writeln!(f, "left out for the flash limit, frees {freed} bytes")?,
                Verdict::NoRoom { limit } => writeln!(f, "left out, the arena limit is {limit}")?,
                Verdict::TooMany { limit } => writeln!(f, "left out for the limit of {limit} configs")?,
            }
        }
        let ship = self.kept().iter().filter(|kept| **kept).count();
        let steps = self.rows.iter().filter(|(_, verdict)| matches!(verdict, Verdict::StepsDown { .. })).count();
        writeln!(f, "{ship} of {} configs ship, {steps} of them as step-downs", self.rows.len())
    }
}

/// Chooses among the configs of an image that holds all of them. `scores` are theirs, correct answers in 10,000; `limits` is
/// what the image with the chosen ones may take. Its size is estimated: what several configs store once (equal biases, say)
/// is counted for each, so the caller compares the bytes that are emitted. Anchors always ship.
#[must_use]
pub fn choose(image: &Image<'_>, scores: &[u16], limits: Limits) -> Choice {
    let candidates: Vec<Candidate> = (0..image.configs()).map(|number| candidate(image, number, scores)).collect();
    let segment_bytes: Vec<u64> =
        (0..image.segments()).map(|number| u64::from(image.segment(SegmentId(number as u16)).flash_bytes)).collect();
    let parts = segment_bytes.iter().sum::<u64>() + candidates.iter().map(|config| config.own_bytes).sum::<u64>();
    // Header, records of segments, labels, tables: what does not go with a config.
    let fixed = (image.bytes().len() as u64).saturating_sub(parts);
    let flash_bytes = limits.flash_bytes.map(|bytes| bytes.saturating_sub(fixed));
    let verdicts = verdicts(&candidates, &segment_bytes, Limits { flash_bytes, ..limits });
    Choice { rows: candidates.into_iter().zip(verdicts).collect() }
}

fn candidate(image: &Image<'_>, number: u16, scores: &[u16]) -> Candidate {
    let config = image.config(ConfigId(number));
    let segments: Vec<usize> = image.path(&config).map(SegmentId::index).collect();
    let stored = image.record_bytes(&config) + image.test_output(ConfigId(number)).len() as u64;
    let overlay = |index| {
        let overlay = image.overlay(&config, index);
        [overlay.step.into(), overlay.op.0.into(), overlay.bias]
    };
    let cost = |&segment: &usize| u64::from(image.cost(TargetId(0), SegmentId(segment as u16)).ticks);
    Candidate {
        name: image.config_name(ConfigId(number)).to_string(),
        ticks: image.ticks(&config),
        segment_ticks: segments.iter().map(cost).collect(),
        macs: image.macs(&config),
        overlays: (0..config.overlays).map(overlay).collect(),
        arena_bytes: config.arena_bytes,
        score: scores.get(usize::from(number)).copied().unwrap_or(0),
        anchor: number < image.meta().anchors,
        segments,
        own_bytes: image.overlay_bytes(&config) + stored,
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

/// Whether a config lies below the straight line between the anchors next to it in (MACs, score), dearer than all of
/// them below the last one; one that is cheaper than all has no line.
fn below_line(configs: &[Candidate], config: &Candidate) -> Option<Verdict> {
    let anchors = || configs.iter().enumerate().filter(|(_, config)| config.anchor);
    let key = |&(_, anchor): &(usize, &Candidate)| (anchor.macs, anchor.score);
    let (from, before) = anchors().filter(|(_, anchor)| anchor.macs <= config.macs).max_by_key(key)?;
    let (to, behind) =
        anchors().filter(|(_, anchor)| anchor.macs > config.macs).min_by_key(key).unwrap_or((from, before));
    // before + rise · run / whole, rounded up: a whole score is below the one if it is below the other.
    let rise = i128::from(behind.score) - i128::from(before.score);
    let [run, whole] = [config.macs, behind.macs].map(|macs| i128::from(macs) - i128::from(before.macs));
    let climb = if from == to { 0 } else { -(-rise * run).div_euclid(whole) };
    let line = i128::from(before.score) + climb;
    (i128::from(config.score) < line).then_some(Verdict::BelowLine { from, to, line: line as u16 })
}

/// What becomes of each config when `keep` alone decides among those that are `in_play`.
fn worth(configs: &[Candidate], in_play: &[bool], keep: Keep) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = configs
        .iter()
        .zip(beaten_by(configs, in_play))
        .map(|(config, by)| match (keep, by) {
            _ if config.anchor => Verdict::Ships,
            (Keep::Frontier, Some(by)) => Verdict::Beaten { by },
            (Keep::Line, _) => below_line(configs, config).unwrap_or(Verdict::Ships),
            _ => Verdict::Ships,
        })
        .collect();
    if keep == Keep::Frontier {
        step_down::keep(configs, in_play, &mut verdicts);
    }
    verdicts
}

/// What becomes of each config when segments (`segment_bytes` each, stored once) and own bytes may take the flash of
/// `limits`. While they exceed it, the config goes that costs least score for the flash that it alone uses; while there are too
/// many, the one that costs least score. Anchors stay, so the result may still be too large if they are.
fn verdicts(configs: &[Candidate], segment_bytes: &[u64], limits: Limits) -> Vec<Verdict> {
    let no_room = |config: &Candidate| {
        let limit = limits.arena_bytes.filter(|&limit| !config.anchor && config.arena_bytes > limit);
        limit.map(|limit| Verdict::NoRoom { limit })
    };
    // Why a config had to go.
    let mut gone: Vec<Option<Verdict>> = configs.iter().map(no_room).collect();
    loop {
        // A config is not beaten by one that does not ship.
        let in_play: Vec<bool> = gone.iter().map(Option::is_none).collect();
        let worth = worth(configs, &in_play, limits.keep);
        let verdicts: Vec<Verdict> = worth.into_iter().zip(&gone).map(|(worth, gone)| gone.unwrap_or(worth)).collect();
        let kept: Vec<bool> = verdicts.iter().map(Verdict::ships).collect();
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
        // A step-down costs no score; then what it saves a run that is under way counts.
        let saves = |index: usize| match verdicts[index] {
            Verdict::StepsDown { saves, .. } => saves,
            _ => 0,
        };
        let droppable = || (0..configs.len()).filter(|&index| kept[index] && !configs[index].anchor);
        let too_large = limits.flash_bytes.is_some_and(|room| flash(configs, segment_bytes, &kept) > room);
        let too_many = limits.configs.filter(|&limit| kept.iter().filter(|kept| **kept).count() > limit);
        let goes = if too_large {
            // loss / bytes, compared without division; of equal losses the one that frees most.
            let worst = droppable().min_by(|&a, &b| {
                let (free_a, free_b) = (alone(&configs[a]), alone(&configs[b]));
                (loss(a) * free_b).cmp(&(loss(b) * free_a)).then(free_b.cmp(&free_a)).then(b.cmp(&a))
            });
            worst.map(|worst| (worst, Verdict::TooLarge { freed: alone(&configs[worst]) }))
        } else if let Some(limit) = too_many {
            let worst = droppable().min_by_key(|&index| (loss(index), saves(index), Reverse(index)));
            worst.map(|worst| (worst, Verdict::TooMany { limit }))
        } else {
            None
        };
        let Some((worst, verdict)) = goes else { return verdicts };
        gone[worst] = Some(verdict);
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
mod tests;
