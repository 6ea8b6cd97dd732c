//! Cases of what a transformer is made of.

use super::layers::hash;
use super::table::{BOUNDARIES, CORNERS};
use super::{Case, Failure, Lent, Paint, Random, compare, painted_table, take};
use crate::{Attention, Element, Heads, Isa, LayerNorm, Requant, Rescale, Roll, Shape, attention_scratch, reference};

/// Rows of numbers: of Int16 for a layer normalisation, of logits for a softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// One value.
    All(i32),
    /// One value, and another one in a place that moves on from row to row.
    Outlier(i32, i32),
    /// Two values, from a seed.
    Either(i32, i32, u64),
    /// A value and less than so much more, from a seed.
    Noise(i32, u32, u64),
}

/// A rescale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescaleCase {
    /// Channels.
    pub channels: u16,
    /// Positions.
    pub positions: usize,
    /// Input and output.
    pub elements: [Element; 2],
    /// Right shift of every channel.
    pub shift: u8,
    /// Contents.
    pub paint: Paint,
}

/// A layer normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormCase {
    /// Channels.
    pub channels: u16,
    /// Positions.
    pub positions: usize,
    /// Fraction bits of the factors.
    pub factor_bits: u8,
    /// Factors: all of them; or random ones.
    pub factor: Option<i16>,
    /// Epsilon.
    pub epsilon: u64,
    /// Contents.
    pub line: Line,
}

/// An attention of queries, keys and values in one map, or in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionCase {
    /// Windows, rows and columns.
    pub windows: [u16; 2],
    /// Window of queries.
    pub query_window: [u16; 2],
    /// Window of keys.
    pub key_window: [u16; 2],
    /// Heads.
    pub heads: u16,
    /// Channels of a query and of a value in a head.
    pub width: [u16; 2],
    /// Whether heads have their query, key and value side by side, with a gap; else all queries, all keys, all values.
    pub interleaved: bool,
    /// Bias; mask.
    pub offsets: [bool; 2],
    /// Rescale of the logits.
    pub logit: (i32, u8),
    /// Right shift of the outputs.
    pub shift: u8,
    /// Contents.
    pub paint: Paint,
}

impl AttentionCase {
    /// Multiply-accumulates.
    pub(super) fn products(&self) -> u64 {
        let size = |window: [u16; 2]| u64::from(window[0]) * u64::from(window[1]);
        let scores = size(self.windows) * size(self.query_window) * size(self.key_window) * u64::from(self.heads);
        scores * (u64::from(self.width[0]) + u64::from(self.width[1]))
    }
}

impl Line {
    fn values(self, row: usize) -> impl FnMut() -> i32 {
        let seed = if let Self::Either(_, _, seed) | Self::Noise(_, _, seed) = self { seed } else { 0 };
        let mut random = Random::new(1000 * seed + row as u64);
        let mut index = 0;
        move || {
            index += 1;
            match self {
                Self::All(value) => value,
                Self::Outlier(value, other) => [value, other][usize::from(index == row + 1)],
                Self::Either(one, other, _) => [one, other][random.below(2) as usize],
                Self::Noise(from, below, _) => from.wrapping_add(random.below(below.into()) as i32),
            }
        }
    }
}

/// Wraps the call of a kernel.
type Measure<'a> = &'a mut dyn FnMut(&mut dyn FnMut());

/// Runs a case of this page, the call of its kernel inside `measure`; the hash of its output.
pub(super) fn run<I: Isa>(isa: I, case: &Case, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    match *case {
        Case::Rescale(case) => run_rescale(isa, &case, memory, measure),
        Case::Curve(len, paint) => run_curve(len, paint, memory, measure),
        Case::Prepend([tokens, len], paint) => run_prepend(tokens, len, paint, memory, measure),
        Case::Roll(op, paint) => run_roll(&op, paint, memory, measure),
        Case::LayerNorm(case) => run_layer_norm(isa, &case, memory, measure),
        Case::Softmax([keys, rows], line) => run_softmax(isa, keys, rows.into(), line, memory, measure),
        Case::Attention(case) => run_attention(isa, &case, memory, measure),
        _ => Err(Failure::Memory),
    }
}

