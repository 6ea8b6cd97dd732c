//! Cases of convolutions, additions, pools and moves: every boundary, and a seeded crowd.

use super::{Case, ConvCase, Paint, Random, head, transformer};
use crate::{Add, Element, Move, Pool, PoolKind, Shape, Window};

pub(super) const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
pub(super) const SAME_3X3: Window = Window { kernel: [3, 3], stride: [1, 1], pad: [1; 4] };
/// The extremes: every sign, and both mixed.
pub(super) const CORNERS: [Paint; 5] =
    [Paint::All(-128, -128), Paint::All(-128, 127), Paint::All(127, -128), Paint::All(127, 127), Paint::Extremes(7)];
/// 4, 8, 16, 32 and one less and more.
pub(super) const BOUNDARIES: [u16; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33];

pub(super) const fn plain(input: [u16; 3], outputs: u16, window: Window) -> ConvCase {
    let [height, width, channels] = input;
    ConvCase {
        input: Shape { height, width, channels },
        outputs,
        window,
        groups: 1,
        shift: None,
        paint: Paint::Period,
        to: Element::Int8,
        curve: false,
    }
}

pub(super) const fn each_channel(case: ConvCase) -> Case {
    Case::Depthwise(ConvCase { groups: case.outputs, ..case })
}

/// Every boundary, in a fixed order.
pub fn table(visit: &mut dyn FnMut(&Case)) {
    convolutions(visit);
    depthwise(visit);
    windows(visit);
    additions(visit);
    pools(visit);
    moves(visit);
    wide_convolutions(visit);
    curved_convolutions(visit);
    wide_additions(visit);
    transformer::table(visit);
    head::table(visit);
}

fn convolutions(visit: &mut dyn FnMut(&Case)) {
    for channels in BOUNDARIES {
        for outputs in [1, 3, 4, 5, 8] {
            visit(&Case::Conv(plain([5, 3, channels], outputs, POINT)));
            visit(&Case::Conv(plain([4, 5, channels], outputs, SAME_3X3)));
        }
        visit(&Case::Conv(plain([3, 3, 6], channels, SAME_3X3)));
    }
    for (channels, outputs, groups) in
        [(12, 18, 2), (12, 18, 3), (12, 18, 6), (8, 16, 8), (6, 6, 6), (64, 8, 2), (36, 14, 2)]
    {
        visit(&Case::Conv(ConvCase { groups, ..plain([5, 5, channels], outputs, SAME_3X3) }));
        visit(&Case::Conv(ConvCase { groups, ..plain([3, 5, channels], outputs, POINT) }));
    }
    for paint in CORNERS {
        for window in [POINT, SAME_3X3] {
            visit(&Case::Conv(ConvCase { paint, ..plain([4, 4, 64], 9, window) }));
            // The least and the largest shift: a rescaled sum of more than 32 bits, and one of nothing.
            for shift in [1, 2, 30, 31, 32, 33, 54, 55, 61, 62] {
                visit(&Case::Conv(ConvCase { paint, shift: Some(shift), ..plain([3, 3, 8], 13, window) }));
                visit(&each_channel(ConvCase { paint, shift: Some(shift), ..plain([3, 3, 13], 13, window) }));
            }
        }
    }
    // Few positions, and their rows of weights: whole words, and pairs of them.
    for (positions, channels) in [(1, 8), (2, 40), (3, 24), (1, 12), (1, 32), (1, 264)] {
        for outputs in [1, 2, 3, 10] {
            visit(&Case::Conv(plain([1, positions, channels], outputs, POINT)));
            visit(&Case::Conv(ConvCase { to: WIDE, ..plain([1, positions, channels], outputs, POINT) }));
        }
    }
    for paint in CORNERS {
        visit(&Case::Conv(ConvCase { paint, ..plain([1, 1, 128], 4, POINT) }));
    }
    // Weights that may lie in blocks, lines of a window from one word to many, and few positions.
    for channels in [4, 8, 12, 20, 36, 64] {
        for outputs in [16, 48] {
            visit(&Case::Conv(plain([5, 3, channels], outputs, POINT)));
            visit(&Case::Conv(plain([1, 3, channels], outputs, POINT)));
            visit(&Case::Conv(plain([4, 5, channels], 16, SAME_3X3)));
        }
    }
    for paint in CORNERS {
        visit(&Case::Conv(ConvCase { paint, ..plain([4, 4, 32], 16, SAME_3X3) }));
        visit(&Case::Conv(ConvCase { paint, shift: Some(30), ..plain([4, 4, 64], 32, POINT) }));
        visit(&Case::Conv(ConvCase { paint, to: Element::Int16, ..plain([3, 3, 16], 32, POINT) }));
    }
    // A dense layer: the window is the whole map.
    visit(&Case::Conv(plain([4, 4, 16], 10, Window { kernel: [4, 4], stride: [1, 1], pad: [0; 4] })));
}

