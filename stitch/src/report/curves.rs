//! Scores of the same configs in several images, side by side: what a way of learning buys.

use super::{Facts, millions};

/// One config of some images.
pub(super) struct Curve<'a> {
    pub macs: u64,
    pub anchor: bool,
    pub name: &'a str,
    /// Per image; none where it lacks the config.
    pub scores: Vec<Option<f64>>,
}

/// The configs of all images, cheapest first.
pub(super) fn configs<'a>(images: &[(&str, &'a Facts)]) -> Vec<Curve<'a>> {
    let mut configs: Vec<Curve<'a>> = vec![];
    for row in images.iter().flat_map(|(_, facts)| &facts.rows) {
        if !configs.iter().any(|config| config.name == row.name) {
            let score = |facts: &Facts| facts.rows.iter().find(|other| other.name == row.name).map(|row| row.score);
            let scores = images.iter().map(|(_, facts)| score(facts)).collect();
            configs.push(Curve { macs: row.macs, anchor: row.anchor, name: &row.name, scores });
        }
    }
    configs.sort_by_key(|config| (config.macs, !config.anchor, config.name));
    configs
}

/// How many stitched configs all images have, and their mean score per image; none if there is none.
pub(super) fn means(configs: &[Curve<'_>]) -> Option<(usize, Vec<f64>)> {
    let common = configs.iter().filter(|config| !config.anchor);
    let common: Vec<Vec<f64>> = common.filter_map(|config| config.scores.iter().copied().collect()).collect();
    let images = common.first()?.len();
    let mean = |image: usize| common.iter().map(|scores| scores[image]).sum::<f64>() / common.len() as f64;
    Some((common.len(), (0..images).map(mean).collect()))
}

/// A Markdown table with one row per config of any image, cheapest first, and one column of scores per image; `–` where
/// an image lacks the config. The last row is the mean of the stitched configs that all images have.
#[must_use]
pub fn curves(images: &[(&str, &Facts)]) -> String {
    let heads: String = images.iter().map(|(head, _)| format!(" {head} |")).collect();
    let mut text = format!("| config | MACs |{heads}\n|---|---:|{}\n", "---:|".repeat(images.len()));
    let configs = configs(images);
    for Curve { macs, name, scores, .. } in &configs {
        let cells: String = scores.iter().map(|score| format!(" {} |", cell(*score))).collect();
        text += &format!("| {name} | {} |{cells}\n", millions(*macs));
    }
    if let Some((count, means)) = means(&configs) {
        let cells: String = means.iter().map(|mean| format!(" {mean:.2} % |")).collect();
        text += &format!("| *mean of {count} stitched configs* | |{cells}\n");
    }
    text
}

/// A score, or that there is none.
pub(super) fn cell(score: Option<f64>) -> String {
    score.map_or("–".into(), |score| format!("{score:.2} %"))
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
        let page = crate::report::beside(&[("before", &one), ("<after>", &two)]);
        assert_eq!(page.matches("<svg").count(), 1);
        assert_eq!(page.matches("before").count(), 3, "lead, legend and table");
        assert!(page.contains("&lt;after&gt;") && page.contains("80.50 %") && !page.contains("<script"));
    }
}
