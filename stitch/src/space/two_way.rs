//! SN-Net, second version (§1.7): between neighbouring anchors, up, down, down and up again, up and down again.
//!
//! Blocks of the two count as columns: block `k` of the shallower stands for blocks `⌊k·ρ⌋ .. ⌊(k+1)·ρ⌋` of the deeper,
//! ρ the ratio of their depths, and every path runs each column once.

use super::window::{answer, pairs, stage_wise};
use super::{Anchor, Limits, Path, Stitch, walk};

/// Anchors, then for each two neighbours the paths small→large (`SL`), `LS`, `LSL` and `SLS`, numbered as published: the
/// last `SL` is idle ([`Path::is_idle`]).
#[must_use]
pub fn paths(anchors: &[Anchor]) -> Vec<Path> {
    let mut paths: Vec<Path> = walk(anchors, &[], 0, Limits::default()).collect();
    for (small, large) in pairs(anchors.len(), false) {
        let up = columns(anchors, small, large);
        let mut down = columns(anchors, large, small);
        let at_end = |stitch: &Stitch| stitch.enter == anchors[stitch.back].end();
        down.retain(|stitch| !at_end(stitch));
        let once = [&up[..], &down].concat();
        let mut twice = [&down[..], &up].concat();
        twice.retain(|stitch| !at_end(stitch));
        paths.extend(walk(anchors, &once, 1, Limits::default()));
        paths.extend(walk(anchors, &twice, 2, Limits::default()));
    }
    paths
}

/// Stitches wherever a column ends in both anchors, one layer each.
fn columns(anchors: &[Anchor], front: usize, back: usize) -> Vec<Stitch> {
    stage_wise(anchors, front, back, |from, to| {
        let columns = from.min(to);
        let ends = |column, depth| answer(column, columns, depth);
        (1..=columns).map(|column| (ends(column, from) - 1, ends(column, to), column - 1)).collect()
    })
}

/// SN-Netv2's resource-constrained sampling: configs in the order of their costs, a new group wherever one costs more than
/// the first of the group by more than `gap`. Draw a group, then one of the group.
#[must_use]
pub fn groups(macs: &[u64], gap: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..macs.len()).collect();
    order.sort_by_key(|&config| macs[config]);
    let mut groups: Vec<Vec<usize>> = vec![];
    for config in order {
        match groups.last_mut() {
            Some(group) if macs[config] - macs[group[0]] <= gap => group.push(config),
            _ => groups.push(vec![config]),
        }
    }
    groups
}
