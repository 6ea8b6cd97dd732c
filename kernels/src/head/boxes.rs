//! Anchors, box states and detections.
//!
//! The types bound the numbers: a centre is within ±2048 pixels, a side below 4096, so no sum or product here overflows, and
//! whatever saturates is far outside of the picture.

use super::fixed::{exp2, half_up, log2, sigmoid};
use crate::element::wide;
use crate::shape::{KernelError, check};

/// A box, 1/16 pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Centre.
    pub x: i16,
    /// Centre.
    pub y: i16,
    /// Width.
    pub w: u16,
    /// Height.
    pub h: u16,
}

/// A box whose sides are their logarithms, Q12: the form that is refined.
///
/// With z = ½·log2(w·h) and r = ½·log2(h/w), `w` is z - r and `h` is z + r, both of sides in 1/16 pixel: sides come back to
/// the same integer, which halves would not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Centre, 1/16 pixel.
    pub x: i16,
    /// Centre, 1/16 pixel.
    pub y: i16,
    /// Logarithm of the width.
    pub w: u16,
    /// Logarithm of the height.
    pub h: u16,
}

/// A box that may hold an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Where.
    pub rect: Rect,
    /// How sure, Q12; [`INVALID`] if it is none.
    pub logit: i16,
}

/// Logit of an anchor that is too small or outside; less than any other.
pub const INVALID: i16 = i16::MIN;

/// Most boxes of one list.
pub const MOST_BOXES: usize = 0xffff;

/// log2(10^-7), Q12: what the logarithm of an empty overlap counts as.
const NOTHING: i32 = -95_246;

fn saturated(value: i64) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

impl From<Rect> for State {
    fn from(rect: Rect) -> Self {
        let side = |side: u16| log2(side.into()).min(u16::MAX.into()) as u16;
        Self { x: rect.x, y: rect.y, w: side(rect.w), h: side(rect.h) }
    }
}

impl From<State> for Rect {
    fn from(state: State) -> Self {
        let side = |logarithm: u16| exp2(logarithm.into(), 0).min(u16::MAX.into()) as u16;
        Self { x: state.x, y: state.y, w: side(state.w), h: side(state.h) }
    }
}

impl State {
    /// Moved by deltas of x, y, z and r, Q12: the centre in units of 2^z.
    #[must_use]
    pub fn refined(self, [dx, dy, dz, dr]: [i16; 4]) -> Self {
        let side = i64::from(exp2((i32::from(self.w) + i32::from(self.h)) >> 1, 4));
        let moved = |at: i16, delta: i16| saturated(i64::from(at) + half_up(i64::from(delta) * side, 16));
        let grown = |side: u16, by: i32| (i32::from(side) + by).clamp(0, u16::MAX.into()) as u16;
        let (dz, dr) = (i32::from(dz), i32::from(dr));
        Self { x: moved(self.x, dx), y: moved(self.y, dy), w: grown(self.w, dz - dr), h: grown(self.h, dz + dr) }
    }
}

/// What a patch covers, 1/16 pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left side.
    pub left: i16,
    /// Upper side.
    pub top: i16,
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
}

/// What an anchor must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Least side, 1/16 pixel.
    pub smallest: u16,
    /// Width and height of the picture, 1/16 pixel: centres lie below.
    pub size: [i16; 2],
}

/// Anchors of a patch, from the Int16 outputs of its predictor: for each the raw centre, sides, and logit, Q12.
///
/// # Errors
/// [`KernelError`] if the input is not five values for each anchor.
pub fn decode(region: &Region, limits: &Limits, raw: &[i8], anchors: &mut [Anchor]) -> Result<(), KernelError> {
    let (rows, rest) = raw.as_chunks::<10>();
    check(rows.len() == anchors.len() && rest.is_empty(), KernelError::Input)?;
    for (row, anchor) in rows.iter().zip(anchors) {
        let [x, y, w, h, logit] = [0, 2, 4, 6, 8].map(|at| wide([row[at], row[at + 1]]));
        let part = |raw: i16, of: u16| half_up(i64::from(sigmoid(raw)) * i64::from(of), 15);
        let rect = Rect {
            x: saturated(i64::from(region.left) + part(x, region.width)),
            y: saturated(i64::from(region.top) + part(y, region.height)),
            w: part(w, region.width) as u16,
            h: part(h, region.height) as u16,
        };
        let large = rect.w >= limits.smallest && rect.h >= limits.smallest;
        let inside = rect.x < limits.size[0] && rect.y < limits.size[1];
        *anchor = Anchor { rect, logit: if large && inside { logit.max(INVALID + 1) } else { INVALID } };
    }
    Ok(())
}

