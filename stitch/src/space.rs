//! Which configs a family has: from anchors described by stages, blocks and costs to a list of paths. Nothing here knows
//! weights or graphs.
//!
//! A stitch `(front, a, back, b, layer)` leaves one anchor after its block `a` and enters another before its block `b`
//! (SN-Net §1.1). Blocks count within their stage; `b` may be the number of blocks of the stage: everything up to the
//! change of resolution, or up to the tail, is skipped. A path is an anchor and the stitches it takes:
//!
//! ```text
//! stage          0              1
//! front  ─ 0 ─ 1 ┐ (0, 1)
//!                └─ stitch ─┐ before (0, 3)
//! back                      3 ─ entry ─ 0 ─ 1 ─ tail
//! ```
//!
//! [`window`] and [`two_way`] list stitches; [`walk`] lists the paths that can be made of them, one at a time.

pub mod two_way;
pub mod window;

use std::collections::BTreeSet;
use std::iter::Sum;
use std::ops::Add;

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulates.
    pub macs: u64,
    /// Weights and biases.
    pub parameters: u64,
    /// Bytes of flash.
    pub flash_bytes: u64,
}

impl Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            macs: self.macs + other.macs,
            parameters: self.parameters + other.parameters,
            flash_bytes: self.flash_bytes + other.flash_bytes,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// One block, or what precedes the blocks of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its cost.
    pub cost: Cost,
    /// Channels of its output.
    pub width: usize,
}

/// Blocks whose maps have one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Rows and columns; their product is the number of tokens.
    pub map: [usize; 2],
    /// What runs before block 0: stem, patch embedding, down-sampling. Costs nothing where block 0 does it.
    pub entry: Block,
    /// Whether a path can enter before block 0; not if that block changes the size of the map.
    pub open: bool,
    /// Blocks in order.
    pub blocks: Vec<Block>,
}

/// One anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Name.
    pub name: String,
    /// Stages in order; without one it can only run whole.
    pub stages: Vec<Stage>,
    /// What follows the last block.
    pub tail: Cost,
}

/// A block of an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Stage.
    pub stage: usize,
    /// Block of the stage.
    pub block: usize,
}

/// A way from one anchor to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stitch {
    /// Anchor that is left.
    pub front: usize,
    /// The last block of it that runs.
    pub leave: Place,
    /// Anchor that is entered.
    pub back: usize,
    /// The first block of it that runs.
    pub enter: Place,
    /// Number of the layer that maps one to the other, within front, back and stage: stitches with equal numbers share
    /// its weights.
    pub layer: usize,
}

impl Stitch {
    /// What tells layers of a family apart: front, its stage, back, number.
    #[must_use]
    pub fn layer_key(&self) -> [usize; 4] {
        [self.front, self.leave.stage, self.back, self.layer]
    }

    /// What the layer costs: one 1×1 convolution with bias, its rows padded to whole words in flash, nine bytes of bias
    /// and scale for each of them.
    #[must_use]
    pub fn cost(&self, anchors: &[Anchor]) -> Cost {
        let front = &anchors[self.front].stages[self.leave.stage];
        let back = &anchors[self.back].stages[self.enter.stage];
        let (from, to) = (front.width(self.leave.block + 1), back.width(self.enter.block));
        let [tokens, from, to] = [front.map[0] * front.map[1], from, to].map(|count| count as u64);
        let flash_bytes = to * (from.next_multiple_of(4) + 9);
        Cost { macs: tokens * from * to, parameters: from * to + to, flash_bytes }
    }
}

/// Blocks `from..until` of one anchor, the second not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Anchor.
    pub anchor: usize,
    /// First block.
    pub from: Place,
    /// Behind the last block.
    pub until: Place,
}

/// A config: begin with an anchor, take stitches in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Anchor whose input layer runs.
    pub first: usize,
    /// None for an anchor.
    pub stitches: Vec<Stitch>,
}

impl Stage {
    /// Channels of the map before a block, or behind the last.
    #[must_use]
    pub fn width(&self, block: usize) -> usize {
        block.checked_sub(1).map_or(self.entry.width, |block| self.blocks[block].width)
    }
}

impl Anchor {
    /// Behind the last block.
    #[must_use]
    pub fn end(&self) -> Place {
        let stage = self.stages.len().saturating_sub(1);
        Place { stage, block: self.stages.get(stage).map_or(0, |stage| stage.blocks.len()) }
    }

    /// Cost of what runs before block 0 of stage 0.
    fn entry(&self) -> Cost {
        self.stages.first().map_or(Cost::default(), |stage| stage.entry.cost)
    }

    fn blocks(&self, from: Place, until: Place) -> impl Iterator<Item = (Place, &Block)> {
        self.stages.iter().enumerate().flat_map(move |(stage, found)| {
            let blocks = found.blocks.iter().enumerate().map(move |(block, found)| (Place { stage, block }, found));
            blocks.filter(move |(place, _)| (from..until).contains(place))
        })
    }

    fn leg_cost(&self, from: Place, until: Place) -> Cost {
        let later = self.stages.iter().enumerate().filter(|&(stage, _)| from.stage < stage && stage <= until.stage);
        let entries = later.map(|(_, stage)| stage.entry.cost);
        self.blocks(from, until).map(|(_, block)| block.cost).chain(entries).sum()
    }
}

