//! `stitchnet inspect`: what the compiler sees in a family, before it learns anything.

use std::path::Path;

use anyhow::{Result, bail};
use stitch::cut::{self, Blocks};
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
    print!("{}", describe(&cut::cut(graphs, spec.stitch.direction)?));
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
            lines.push(format!(
                "  block {block:<3} {:>10} to {:<10} {:>12} MACs   {}",
                shape(ends[0].shape),
                shape(ends[1].shape),
                grouped(macs),
                operations.join(" ")
            ));
        }
        lines.push(String::new());
    }
    lines.push(format!("{} stitches, from a cut of one anchor to a cut of another", blocks.pairs.len()));
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
    lines.join("\n") + "\n"
}