/// Indices below `count` by their score, best first, ties by lower index; what has no score is left out.
///
/// One key orders both, and the next one is the largest below the last: a pass for each index, and no memory.
fn ranked(count: usize, score: impl Fn(usize) -> Option<i16>) -> impl Iterator<Item = usize> {
    let key = move |index: usize| Some((i64::from(score(index)?) << 16) | (0xffff - index as i64));
    let mut last = i64::MAX;
    core::iter::from_fn(move || {
        last = (0..count).filter_map(&key).filter(|&key| key < last).max()?;
        Some(0xffff - (last & 0xffff) as usize)
    })
}

/// Which anchors ask for a closer look, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Logits above.
    pub low: i16,
    /// And below.
    pub high: i16,
    /// Sides below, 1/16 pixel.
    pub side: u16,
    /// Side of a patch, cells.
    pub patch: u16,
    /// Logarithm of the map's stride, 0..=7.
    pub stride_log2: u8,
    /// Columns and rows of the map.
    pub cells: [u16; 2],
}

/// A patch around an anchor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Index of the anchor.
    pub anchor: u16,
    /// Column and row of its first cell.
    pub corner: [u16; 2],
}

impl Probing {
    /// Whether an anchor asks for a closer look.
    #[must_use]
    pub fn asks(&self, anchor: &Anchor) -> bool {
        let unsure = self.low < anchor.logit && anchor.logit < self.high;
        unsure && anchor.rect.w < self.side && anchor.rect.h < self.side
    }

    /// Patches around the anchors that ask for one, best first, ties by lower index, at most as many as there is room for: how
    /// many. Squares of a patch's side around two anchors exclude each other from an IoU above 1/4 on.
    ///
    /// # Errors
    /// [`KernelError`] if there are too many anchors, or a patch is larger than 4096 pixels.
    pub fn patches(&self, anchors: &[Anchor], patches: &mut [Patch]) -> Result<usize, KernelError> {
        check(anchors.len() <= MOST_BOXES, KernelError::Input)?;
        check(self.stride_log2 <= 7 && self.patch >> (12 - self.stride_log2) == 0, KernelError::Geometry)?;
        let side = i32::from(self.patch) << (4 + self.stride_log2);
        let of = |index: usize| anchors.get(index).filter(|anchor| self.asks(anchor));
        let mut count = 0;
        for index in ranked(anchors.len(), |index| Some(of(index)?.logit)) {
            let (Some(anchor), true) = (of(index), count < patches.len()) else { break };
            let (kept, free) = patches.split_at_mut(count);
            let near = |patch: &Patch| of(patch.anchor.into()).is_some_and(|other| collide(other, anchor, side));
            if kept.iter().any(near) {
                continue;
            }
            let corner = [(anchor.rect.x, self.cells[0]), (anchor.rect.y, self.cells[1])].map(|(centre, cells)| {
                let first = (2 * i32::from(centre) - side) >> (5 + self.stride_log2);
                first.min(i32::from(cells) - i32::from(self.patch)).max(0) as u16
            });
            free[0] = Patch { anchor: index as u16, corner };
            count += 1;
        }
        Ok(count)
    }
}

/// Whether squares of this side around two anchors have an IoU above 1/4: common area above 2/5 of one.
fn collide(a: &Anchor, b: &Anchor, side: i32) -> bool {
    let common = |a: i16, b: i16| i64::from((side - (i32::from(a) - i32::from(b)).abs()).max(0));
    5 * common(a.rect.x, b.rect.x) * common(a.rect.y, b.rect.y) > 2 * i64::from(side) * i64::from(side)
}

/// The anchors that go on, in `kept`: how many. Those of the base with a logit above `keep` that did not ask for a closer
/// look, or, if they are fewer than `least`, the best `least` of all; then the probed ones with a logit above `keep`.
///
/// # Errors
/// [`KernelError`] if `kept` is shorter than both inputs together, or they are too many.
pub fn remaining(
    keep: i16,
    least: usize,
    probing: Option<&Probing>,
    [base, probed]: [&[Anchor]; 2],
    kept: &mut [Anchor],
) -> Result<usize, KernelError> {
    check(base.len() + probed.len() <= MOST_BOXES, KernelError::Input)?;
    check(kept.len() >= base.len() + probed.len(), KernelError::Output)?;
    let sure = |anchor: &&Anchor| anchor.logit > keep;
    let stays = |anchor: &&Anchor| sure(anchor) && !probing.is_some_and(|probing| probing.asks(anchor));
    let mut count = 0;
    let mut push = |anchor: &Anchor| {
        if let Some(out) = kept.get_mut(count) {
            *out = *anchor;
            count += 1;
        }
    };
    if base.iter().filter(stays).count() < least {
        let best = ranked(base.len(), |index| base.get(index).map(|anchor| anchor.logit));
        best.take(least).filter_map(|index| base.get(index)).for_each(&mut push);
    } else {
        base.iter().filter(stays).for_each(&mut push);
    }
    probed.iter().filter(sure).for_each(push);
    Ok(count)
}

