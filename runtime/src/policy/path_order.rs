//! The order of paths, and how far two of them are one.

use core::cmp::Ordering;

use plan::{Config, Image, Overlay, SegmentId};

/// Whether two configs compute the same in their first `done` segments: the same segments, with the same biases. What
/// [`compare`] finds too, but a change of config asks it, and comparing the stored runs takes fewer instructions
/// (`cargo xtask latency` prints those of a change).
#[must_use]
pub fn shares(image: &Image<'_>, a: &Config, b: &Config, done: u16) -> bool {
    image.same_path(a, b, done) && same_biases(image, a, b, done)
}

/// Whether the overlays of the first `done` segments are equal. They lie in the order of the path.
fn same_biases(image: &Image<'_>, a: &Config, b: &Config, done: u16) -> bool {
    let met = |config: &Config, index: u16| {
        let overlay = (index < config.overlays).then(|| image.overlay(config, index));
        overlay.filter(|overlay| overlay.step < done)
    };
    let mut index = 0;
    loop {
        match (met(a, index), met(b, index)) {
            (None, None) => return true,
            (Some(of_a), Some(of_b)) if of_a == of_b => index += 1,
            _ => return false,
        }
    }
}

/// How many segments two configs have in common from the start, `limit` at most, and which goes first where they
/// part. Lexicographic: segment by segment, its overlays behind it.
pub(super) fn compare(image: &Image<'_>, a: &Config, b: &Config, limit: u16) -> (u16, Ordering) {
    let mut overlay = 0;
    for step in 0..limit.min(a.segments).min(b.segments) {
        let [of_a, of_b] = [a, b].map(|config| image.path_segment(config, step).0);
        if of_a != of_b {
            return (step, of_a.cmp(&of_b));
        }
        loop {
            let met = |config: &Config| {
                let found = (overlay < config.overlays).then(|| image.overlay(config, overlay));
                found.filter(|found| found.step == step).map(|Overlay { op, bias, .. }| (op.0, bias))
            };
            match (met(a), met(b)) {
                (None, None) => break,
                (of_a, of_b) if of_a != of_b => return (step, of_a.cmp(&of_b)),
                _ => overlay += 1,
            }
        }
    }
    let shared = limit.min(a.segments).min(b.segments);
    let next = |config: &Config| {
        (shared < config.segments).then(|| image.path_segment(config, shared)).map(|SegmentId(id)| id)
    };
    (shared, next(a).cmp(&next(b)))
}
