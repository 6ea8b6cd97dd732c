//! The configs of a family: anchors as [`space`] sees them, and what it lists as pairs of cuts.

use std::collections::BTreeMap;

use crate::cut::{AnchorBlocks, Blocks, Direction, Pair};
use crate::error::Error;
use crate::family::{Space, StitchSpec, WindowSpec};
use crate::graph::{Node, Op};
use crate::space::window::{self, Rule};
use crate::space::{self, Block, Cost, Limits, Path, Stage, Stitch, two_way};

/// An anchor and where its stages lie.
struct Staged {
    anchor: space::Anchor,
    stages: Vec<StageCuts>,
}

/// Cuts whose maps have one size.
struct StageCuts {
    /// Before the first block, if a path can enter there.
    entry: Option<usize>,
    /// Behind each block.
    outputs: Vec<usize>,
}

/// Lists the configs that a description asks for.
pub(super) fn select(anchors: Vec<AnchorBlocks>, spec: &StitchSpec) -> Result<Blocks, Error> {
    let staged: Vec<Staged> = anchors.iter().map(staged).collect();
    let view: Vec<space::Anchor> = staged.iter().map(|staged| staged.anchor.clone()).collect();
    let ends = |stitch: &Stitch| {
        let front_cut = staged[stitch.front].stages[stitch.leave.stage].outputs[stitch.leave.block];
        let back_cut = staged[stitch.back].stages[stitch.enter.stage].before(stitch.enter.block);
        [(stitch.front, front_cut), (stitch.back, back_cut)]
    };
    let stitches = kept(stitches(&view, spec), spec, |stitch| pair_name(&anchors, ends(stitch)))?;
    for (small, large) in window::pairs(view.len(), false) {
        if !stitches.iter().any(|stitch| (stitch.front, stitch.back) == (small, large)) {
            let mismatch = mismatch(&anchors, small, large);
            let option = match (&spec.only, &spec.stages) {
                (Some(only), _) => Some(format!("only = {only:?}")),
                (None, Some(stages)) => Some(format!("stages = {stages:?}")),
                (None, None) => None,
            };
            let why = option.map_or(mismatch, |option| {
                let [front, back] = [small, large].map(|anchor| &view[anchor].name);
                format!("stitch.{option} leaves no stitch from `{front}` to `{back}`; name others, or none for all")
            });
            return Err(Error::Family(why));
        }
    }
    let limits = Limits { max_macs: spec.max_macs, max_flash_bytes: spec.max_flash_bytes };
    let hops = spec.hops.unwrap_or(if spec.space == Space::General { 2 } else { 1 });
    let mut found: Box<dyn Iterator<Item = Path>> = if spec.space == Space::V2 {
        let allowed = |path: &Path| {
            let listed = path.stitches.iter().all(|stitch| stitches.contains(stitch));
            path.stitches.is_empty() || listed && !path.is_idle(&view) && limits.allow(path.cost(&view))
        };
        Box::new(two_way::paths(&view).into_iter().filter(allowed))
    } else {
        Box::new(space::general(&view, &stitches, hops, limits))
    };
    // Anchors come first and always stay.
    let stitched: Vec<Path> = found.by_ref().take(spec.max_configs.max(view.len())).skip(view.len()).collect();
    let more = found.next().is_some();
    drop(found);
    if view.len() > 1 && stitched.is_empty() {
        return Err(Error::Family("[stitch]: no stitched config is within its limits; widen them".into()));
    }
    let (mut pairs, mut numbers, mut layers): (Vec<Pair>, BTreeMap<Stitch, usize>, BTreeMap<_, usize>) =
        Default::default();
    let mut number = |stitch: Stitch| {
        *numbers.entry(stitch).or_insert_with(|| {
            let ends = ends(&stitch);
            // Layers of one window that map other widths are others.
            let channels = ends.map(|(anchor, cut)| anchors[anchor].cuts[cut].shape[2]);
            let next = layers.len();
            let layer = *layers.entry((stitch.layer_key(), channels)).or_insert(next);
            let [(front, front_cut), (back, back_cut)] = ends;
            pairs.push(Pair { front, front_cut, back, back_cut, layer });
            pairs.len() - 1
        })
    };
    let paths = stitched.iter().map(|path| path.stitches.iter().map(|&stitch| number(stitch)).collect()).collect();
    let blocks = Blocks { anchors, pairs, paths, more, skip_last_norm: spec.skip_last_norm };
    if let Some(anchor) = (0..blocks.anchors.len()).find(|&anchor| !blocks.ends_with_a_norm(anchor))
        && spec.skip_last_norm
    {
        let name = &blocks.anchors[anchor].graph.name;
        return Err(Error::Family(format!(
            "stitch.skip_last_norm is given, and the last block of `{name}` has no layer norm"
        )));
    }
    Ok(blocks)
}

/// `small.2>medium.3`: the anchor and the cut that a stitch leaves, and those that it enters.
pub(super) fn pair_name(anchors: &[AnchorBlocks], ends: [(usize, usize); 2]) -> String {
    let [front, back] = ends.map(|(anchor, cut)| format!("{}.{cut}", anchors[anchor].graph.name));
    format!("{front}>{back}")
}