fn judged(found: &[i8], expected: &[i8]) -> Result<u32, Failure> {
    compare(found, expected)?;
    Ok(hash(found))
}

fn run_rescale<I: Isa>(isa: I, case: &RescaleCase, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let (channels, [from, to]) = (usize::from(case.channels), case.elements);
    let [bias, multiplier] = [0; 2].map(|_| take(&mut constants, 4 * channels));
    let (bias, multiplier, shift) = (bias?, multiplier?, take(&mut constants, channels)?);
    let mut random = Random::new(channels as u64);
    for ((bias, multiplier), shift) in
        bias.as_chunks_mut().0.iter_mut().zip(multiplier.as_chunks_mut().0).zip(&mut *shift)
    {
        *bias = (random.below(300) as i32 - 150).to_le_bytes();
        *multiplier = ((1 << 30) + random.below(1 << 30) as i32).to_le_bytes();
        *shift = case.shift;
    }
    let requant = Requant { bias, multiplier, shift, zero_point: -7, min: -100, max: 120 };
    let op = Rescale { channels: case.channels, from, to, requant };
    let count = channels * case.positions;
    let [input, found, expected] = [from, to, to].map(|element| take(&mut rest, count * element.bytes()));
    let (input, found, expected) = (input?, found?, expected?);
    case.paint.fill(false, from, input);
    found.fill(0x55);
    reference::rescale_tensor(&op, input, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::rescale_tensor(isa, &op, input, found));
    result?;
    judged(found, expected)
}

fn run_curve(len: usize, paint: Paint, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let table = painted_table(take(&mut constants, 256)?)?;
    let [input, found, expected] = [0; 3].map(|_| take(&mut rest, len));
    let (input, found, expected) = (input?, found?, expected?);
    input.fill_with(paint.values(false));
    found.fill(0x55);
    reference::curve(table, input, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::curve(table, input, found));
    result?;
    judged(found, expected)
}

fn run_prepend(
    tokens: usize,
    len: usize,
    paint: Paint,
    memory: Lent<'_>,
    measure: Measure<'_>,
) -> Result<u32, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let tokens = take(&mut constants, tokens)?;
    let [input, found, expected] = [len, tokens.len() + len, tokens.len() + len].map(|len| take(&mut rest, len));
    let (input, found, expected) = (input?, found?, expected?);
    input.fill_with(paint.values(false));
    let mut values = paint.values(true);
    tokens.fill_with(|| values() as u8);
    found.fill(0x55);
    reference::prepend(tokens, input, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::prepend(tokens, input, found));
    result?;
    judged(found, expected)
}

fn run_roll(op: &Roll, paint: Paint, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    let mut rest = memory.activations;
    let [input, found, expected] = [0; 3].map(|_| take(&mut rest, op.shape.len()));
    let (input, found, expected) = (input?, found?, expected?);
    input.fill_with(paint.values(false));
    found.fill(0x55);
    reference::roll(op, input, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::roll(op, input, found));
    result?;
    judged(found, expected)
}

