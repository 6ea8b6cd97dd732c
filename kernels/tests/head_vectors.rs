//! The head's operations equal the Python model, bit for bit.

use kernels::head::{
    self, Anchor, Detection, GroupNorm, Limits, Map, Mixing, Patch, PointSampling, Probing, Rect, Region, RegionPool,
    State,
};
use kernels::{Level, Shape};

/// `cd models/recipe && python integer_head.py ../../kernels/tests/head.vectors` writes them: a plain implementation of
/// `docs/detector.md` that shares nothing with this one.
const VECTORS: &str = include_str!("head.vectors");

fn list<T: TryFrom<i64>>(text: &str) -> Vec<T> {
    text.split_whitespace().map(|word| T::try_from(word.parse::<i64>().unwrap()).ok().expect("in range")).collect()
}

fn int16s(text: &str) -> Vec<i8> {
    list::<i16>(text).into_iter().flat_map(i16::to_le_bytes).map(u8::cast_signed).collect()
}

fn from_int16s(bytes: &[i8]) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|&pair: &[i8; 2]| i16::from_le_bytes(pair.map(i8::cast_unsigned)).into()).collect()
}

fn states(text: &str) -> Vec<State> {
    let four = |&[x, y, w, h]: &[i64; 4]| State { x: x as i16, y: y as i16, w: w as u16, h: h as u16 };
    list(text).as_chunks().0.iter().map(four).collect()
}

fn rects(text: &str) -> Vec<Rect> {
    states(text).iter().map(|&State { x, y, w, h }| Rect { x, y, w, h }).collect()
}

fn anchors(text: &str) -> Vec<Anchor> {
    let five = |&[x, y, w, h, logit]: &[i64; 5]| {
        let rect = Rect { x: x as i16, y: y as i16, w: w as u16, h: h as u16 };
        Anchor { rect, logit: logit as i16 }
    };
    list(text).as_chunks().0.iter().map(five).collect()
}

fn from_anchors(anchors: &[Anchor]) -> Vec<i64> {
    let five =
        |&Anchor { rect: Rect { x, y, w, h }, logit }: &Anchor| [x.into(), y.into(), w.into(), h.into(), logit.into()];
    anchors.iter().flat_map(five).collect()
}

fn probing(text: &str) -> Option<Probing> {
    let [low, high, side, patch, stride_log2, columns, rows] = list::<i16>(text).try_into().ok()?;
    let [side, patch, columns, rows] = [side, patch, columns, rows].map(|value| value as u16);
    Some(Probing { low, high, side, patch, stride_log2: stride_log2 as u8, cells: [columns, rows] })
}

/// Rows, columns, channels, zero point, logarithm of the stride of each; and all values.
fn maps<'a>(constants: &str, mut values: &'a [i8]) -> Vec<Map<'a>> {
    let five = |&[height, width, channels, zero, stride]: &[i64; 5]| {
        let shape = Shape { height: height as u16, width: width as u16, channels: channels as u16 };
        let (own, rest) = values.split_at(shape.len());
        values = rest;
        Map { shape, values: own, zero_point: zero as i8, stride_log2: stride as u8 }
    };
    list(constants).as_chunks().0.iter().map(five).collect()
}

fn norm(text: &str) -> GroupNorm {
    let [factor, bits, offset, min, max] = list::<i32>(text).try_into().unwrap();
    GroupNorm { factor: factor as i16, factor_bits: bits as u8, offset, min: min as i8, max: max as i8 }
}

fn bytes_of<const N: usize, T>(values: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(bytes).collect()
}

fn of_boxes(name: &str, part: &[&str]) -> Option<Vec<i64>> {
    Some(match name {
        "log2" => list(part[0]).into_iter().map(|value| head::log2(value).into()).collect(),
        "exp2" => list(part[1]).into_iter().map(|at| head::exp2(at, list(part[0])[0]).into()).collect(),
        "sigmoid" => list(part[0]).into_iter().map(|at| head::sigmoid(at).into()).collect(),
        "sine" => list(part[0]).into_iter().map(|at| head::sine(at).into()).collect(),
        "state" => rects(part[0]).into_iter().map(State::from).flat_map(from_state).collect(),
        "rect" => states(part[0])
            .into_iter()
            .map(Rect::from)
            .flat_map(|Rect { x, y, w, h }| from_state(State { x, y, w, h }))
            .collect(),
        "refine" => {
            let deltas = list::<i16>(part[1]);
            let moved = states(part[0]).into_iter().zip(deltas.as_chunks().0).map(|(state, &by)| state.refined(by));
            moved.flat_map(from_state).collect()
        }
        "overlap" => {
            let (tau, rects) = (bytes_of(list(part[0]), i16::to_le_bytes), rects(part[1]));
            let mut bias = vec![0; tau.len() * rects.len() * rects.len()];
            head::overlap_bias(&rects, &tau, &mut bias).unwrap();
            from_int16s(&bias)
        }
        "position" => {
            let (rates, states) = (bytes_of(list(part[0]), u32::to_le_bytes), states(part[1]));
            let mut code = vec![0; rates.len() * states.len()];
            head::position_code(&states, &rates, &mut code).unwrap();
            from_int16s(&code)
        }
        "detect" => {
            let [room, classes, width, height] = list::<i16>(part[0]).try_into().unwrap();
            let mut found = vec![Detection::default(); room as usize];
            let (states, logits) = (states(part[1]), int16s(part[2]));
            let count = head::detect(&states, classes as u16, &logits, [width, height], &mut found).unwrap();
            let six = |found: &Detection| {
                let [a, b, c, d] = found.corners.map(i64::from);
                [a, b, c, d, found.class.into(), found.logit.into()]
            };
            found[..count].iter().flat_map(six).collect()
        }
        _ => return None,
    })
}