fn depthwise(visit: &mut dyn FnMut(&Case)) {
    for channels in BOUNDARIES.into_iter().chain([63, 64, 65]) {
        visit(&each_channel(plain([5, 4, channels], channels, SAME_3X3)));
        let window = Window { kernel: [3, 3], stride: [2, 2], pad: [0, 1, 1, 0] };
        visit(&each_channel(plain([6, 7, channels], channels, window)));
    }
    // Rows that are longer than what an instruction set holds of them.
    for (width, stride) in [(32, 1), (33, 1), (70, 1), (31, 2), (34, 2), (70, 3), (90, 40)] {
        let window = Window { kernel: [3, 3], stride: [1, stride], pad: [1; 4] };
        visit(&each_channel(plain([4, width, 8], 8, window)));
    }
    // So much padding that of some part of a row nothing lies on the map.
    let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1, 40, 1, 0] };
    visit(&each_channel(plain([1, 3, 9], 9, window)));
    for paint in CORNERS {
        visit(&each_channel(ConvCase { paint, ..plain([5, 5, 17], 17, SAME_3X3) }));
    }
}

/// Kernels, strides, and each side of padding alone.
fn windows(visit: &mut dyn FnMut(&Case)) {
    let mut both = |window| {
        visit(&Case::Conv(plain([9, 8, 6], 5, window)));
        visit(&each_channel(plain([9, 8, 6], 6, window)));
        visit(&each_channel(plain([9, 8, 9], 9, window)));
    };
    for kernel in [1, 2, 3, 4, 5, 7] {
        for stride in [1, 2, 3] {
            both(Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 4] });
        }
        both(Window { kernel: [kernel, 1], stride: [1, 2], pad: [0; 4] });
        both(Window { kernel: [1, kernel], stride: [2, 1], pad: [0; 4] });
    }
    for side in 0..4 {
        for width in [1, 2, 3] {
            let mut pad = [0; 4];
            pad[side] = width;
            both(Window { kernel: [3, 3], stride: [1, 1], pad });
            both(Window { kernel: [3, 3], stride: [2, 1], pad });
        }
    }
    // Windows that see nothing but padding.
    both(Window { kernel: [2, 2], stride: [1, 1], pad: [3; 4] });
    both(Window { kernel: [3, 3], stride: [1, 1], pad: [4; 4] });
}

const WIDE: Element = Element::Int16;

/// Outputs of 16 bits.
fn wide_convolutions(visit: &mut dyn FnMut(&Case)) {
    for channels in BOUNDARIES {
        for outputs in [1, 3, 4, 6] {
            for shape in [[3, 3, channels], [1, 1, channels], [1, 5, channels]] {
                visit(&Case::Conv(ConvCase { to: WIDE, ..plain(shape, outputs, POINT) }));
            }
        }
        visit(&Case::Conv(ConvCase { to: WIDE, ..plain([4, 5, channels], 5, SAME_3X3) }));
    }
    visit(&Case::Conv(ConvCase { to: WIDE, groups: 2, ..plain([5, 5, 12], 18, SAME_3X3) }));
    for paint in CORNERS {
        for shift in [1, 24, 30, 32, 33, 34, 40, 54, 55, 62] {
            visit(&Case::Conv(ConvCase { to: WIDE, paint, shift: Some(shift), ..plain([3, 3, 8], 5, POINT) }));
        }
    }
}

