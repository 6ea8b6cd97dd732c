//! SN-Net, first version: stitches within stages whose maps have one size, from a sliding window where the anchors are
//! equally deep (§1.3), by nearest blocks where they are not (§1.4).

use super::{Anchor, Place, Stage, Stitch};

/// Which stitches to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Blocks of the window.
    pub kernel: usize,
    /// Blocks from one window to the next.
    pub stride: usize,
    /// Between equally deep stages keep only `a < b`: the path runs no block's work twice.
    pub advancing: bool,
    /// Stages of the front anchor to stitch in; `None`: all that another anchor answers.
    pub stages: Option<Vec<usize>>,
    /// Stitch every pair of anchors, not only neighbours.
    pub all_pairs: bool,
    /// Also from the costlier anchor to the cheaper.
    pub both_ways: bool,
    /// Give the layers of unequal stages to the wrong stitches, as the published code and its checkpoints do (§1.5).
    pub shifted_layers: bool,
}

impl Default for Rule {
    /// DeiT's: kernel 2, stride 1, neighbours, from cheap to dear.
    fn default() -> Self {
        Self {
            kernel: 2,
            stride: 1,
            advancing: false,
            stages: None,
            all_pairs: false,
            both_ways: false,
            shifted_layers: false,
        }
    }
}

/// Stitches of a family whose anchors are listed in increasing order of cost, in the published order: stage by stage.
#[must_use]
pub fn stitches(anchors: &[Anchor], rule: &Rule) -> Vec<Stitch> {
    let mut stitches = vec![];
    for (small, large) in pairs(anchors.len(), rule.all_pairs) {
        stitches.extend(between(anchors, small, large, rule));
        if rule.both_ways {
            stitches.extend(between(anchors, large, small, rule));
        }
    }
    stitches.sort_by_key(|stitch| stitch.leave.stage);
    stitches
}

/// Pairs `(small, large)`: neighbours, or all.
pub(crate) fn pairs(anchors: usize, all: bool) -> impl Iterator<Item = (usize, usize)> {
    let from = move |small: usize| (small + 1..anchors).take(if all { anchors } else { 1 });
    (0..anchors).flat_map(move |small| from(small).map(move |large| (small, large)))
}

/// Stitches from one anchor to another by the rule.
fn between(anchors: &[Anchor], front: usize, back: usize, rule: &Rule) -> Vec<Stitch> {
    let mut found = stage_wise(anchors, front, back, |from, to| {
        if from != to {
            return unpaired(from, to, rule.shifted_layers);
        }
        let mut pairs = paired(from, rule.kernel, rule.stride);
        pairs.retain(|&(a, b, _)| !rule.advancing || a < b);
        pairs
    });
    found.retain(|stitch| rule.stages.as_ref().is_none_or(|stages| stages.contains(&stitch.leave.stage)));
    found
}

/// One stitch before each block but a stage's first, from the block that answers it, whether depths are equal or not,
/// and a layer for each: every cut can be left, and few stitches are learned.
#[must_use]
pub fn one_per_block(anchors: &[Anchor], front: usize, back: usize) -> Vec<Stitch> {
    let own_layers = |from, to| unpaired(from, to, false).into_iter().map(|(a, b, _)| (a, b, b)).collect();
    stage_wise(anchors, front, back, own_layers)
}

/// Stitches that `pairs` lists, as `(a, b, layer)`, for the depths of each two stages whose maps have one size: nothing
/// crosses stages. Those before a block that cannot be entered are left out.
pub(crate) fn stage_wise(
    anchors: &[Anchor],
    front: usize,
    back: usize,
    pairs: impl Fn(usize, usize) -> Vec<(usize, usize, usize)>,
) -> Vec<Stitch> {
    let mut found = vec![];
    for (leaves, from) in anchors[front].stages.iter().enumerate() {
        let same_map = |stage: &Stage| stage.map == from.map;
        let Some(enters) = anchors[back].stages.iter().position(same_map) else { continue };
        let to = &anchors[back].stages[enters];
        for (a, b, layer) in pairs(from.blocks.len(), to.blocks.len()) {
            if to.open || b > 0 {
                let (leave, enter) = (Place { stage: leaves, block: a }, Place { stage: enters, block: b });
                found.push(Stitch { front, leave, back, enter, layer });
            }
        }
    }
    found
}

/// `(a, b, layer)` of a window that slides over `depth` blocks: all ordered pairs within it that an earlier one has not
/// had. Its layer is its number; only the last windows, which are cut short, can have nothing new.
#[must_use]
pub fn paired(depth: usize, kernel: usize, stride: usize) -> Vec<(usize, usize, usize)> {
    let mut found: Vec<(usize, usize, usize)> = vec![];
    for (layer, start) in (0..depth).step_by(stride.max(1)).enumerate() {
        let window = start..(start + kernel).min(depth);
        for (a, b) in window.clone().flat_map(|a| window.clone().map(move |b| (a, b))) {
            if !found.iter().any(|&(other_a, other_b, _)| (a, b) == (other_a, other_b)) {
                found.push((a, b, layer));
            }
        }
    }
    found
}

/// `(a, b, layer)` of stages of unequal depth: before each block but the first, from the block that answers it. A deeper
/// front has done the work of `b` blocks one before its answer to block `b` begins.
fn unpaired(front: usize, back: usize, shifted_layers: bool) -> Vec<(usize, usize, usize)> {
    let answer = |block: usize| answer(block, back, front) - usize::from(front > back);
    let layer = |block: usize| if shifted_layers && front < back { answer(block - 1) } else { answer(block) };
    (1..back).map(|block| (answer(block), block, layer(block))).collect()
}

/// The block of a stage of `to` blocks that answers a block of one of `from` blocks: `⌊block · to / from⌋`.
#[must_use]
pub fn answer(block: usize, from: usize, to: usize) -> usize {
    block * to / from.max(1)
}