impl Path {
    /// Legs in order, one more than stitches.
    #[must_use]
    pub fn legs(&self, anchors: &[Anchor]) -> Vec<Leg> {
        let begins = [(self.first, Place { stage: 0, block: 0 })].into_iter();
        let begins = begins.chain(self.stitches.iter().map(|stitch| (stitch.back, stitch.enter)));
        let ends = self.stitches.iter().map(|stitch| Place { block: stitch.leave.block + 1, ..stitch.leave });
        let ends = ends.map(Some).chain([None]);
        let leg = |((anchor, from), until): (_, Option<Place>)| Leg {
            anchor,
            from,
            until: until.unwrap_or_else(|| anchors[anchor].end()),
        };
        begins.zip(ends).map(leg).collect()
    }

    /// What the whole path costs; no block runs twice, so parameters and flash count once.
    #[must_use]
    pub fn cost(&self, anchors: &[Anchor]) -> Cost {
        let legs = self.legs(anchors);
        let last = legs.last().map_or(self.first, |leg| leg.anchor);
        let ends = anchors[self.first].entry() + anchors[last].tail;
        let stitches: Cost = self.stitches.iter().map(|stitch| stitch.cost(anchors)).sum();
        ends + stitches + legs.iter().map(|leg| anchors[leg.anchor].leg_cost(leg.from, leg.until)).sum()
    }

    /// Whether it enters an anchor only to run its tail: SN-Netv2 numbers such a path and never uses it (§1.7, id 13).
    #[must_use]
    pub fn is_idle(&self, anchors: &[Anchor]) -> bool {
        self.stitches.last().is_some_and(|stitch| stitch.enter == anchors[stitch.back].end())
    }
}

/// Bounds on the paths of [`walk`]; anchors are exempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Multiply-accumulates of a path.
    pub max_macs: Option<u64>,
    /// Flash of what a path runs.
    pub max_flash_bytes: Option<u64>,
}

impl Limits {
    /// Whether a cost is within them.
    #[must_use]
    pub fn allow(&self, cost: Cost) -> bool {
        let within = |limit: Option<u64>, cost| limit.is_none_or(|limit| cost <= limit);
        within(self.max_macs, cost.macs) && within(self.max_flash_bytes, cost.flash_bytes)
    }
}

/// Every path of exactly `hops` stitches of a list, in the order of the list; with none, the anchors. A path may leave an
/// anchor only behind the block that it entered before, and never runs a block twice. Lazy: a start that exceeds the
/// limits is not followed.
pub fn walk<'a>(
    anchors: &'a [Anchor],
    stitches: &'a [Stitch],
    hops: usize,
    limits: Limits,
) -> impl Iterator<Item = Path> + 'a {
    let only_anchors = if hops == 0 { anchors.len() } else { 0 };
    let alone = (0..only_anchors).map(|first| Path { first, stitches: vec![] });
    // The next candidate per hop: digits of a counter whose carry is taken as soon as a start is refused.
    let mut next = if hops == 0 { vec![] } else { vec![0] };
    let mut taken: Vec<Stitch> = vec![];
    let stitched = std::iter::from_fn(move || {
        loop {
            let candidate = next.last_mut()?;
            let Some(&stitch) = stitches.get(*candidate) else {
                next.pop();
                taken.pop();
                continue;
            };
            *candidate += 1;
            if !follows(&taken, &stitch) {
                continue;
            }
            taken.push(stitch);
            let path = Path { first: taken[0].front, stitches: taken.clone() };
            let whole = next.len() == hops;
            let cost = if whole { path.cost(anchors) } else { start_cost(anchors, &path) };
            let within = limits.allow(cost);
            if within && !whole {
                next.push(0);
                continue;
            }
            taken.pop();
            if within {
                return Some(path);
            }
        }
    });
    alone.chain(stitched)
}

/// Paths of up to `hops` stitches, fewer first: the general space.
pub fn general<'a>(
    anchors: &'a [Anchor],
    stitches: &'a [Stitch],
    hops: usize,
    limits: Limits,
) -> impl Iterator<Item = Path> + 'a {
    (0..=hops).flat_map(move |hops| walk(anchors, stitches, hops, limits))
}

/// Whether a path that has taken some stitches can take another.
fn follows(taken: &[Stitch], next: &Stitch) -> bool {
    let entered = taken.last().is_none_or(|last| last.back == next.front && last.enter <= next.leave);
    // An anchor that was left before may be entered again behind where it was left.
    entered && taken.iter().all(|before| before.front != next.back || before.leave < next.enter)
}

/// The part of a path's cost that no continuation can change: what runs up to its last stitch.
fn start_cost(anchors: &[Anchor], path: &Path) -> Cost {
    let mut legs = path.legs(anchors);
    legs.pop();
    let runs: Cost = legs.iter().map(|leg| anchors[leg.anchor].leg_cost(leg.from, leg.until)).sum();
    let stitches: Cost = path.stitches.iter().map(|stitch| stitch.cost(anchors)).sum();
    anchors[path.first].entry() + runs + stitches
}

/// How often blocks run when every path of a set is evaluated once: each path alone, and through the tree of their
/// shared starts (SN-Net §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRuns {
    /// Each path alone.
    pub alone: usize,
    /// Each distinct start once.
    pub shared: usize,
}

/// Counts the blocks of a set of paths; entries, stitches and tails are not counted.
#[must_use]
pub fn block_runs(anchors: &[Anchor], paths: &[Path]) -> BlockRuns {
    let mut starts = BTreeSet::new();
    let mut alone = 0;
    for path in paths {
        for (leg, found) in path.legs(anchors).iter().enumerate() {
            for (place, _) in anchors[found.anchor].blocks(found.from, found.until) {
                alone += 1;
                starts.insert((&path.stitches[..leg], found.anchor, place));
            }
        }
    }
    BlockRuns { alone, shared: starts.len() }
}

#[cfg(test)]
mod tests;
