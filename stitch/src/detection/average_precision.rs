//! Average precision, as COCO counts it: 101 recall levels, greedy matching by score, ten thresholds of overlap.
//!
//! The rule of `models/recipe/average_precision.py`, which a test there compares with pycocotools. For each class and
//! threshold: of each picture the best [`LIMIT`] detections, best first, each take the free truth that they overlap most, if
//! by the threshold. All detections in order of their scores then make a curve of precision over recall; the value is the
//! mean over the recall levels of the best precision at that recall or above.

use std::cmp::Reverse;

use crate::detection::coco::Truth;

/// Thresholds of the overlap: 0.50, 0.55, … 0.95.
pub const THRESHOLDS: usize = 10;
/// Detections of a picture and class that count.
const LIMIT: usize = 100;
/// Recall levels: 0, 0.01, … 1.
const LEVELS: u32 = 101;

/// One detection, best first in its list among those of equal score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Left, top, right, bottom, in the unit of the truths.
    pub corners: [f64; 4],
    /// Class.
    pub class: u16,
    /// Only the order counts.
    pub score: i32,
}

/// Average precisions of one config on one set.
#[derive(Clone, Debug, PartialEq)]
pub struct Precision {
    /// Of each class by threshold; `None` for a class that no picture has.
    pub classes: Vec<Option<[f64; THRESHOLDS]>>,
}

impl Precision {
    /// Of the detections and truths of each picture.
    #[must_use]
    pub fn of(pictures: &[(Vec<Found>, Vec<Truth>)], classes: u16) -> Self {
        Self { classes: (0..classes).map(|class| of_class(pictures, class)).collect() }
    }

    /// Mean over the classes that there are, at overlap 0.5; 0 without any.
    #[must_use]
    pub fn ap50(&self) -> f64 {
        self.mean(|thresholds| thresholds[0])
    }

    /// Mean over the classes that there are and all thresholds; 0 without any.
    #[must_use]
    pub fn ap(&self) -> f64 {
        self.mean(|thresholds| thresholds.iter().sum::<f64>() / THRESHOLDS as f64)
    }

    fn mean(&self, value: impl Fn(&[f64; THRESHOLDS]) -> f64) -> f64 {
        let values: Vec<f64> = self.classes.iter().flatten().map(value).collect();
        // The sum of nothing would be -0.
        values.iter().fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64
    }
}

fn of_class(pictures: &[(Vec<Found>, Vec<Truth>)], class: u16) -> Option<[f64; THRESHOLDS]> {
    let mut total = 0;
    let mut scores = vec![];
    let mut overlaps: Vec<Vec<Vec<f64>>> = vec![];
    for (found, truths) in pictures {
        let truths: Vec<[f64; 4]> = truths.iter().filter(|t| t.class == class).map(|t| t.corners).collect();
        let mut found: Vec<&Found> = found.iter().filter(|found| found.class == class).collect();
        found.sort_by_key(|found| Reverse(found.score));
        found.truncate(LIMIT);
        total += truths.len();
        scores.extend(found.iter().map(|found| found.score));
        let row = |found: &&Found| truths.iter().map(|truth| overlap(found.corners, *truth)).collect();
        overlaps.push(found.iter().map(row).collect());
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by_key(|&detection| Reverse(scores[detection]));
    let at = |threshold: usize| {
        // To the bit what pycocotools has: boxes of whole pixels may overlap by 3/5.
        let least = 0.5 + threshold as f64 * ((0.95 - 0.5) / 9.0);
        let hits: Vec<bool> = overlaps.iter().flat_map(|rows| hits(rows, least)).collect();
        curve(order.iter().map(|&detection| hits[detection]), total)
    };
    (total > 0).then(|| std::array::from_fn(at))
}

/// Common area over joint area.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left) * (bottom - top);
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let common = side(0) * side(1);
    common / (area(a) + area(b) - common).max(1e-12)
}

/// Which detections, best first, take a truth of their own: the free one that overlaps most, of equal ones the last, as
/// pycocotools has it.
fn hits(overlaps: &[Vec<f64>], least: f64) -> Vec<bool> {
    let mut free = vec![true; overlaps.first().map_or(0, Vec::len)];
    let mut take = |row: &Vec<f64>| {
        let candidates = row.iter().enumerate().filter(|&(truth, overlap)| free[truth] && *overlap >= least);
        let best = candidates.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(truth, _)| truth);
        best.is_some_and(|truth| std::mem::replace(&mut free[truth], false))
    };
    overlaps.iter().map(&mut take).collect()
}

