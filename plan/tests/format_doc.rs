//! The tables of `docs/image-format.md` are those of the code. `BLESS=1` rewrites them.

use std::fmt::Write as _;
use std::path::Path;

use plan::layout::{HEADER_LEN, SECTION_ENTRY_LEN};
use plan::{
    Attention, Config, Cost, Cut, Generator, Meta, Mixing, Op, Overlay, Range, Rule, Run, Sampling, Section, Segment,
    Target, Tensor, sample,
};

type Fields = &'static [(&'static str, usize, usize)];

fn records() -> String {
    let tables: [(&str, Fields); 16] = [
        ("Range", Range::FIELDS),
        ("1 meta (one)", Meta::FIELDS),
        ("2 cuts", Cut::FIELDS),
        ("3 tensors", Tensor::FIELDS),
        ("4 ops", Op::FIELDS),
        ("Numbers of an attention, in the data section", Attention::FIELDS),
        ("Numbers of anchors, in the data section", Generator::FIELDS),
        ("Numbers of sampled points, in the data section", Sampling::FIELDS),
        ("Numbers of a mixing, in the data section", Mixing::FIELDS),
        ("5 segments", Segment::FIELDS),
        ("6 configs", Config::FIELDS),
        ("7 path, config by config", Run::FIELDS),
        ("8 overlays", Overlay::FIELDS),
        ("10 targets", Target::FIELDS),
        ("11 costs, target by target, one per segment", Cost::FIELDS),
        ("12 kept maps", Tensor::FIELDS),
    ];
    let mut text = String::from("\nSection 9, data, is bytes.\n");
    for (name, fields) in tables {
        writeln!(text, "\n### {name}\n\n| offset | length | field |\n|---|---|---|").unwrap();
        for (field, offset, len) in fields {
            writeln!(text, "| {offset} | {len} | `{field}` |").unwrap();
        }
    }
    text + "\n"
}

fn rules() -> String {
    let mut text = String::from("\n| rule | name | sentence |\n|---|---|---|\n");
    for rule in Rule::ALL {
        writeln!(text, "| V{} | `{rule:?}` | {} |", rule.number(), rule.sentence()).unwrap();
    }
    text + "\n"
}

fn dump() -> String {
    let bytes = sample::writer().finish();
    let mut text = String::from("\n```text\n");
    let mut line = |start: usize, end: usize, note: &str| {
        let hex: Vec<String> = bytes[start..end].iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{start:04x}  {:<48} {note}", hex.join(" ")).unwrap();
    };
    line(0, 4, "SNET");
    line(4, 8, "version 4.0");
    line(8, 12, "length");
    line(12, 16, "CRC-32");
    line(16, 18, "weight layout");
    line(18, 20, "sections");
    for (index, section) in Section::ALL.into_iter().enumerate() {
        let at = HEADER_LEN + index * SECTION_ENTRY_LEN;
        line(at, at + SECTION_ENTRY_LEN, &format!("{section:?}: id, flags, offset, length"));
    }
    let meta = HEADER_LEN + Section::ALL.len() * SECTION_ENTRY_LEN;
    for (field, offset, len) in Meta::FIELDS {
        if *field != "reserved" {
            line(meta + offset, meta + offset + len, &format!("meta.{field}"));
        }
    }
    text + "```\n\n"
}

#[test]
fn tables_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/image-format.md");
    let before = std::fs::read_to_string(&path).expect("docs/image-format.md");
    let mut text = before.clone();
    for (name, content) in [("records", records()), ("rules", rules()), ("dump", dump())] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let from = text.find(&begin).expect("begin mark") + begin.len();
        let to = text.find(&end).expect("end mark");
        text.replace_range(from..to, &content);
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("writing the tables");
    } else {
        assert!(text == before, "docs/image-format.md differs from the code: run with BLESS=1 and look at the diff");
    }
}
