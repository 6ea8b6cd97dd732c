//! Published architectures as stages and costs, derived from their shapes. Multiply-accumulates by the rule of the
//! published tables (fvcore, 224×224): convolutions, linear layers and attention products by their products, layer norm
//! 5 and batch norm 2 per element, global pooling 1 per element it reads; no biases, softmax, activations, sums.

use crate::space::{Anchor, Block, Cost, Stage};

/// Costs as the tables count them; flash is not theirs.
fn cost(macs: usize, parameters: usize) -> Cost {
    Cost { macs: macs as u64, parameters: parameters as u64, flash_bytes: 0 }
}

fn stage(side: usize, open: bool, entry: Block, blocks: Vec<Block>) -> Stage {
    Stage { map: [side; 2], entry, open, blocks }
}

fn same(cost: Cost, width: usize, depth: usize) -> Vec<Block> {
    vec![Block { cost, width }; depth]
}

/// What a DeiT anchor has and a path that leaves or enters it is not counted with: class token and position embedding,
/// and the multiplications of the final norm, which version 1 leaves out behind a stitch (§2.4).
pub(super) fn deit_anchor_only(width: usize) -> Cost {
    cost(5 * 197 * width, width + 197 * width)
}

/// DeiT; as an anchor it costs [`deit_anchor_only`] more.
pub(super) fn deit(name: &str, width: usize) -> Anchor {
    let (n, d) = (197, width);
    let block = cost(12 * n * d * d + 2 * n * n * d + 10 * n * d, 12 * d * d + 13 * d);
    let entry = Block { cost: cost(196 * 768 * d, 768 * d + d), width };
    let stages = vec![Stage { map: [n, 1], entry, open: true, blocks: same(block, d, 12) }];
    Anchor { name: name.into(), stages, tail: cost(1000 * d, 1000 * d + 1000 + 2 * d) }
}

/// DeiT3 of SN-Netv2: every path ends with the final norm.
pub(super) fn deit3(name: &str, width: usize, depth: usize) -> Anchor {
    let mut anchor = deit(name, width);
    let block = anchor.stages[0].blocks[0];
    let cost = block.cost + cost(0, 2 * width);
    anchor.stages[0].blocks = vec![Block { cost, ..block }; depth];
    anchor.tail.macs += 5 * 197 * width as u64;
    anchor
}

/// Swin with window 7; `width` of the first stage.
pub(super) fn swin(name: &str, width: usize, depths: [usize; 4]) -> Anchor {
    let mut stages = vec![];
    for (number, depth) in depths.into_iter().enumerate() {
        let (side, c) = (56 >> number, width << number);
        let (l, heads) = (side * side, c / 32);
        let entry = if number == 0 {
            cost(l * 48 * c + 5 * l * c, 48 * c + c + 2 * c)
        } else {
            // Four neighbours of half the width: norm and reduction.
            cost(l * 2 * c * c + 5 * l * 2 * c, 2 * c * c + 4 * c)
        };
        let block = cost(12 * l * c * c + 2 * l * 49 * c + 10 * l * c, 12 * c * c + 13 * c + 169 * heads);
        stages.push(stage(side, true, Block { cost: entry, width: c }, same(block, c, depth)));
    }
    let last = 8 * width;
    Anchor { name: name.into(), stages, tail: cost(5 * 49 * last + 1000 * last, 2 * last + 1000 * last + 1000) }
}

/// A convolution without bias and its batch norm.
fn conv(kernel: usize, from: usize, to: usize, side: usize) -> Cost {
    let weights = kernel * kernel * from * to;
    cost(side * side * (weights + 2 * to), weights + 2 * to)
}

/// ResNet-18 (`bottleneck` false) or ResNet-50.
pub(super) fn resnet(name: &str, bottleneck: bool, depths: [usize; 4]) -> Anchor {
    let stem = conv(7, 3, 64, 112);
    let mut from = 64;
    let mut stages = vec![];
    for (number, depth) in depths.into_iter().enumerate() {
        let (side, inner) = (56 >> number, 64 << number);
        let to = if bottleneck { 4 * inner } else { inner };
        let mut blocks = vec![];
        for block in 0..depth {
            let reads = if block == 0 && number > 0 { 2 * side } else { side };
            let project = if from == to { Cost::default() } else { conv(1, from, to, side) };
            let work = if bottleneck {
                conv(1, from, inner, reads) + conv(3, inner, inner, side) + conv(1, inner, to, side)
            } else {
                conv(3, from, to, side) + conv(3, to, to, side)
            };
            blocks.push(Block { cost: work + project, width: to });
            from = to;
        }
        let entry = Block { cost: if number == 0 { stem } else { Cost::default() }, width: 64 };
        stages.push(stage(side, number == 0, entry, blocks));
    }
    Anchor { name: name.into(), stages, tail: cost(49 * from + 1000 * from, 1000 * from + 1000) }
}

/// A linear layer without bias and its batch norm.
fn linear(tokens: usize, from: usize, to: usize) -> Cost {
    cost(tokens * (from * to + 2 * to), from * to + 2 * to)
}

/// Expand by two, contract.
fn mlp(tokens: usize, width: usize) -> Cost {
    linear(tokens, width, 2 * width) + linear(tokens, 2 * width, width)
}

/// LeViT of keys of 32: widths and heads per stage. A block is attention and MLP.
pub(super) fn levit(name: &str, widths: [usize; 3], heads: [usize; 3]) -> Anchor {
    let first = widths[0];
    let mut entry = conv(3, 3, first / 8, 112)
        + conv(3, first / 8, first / 4, 56)
        + conv(3, first / 4, first / 2, 28)
        + conv(3, first / 2, first, 14);
    let mut stages = vec![];
    for (number, (width, heads)) in widths.into_iter().zip(heads).enumerate() {
        let side = [14usize, 7, 4][number];
        let n = side * side;
        if number > 0 {
            // Attention from the smaller grid to the larger, values of 128, one head per 32 channels that it reads.
            let before = widths[number - 1];
            let (all, h) = ([14usize, 7][number - 1].pow(2), before / 32);
            let products = cost(h * n * all * (32 + 128), h * all);
            entry = linear(all, before, h * 160) + linear(n, before, h * 32) + products;
            entry = entry + linear(n, h * 128, width) + mlp(n, width);
        }
        let products = cost(heads * n * n * (32 + 64), heads * n);
        let block = linear(n, width, heads * 128) + products + linear(n, heads * 64, width) + mlp(n, width);
        stages.push(stage(side, true, Block { cost: entry, width }, same(block, width, 4)));
    }
    let last = widths[2];
    // Two classifiers behind a batch norm each.
    let head = cost(2 * last + 1000 * last, 2 * last + 1000 * last + 1000);
    Anchor { name: name.into(), stages, tail: head + head }
}