fn run_layer_norm<I: Isa>(isa: I, case: &NormCase, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let channels = usize::from(case.channels);
    let (factor, offset) = (take(&mut constants, 2 * channels)?, take(&mut constants, 4 * channels)?);
    let mut random = Random::new(u64::from(case.channels) + u64::from(case.factor_bits));
    for (factor, offset) in factor.as_chunks_mut().0.iter_mut().zip(offset.as_chunks_mut().0) {
        *factor = case.factor.unwrap_or(random.next() as i16).to_le_bytes();
        *offset = (random.below(8192) as i32 - 4096).to_le_bytes();
    }
    let (min, max) = if channels.is_multiple_of(2) { (-128, 127) } else { (-90, 100) };
    let &NormCase { channels, factor_bits, epsilon, .. } = case;
    let op = LayerNorm { channels, factor, factor_bits, offset, epsilon, min, max };
    let len = usize::from(channels) * case.positions;
    let [input, found, expected] = [2 * len, len, len].map(|len| take(&mut rest, len));
    let (input, found, expected) = (input?, found?, expected?);
    for (number, row) in input.chunks_mut(2 * usize::from(channels)).enumerate() {
        let mut values = case.line.values(number);
        row.as_chunks_mut().0.fill_with(|| (values() as i16).to_le_bytes().map(|byte| byte as i8));
    }
    found.fill(0x55);
    reference::layer_norm(&op, input, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::layer_norm(isa, &op, input, found));
    result?;
    judged(found, expected)
}

fn run_softmax<I: Isa>(
    isa: I,
    keys: u16,
    rows: usize,
    line: Line,
    memory: Lent<'_>,
    measure: Measure<'_>,
) -> Result<u32, Failure> {
    let mut rest = memory.activations;
    let len = usize::from(keys) * rows;
    let [logits, found, expected] = [4 * len, 2 * len, 2 * len].map(|len| take(&mut rest, len));
    let (logits, found, expected) = (logits?, found?, expected?);
    for (number, row) in logits.chunks_mut(4 * usize::from(keys)).enumerate() {
        let mut values = line.values(number);
        row.as_chunks_mut().0.fill_with(|| values().to_le_bytes().map(|byte| byte as i8));
    }
    found.fill(0x55);
    reference::softmax(keys, logits, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::softmax(isa, keys, logits, found));
    result?;
    judged(found, expected)
}

fn run_attention<I: Isa>(isa: I, case: &AttentionCase, memory: Lent<'_>, measure: Measure<'_>) -> Result<u32, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let size = |window: [u16; 2]| usize::from(window[0]) * usize::from(window[1]);
    let [queries, keys] = [case.query_window, case.key_window].map(size);
    let mut tables =
        [usize::from(case.heads), size(case.windows)].into_iter().zip(case.offsets).map(|(count, there)| {
            let table = take(&mut constants, if there { 2 * count * queries * keys } else { 0 })?;
            let mut random = Random::new(count as u64);
            table.as_chunks_mut().0.fill_with(|| (random.below(4000) as i16 - 3000).to_le_bytes());
            Ok::<_, Failure>(&*table)
        });
    let (bias, mask) = (tables.next().ok_or(Failure::Memory)??, tables.next().ok_or(Failure::Memory)??);
    let [wide, narrow] = case.width;
    let pitch = if case.interleaved { 2 * wide + narrow + 3 } else { wide };
    let heads = |first: u16, per_head: u16, width: u16| Heads {
        first,
        per_head: if case.interleaved { pitch } else { per_head },
        width,
    };
    let starts = if case.interleaved { [0, wide, 2 * wide] } else { [0, case.heads * wide, 2 * case.heads * wide] };
    let channels = case.heads * if case.interleaved { pitch } else { 2 * wide + narrow };
    let map =
        |window: [u16; 2]| Shape { height: case.windows[0] * window[0], width: case.windows[1] * window[1], channels };
    let op = Attention {
        query_map: map(case.query_window),
        key_map: map(case.key_window),
        heads: case.heads,
        query: heads(starts[0], wide, wide),
        key: heads(starts[1], wide, wide),
        value: heads(starts[2], narrow, narrow),
        query_window: case.query_window,
        key_window: case.key_window,
        logit_multiplier: case.logit.0,
        logit_shift: case.logit.1,
        bias,
        mask,
        multiplier: 1_500_000_000,
        shift: case.shift,
        zero_point: 9,
        min: -128,
        max: if narrow.is_multiple_of(2) { 127 } else { 80 },
    };
    let out = size(case.windows) * queries * usize::from(case.heads * narrow);
    // One map, where that can be: the more usual case.
    let one = op.query_map == op.key_map && !case.interleaved;
    let second = if one { 0 } else { op.key_map.len() };
    let lens = [op.query_map.len(), second, out, out, attention_scratch(keys, wide)];
    let [query, key, found, expected, scratch] = lens.map(|len| take(&mut rest, len));
    let (query, key, found, expected, scratch) = (query?, key?, found?, expected?, scratch?);
    query.fill_with(case.paint.values(false));
    key.fill_with(case.paint.values(true));
    scratch.fill(0x33);
    found.fill(0x55);
    let key = if one { &*query } else { &*key };
    reference::attention(&op, query, key, expected);
    let mut result = Ok(());
    measure(&mut || result = crate::attention(isa, &op, query, key, found, scratch));
    result?;
    judged(found, expected)
}