/// Outputs that go through a table.
fn curved_convolutions(visit: &mut dyn FnMut(&Case)) {
    for channels in [1, 4, 8, 17, 32] {
        for outputs in [1, 4, 7, 8] {
            for shape in [[3, 3, channels], [1, 1, channels]] {
                visit(&Case::Conv(ConvCase { curve: true, ..plain(shape, outputs, POINT) }));
            }
        }
        visit(&each_channel(ConvCase { curve: true, ..plain([4, 5, channels], channels, SAME_3X3) }));
    }
    visit(&Case::Conv(ConvCase { curve: true, ..plain([5, 4, 6], 5, SAME_3X3) }));
}

/// Additions of every mixture of 8 and 16 bits.
fn wide_additions(visit: &mut dyn FnMut(&Case)) {
    for mixture in 1..8 {
        let elements = [0, 1, 2].map(|bit| if mixture >> bit & 1 == 1 { WIDE } else { Element::Int8 });
        let op = Add { multiplier: [20_000, -12_345], offset: 77_777, shift: 14, min: -128, max: 90, elements };
        for len in BOUNDARIES.into_iter().chain([63, 64, 65, 300]) {
            for paint in [Paint::Period, Paint::Random(len.into())] {
                visit(&Case::Add(op, len.into(), paint));
            }
        }
        for paint in CORNERS {
            visit(&Case::Add(Add { shift: 16, min: -100, ..op }, 37, paint));
            // The largest sum that is allowed, and the least shift.
            let (multiplier, offset) = ([i16::MAX, i16::MAX], 1 << 15);
            visit(&Case::Add(Add { multiplier, offset, shift: 15, ..op }, 21, paint));
            visit(&Case::Add(Add { multiplier: [3, -2], offset: 0, shift: 0, ..op }, 21, paint));
        }
    }
}

const BYTES: [Element; 3] = [Element::Int8; 3];

fn additions(visit: &mut dyn FnMut(&Case)) {
    let op = Add { multiplier: [20_000, -12_345], offset: 77_777, shift: 14, min: -128, max: 90, elements: BYTES };
    let ends = [
        Add { multiplier: [i16::MAX, i16::MAX], offset: 1 << 15, shift: 16, min: -128, max: 127, elements: BYTES },
        Add { multiplier: [i16::MIN, i16::MIN], offset: -(1 << 15), shift: 16, min: -100, max: 127, elements: BYTES },
        Add { multiplier: [1, -1], offset: 0, shift: 0, min: -128, max: 127, elements: BYTES },
        Add {
            multiplier: [i16::MIN, i16::MIN],
            offset: i32::MAX - (1 << 23),
            shift: 30,
            min: -128,
            max: 127,
            elements: BYTES,
        },
    ];
    for len in BOUNDARIES.into_iter().chain([63, 64, 65, 1000]) {
        for paint in [Paint::Period, Paint::Random(len.into())] {
            visit(&Case::Add(op, len.into(), paint));
        }
    }
    for op in ends {
        for paint in CORNERS {
            visit(&Case::Add(op, 37, paint));
        }
    }
}

