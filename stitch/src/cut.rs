//! Stage 4: where an anchor may be left and entered, and which cut of a smaller anchor answers which of a larger.
//!
//! A cut is a tensor that every path from input to output passes and at which work of different blocks meets: the
//! result of a join (`Add`, `Concat`), or a tensor that is read more than once. In a residual network these are the
//! stem's output and the output of every residual block. Names play no part.
//!
//! Two kinds of parts between such tensors are no blocks of their own. What follows an attention and works on each position
//! alone is the second half of a transformer's block. What only moves values (the patches before a merging) belongs to what
//! computes with them.

mod paths;

use crate::error::Error;
use crate::family::StitchSpec;
use crate::graph::{Graph, Op};
use crate::space::window;

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
    /// Whether a block only leads from the input or to a map of another size: no sum joins what it computes with what it
    /// read. Such a block opens a stage (a stem, a patch merging), and is none that another anchor's block would answer.
    pub opens: Vec<bool>,
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
    /// Number of the layer. Pairs with one number share its weights, and are segments of their own: a segment starts
    /// from one cut and ends at one, each with its own quantisation.
    pub layer: usize,
}

/// Output of the stage.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Anchors in increasing order of cost.
    pub anchors: Vec<AnchorBlocks>,
    /// Stitches to learn.
    pub pairs: Vec<Pair>,
    /// Stitched configs: pairs in the order in which a path takes them.
    pub paths: Vec<Vec<usize>>,
    /// Whether the space has more paths than the description asks for.
    pub more: bool,
    /// Whether a stitched config runs the last block of its last anchor without its norm.
    pub skip_last_norm: bool,
}

impl Blocks {
    /// `small.2>medium.3`: leaves `small` at its cut 2, enters `medium` at its cut 3.
    #[must_use]
    pub fn pair_name(&self, pair: &Pair) -> String {
        paths::pair_name(&self.anchors, [(pair.front, pair.front_cut), (pair.back, pair.back_cut)])
    }

    /// `small.2>medium.3-5>large.7`: the name of the first pair, then for each further one the cut at which it leaves.
    #[must_use]
    pub fn path_name(&self, path: &[usize]) -> String {
        let mut name = String::new();
        for &number in path {
            let pair = self.pair_name(&self.pairs[number]);
            let known = self.anchors[self.pairs[number].front].graph.name.len() + 1;
            if name.is_empty() { name = pair } else { name = name + "-" + &pair[known..] }
        }
        name
    }

    /// Whether the last block of an anchor has a layer norm.
    fn ends_with_a_norm(&self, anchor: usize) -> bool {
        let AnchorBlocks { graph, blocks, .. } = &self.anchors[anchor];
        blocks.last().is_some_and(|last| last.iter().any(|&node| matches!(graph.nodes[node].op, Op::LayerNorm { .. })))
    }

    /// Pairs of anchors, the cheaper first, that no stitch joins.
    #[must_use]
    pub fn unmatched(&self) -> Vec<(usize, usize)> {
        let joined = |small: usize, large: usize| {
            self.pairs.iter().any(|pair| [(small, large), (large, small)].contains(&(pair.front, pair.back)))
        };
        window::pairs(self.anchors.len(), true).filter(|&(small, large)| !joined(small, large)).collect()
    }

    /// Why no stitch can join two anchors: the maps at their cuts.
    #[must_use]
    pub fn mismatch(&self, small: usize, large: usize) -> String {
        paths::mismatch(&self.anchors, small, large)
    }
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

/// Finds the cuts of every anchor, matches those of two, and lists the configs of the space.
///
/// # Errors
/// [`Error::Family`] if inputs or outputs differ, or if no cut of one neighbour answers one of the other.
pub fn cut(graphs: Vec<Graph>, spec: &StitchSpec) -> Result<Blocks, Error> {
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
    paths::select(graphs.into_iter().map(blocks).collect(), spec)
}

/// Cuts and blocks of one anchor.
#[must_use]
pub fn blocks(graph: Graph) -> AnchorBlocks {
    let mut last_reader = vec![0; graph.tensors.len()];
    let mut readers = vec![0; graph.tensors.len()];
    for (position, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            last_reader[input] = position;
            readers[input] += 1;
        }
    }
    let size = |tensor: usize| graph.tensors[tensor][..2].iter().product::<usize>();
    let info = |tensor: usize| CutInfo { tensor, shape: graph.tensors[tensor] };
    let mut cuts = vec![info(graph.input)];
    let mut blocks: Vec<Vec<usize>> = vec![];
    let mut opens = vec![];
    let mut block = vec![];
    // Nodes run in order, so a tensor is the only one alive after node `p` if nothing made up to `p` is read later.
    let mut needed_until = last_reader[graph.input];
    for (position, node) in graph.nodes.iter().enumerate() {
        block.push(position);
        let alone = needed_until <= position;
        needed_until = needed_until.max(last_reader[node.output]);
        let meets = matches!(node.op, Op::Add { .. } | Op::Concat { .. }) || readers[node.output] > 1;
        let last = node.output == graph.output;
        // Behind the mean or the class token there is only the head.
        let features = size(node.output) > 1 || size(graph.input) == 1;
        if !(last || (alone && meets && features)) {
            continue;
        }
        let all = |nodes: &[usize], test: fn(&Op) -> bool| nodes.iter().all(|&node| test(&graph.nodes[node].op));
        match blocks.last_mut() {
            Some(previous)
                if !last && attends(&graph, previous) && all(&block, works_on_positions)
                    || all(previous, only_moves) =>
            {
                previous.append(&mut block);
                cuts.pop();
            }
            _ => {
                let resized = cuts.last().is_some_and(|cut| cut.shape[..2] != graph.tensors[node.output][..2]);
                opens.push(!last && (blocks.is_empty() || resized) && all(&block, |op| !matches!(op, Op::Add { .. })));
                blocks.push(std::mem::take(&mut block));
            }
        }
        cuts.push(info(node.output));
    }
    AnchorBlocks { graph, cuts, blocks, opens }
}

fn attends(graph: &Graph, nodes: &[usize]) -> bool {
    nodes.iter().any(|&node| matches!(graph.nodes[node].op, Op::Attention(_)))
}

/// Whether each position of the output depends on that position of the inputs only.
fn works_on_positions(op: &Op) -> bool {
    match op {
        Op::Conv { window, .. } => window.kernel == [1, 1] && window.stride == [1, 1],
        Op::Add { .. } | Op::Concat { .. } | Op::LayerNorm { .. } | Op::Curve { .. } => true,
        Op::Move { origin: [0, 0, _], step: [1, 1], repeat: [1, 1], .. } => true,
        _ => false,
    }
}

/// Whether an op computes nothing.
fn only_moves(op: &Op) -> bool {
    matches!(op, Op::Move { .. } | Op::Concat { .. } | Op::Roll { .. })
}