/// Every boundary.
pub(super) fn table(visit: &mut dyn FnMut(&Case)) {
    rescales(visit);
    movements(visit);
    layer_norms(visit);
    softmaxes(visit);
    attentions(visit);
}

fn rescales(visit: &mut dyn FnMut(&Case)) {
    let types = [Element::Int8, Element::Int16];
    for elements in types.into_iter().flat_map(|from| types.map(|to| [from, to])) {
        for channels in BOUNDARIES {
            let shift =
                if elements[0] == elements[1] { 31 } else { [38, 24][usize::from(elements[0] == Element::Int8)] };
            visit(&Case::Rescale(RescaleCase { channels, positions: 3, elements, shift, paint: Paint::Random(5) }));
        }
        for paint in CORNERS {
            for shift in [1, 31, 32, 33, 40, 62] {
                visit(&Case::Rescale(RescaleCase { channels: 6, positions: 2, elements, shift, paint }));
            }
        }
    }
}

fn movements(visit: &mut dyn FnMut(&Case)) {
    for len in [1, 3, 4, 5, 256, 1023] {
        visit(&Case::Curve(len, Paint::Random(1)));
        visit(&Case::Prepend([12, len], Paint::Random(2)));
        visit(&Case::Prepend([len, 24], Paint::Period));
    }
    visit(&Case::Prepend([0, 5], Paint::Period));
    let shape = Shape { height: 4, width: 5, channels: 6 };
    for by in [[0, 0], [1, 0], [0, 2], [3, 4], [4, 5], [6, 13], [u16::MAX, u16::MAX]] {
        visit(&Case::Roll(Roll { shape, by }, Paint::Random(3)));
    }
}

fn layer_norms(visit: &mut dyn FnMut(&Case)) {
    let plain = NormCase {
        channels: 96,
        positions: 3,
        factor_bits: 10,
        factor: None,
        epsilon: 1000,
        line: Line::Noise(-4000, 8000, 1),
    };
    for channels in [2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 96, 192, 2047, 2048] {
        let positions = if channels > 200 { 1 } else { 3 };
        let case = NormCase { channels, positions, ..plain };
        visit(&Case::LayerNorm(case));
        visit(&Case::LayerNorm(NormCase { line: Line::Noise(-32_768, 65_536, 2), ..case }));
    }
    let lines = [
        Line::All(0),
        Line::All(-1),
        Line::All(i16::MAX.into()),
        Line::All(i16::MIN.into()),
        Line::Outlier(0, 1),
        Line::Outlier(0, i16::MIN.into()),
        Line::Outlier(i16::MAX.into(), i16::MIN.into()),
        Line::Outlier(i16::MAX.into(), 32_766),
        Line::Either(-32_767, 32_767, 1),
        Line::Either(i16::MIN.into(), i16::MAX.into(), 2),
        Line::Either(5, 6, 3),
        Line::Noise(30_000, 8, 4),
        Line::Noise(-20_000, 300, 5),
    ];
    for line in lines {
        for channels in [2, 3, 16, 96, 2048] {
            let positions = if channels > 200 { 1 } else { 2 };
            for (epsilon, factor_bits, factor) in
                [(0, 10, None), (1, 15, Some(i16::MIN)), (1 << 62, 0, Some(i16::MAX)), (1 << 40, 4, Some(300))]
            {
                let case = NormCase { channels, positions, factor_bits, factor, epsilon, line };
                visit(&Case::LayerNorm(case));
            }
        }
    }
}