/// Mean over the recall levels of the best precision at that recall or above.
fn curve(hits: impl Iterator<Item = bool>, truths: usize) -> f64 {
    let mut right = 0;
    let step = |(place, hit): (usize, bool)| {
        right += usize::from(hit);
        (right as f64 / truths as f64, right as f64 / (place + 1) as f64)
    };
    let mut points: Vec<(f64, f64)> = hits.enumerate().map(step).collect();
    let mut best = 0.0f64;
    for (_, precision) in points.iter_mut().rev() {
        best = best.max(*precision);
        *precision = best;
    }
    let level = |level: u32| {
        let wanted = f64::from(level) * 0.01;
        points.get(points.partition_point(|&(recall, _)| recall < wanted)).map_or(0.0, |&(_, precision)| precision)
    };
    (0..LEVELS).map(level).sum::<f64>() / f64::from(LEVELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as `models/recipe/test_box_data.py` draws them.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// Thirty pictures of three classes: most truths are found, a little off; others are not, and others are found that are
    /// none. Class 3 has detections only.
    fn pictures() -> Vec<(Vec<Found>, Vec<Truth>)> {
        let mut random = Random(1);
        let mut picture = || {
            let (mut found, mut truths) = (vec![], vec![]);
            for _ in 0..random.below(8) {
                let [left, top, across, down] = [100, 100, 60, 60].map(|bound| random.below(bound) as f64);
                let class = random.below(3) as u16;
                let corners = [left, top, left + 8.0 + across, top + 8.0 + down];
                truths.push(Truth { corners, class });
                for _ in 0..random.below(3) {
                    let corners = corners.map(|corner| corner + random.below(9) as f64 - 4.0);
                    found.push(Found { corners, class, score: random.below(50) as i32 });
                }
            }
            for _ in 0..random.below(6) {
                let [left, top] = [100, 100].map(|bound| random.below(bound) as f64);
                let class = random.below(4) as u16;
                let corners = [left, top, left + 20.0, top + 20.0];
                found.push(Found { corners, class, score: random.below(40) as i32 });
            }
            (found, truths)
        };
        (0..30).map(|_| picture()).collect()
    }

    #[test]
    fn it_is_what_coco_counts() {
        let precision = Precision::of(&pictures(), 4);
        // What pycocotools says of them, asked by the test of the recipe.
        let expected = [
            [0.211_489_753_627, 0.097_825_729_417, 0.000_990_099_010],
            [0.448_041_146_104, 0.222_155_976_362, 0.0],
            [0.378_656_643_136, 0.109_253_614_875, 0.0],
        ];
        for (class, expected) in precision.classes.iter().zip(expected) {
            let found = class.expect("a class with truths");
            for (threshold, expected) in [0, 5, 9].into_iter().zip(expected) {
                assert!((found[threshold] - expected).abs() < 1e-9, "{found:?} {expected}");
            }
        }
        assert_eq!(precision.classes[3], None);
        assert!((precision.ap50() - 0.346_062_514_289).abs() < 1e-9, "{}", precision.ap50());
        assert!((precision.ap() - 0.175_204_119_029).abs() < 1e-9, "{}", precision.ap());
    }

    #[test]
    fn perfect_detections_have_all_and_none_have_nothing() {
        let truth = Truth { corners: [0.1, 0.1, 0.4, 0.5], class: 1 };
        let found = Found { corners: truth.corners, class: 1, score: -3 };
        let perfect = Precision::of(&[(vec![found], vec![truth])], 2);
        assert_eq!(perfect.classes, [None, Some([1.0; THRESHOLDS])]);
        assert!((perfect.ap50() - 1.0).abs() < 1e-12 && (perfect.ap() - 1.0).abs() < 1e-12);
        let missed = Precision::of(&[(vec![Found { class: 0, ..found }], vec![truth])], 2);
        assert_eq!(missed.classes, [None, Some([0.0; THRESHOLDS])]);
        assert_eq!(format!("{}", Precision::of(&[], 2).ap50()), "0");
    }
}
