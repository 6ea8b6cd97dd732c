//! Stage 3: canonical float form. Each rule is a small rewrite that keeps the function; they run until none applies.

use crate::error::Error;
use crate::graph::{Clamp, Graph, Node, Op, Window};

/// A rewrite: looks at the graph, changes at most one place, says whether it did.
type Rule = fn(&mut Graph) -> bool;

/// Applies every rule until nothing changes, then drops what nobody reads and numbers tensors densely.
///
/// # Errors
/// [`Error::Stage`] if the output of the graph is its input.
pub fn simplify(mut graph: Graph) -> Result<Graph, Error> {
    const RULES: [Rule; 7] =
        [fold_scale, scale_to_depthwise, fuse_clamp, merge_pad, merge_rolls, pick_before_norm, drop_identity];
    drop_unread(&mut graph);
    while RULES.iter().any(|rule| rule(&mut graph)) {}
    drop_unread(&mut graph);
    if graph.nodes.is_empty() {
        let what = format!("{}: no operation lies between input and output", graph.name);
        return Err(Error::Stage { stage: "simplify", what });
    }
    pull_taps(&mut graph);
    Ok(renumber(graph))
}

/// Puts what computes a tap behind what it reads: so a tap belongs to the block behind the cut where it branches off.
fn pull_taps(graph: &mut Graph) {
    for tap in graph.taps.clone() {
        let Some(from) = writer(graph, tap) else { continue };
        let node = graph.nodes.remove(from);
        let sources = node.inputs.iter().filter_map(|&input| writer(graph, input));
        let behind = sources.max().map_or(0, |source| source + 1);
        graph.nodes.insert(behind, node);
    }
}

fn readers(graph: &Graph, tensor: usize) -> usize {
    let reads = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == tensor).count();
    let ends = graph.taps.iter().chain([&graph.output]).filter(|&&end| end == tensor).count();
    reads + ends
}

fn writer(graph: &Graph, tensor: usize) -> Option<usize> {
    graph.nodes.iter().position(|node| node.output == tensor)
}

/// The node that alone feeds node `position`, if nothing else reads what it writes.
fn sole_source(graph: &Graph, position: usize) -> Option<usize> {
    let &[input] = &graph.nodes[position].inputs[..] else { return None };
    writer(graph, input).filter(|_| readers(graph, input) == 1)
}

/// Removes node `position` and lets its source write its output.
fn absorb(graph: &mut Graph, source: usize, position: usize) {
    graph.nodes[source].output = graph.nodes[position].output;
    let node = graph.nodes.remove(position);
    // The source may now write later readers' operand earlier than before, which keeps the order valid.
    debug_assert!(source < position, "{} before {}", source, node.name);
}

/// conv → scale = conv with scaled weights and bias (batch-norm folding); layer norm → scale = layer norm.
fn fold_scale(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        let Op::Scale { factor, offset } = graph.nodes[position].op.clone() else { continue };
        let Some(source) = sole_source(graph, position) else { continue };
        let scale = factor.iter().zip(&offset);
        match &mut graph.nodes[source].op {
            Op::Conv { weights, bias, clamp: Clamp::NONE, .. } => {
                for ((mut weights, bias), (factor, offset)) in weights.outer_iter_mut().zip(bias).zip(scale) {
                    weights *= *factor;
                    *bias = *bias * factor + offset;
                }
            }
            Op::LayerNorm { factor: own, offset: bias, .. } => {
                for ((own, bias), (factor, offset)) in own.iter_mut().zip(bias).zip(scale) {
                    *own *= factor;
                    *bias = *bias * factor + offset;
                }
            }
            _ => continue,
        }
        absorb(graph, source, position);
        return true;
    }
    false
}

/// scale = depthwise 1×1 convolution, where there is no convolution to fold it into.
fn scale_to_depthwise(graph: &mut Graph) -> bool {
    for node in &mut graph.nodes {
        let Op::Scale { factor, offset } = &node.op else { continue };
        let channels = factor.len();
        let weights = ndarray::Array4::from_shape_fn([channels, 1, 1, 1], |(channel, ..)| factor[channel]);
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        node.op = Op::Conv { weights, bias: offset.clone(), window, groups: channels, clamp: Clamp::NONE };
        return true;
    }
    false
}

fn is_identity(node: &Node, tensors: &[[usize; 3]]) -> bool {
    matches!(node.op, Op::Move { origin: [0, 0, 0], step: [1, 1], repeat: [1, 1], .. })
        && tensors[node.inputs[0]] == tensors[node.output]
}

/// op → clamp = op with a clamp.
fn fuse_clamp(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        if !is_identity(&graph.nodes[position], &graph.tensors) {
            continue;
        }
        let outer = graph.nodes[position].op.clamp();
        let Some(source) = sole_source(graph, position) else { continue };
        let Some(clamp) = graph.nodes[source].op.clamp_mut() else { continue };
        *clamp = clamp.then(outer);
        absorb(graph, source, position);
        return true;
    }
    false
}

