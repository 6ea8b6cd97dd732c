use plan::Image;
use simulator::{ImageSet, Setup, Trace, replay};

use super::{Facts, grouped, html, kib, table};

fn sample() -> Vec<u8> {
    plan::sample::writer().finish()
}

#[test]
fn marks_anchors_and_the_frontier() {
    let bytes = sample();
    let facts = Facts::of(&Image::parse(&bytes).unwrap());
    let rows: Vec<_> = facts.rows.iter().map(|row| (row.name.as_str(), row.anchor, row.frontier)).collect();
    // The stitched config of the sample is slower than wide and worse.
    assert_eq!(rows, [("tiny", true, true), ("wide", true, true), ("tiny.1>wide.1", false, false)]);
}

#[test]
fn table_names_every_config_and_the_saving() {
    let bytes = sample();
    let text = table(&Facts::of(&Image::parse(&bytes).unwrap()));
    for part in ["tiny.1>wide.1", "anchor, frontier", "60.00 %", "Flash: 3 separate models", "Overhead:"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 170), "{text}");
}

#[test]
fn page_is_one_file_without_script_and_escapes_names() {
    let bytes = sample();
    let image = Image::parse(&bytes).unwrap();
    let trace = Trace::fall_and_recover(&image, 120);
    let pictures = ImageSet { pixels: &[7; 96], labels: &[0, 1] };
    let result = replay(&bytes, pictures, &Setup::of(trace, 120, Some(1))).unwrap();
    let page = html(&Facts::of(&image), Some(&result));
    assert!(page.contains("tiny.1&gt;wide.1") && !page.contains("tiny.1>wide.1"));
    // Score over time, arithmetic and memory, and the replay.
    assert_eq!(page.matches("<svg").count(), 4);
    for axis in ["predicted time of one frame", "multiply-accumulates of one frame", ">\narena\n"] {
        assert_eq!(page.matches(axis).count(), 1, "{axis}");
    }
    for part in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(part), "{part} loads or runs something");
    }
}

#[test]
fn numbers_are_readable() {
    assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([kib(512), kib(1_024_000)], ["0.5 KiB", "0.98 MiB"]);
}
