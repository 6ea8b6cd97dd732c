//! `stitchnet inspect`: what the compiler sees in a family, before it learns anything.

use std::path::Path;

use anyhow::{Result, bail};
use stitch::cut::{self, AnchorBlocks, Blocks};
use stitch::report::grouped;
use stitch::{family, import, simplify};

/// Prints anchors, blocks, cuts and stitches; then what is not supported, of every anchor.
pub fn inspect(path: &Path) -> Result<()> {
    let spec = family::read(path)?;
    let (mut graphs, mut refused) = (vec![], vec![]);
    for anchor in &spec.anchors {
        let imported = anchor.read().and_then(|bytes| import::import(&anchor.name, &bytes));
        match imported.and_then(simplify::simplify) {
            Ok(graph) => graphs.push(graph),
            Err(error) => refused.push(error.to_string()),
        }
    }
    let names: Vec<&str> = spec.anchors.iter().map(|anchor| &anchor.name[..]).collect();
    println!("{}: {} anchors ({}), {} classes\n", spec.name, names.len(), names.join(", "), spec.labels.len());
    if let Some(first) = refused.first() {
        for error in &refused[1..] {
            eprintln!("error: {error}");
        }
        bail!("{first}; {} of {} anchors can be compiled", graphs.len(), names.len());
    }
    let blocks = cut::cut(graphs, &spec.stitch)?;
    print!("{}", describe(&blocks));
    for (small, large) in blocks.unmatched().into_iter().filter(|_| spec.stitch.all_pairs) {
        println!("{}", blocks.mismatch(small, large));
    }
    println!("\nNothing is unsupported. Next: stitchnet compile {} -o {}.snet", path.display(), spec.name);
    Ok(())
}

fn describe(blocks: &Blocks) -> String {
    let mut lines = vec![];
    let shape = |[height, width, channels]: [usize; 3]| format!("{height}x{width}x{channels}");
    for anchor in &blocks.anchors {
        let graph = &anchor.graph;
        let (macs, parameters) = (grouped(graph.macs()), grouped(graph.parameters() as u64));
        lines.push(format!("{}: {macs} MACs, {parameters} parameters", graph.name));
        for (block, (nodes, ends)) in anchor.blocks.iter().zip(anchor.cuts.windows(2)).enumerate() {
            let macs = nodes.iter().map(|&node| graph.nodes[node].macs(&graph.tensors)).sum();
            let operations: Vec<&str> = nodes.iter().map(|&node| graph.nodes[node].op.name()).collect();
            let opens = if anchor.opens[block] { "   (opens a stage)" } else { "" };
            lines.push(format!(
                "  block {block:<3} {:>10} to {:<10} {:>12} MACs   {}{opens}",
                shape(ends[0].shape),
                shape(ends[1].shape),
                grouped(macs),
                operations.join(" ")
            ));
        }
        lines.push(String::new());
    }
    let most = blocks.paths.iter().map(Vec::len).max().unwrap_or(0);
    let count = |hops: usize| blocks.paths.iter().filter(|path| path.len() == hops).count();
    let counts: Vec<String> = (1..=most).map(|hops| format!("{} with {hops}", count(hops))).collect();
    let anchors = blocks.anchors.len();
    let configs = anchors + blocks.paths.len();
    lines.push(format!("{configs} configs: {anchors} anchors, by number of stitches {}", counts.join(", ")));
    if blocks.more {
        lines.push("the space has more; stitch.max_configs leaves them out".into());
    }
    let layers = blocks.pairs.iter().map(|pair| pair.layer + 1).max().unwrap_or(0);
    lines.push(format!(
        "{} stitches of {layers} layers, from a cut of one anchor to a cut of another",
        blocks.pairs.len()
    ));
    for pair in &blocks.pairs {
        let (front, back) = (&blocks.anchors[pair.front], &blocks.anchors[pair.back]);
        lines.push(format!(
            "  {}.{} {} to {}.{} {}",
            front.graph.name,
            pair.front_cut,
            shape(front.cuts[pair.front_cut].shape),
            back.graph.name,
            pair.back_cut,
            shape(back.cuts[pair.back_cut].shape)
        ));
    }
    lines.extend(unstitched(blocks));
    lines.join("\n") + "\n"
}

/// For each anchor the inner cuts at which no stitch leaves or enters, and why.
fn unstitched(blocks: &Blocks) -> Vec<String> {
    let line = |(number, anchor): (usize, &AnchorBlocks)| {
        let inner = 1..anchor.cuts.len() - 1;
        let size = |cut: usize| &anchor.cuts[cut].shape[..2];
        let used = |cut: usize| {
            blocks
                .pairs
                .iter()
                .any(|pair| [(pair.front, pair.front_cut), (pair.back, pair.back_cut)].contains(&(number, cut)))
        };
        let why = |cut: usize| {
            let like = |other: usize| inner.contains(&other) && size(other) == size(cut);
            match (like(cut - 1), like(cut + 1)) {
                (false, false) => "the only one of its size of map",
                (true, false) => "the last of its size of map: what follows makes another, which no stitch does",
                (false, true) => "where its size of map begins",
                (true, true) => "not in the space that is asked for",
            }
        };
        let cuts: Vec<String> =
            inner.clone().filter(|&cut| !used(cut)).map(|cut| format!("    cut {cut}: {}", why(cut))).collect();
        (!cuts.is_empty()).then(|| format!("  {}, no stitch at\n{}", anchor.graph.name, cuts.join("\n")))
    };
    blocks.anchors.iter().enumerate().filter_map(line).collect()
}