fn softmaxes(visit: &mut dyn FnMut(&Case)) {
    for keys in 1..=200 {
        let rows = if keys < 20 { 3 } else { 1 };
        visit(&Case::Softmax([keys, rows], Line::Noise(-1500, 3000, keys.into())));
    }
    for keys in [1, 2, 65, 197, 2048] {
        let rows = if keys < 200 { 2 } else { 1 };
        for line in [
            Line::All(0),
            Line::All(-(1 << 24)),
            Line::Outlier(0, 20 * 256),
            Line::Outlier(0, 20 * 256 - 1),
            Line::Outlier(0, 20 * 256 + 1),
            Line::Outlier(-(1 << 25), 1 << 25),
            Line::Outlier(3, 1),
            Line::Either(-(1 << 24), (1 << 24) - 1, 1),
            Line::Noise(7, 256, 2),
            Line::Noise(-(1 << 24), 1 << 25, 3),
            Line::Noise(100_000, 10_000, 4),
        ] {
            visit(&Case::Softmax([keys, rows], line));
        }
    }
}

fn attentions(visit: &mut dyn FnMut(&Case)) {
    // A shift for logits of some units: the products of random values are about √width · 2^12.5, multipliers 2^30.5.
    let logit = |width: u16| (1_500_000_000, 32 + (width.ilog2() / 2) as u8);
    let plain = AttentionCase {
        windows: [1, 1],
        query_window: [1, 5],
        key_window: [1, 5],
        heads: 2,
        width: [8, 8],
        interleaved: false,
        offsets: [false; 2],
        logit: logit(8),
        shift: 44,
        paint: Paint::Random(1),
    };
    let mut each = |case: AttentionCase| visit(&Case::Attention(case));
    for keys in 1..=200 {
        let heads = 1 + keys % 2;
        each(AttentionCase { query_window: [1, 1 + keys % 6], key_window: [1, keys], heads, ..plain });
    }
    for wide in [1, 2, 3, 4, 5, 8, 12, 15, 16, 17, 20, 32, 64] {
        for narrow in [1, 2, 3, 4, 6, 16, 17, 33] {
            each(AttentionCase { width: [wide, narrow], logit: logit(wide), key_window: [1, 7], ..plain });
        }
    }
    // A vision transformer's, and windows of 4x4, 7x7 and 3x5, with everything that is added.
    each(AttentionCase {
        query_window: [1, 65],
        key_window: [1, 65],
        heads: 3,
        width: [16, 16],
        logit: logit(16),
        ..plain
    });
    for offsets in [[false; 2], [true, false], [false, true], [true; 2]] {
        for (window, windows) in [([4, 4], [2, 2]), ([7, 7], [1, 2]), ([3, 5], [2, 1]), ([2, 3], [3, 2])] {
            let heads = if window == [7, 7] { 1 } else { 2 };
            let case = AttentionCase { windows, query_window: window, key_window: window, heads, offsets, ..plain };
            each(case);
            each(AttentionCase { interleaved: true, width: [8, 4], ..case });
        }
        // Fewer keys than queries, as where keys are pooled.
        each(AttentionCase { windows: [2, 2], query_window: [3, 4], key_window: [1, 2], offsets, ..plain });
    }
    for paint in CORNERS {
        for logit in [(i32::MAX, 1), (i32::MAX, 31), (-1_500_000_000, 33), (0, 40), (1_500_000_000, 54), (1 << 30, 62)]
        {
            for shift in [20, 40, 50, 60] {
                each(AttentionCase { paint, logit, shift, key_window: [1, 9], ..plain });
            }
        }
    }
}
