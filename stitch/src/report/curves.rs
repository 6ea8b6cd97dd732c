//! Scores of the same configs in several images, side by side: what a way of learning buys.

use super::{Facts, millions};

/// A Markdown table with one row per config of any image, cheapest first, and one column of scores per image; `–` where
/// an image lacks the config. The last row is the mean of the stitched configs that all images have.
#[must_use]
pub fn curves(images: &[(&str, &Facts)]) -> String {
    let mut configs: Vec<(u64, bool, &str)> = vec![];
    for (_, facts) in images {
        for row in &facts.rows {
            if !configs.iter().any(|(_, _, name)| *name == row.name) {
                configs.push((row.macs, !row.anchor, &row.name));
            }
        }
    }
    configs.sort_unstable();
    let score = |facts: &Facts, name: &str| facts.rows.iter().find(|row| row.name == name).map(|row| row.score);
    let columns = |cell: &dyn Fn(&Facts) -> String| -> String {
        images.iter().map(|(_, facts)| format!(" {} |", cell(facts))).collect()
    };
    let heads: String = images.iter().map(|(head, _)| format!(" {head} |")).collect();
    let mut text = format!("| config | MACs |{heads}\n|---|---:|{}\n", "---:|".repeat(images.len()));
    for (macs, _, name) in &configs {
        let cell = |facts: &Facts| score(facts, name).map_or("–".into(), |score| format!("{score:.2} %"));
        text += &format!("| {name} | {} |{}\n", millions(*macs), columns(&cell));
    }
    let common: Vec<&str> = configs
        .iter()
        .filter(|(_, stitched, name)| *stitched && images.iter().all(|(_, facts)| score(facts, name).is_some()))
        .map(|(_, _, name)| *name)
        .collect();
    if !common.is_empty() {
        let mean = |facts: &Facts| {
            let sum: f64 = common.iter().filter_map(|name| score(facts, name)).sum();
            format!("{:.2} %", sum / common.len() as f64)
        };
        text += &format!("| *mean of {} stitched configs* | |{}\n", common.len(), columns(&mean));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    fn row(name: &str, anchor: bool, macs: u64, score: f64) -> Row {
        Row {
            number: 0,
            name: name.into(),
            anchor,
            frontier: false,
            score,
            float_score: 0.0,
            macs,
            arena_bytes: 0,
            live_bytes: 0,
            milliseconds: 0.0,
            flash_bytes: 0,
            own_bytes: 0,
        }
    }

    #[test]
    fn sets_scores_of_equal_names_side_by_side() {
        let facts = |rows: Vec<Row>| Facts {
            name: String::new(),
            target: String::new(),
            score_images: 1,
            ticks_per_millisecond: 1.0,
            rows,
            image_bytes: 0,
            payload_bytes: 0,
            arena_bytes: 0,
        };
        let large = row("large", true, 3_000_000, 90.0);
        let one = facts(vec![row("a>b", false, 2_000_000, 70.0), row("c>d", false, 1_000_000, 60.0), large.clone()]);
        let two = facts(vec![large, row("a>b", false, 2_000_000, 80.5)]);
        assert_eq!(
            curves(&[("before", &one), ("after", &two)]),
            "| config | MACs | before | after |\n|---|---:|---:|---:|\n\
             | c>d | 1.00 M | 60.00 % | – |\n| a>b | 2.00 M | 70.00 % | 80.50 % |\n| large | 3.00 M | 90.00 % | 90.00 % |\n\
             | *mean of 1 stitched configs* | | 70.00 % | 80.50 % |\n"
        );
    }
}
