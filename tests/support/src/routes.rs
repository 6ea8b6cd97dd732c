//! The three published spaces whose trees have known sizes, as lists of legs, written down from the rules of the papers
//! and sharing nothing with the compiler.

use std::ops::Range;

/// Blocks of one anchor that run one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The anchor.
    pub anchor: usize,
    /// Its blocks, counted from 0 without the stem.
    pub blocks: Range<usize>,
}

/// One config: legs, with a stitch between two neighbours.
pub type Route = Vec<Leg>;

fn leg(anchor: usize, blocks: Range<usize>) -> Leg {
    Leg { anchor, blocks }
}

/// Pairs `(last block of the front, first block of the back)` of a window of two that slides over equal depths.
fn sliding(depth: usize) -> Vec<(usize, usize)> {
    let window = |first: usize| [(first, first), (first, first + 1), (first + 1, first), (first + 1, first + 1)];
    let mut pairs = vec![];
    for pair in (0..depth - 1).flat_map(window) {
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}

/// Pairs of unequal depths: block `i` of the back answers block `⌊i·d₁/d₂⌋` of the front, forward only.
fn unequal(front: usize, back: usize) -> Vec<(usize, usize)> {
    (0..back).map(|i| (i * front / back, i)).filter(|(a, i)| a < i).collect()
}

/// DeiT-Ti/S/B, fast to slow, window 2, stride 1: 71 configs (Pan, Cai, Zhuang, CVPR 2023).
pub fn deit() -> Vec<Route> {
    let anchors = (0..3).map(|anchor| vec![leg(anchor, 0..12)]);
    let stitched = (0..2)
        .flat_map(|front| sliding(12).into_iter().map(move |(a, b)| vec![leg(front, 0..a + 1), leg(front + 1, b..12)]));
    anchors.chain(stitched).collect()
}

/// Blocks of each stage of Swin-Ti/S/B.
pub const SWIN: [[usize; 4]; 3] = [[2, 2, 6, 2], [2, 2, 18, 2], [2, 2, 18, 2]];

/// Swin-Ti/S/B, stitched within the first three stages: 41 configs (same source).
pub fn swin() -> Vec<Route> {
    let total = |anchor: usize| SWIN[anchor].iter().sum::<usize>();
    let mut routes: Vec<Route> = (0..3).map(|anchor| vec![leg(anchor, 0..total(anchor))]).collect();
    for stage in 0..3 {
        for front in 0..2 {
            let [first, second] = [front, front + 1].map(|anchor| SWIN[anchor][stage]);
            let [start, entry] = [front, front + 1].map(|anchor| SWIN[anchor][..stage].iter().sum::<usize>());
            let pairs = if first == second {
                sliding(first).into_iter().filter(|(a, b)| a < b).collect()
            } else {
                unequal(first, second)
            };
            for (a, b) in pairs {
                routes.push(vec![leg(front, 0..start + a + 1), leg(front + 1, entry + b..total(front + 1))]);
            }
        }
    }
    routes
}

/// SN-Netv2 on a small anchor of 12 blocks and a large one of 24, both ways, up to two stitches: 134 configs (Pan, Liu, He,
/// Cai, Zhuang, 2023). The config that only changes the head is not among them.
pub fn two_way() -> Vec<Route> {
    const SMALL: usize = 0;
    const LARGE: usize = 1;
    // Leave the small anchor behind block `up.0` and enter the large one at `up.1`; the other way round for `down`.
    let up: Vec<(usize, usize)> = (0..11).map(|i| (i, 2 * (i + 1))).collect();
    let down: Vec<(usize, usize)> = (1..23).step_by(2).map(|i| (i, i / 2 + 1)).collect();
    let mut routes = vec![vec![leg(SMALL, 0..12)], vec![leg(LARGE, 0..24)]];
    routes.extend(up.iter().map(|&(a, b)| vec![leg(SMALL, 0..a + 1), leg(LARGE, b..24)]));
    routes.extend(down.iter().map(|&(a, b)| vec![leg(LARGE, 0..a + 1), leg(SMALL, b..12)]));
    for &(a, b) in &down {
        let back = up.iter().filter(|up| up.0 >= b);
        routes.extend(back.map(|&(c, d)| vec![leg(LARGE, 0..a + 1), leg(SMALL, b..c + 1), leg(LARGE, d..24)]));
    }
    for &(a, b) in &up {
        let back = down.iter().filter(|down| down.0 >= b);
        routes.extend(back.map(|&(c, d)| vec![leg(SMALL, 0..a + 1), leg(LARGE, b..c + 1), leg(SMALL, d..12)]));
    }
    routes
}

/// What a route runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Block of an anchor.
    Block(usize, usize),
    /// Stitch from behind a block of one anchor to before a block of another.
    Stitch([usize; 4]),
}

/// Blocks and stitches of a route in order.
pub fn parts(route: &Route) -> Vec<Part> {
    let mut parts = vec![];
    for (index, leg) in route.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).map(|before| &route[before]) {
            parts.push(Part::Stitch([before.anchor, before.blocks.end - 1, leg.anchor, leg.blocks.start]));
        }
        parts.extend(leg.blocks.clone().map(|block| Part::Block(leg.anchor, block)));
    }
    parts
}