/// As many anchors as there is room for: all in their order, or the best ones in the order of their logits, ties by lower
/// index.
///
/// # Errors
/// [`KernelError`] if there are too many.
pub fn cap(anchors: &[Anchor], kept: &mut [Anchor]) -> Result<usize, KernelError> {
    check(anchors.len() <= MOST_BOXES, KernelError::Input)?;
    if let Some((all, _)) = kept.split_at_mut_checked(anchors.len()) {
        all.copy_from_slice(anchors);
    } else {
        let order = ranked(anchors.len(), |index| anchors.get(index).map(|anchor| anchor.logit));
        for (out, index) in kept.iter_mut().zip(order) {
            *out = anchors[index];
        }
    }
    Ok(anchors.len().min(kept.len()))
}

/// Bias of an attention among boxes: Int16 `[heads, boxes, boxes]`, exponents of 2 with 8 fraction bits,
/// tau · log2(common area / area of the row's box). `tau` is an i16 for each head, 11 fraction bits.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that heads and boxes give.
pub fn overlap_bias(rects: &[Rect], tau: &[u8], bias: &mut [i8]) -> Result<(), KernelError> {
    let (heads, rest) = tau.as_chunks::<2>();
    check(!heads.is_empty() && rest.is_empty(), KernelError::Weights)?;
    check(!rects.is_empty() && rects.len() <= MOST_BOXES, KernelError::Input)?;
    let pairs = rects.len().saturating_mul(rects.len());
    check(bias.len() == pairs.saturating_mul(2 * heads.len()), KernelError::Output)?;
    for (row, of) in rects.iter().enumerate() {
        for (column, with) in rects.iter().enumerate() {
            let logarithm = i64::from(overlap(of, with));
            for (&tau, plane) in heads.iter().zip(bias.chunks_exact_mut(2 * pairs)) {
                let value = saturated(half_up(logarithm * i64::from(i16::from_le_bytes(tau)), 15));
                if let Some(out) = plane.as_chunks_mut().0.get_mut(row * rects.len() + column) {
                    *out = value.to_le_bytes().map(u8::cast_signed);
                }
            }
        }
    }
    Ok(())
}

/// Q12 logarithm of the common area over the area of the first box.
fn overlap(of: &Rect, with: &Rect) -> i32 {
    // Ends of a side, 1/32 pixel.
    let ends =
        |centre: i16, side: u16| [2 * i32::from(centre) - i32::from(side), 2 * i32::from(centre) + i32::from(side)];
    let common = |[a, b]: [i32; 2], [c, d]: [i32; 2]| (b.min(d) - a.max(c)).max(0) as u64;
    let across = common(ends(of.x, of.w), ends(with.x, with.w));
    let down = common(ends(of.y, of.h), ends(with.y, with.h));
    if across * down == 0 {
        return NOTHING;
    }
    (log2(across * down) - log2(4 * u64::from(of.w) * u64::from(of.h))).max(NOTHING)
}

/// An object that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detection {
    /// Left, top, right and bottom side inside of the picture, 1/16 pixel.
    pub corners: [i16; 4],
    /// Number of its class.
    pub class: u16,
    /// How sure, Q12.
    pub logit: i16,
}

/// The best pairs of box and class, best first, ties by lower index, as many as there is room for: how many. `logits` are
/// Int16, Q12, `[boxes, classes]`; `size` is width and height of the picture, 1/16 pixel.
///
/// # Errors
/// [`KernelError`] if the logits are not `classes` for each box, or too many.
pub fn detect(
    states: &[State],
    classes: u16,
    logits: &[i8],
    size: [i16; 2],
    detections: &mut [Detection],
) -> Result<usize, KernelError> {
    let classes = usize::from(classes);
    let count = states.len().saturating_mul(classes);
    check(classes > 0 && count <= MOST_BOXES, KernelError::Geometry)?;
    check(logits.len() == 2 * count, KernelError::Input)?;
    let logit = |index: usize| logits.as_chunks().0.get(index).map(|&pair| wide(pair));
    let mut found = 0;
    for (out, index) in detections.iter_mut().zip(ranked(count, logit)) {
        let rect = Rect::from(states[index / classes]);
        let clipped = |end: i32, size: i16| (end >> 1).min(size.into()).max(0) as i16;
        let [x, y, w, h] = [i32::from(rect.x), i32::from(rect.y), i32::from(rect.w), i32::from(rect.h)];
        let low = [clipped(2 * x - w, size[0]), clipped(2 * y - h, size[1])];
        let high = [clipped(2 * x + w, size[0]), clipped(2 * y + h, size[1])];
        let corners = [low[0], low[1], high[0], high[1]];
        *out = Detection { corners, class: (index % classes) as u16, logit: logit(index).unwrap_or(INVALID) };
        found += 1;
    }
    Ok(found)
}