/// zero pad → conv = conv with padding, where the window stays larger than the padding.
fn merge_pad(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        let Op::Conv { window, .. } = &graph.nodes[position].op else { continue };
        let window = *window;
        let Some(source) = sole_source(graph, position) else { continue };
        let Op::Move { origin: [top, left, 0], step: [1, 1], repeat: [1, 1], clamp: Clamp::NONE } =
            graph.nodes[source].op
        else {
            continue;
        };
        let input = graph.nodes[source].inputs[0];
        let ([height, width, channels], [tall, wide, same]) =
            (graph.tensors[input], graph.tensors[graph.nodes[source].output]);
        let added = [-top, -left, tall as isize - height as isize + top, wide as isize - width as isize + left];
        let mut pad = window.pad;
        for (pad, added) in pad.iter_mut().zip(added) {
            *pad = pad.saturating_add_signed(added);
        }
        let fits = (0..4).all(|side| pad[side] < window.kernel[side % 2]);
        if added.iter().any(|&added| added < 0) || channels != same || !fits {
            continue;
        }
        if let Op::Conv { window, .. } = &mut graph.nodes[position].op {
            window.pad = pad;
        }
        graph.nodes[position].inputs[0] = input;
        graph.nodes.remove(source);
        return true;
    }
    false
}

/// roll → roll = roll by both.
fn merge_rolls(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        let Op::Roll { by: [down, right] } = graph.nodes[position].op else { continue };
        let Some(source) = sole_source(graph, position) else { continue };
        let [height, width, _] = graph.tensors[graph.nodes[position].output];
        let Op::Roll { by } = &mut graph.nodes[source].op else { continue };
        *by = [(by[0] + down) % height, (by[1] + right) % width];
        absorb(graph, source, position);
        return true;
    }
    false
}

/// norm → choice of positions = choice, then norm of what is left: a head reads one token of all.
fn pick_before_norm(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        let (from, to) = (graph.nodes[position].inputs[0], graph.nodes[position].output);
        let ([height, width, channels], [rows, columns, same]) = (graph.tensors[from], graph.tensors[to]);
        let Op::Move { origin: [top, left, 0], step, repeat: [1, 1], clamp: Clamp::NONE } = graph.nodes[position].op
        else {
            continue;
        };
        let last = [top + ((rows - 1) * step[0]) as isize, left + ((columns - 1) * step[1]) as isize];
        let inside = top >= 0 && left >= 0 && last[0] < height as isize && last[1] < width as isize;
        let Some(source) = sole_source(graph, position) else { continue };
        if channels != same || !inside || !matches!(graph.nodes[source].op, Op::LayerNorm { .. }) {
            continue;
        }
        // The move reads what the norm read, the norm what the move writes now.
        let before = graph.nodes[source].inputs[0];
        graph.tensors[from] = graph.tensors[to];
        (graph.nodes[position].inputs[0], graph.nodes[position].output) = (before, from);
        (graph.nodes[source].inputs[0], graph.nodes[source].output) = (from, to);
        graph.nodes.swap(source, position);
        return true;
    }
    false
}

/// Removes a move that neither moves nor clamps.
fn drop_identity(graph: &mut Graph) -> bool {
    for position in 0..graph.nodes.len() {
        let node = &graph.nodes[position];
        if !is_identity(node, &graph.tensors)
            || node.op.clamp() != Clamp::NONE
            || node.output == graph.output
            || graph.taps.contains(&node.output)
        {
            continue;
        }
        let (from, to) = (node.output, node.inputs[0]);
        graph.nodes.remove(position);
        for input in graph.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if *input == from {
                *input = to;
            }
        }
        return true;
    }
    false
}

/// Removes nodes whose result nobody reads.
fn drop_unread(graph: &mut Graph) {
    while let Some(position) = (0..graph.nodes.len()).find(|&node| readers(graph, graph.nodes[node].output) == 0) {
        graph.nodes.remove(position);
    }
}

/// Tensors 0, 1, …: the input, then results in order.
fn renumber(mut graph: Graph) -> Graph {
    let mut new = vec![usize::MAX; graph.tensors.len()];
    let mut tensors = vec![graph.tensors[graph.input]];
    new[graph.input] = 0;
    for node in &mut graph.nodes {
        new[node.output] = tensors.len();
        tensors.push(graph.tensors[node.output]);
        node.output = new[node.output];
        for input in &mut node.inputs {
            *input = new[*input];
        }
    }
    let taps = graph.taps.iter().map(|&tap| new[tap]).collect();
    Graph { output: new[graph.output], input: 0, tensors, taps, ..graph }
}

#[cfg(test)]
mod tests;
