//! What each stage decided, as text: the answer to `--stop-after STAGE --print`.

use std::fmt::Write as _;

use plan::Image;

use crate::cut::Blocks;
use crate::emit::Measured;
use crate::learn::fit::Fit;
use crate::network::{Calibrated, Placed, Quantized, Stitched};
use crate::place::{Alive, fullest};

/// Cuts, blocks and pairs as text.
pub(super) fn print_blocks(blocks: &Blocks) -> String {
    let mut text = String::new();
    for anchor in &blocks.anchors {
        let graph = &anchor.graph;
        let _ = writeln!(text, "{}: {} MACs, {} parameters", graph.name, graph.macs(), graph.parameters());
        for (block, nodes) in anchor.blocks.iter().enumerate() {
            let macs: u64 = nodes.iter().map(|&node| graph.nodes[node].macs(&graph.tensors)).sum();
            let (from, to) = (anchor.cuts[block].shape, anchor.cuts[block + 1].shape);
            let _ = writeln!(text, "  block {block:<3} {from:?} -> {to:?}  {} nodes, {macs} MACs", nodes.len());
        }
    }
    for pair in &blocks.pairs {
        let name = |anchor: usize| &blocks.anchors[anchor].graph.name;
        let _ = writeln!(
            text,
            "stitch {}: after {} blocks -> {}: from block {}",
            name(pair.front),
            pair.front_cut,
            name(pair.back),
            pair.back_cut
        );
    }
    for path in blocks.paths.iter().filter(|path| path.len() > 1) {
        let _ = writeln!(text, "config {}", blocks.path_name(path));
    }
    text
}

pub(super) fn print_stitched(stitched: &Stitched, fits: &[Fit]) -> String {
    let mut text = String::new();
    for Fit { stitches, ridge, held_out_error, inputs, dependent } in fits {
        let _ = writeln!(
            text,
            "stitch {}: ridge {ridge:e}, error {held_out_error:.4} on held-out images, {dependent} of {inputs} inputs dependent",
            stitches.join(", ")
        );
    }
    for path in &stitched.paths {
        let segments: Vec<&str> = path.segments.iter().map(|&s| &stitched.segments[s].name[..]).collect();
        let _ = writeln!(text, "{}: {} corrections; {}", path.name, path.corrections.len(), segments.join(" "));
    }
    text
}

pub(super) fn print_calibrated(calibrated: &Calibrated) -> String {
    let mut text = String::new();
    for (segment, extents) in calibrated.stitched.segments.iter().zip(&calibrated.tensors) {
        for (tensor, extent) in extents.iter().enumerate() {
            let _ = writeln!(text, "{} t{tensor}: {:.4} .. {:.4}", segment.name, extent.min, extent.max);
        }
    }
    text
}

pub(super) fn print_quantized(quantized: &Quantized) -> String {
    let mut text = String::new();
    for segment in &quantized.segments {
        for (op, found) in segment.ops.iter().enumerate() {
            let (shape, quant) = segment.tensors[found.record.output.index()];
            let (kind, scale, zero) = (found.record.kind, quant.scale, quant.zero_point);
            let _ = writeln!(text, "{} op {op}: {kind:?} -> {shape:?} scale {scale:e} zero {zero}", segment.name);
        }
    }
    text
}

pub(super) fn print_placed(placed: &Placed) -> String {
    let mut text = String::new();
    for (segment, placement) in placed.quantized.segments.iter().zip(&placed.placements) {
        let (peak, live) = (placement.peak_bytes, placement.live_bytes);
        let _ = writeln!(text, "{}: arena {peak}, alive {live}, offsets {:?}", segment.name, placement.offsets);
        if let Ok((op, alive)) = fullest(segment) {
            let named = |Alive { tensor, bytes }| match tensor {
                Some(tensor) => {
                    format!("t{tensor} {:?} {:?} {bytes}", segment.shape(tensor), segment.tensors[tensor].1.element)
                }
                None => format!("scratch {bytes}"),
            };
            let names: Vec<String> = alive.into_iter().map(named).collect();
            let _ = writeln!(text, "  most at op {op}, {:?}: {}", segment.ops[op].record.kind, names.join(", "));
        }
        for (op, found) in segment.ops.iter().enumerate().filter(|(_, found)| found.record.is_streamed()) {
            let output = found.record.output.index();
            let (held, whole) = (segment.shape(output), segment.tensors[output].0);
            let _ = writeln!(text, "  op {op} {:?} hands on t{output}, {whole:?}, as {held:?}", found.record.kind);
        }
    }
    text
}

pub(super) fn print_scores(placed: &Placed, measured: &Measured) -> String {
    let mut text = String::new();
    for (number, path) in placed.quantized.paths.iter().enumerate() {
        let per_cent = |scores: &Vec<u16>| scores.get(number).map(|&score| f64::from(score) / 100.0);
        let float = per_cent(&measured.float_scores).map_or(String::new(), |float| format!(", float {float:.2} %"));
        let _ = writeln!(text, "{}: {:.2} %{float}", path.name, per_cent(&measured.scores).unwrap_or(0.0));
    }
    text
}

pub(super) fn print_image(image: &Image<'_>) -> String {
    format!(
        "{} bytes: {} cuts, {} tensors, {} ops, {} segments, {} configs\n",
        image.bytes().len(),
        image.cuts(),
        image.tensors(),
        image.ops(),
        image.segments(),
        image.configs()
    )
}