fn from_state(state: State) -> [i64; 4] {
    [state.x.into(), state.y.into(), state.w.into(), state.h.into()]
}

fn of_anchors(name: &str, part: &[&str]) -> Option<Vec<i64>> {
    Some(match name {
        "decode" => {
            let [left, top, width, height] = list::<i32>(part[0]).try_into().unwrap();
            let region = Region { left: left as i16, top: top as i16, width: width as u16, height: height as u16 };
            let [smallest, right, bottom] = list::<i16>(part[1]).try_into().unwrap();
            let limits = Limits { smallest: smallest as u16, size: [right, bottom] };
            let raw = int16s(part[2]);
            let mut anchors = vec![Anchor::default(); raw.len() / 10];
            head::decode(&region, &limits, &raw, &mut anchors).unwrap();
            from_anchors(&anchors)
        }
        "patches" => {
            let mut patches = vec![Patch::default(); list(part[1])[0]];
            let count = probing(part[0]).unwrap().patches(&anchors(part[2]), &mut patches).unwrap();
            let three = |patch: &Patch| [patch.anchor, patch.corner[0], patch.corner[1]].map(i64::from);
            patches[..count].iter().flat_map(three).collect()
        }
        "remaining" => {
            let [keep, least] = list::<i16>(part[0]).try_into().unwrap();
            let (base, probed) = (anchors(part[2]), anchors(part[3]));
            let mut kept = vec![Anchor::default(); base.len() + probed.len()];
            let lists: [&[Anchor]; 2] = [&base, &probed];
            let count = head::remaining(keep, least as usize, probing(part[1]).as_ref(), lists, &mut kept).unwrap();
            from_anchors(&kept[..count])
        }
        "cap" => {
            let mut kept = vec![Anchor::default(); list(part[0])[0]];
            let count = head::cap(&anchors(part[1]), &mut kept).unwrap();
            from_anchors(&kept[..count])
        }
        _ => return None,
    })
}

fn of_maps(name: &str, part: &[&str]) -> Option<Vec<i64>> {
    let bytes = match name {
        "pool" => {
            let (values, rects, rescales) = (list::<i8>(part[1]), rects(part[5]), list::<i64>(part[4]));
            let maps = maps(part[0], &values);
            let [bins, zero_point] = list::<i8>(part[3]).try_into().unwrap();
            let rescales: Vec<(i32, u8)> =
                rescales.as_chunks().0.iter().map(|&[by, shift]| (by as i32, shift as u8)).collect();
            let sides = list(part[2]);
            let op = RegionPool { maps: &maps, sides: &sides, bins: bins as u8, rescales: &rescales, zero_point };
            let channels = usize::from(maps[0].shape.channels);
            let mut output = vec![0; rects.len() * bins as usize * bins as usize * channels];
            head::pool_regions(&op, &rects, &mut output).unwrap();
            output
        }
        "points" => {
            let values = list::<i8>(part[1]);
            let maps = maps(part[0], &values);
            let [groups, points, first, shift] = list::<i32>(part[2]).try_into().unwrap();
            let (groups, points, shift) = (groups as u16, points as u16, shift as u8);
            let weights = bytes_of(list(part[3]), u16::to_le_bytes);
            let op = PointSampling { maps: &maps, groups, points, weights: &weights, first, shift };
            let states = states(part[4]);
            let mut output = vec![0; states.len() * usize::from(points * maps[0].shape.channels)];
            head::sample_points(&op, &states, &int16s(part[5]), &mut output).unwrap();
            output
        }
        "mix" => {
            let [points_in, points_out, width] = list::<u16>(part[0]).try_into().unwrap();
            let op = Mixing { points_in, points_out, width, inner: norm(part[1]), outer: norm(part[2]) };
            let [points, channels, matrix] = [3, 4, 5].map(|index| list::<i8>(part[index]));
            let mut output = vec![0; usize::from(points_out * width)];
            let mut scratch = vec![0; head::mix_scratch(points_in, points_out, width)];
            for level in Level::available() {
                let matrices: [&[i8]; 2] = [&channels, &matrix];
                let mut found = output.clone();
                kernels::with_isa!(level, |isa| head::mix(isa, &op, &points, matrices, &mut found, &mut scratch))
                    .unwrap();
                assert!(level == Level::Scalar || found == output, "{}", level.name());
                output = found;
            }
            output
        }
        "narrow" => {
            let mut output = vec![0; part[0].split_whitespace().count()];
            head::narrow(&int16s(part[0]), &mut output).unwrap();
            output
        }
        _ => return None,
    };
    Some(bytes.into_iter().map(i64::from).collect())
}

#[test]
fn the_head_equals_the_python_model() {
    let mut count = 0;
    for (number, line) in VECTORS.lines().enumerate() {
        let (inputs, output) = line.split_once('=').unwrap();
        let parts: Vec<&str> = inputs.split(';').collect();
        let (name, part) = (parts[0], &parts[1..]);
        let found = of_boxes(name, part).or_else(|| of_anchors(name, part)).or_else(|| of_maps(name, part));
        assert_eq!(found, Some(list::<i64>(output)), "line {}: {name}", number + 1);
        count += 1;
    }
    assert_eq!(count, 81, "cases of the file");
}