fn pools(visit: &mut dyn FnMut(&Case)) {
    for kind in [PoolKind::Average, PoolKind::Max] {
        let mut each = |side: [u16; 2], channels: u16, window: Window, paint: Paint| {
            let input = Shape { height: side[0], width: side[1], channels };
            let output = ConvCase { input, ..plain([1, 1, 1], channels, window) }.output();
            let log = (u32::from(window.kernel[0]) * u32::from(window.kernel[1])).ilog2() as u8;
            let (multiplier, shift) = (1_500_000_000, 30 + log);
            let (zero_point, min, max) = (-20, -100, 120);
            visit(&Case::Pool(
                Pool { kind, input, output, window, input_zero: -128, multiplier, shift, zero_point, min, max },
                paint,
            ));
        };
        for channels in BOUNDARIES {
            each([5, 4], channels, SAME_3X3, Paint::Period);
        }
        for (kernel, stride, pad) in
            [([8, 8], [1, 1], [0; 4]), ([2, 2], [2, 2], [0; 4]), ([3, 2], [2, 1], [1, 0, 1, 1])]
        {
            for paint in [Paint::Random(3), Paint::All(-128, 0), Paint::All(127, 0)] {
                each([8, 9], 17, Window { kernel, stride, pad }, paint);
            }
        }
        for side in 0..4 {
            let mut pad = [0; 4];
            pad[side] = 2;
            each([6, 5], 9, Window { kernel: [3, 3], stride: [1, 2], pad }, Paint::Period);
        }
        each([40, 255], 1, Window { kernel: [40, 255], stride: [1, 1], pad: [0; 4] }, Paint::Random(4));
        // Sums of more than 16 bits.
        for paint in [Paint::Random(4), Paint::All(-128, 0), Paint::All(127, 0)] {
            each([7, 255], 9, Window { kernel: [7, 255], stride: [1, 1], pad: [0; 4] }, paint);
        }
        // Windows that see nothing but padding.
        for channels in [9, 17, 33] {
            each([4, 3], channels, Window { kernel: [3, 3], stride: [1, 1], pad: [4; 4] }, Paint::Period);
        }
    }
}

fn moves(visit: &mut dyn FnMut(&Case)) {
    let input = Shape { height: 6, width: 5, channels: 4 };
    let output = Shape { height: 7, width: 9, channels: 10 };
    for (origin, step, repeat) in [
        ([0, 0, 0], [1, 1], [1, 1]),
        ([0, 0, 0], [2, 2], [1, 1]),
        ([-1, -2, -3], [1, 1], [1, 1]),
        ([-1, -2, 2], [3, 2], [1, 1]),
        ([2, 1, 3], [1, 2], [1, 1]),
        ([0, 0, 1], [1, 1], [2, 3]),
        ([1, -1, 0], [1, 1], [3, 2]),
        ([7, 0, 0], [1, 1], [1, 1]),
    ] {
        for (first_channel, channels) in [(0, 10), (2, 7), (6, 4), (3, 0)] {
            let op =
                Move { input, output, origin, step, repeat, first_channel, channels, fill: -9, min: -100, max: 100 };
            visit(&Case::Move(op, Paint::Random(5)));
            visit(&Case::Move(Move { fill: 127, ..op }, Paint::Period));
        }
    }
}

/// `count` convolutions from a seed, every third one depthwise.
pub fn random(seed: u64, count: u64, visit: &mut dyn FnMut(&Case)) {
    let mut random = Random::new(seed);
    for number in 0..count {
        let kernel = [0; 2].map(|_| 1 + random.below(4) as u8);
        let pad = core::array::from_fn(|side| random.below(kernel[side % 2].into()) as u8);
        let stride = [0; 2].map(|_| 1 + random.below(3) as u8);
        let groups = 1 + random.below(3) as u16;
        let channels = groups * (1 + random.below(20) as u16);
        let depthwise = number % 3 == 0;
        let outputs = if depthwise { channels } else { groups * (1 + random.below(10) as u16) };
        // Now and then weights may lie in blocks.
        let blocks = number % 6 == 1;
        let (channels, outputs, groups) =
            if blocks { (channels.min(7) * 4, outputs.min(2) * 16, 1) } else { (channels, outputs, groups) };
        let [height, width] = [0; 2].map(|_| 4 + random.below(6) as u16);
        let paint = if random.below(8) == 0 { Paint::Extremes(random.next()) } else { Paint::Random(random.next()) };
        let case = plain([height, width, channels], outputs, Window { kernel, stride, pad });
        let case = ConvCase { groups, paint, ..case };
        visit(&if depthwise { each_channel(case) } else { Case::Conv(case) });
    }
}
