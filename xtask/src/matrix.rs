//! `matrix`: which operation an instruction set has something of its own for, read off its implementation of `Isa`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::readme::replaced;

/// The document, and the name of its table.
const DOCUMENT: &str = "docs/kernels.md";
const TABLE: &str = "matrix";
/// The instruction sets, and the files where they implement `Isa`.
const SETS: [&str; 9] = ["scalar", "avx2", "vnni", "avx512", "avx512vnni", "neon", "i8mm", "dsp", "mve"];

/// An operation, the items of `Isa` that are a whole body of it, and those that are leaves of the portable body.
struct Operation {
    name: &'static str,
    body: &'static [&'static str],
    leaves: &'static [&'static str],
}

const fn operation(name: &'static str, body: &'static [&'static str], leaves: &'static [&'static str]) -> Operation {
    Operation { name, body, leaves }
}

const OPERATIONS: [Operation; 10] = [
    operation("convolution, dense", &["conv"], &["dot_2x4", "dot", "requant4"]),
    operation("the same, weights in blocks", &["PACKING"], &["row_in_blocks"]),
    operation("depthwise convolution", &["depthwise"], &["requant4"]),
    operation("addition", &["add"], &[]),
    operation("addition in place", &["add_in_place"], &[]),
    operation("pool", &["pool"], &[]),
    operation("layer normalisation", &["moments", "normalise"], &[]),
    operation("softmax", &["softmax_row"], &[]),
    operation("attention", &["attention"], &["dot_2x4", "softmax_row", "mix"]),
    operation("rescale, curve, movement, tokens, cyclic shift", &[], &[]),
];

/// Writes the table into the document.
pub fn write() -> Result<()> {
    let text = fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    fs::write(DOCUMENT, replaced(DOCUMENT, &text, TABLE, &table(Path::new("."))?)?).context(DOCUMENT)
}

/// The table, from the sources under `root`.
fn table(root: &Path) -> Result<String> {
    let mut own = vec![];
    for set in SETS {
        let path = root.join(format!("kernels/src/arch/{set}.rs"));
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let items = items(&text);
        ensure!(!items.is_empty(), "{}: no implementation of Isa", path.display());
        own.push(items);
    }
    let mut table = format!("| operation | {} |\n|---|{}\n", SETS.join(" | "), "---|".repeat(SETS.len()));
    for operation in &OPERATIONS {
        let cells = SETS.iter().zip(&own).map(|(&set, own)| operation.cell(set, own));
        table += &format!("| {} | {} |\n", operation.name, cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(table)
}

impl Operation {
    fn cell(&self, set: &str, own: &[String]) -> &'static str {
        let has = |name: &&str| own.iter().any(|own| own == name);
        if set == "scalar" {
            "portable"
        } else if !self.body.is_empty() && self.body.iter().all(has) {
            "body"
        } else if self.leaves.iter().any(has) {
            "leaves"
        } else {
            "falls back"
        }
    }
}

/// Functions and constants of the implementation of `Isa`, without functions that hand on to the portable ones.
fn items(source: &str) -> Vec<String> {
    let Some((_, block)) = source.split_once("\nimpl Isa for ") else { return vec![] };
    let block = block.split_once("\n}").map_or(block, |(block, _)| block);
    let constants = block.split("    const ").skip(1).filter_map(|part| part.split_once(':'));
    let functions = block.split("    fn ").skip(1).filter(|part| !part.contains("Scalar."));
    let functions = functions.filter_map(|part| part.split_once(['(', '<']));
    constants.chain(functions).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{DOCUMENT, TABLE, items, replaced, table};

    #[test]
    fn the_document_has_the_table_of_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = fs::read_to_string(root.join(DOCUMENT)).unwrap();
        let expected = replaced(DOCUMENT, &text, TABLE, &table(root).unwrap()).unwrap();
        assert!(text == expected, "{DOCUMENT} is stale; `cargo xtask matrix` writes it");
    }

    #[test]
    fn what_is_handed_on_is_not_its_own() {
        let source = "fn other() {}\nimpl Isa for X {\n    const NAME: &str = \"x\";\n    fn enter<R>(self) {\n    }\n\n    fn \
                      conv(self) -> bool {\n        own()\n    }\n\n    fn dot(self) {\n        Scalar.dot()\n    }\n}\nfn b() {}\n";
        assert_eq!(items(source), ["NAME", "enter", "conv"]);
        assert!(items("fn conv() {}").is_empty());
    }
}
