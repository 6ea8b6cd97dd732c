//! The end of a dense head: each cell of each map answers for one box; of those that overlap the surest is left.

use super::boxes::{Detection, MOST_BOXES};
use super::fixed::{exp2, half_up};
use super::sample::{MOST_MAPS, Map};
use crate::element::wide;
use crate::shape::{KernelError, check};

/// log2(e), Q12.
const LOG2_E: i64 = 5909;
/// The logarithm of a distance is cut off at 4, Q12: e^4 cells.
const FARTHEST: i16 = 4 << 12;
/// Sides of a cell's box.
const SIDES: usize = 4;

/// What is left of the boxes of all cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Logits above, Q12.
    pub floor: i16,
    /// A box goes whose common area with a surer one of its class is more than this part of both together, Q15.
    pub overlap: u16,
    /// Width and height of the picture, 1/16 pixel.
    pub size: [i16; 2],
}

/// Values of a cell: one logit for each class, then the logarithms of the distances from its centre to the left, top, right and
/// bottom side in cells; Int16, Q12.
fn value(map: &Map<'_>, cell: usize, channel: usize) -> i16 {
    let pairs = map.values.as_chunks::<2>().0;
    pairs.get(cell * usize::from(map.shape.channels) + channel).map_or(i16::MIN, |&pair| wide(pair))
}

fn positions(map: &Map<'_>) -> usize {
    usize::from(map.shape.height) * usize::from(map.shape.width)
}

/// A pair of cell and class; pairs are numbered cell by cell, map by map.
fn pair<'m, 'v>(maps: &'m [Map<'v>], classes: usize, mut index: usize) -> Option<(&'m Map<'v>, usize, usize)> {
    for map in maps {
        let pairs = positions(map) * classes;
        if index < pairs {
            return Some((map, index / classes, index % classes));
        }
        index -= pairs;
    }
    None
}

/// Corners of a cell's box, 1/16 pixel, as far as 16 bits reach.
fn corners(map: &Map<'_>, classes: usize, cell: usize) -> [i16; SIDES] {
    let width = usize::from(map.shape.width).max(1);
    let centre = |at: usize| (16 * at as i64 + 8) << map.stride_log2;
    let (x, y) = (centre(cell % width), centre(cell / width));
    let pixels = i32::from(map.stride_log2) + 4;
    let mut side = 0;
    [x, y, x, y].map(|centre| {
        let logarithm = value(map, cell, classes + side).min(FARTHEST);
        let exponent = half_up(i64::from(logarithm) * LOG2_E, 12) as i32;
        let distance = i64::from(exp2(exponent + (pixels << 12), 0));
        let end = if side < 2 { centre - distance } else { centre + distance };
        side += 1;
        end.clamp(i16::MIN.into(), i16::MAX.into()) as i16
    })
}

fn area([left, top, right, bottom]: [i32; SIDES]) -> u64 {
    (right - left).max(0) as u64 * (bottom - top).max(0) as u64
}

impl Suppression {
    /// Whether two boxes overlap by more than the limit.
    fn covers(&self, a: [i16; SIDES], b: [i16; SIDES]) -> bool {
        let [a, b] = [a, b].map(|corners| corners.map(i32::from));
        let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
        (common << 15) > (area(a) + area(b) - common) * u64::from(self.overlap)
    }
}

/// Bytes of scratch for so many pairs of cell and class.
#[must_use]
pub const fn suppress_scratch(pairs: usize) -> usize {
    2 * pairs
}

/// Non-maximum suppression in each class: the surest boxes, best first, ties by lower map, cell and class, as many as there is room
/// for: how many. `maps` are Int16 `[H, W, classes + 4]`, Q12. Boxes are compared as they are, and cut off at the picture's
/// border afterwards.
///
/// The work grows with the pairs above the floor, times the boxes that are left: both are bounded by the shapes.
///
/// # Errors
/// [`KernelError`] if a map has not the size of its shape, if maps, cells or classes are too many, or if scratch is too small.
pub fn suppress(
    suppression: &Suppression,
    maps: &[Map<'_>],
    classes: u16,
    scratch: &mut [i8],
    detections: &mut [Detection],
) -> Result<usize, KernelError> {
    let classes = usize::from(classes);
    check(classes > 0 && maps.len() <= MOST_MAPS, KernelError::Geometry)?;
    let mut pairs = 0;
    for map in maps {
        let channels = usize::from(map.shape.channels);
        check(channels == classes + SIDES && map.stride_log2 <= 7, KernelError::Geometry)?;
        check(map.values.len() == 2 * positions(map) * channels, KernelError::Input)?;
        pairs += positions(map) * classes;
    }
    check(pairs <= MOST_BOXES, KernelError::Geometry)?;
    let order = scratch.as_chunks_mut::<2>().0.get_mut(..pairs).ok_or(KernelError::Scratch)?;
    let mut count = 0;
    let logit =
        |index: usize| pair(maps, classes, index).map_or(i16::MIN, |(map, cell, class)| value(map, cell, class));
    for index in (0..pairs).filter(|&index| logit(index) > suppression.floor) {
        if let Some(out) = order.get_mut(count) {
            *out = (index as u16).to_le_bytes().map(u8::cast_signed);
            count += 1;
        }
    }
    let index = |bytes: &[i8; 2]| usize::from(u16::from_le_bytes(bytes.map(i8::cast_unsigned)));
    let order = order.get_mut(..count).unwrap_or_default();
    order.sort_unstable_by_key(|bytes| (core::cmp::Reverse(logit(index(bytes))), index(bytes)));
    let mut found = 0;
    for (map, cell, class) in order.iter().filter_map(|bytes| pair(maps, classes, index(bytes))) {
        let (corners, class) = (corners(map, classes, cell), class as u16);
        let kept = detections.get(..found).unwrap_or_default();
        if kept.iter().any(|other| other.class == class && suppression.covers(other.corners, corners)) {
            continue;
        }
        let Some(out) = detections.get_mut(found) else { break };
        *out = Detection { corners, class, logit: value(map, cell, class.into()) };
        found += 1;
    }
    let [width, height] = suppression.size;
    for detection in detections.iter_mut().take(found) {
        let ends = detection.corners.into_iter().zip([width, height, width, height]);
        let mut ends = ends.map(|(end, most)| end.min(most).max(0));
        detection.corners = [(); SIDES].map(|()| ends.next().unwrap_or(0));
    }
    Ok(found)
}
