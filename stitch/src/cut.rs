//! Stage 4: where an anchor may be left and entered, and which cut of a smaller anchor answers which of a larger.
//!
//! A cut is a tensor that every path from input to output passes and at which work of different blocks meets: the
//! result of a join (`Add`, `Concat`), or a tensor that is read more than once. In a residual network these are the
//! stem's output and the output of every residual block. Names play no part.

use crate::error::Error;
use crate::graph::{Graph, Op};

/// A cut of one anchor. Cut 0 is the input, the last is the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutInfo {
    /// Tensor of the anchor's graph.
    pub tensor: usize,
    /// Shape `[H, W, C]`.
    pub shape: [usize; 3],
}

/// An anchor and its cuts; block `k` runs from cut `k` to cut `k + 1`.
#[derive(Clone, Debug)]
pub struct AnchorBlocks {
    /// The network.
    pub graph: Graph,
    /// Cuts in order.
    pub cuts: Vec<CutInfo>,
    /// Nodes of each block, as positions in the graph.
    pub blocks: Vec<Vec<usize>>,
}

/// Leave `front` at one cut, enter `back` at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Anchor that is left.
    pub front: usize,
    /// Its cut: blocks `0..front_cut` have run.
    pub front_cut: usize,
    /// Anchor that is entered.
    pub back: usize,
    /// Its cut: blocks `back_cut..` run.
    pub back_cut: usize,
}

/// Output of the stage.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Anchors in increasing order of cost.
    pub anchors: Vec<AnchorBlocks>,
    /// Stitches to learn.
    pub pairs: Vec<Pair>,
}

/// Which way stitches lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the smaller anchor to the larger (SN-Net's fast-to-slow).
    #[default]
    Up,
    /// Also from the larger to the smaller, so that a run can step down inside an inference.
    Both,
}

/// Finds the cuts of every anchor and matches those of neighbours.
///
/// # Errors
/// [`Error::Family`] if inputs or outputs differ, or if no cut of one neighbour answers one of the other.
pub fn cut(graphs: Vec<Graph>, direction: Direction) -> Result<Blocks, Error> {
    let Some(first) = graphs.first() else {
        return Err(Error::Family("no anchors; at least one is needed".into()));
    };
    for graph in &graphs {
        for (what, found, expected) in [
            ("input", graph.tensors[graph.input], first.tensors[first.input]),
            ("output", graph.tensors[graph.output], first.tensors[first.output]),
        ] {
            if found != expected {
                return Err(Error::Family(format!(
                    "the {what} of `{}` is {found:?} [H, W, C], that of `{}` is {expected:?}; they must be equal",
                    graph.name, first.name
                )));
            }
        }
    }
    let anchors: Vec<AnchorBlocks> = graphs.into_iter().map(blocks).collect();
    let mut pairs = vec![];
    for small in 0..anchors.len().saturating_sub(1) {
        let up = matches(&anchors, small, small + 1);
        if up.is_empty() {
            return Err(Error::Family(format!(
                "no cut of `{}` answers one of `{}`, which needs two blocks whose maps have the rows and columns of a block \
                 of the former: nothing can be stitched",
                anchors[small].graph.name,
                anchors[small + 1].graph.name
            )));
        }
        pairs.extend(up);
        if direction == Direction::Both {
            pairs.extend(matches(&anchors, small + 1, small));
        }
    }
    Ok(Blocks { anchors, pairs })
}

/// Cuts and blocks of one anchor.
fn blocks(graph: Graph) -> AnchorBlocks {
    let mut last_reader = vec![0; graph.tensors.len()];
    let mut readers = vec![0; graph.tensors.len()];
    for (position, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            last_reader[input] = position;
            readers[input] += 1;
        }
    }
    let info = |tensor: usize| CutInfo { tensor, shape: graph.tensors[tensor] };
    let mut cuts = vec![info(graph.input)];
    let mut blocks = vec![];
    let mut block = vec![];
    // Nodes run in order, so a tensor is the only one alive after node `p` if nothing made up to `p` is read later.
    let mut needed_until = last_reader[graph.input];
    for (position, node) in graph.nodes.iter().enumerate() {
        block.push(position);
        let alone = needed_until <= position;
        needed_until = needed_until.max(last_reader[node.output]);
        let meets = matches!(node.op, Op::Add { .. } | Op::Concat { .. }) || readers[node.output] > 1;
        let last = node.output == graph.output;
        if last || (alone && meets) {
            cuts.push(info(node.output));
            blocks.push(std::mem::take(&mut block));
        }
    }
    AnchorBlocks { graph, cuts, blocks }
}

/// Stage-wise matching of unequal depth (SN-Net §1): in each run of cuts with one size of map, block `i` of the back
/// answers block `⌊i·d₁/d₂⌋` of the front, and a stitch may only move forward.
fn matches(anchors: &[AnchorBlocks], front: usize, back: usize) -> Vec<Pair> {
    let (front_stages, back_stages) = (stages(&anchors[front]), stages(&anchors[back]));
    let mut pairs = vec![];
    for (size, front_outputs) in &front_stages {
        let Some((_, back_outputs)) = back_stages.iter().find(|(other, _)| other == size) else { continue };
        let (front_depth, back_depth) = (front_outputs.len(), back_outputs.len());
        for block in 1..back_depth {
            // A deeper front has done the work of `block` blocks when its next block would begin.
            let answered = block * front_depth / back_depth - usize::from(front_depth > back_depth);
            // Enter where block `block` begins: at the output of the one before.
            let (front_cut, back_cut) = (front_outputs[answered], back_outputs[block - 1]);
            pairs.push(Pair { front, front_cut, back, back_cut });
        }
    }
    pairs.sort_by_key(|pair| (pair.front_cut, pair.back_cut));
    pairs
}

/// Inner cuts that are outputs of blocks, grouped by rows and columns. A stem that only opens the first stage counts
/// as its input, not as a block: it is dropped where the group has another member.
fn stages(anchor: &AnchorBlocks) -> Vec<([usize; 2], Vec<usize>)> {
    let mut stages: Vec<([usize; 2], Vec<usize>)> = vec![];
    let inner = 1..anchor.cuts.len().saturating_sub(1);
    for cut in inner {
        let [height, width, _] = anchor.cuts[cut].shape;
        match stages.last_mut() {
            Some((size, cuts)) if *size == [height, width] => cuts.push(cut),
            _ => stages.push(([height, width], vec![cut])),
        }
    }
    if let Some((_, cuts)) = stages.first_mut() {
        let stem_only = anchor.blocks.first().is_some_and(|block| {
            block.iter().all(|&node| !matches!(anchor.graph.nodes[node].op, Op::Add { .. } | Op::Concat { .. }))
        });
        if stem_only && cuts.len() > 1 {
            cuts.remove(0);
        }
    }
    stages
}