/// The stitches that the description names, or all.
fn kept(stitches: Vec<Stitch>, spec: &StitchSpec, name: impl Fn(&Stitch) -> String) -> Result<Vec<Stitch>, Error> {
    let Some(only) = &spec.only else { return Ok(stitches) };
    let names: Vec<String> = stitches.iter().map(name).collect();
    if let Some(unknown) = only.iter().find(|wanted| !names.contains(wanted)) {
        let has = names.join(", ");
        return Err(Error::Family(format!("stitch.only names `{unknown}`; the space has {has}")));
    }
    Ok(stitches.into_iter().zip(names).filter(|(_, name)| only.contains(name)).map(|(stitch, _)| stitch).collect())
}

/// The stitches that paths are made of.
fn stitches(view: &[space::Anchor], spec: &StitchSpec) -> Vec<Stitch> {
    let both_ways = spec.direction == Direction::Both;
    match spec.space {
        Space::Stages => {
            let ways = |(small, large)| [Some((small, large)), both_ways.then_some((large, small))];
            let ways = window::pairs(view.len(), false).flat_map(ways).flatten();
            ways.flat_map(|(front, back)| window::one_per_block(view, front, back)).collect()
        }
        Space::V1 | Space::General => {
            let WindowSpec { kernel, stride } = spec.window.unwrap_or(WindowSpec { kernel: 2, stride: 1 });
            let (advancing, stages) = (spec.advancing, spec.stages.clone());
            let (all_pairs, shifted_layers) = (spec.all_pairs, spec.shifted_layers);
            window::stitches(view, &Rule { kernel, stride, advancing, stages, all_pairs, both_ways, shifted_layers })
        }
        Space::V2 => two_way::paths(view).into_iter().flat_map(|path| path.stitches).collect(),
    }
}

impl StageCuts {
    /// The cut before a block. Nothing enters before block 0 of a stage that has no cut there.
    fn before(&self, block: usize) -> usize {
        block.checked_sub(1).map_or(self.entry.unwrap_or(self.outputs[0]), |block| self.outputs[block])
    }
}

/// Inner cuts that are outputs of blocks, grouped by rows and columns. A block that only opens a stage counts as the
/// stage's input, not as a block, where the group has another member.
fn staged(anchor: &AnchorBlocks) -> Staged {
    let last = anchor.cuts.len() - 1;
    let mut groups: Vec<([usize; 2], Vec<usize>)> = vec![];
    for cut in 1..last {
        let [height, width, _] = anchor.cuts[cut].shape;
        match groups.last_mut() {
            Some((map, cuts)) if *map == [height, width] => cuts.push(cut),
            _ => groups.push(([height, width], vec![cut])),
        }
    }
    let block = |cut: usize| Block { cost: cost(anchor, cut - 1), width: anchor.cuts[cut].shape[2] };
    let (mut stages, mut cuts) = (vec![], vec![]);
    for (map, mut outputs) in groups {
        let entry = (outputs.len() > 1 && anchor.opens[outputs[0] - 1]).then(|| outputs.remove(0));
        let blocks = outputs.iter().map(|&cut| block(cut)).collect();
        let nothing = Block { cost: Cost::default(), width: 0 };
        stages.push(Stage { map, entry: entry.map_or(nothing, block), open: entry.is_some(), blocks });
        cuts.push(StageCuts { entry, outputs });
    }
    let anchor = space::Anchor { name: anchor.graph.name.clone(), stages, tail: cost(anchor, last - 1) };
    Staged { anchor, stages: cuts }
}

/// What a block costs. Flash is that of convolutions, which hold nearly all of it: rows padded to whole words, bias,
/// multiplier and shift per channel.
fn cost(anchor: &AnchorBlocks, block: usize) -> Cost {
    let graph = &anchor.graph;
    let of = |node: &Node| {
        let mut flash_bytes = 0;
        if let Op::Conv { weights, bias, groups, .. } = &node.op {
            let row = weights.len() / bias.len().max(1);
            let row = if *groups > 1 { row } else { row.next_multiple_of(4) };
            flash_bytes = bias.len() * (row + 9);
        }
        let [parameters, flash_bytes] = [node.op.parameters(), flash_bytes].map(|count| count as u64);
        Cost { macs: node.macs(&graph.tensors), parameters, flash_bytes }
    };
    anchor.blocks[block].iter().map(|&node| of(&graph.nodes[node])).sum()
}

/// Why no cut of one anchor answers one of another: their maps.
pub(super) fn mismatch(anchors: &[AnchorBlocks], small: usize, large: usize) -> String {
    let [(front, leaves), (back, enters)] =
        [small, large].map(|anchor| (&anchors[anchor].graph.name, maps(&anchors[anchor])));
    format!(
        "no cut of `{front}` answers one of `{back}`, which needs two blocks whose maps have the rows and columns of a block of \
         the former: nothing can be stitched; `{front}` has {leaves}; `{back}` has {enters}"
    )
}

/// `cuts 1..=3 of 16x16x4, 4..=5 of 8x8x8`.
fn maps(anchor: &AnchorBlocks) -> String {
    let inner: Vec<usize> = (1..anchor.cuts.len() - 1).collect();
    let shape = |cut: usize| anchor.cuts[cut].shape;
    let groups = inner.chunk_by(|&a, &b| shape(a) == shape(b)).map(|cuts| {
        let [height, width, channels] = shape(cuts[0]);
        format!("{}..={} of {height}x{width}x{channels}", cuts[0], cuts[cuts.len() - 1])
    });
    let groups: Vec<String> = groups.collect();
    if groups.is_empty() { "no cut inside".into() } else { format!("cuts {}", groups.join(", ")) }
}

#[cfg(test)]
mod tests;
