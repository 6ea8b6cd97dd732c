//! Which tensors are int16.
//!
//! A LayerNorm divides by the spread of its input, so steps of 8 bits would be magnified where the spread is small, and a
//! residual stream adds up the rounding of every block. Both are int16: what a LayerNorm reads, and from there back
//! through sums and movements to where the values were computed. Everything else is int8.

use crate::error::Error;
use crate::graph::{Clamp, Node, Op};
use crate::network::{Segment, Stitched};

/// Which cuts, and which tensors of each segment, are int16.
pub(crate) struct Wide {
    pub cuts: Vec<bool>,
    pub tensors: Vec<Vec<bool>>,
}

/// Decides for a whole family: a cut is the same in every segment that touches it. Pixels and scores stay bytes.
pub(crate) fn wide(stitched: &Stitched) -> Wide {
    spread_from(stitched, &[])
}

/// The same, with more tensors of 16 bits: `asked` names them, `segment:node`.
///
/// # Errors
/// [`Error::Family`] if a name is not there.
pub(super) fn wide_as_asked(stitched: &Stitched, asked: &[String]) -> Result<Wide, Error> {
    let all = || stitched.segments.iter().flat_map(|segment| segment.nodes.iter().map(move |node| name(segment, node)));
    match asked.iter().find(|asked| !all().any(|name| name == **asked)) {
        Some(missing) => Err(Error::Family(format!(
            "quantize.wide: no tensor is called `{missing}`; `stitchnet report FAMILY --layers CONFIG` lists them"
        ))),
        None => Ok(spread_from(stitched, asked)),
    }
}

/// Tensors that are int8 and could keep more: what computes them can write int16 and something behind them reads it.
pub(crate) fn candidates(stitched: &Stitched) -> Vec<String> {
    let Wide { cuts, tensors } = wide(stitched);
    let mut names = vec![];
    for (segment, wide) in stitched.segments.iter().zip(&tensors) {
        let takes = |reader: &Node| {
            matches!(reader.op, Op::Add { .. } | Op::Offset { .. } | Op::LayerNorm { .. }) || moves_only(reader)
        };
        let read = |node: &Node| segment.nodes.iter().any(|other| takes(other) && other.inputs.contains(&node.output));
        // What leaves a segment is read elsewhere; scores stay bytes.
        let leaves = |node: &Node| node.output == segment.output && segment.to != 1 && !cuts[segment.to];
        let gives = |node: &Node| match &node.op {
            Op::Conv { groups, clamp, .. } => *clamp == Clamp::NONE && *groups == 1,
            Op::Add { clamp } => *clamp == Clamp::NONE,
            Op::Offset { .. } => true,
            _ => false,
        };
        let worth = |node: &&Node| !wide[node.output] && gives(node) && (read(node) || leaves(node));
        names.extend(segment.nodes.iter().filter(worth).map(|node| name(segment, node)));
    }
    names
}

fn name(segment: &Segment, node: &Node) -> String {
    format!("{}:{}", segment.name, node.name)
}

fn spread_from(stitched: &Stitched, asked: &[String]) -> Wide {
    let mut cuts = vec![false; stitched.cuts.len()];
    loop {
        let mut tensors = vec![];
        let mut more = cuts.clone();
        for segment in &stitched.segments {
            let mut wide = vec![false; segment.tensors.len()];
            (wide[segment.input], wide[segment.output]) = (cuts[segment.from], cuts[segment.to]);
            for node in segment.nodes.iter().filter(|node| asked.contains(&name(segment, node))) {
                wide[node.output] = true;
            }
            while segment.nodes.iter().rev().any(|node| spread(node, &mut wide)) {}
            more[segment.from] |= wide[segment.input];
            more[segment.to] |= wide[segment.output];
            tensors.push(wide);
        }
        (more[0], more[1]) = (false, false);
        if more == cuts {
            for (segment, wide) in stitched.segments.iter().zip(&mut tensors) {
                (wide[segment.input], wide[segment.output]) = (cuts[segment.from], cuts[segment.to]);
            }
            return Wide { cuts, tensors };
        }
        cuts = more;
    }
}

fn moves_only(node: &Node) -> bool {
    matches!(node.op, Op::Move { .. } | Op::Concat { .. } | Op::Prepend { .. } | Op::Roll { .. })
}

/// Marks what one node makes int16; says whether that was new.
fn spread(node: &Node, wide: &mut [bool]) -> bool {
    let moves = moves_only(node);
    let sums = matches!(node.op, Op::Add { .. } | Op::Offset { .. });
    let norm = matches!(node.op, Op::LayerNorm { .. });
    let wide_output = wide[node.output];
    let any = wide_output || node.inputs.iter().any(|&input| wide[input]);
    let mut new = false;
    let mut mark = |tensor: usize| {
        new |= !wide[tensor];
        wide[tensor] = true;
    };
    if norm {
        mark(node.inputs[0]);
    } else if moves && any {
        node.inputs.iter().copied().chain([node.output]).for_each(mark);
    } else if sums && wide_output {
        node.inputs.iter().copied().for_each(mark);
    }
    new
}
