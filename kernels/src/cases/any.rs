//! A case from any bytes, and its run on every instruction set: the body of the fuzz target `kernels`.

use super::table::plain;
use super::{AttentionCase, Case, ConvCase, Failure, Line, Memory, NormCase, Paint, RescaleCase, run};
use crate::{Add, Element, Level, Move, Pool, PoolKind, Roll, Shape, Window};

/// Bytes as choices; zeros behind the end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> i32 {
        i32::from_le_bytes([0; 4].map(|_| self.byte()))
    }

    /// A number of `least..=most`.
    fn between(&mut self, least: u8, most: u8) -> u8 {
        least + self.byte() % (most - least + 1)
    }

    fn shape(&mut self) -> Shape {
        let [height, width, channels] = [12, 12, 40].map(|most| u16::from(self.between(1, most)));
        Shape { height, width, channels }
    }

    /// A window, and the input made large enough for it. Padding may exceed the window.
    fn window(&mut self, input: &mut Shape) -> Window {
        let kernel = [0; 2].map(|_| self.between(1, 5));
        let stride = [0; 2].map(|_| self.between(1, 4));
        let pad = [0; 4].map(|_| self.between(0, 4));
        input.height = input.height.max(kernel[0].into());
        input.width = input.width.max(kernel[1].into());
        Window { kernel, stride, pad }
    }

    fn clamp(&mut self) -> [i8; 2] {
        let ends = [0; 2].map(|_| self.byte() as i8);
        [ends[0].min(ends[1]), ends[0].max(ends[1])]
    }

    fn paint(&mut self) -> Paint {
        match self.byte() % 4 {
            0 => Paint::Period,
            1 => Paint::All(self.byte() as i8, self.byte() as i8),
            2 => Paint::Extremes(self.word().unsigned_abs().into()),
            _ => Paint::Random(self.word().unsigned_abs().into()),
        }
    }

    fn convolution(&mut self) -> ConvCase {
        let mut input = self.shape();
        let window = self.window(&mut input);
        let mut groups = u16::from(self.between(1, 4));
        input.channels = input.channels.next_multiple_of(groups);
        let mut outputs = groups * u16::from(self.between(1, 12));
        if groups == 4 && self.flag() {
            // Weights may lie in blocks: channels are whole words.
            (groups, outputs) = (1, 16 * u16::from(self.between(1, 2)));
        }
        let shift = self.byte().is_multiple_of(2).then(|| self.between(1, 62));
        let paint = self.paint();
        let (to, curve) = (self.element(), self.flag());
        let case = plain([input.height, input.width, input.channels], outputs, window);
        ConvCase { groups, shift, paint, to, curve: curve && to == Element::Int8, ..case }
    }

    fn depthwise(&mut self) -> ConvCase {
        let case = self.convolution();
        ConvCase { groups: case.input.channels, outputs: case.input.channels, to: Element::Int8, ..case }
    }

    fn addition(&mut self) -> Add {
        let [min, max] = self.clamp();
        let elements = [0; 3].map(|_| self.element());
        // The bounds of V16, whatever the constant.
        let multiplier =
            [0; 2].map(|_| (self.word() as i16).max(-i16::MAX) / if elements == [Element::Int8; 3] { 1 } else { 2 });
        Add { multiplier, offset: self.word() >> 2, shift: self.between(0, 30), min, max, elements }
    }

    fn flag(&mut self) -> bool {
        self.byte().is_multiple_of(2)
    }

    fn element(&mut self) -> Element {
        if self.byte().is_multiple_of(3) { Element::Int16 } else { Element::Int8 }
    }

    fn line(&mut self) -> Line {
        let (one, other, seed) = (self.word() >> 7, self.word() >> 7, u64::from(self.byte()));
        match self.byte() % 4 {
            0 => Line::All(one),
            1 => Line::Outlier(one, other),
            2 => Line::Either(one, other, seed),
            _ => Line::Noise(one, 1 + (other as u32 & 0x3ff_ffff >> self.between(1, 25)), seed),
        }
    }

    fn rescale(&mut self) -> RescaleCase {
        let (channels, positions) = (self.between(1, 40).into(), self.between(1, 9).into());
        let elements = [0; 2].map(|_| self.element());
        RescaleCase { channels, positions, elements, shift: self.between(1, 62), paint: self.paint() }
    }

    fn normalisation(&mut self) -> NormCase {
        let (channels, positions) = (self.between(2, 255).into(), self.between(1, 3).into());
        let factor = self.flag().then(|| self.word() as i16);
        // At most 2^62, and small ones as often as large ones.
        let epsilon = (u64::from(self.word().unsigned_abs()) << 31) >> self.between(0, 62);
        NormCase { channels, positions, factor_bits: self.between(0, 15), factor, epsilon, line: self.line() }
    }

    fn attention(&mut self) -> AttentionCase {
        AttentionCase {
            windows: [0; 2].map(|_| self.between(1, 2).into()),
            query_window: [0; 2].map(|_| self.between(1, 5).into()),
            key_window: [0; 2].map(|_| self.between(1, 6).into()),
            heads: self.between(1, 3).into(),
            width: [0; 2].map(|_| self.between(1, 20).into()),
            interleaved: self.flag(),
            offsets: [0; 2].map(|_| self.flag()),
            logit: (self.word(), self.between(1, 62)),
            shift: self.between(1, 62),
            paint: self.paint(),
        }
    }

    fn pool(&mut self) -> Pool {
        let mut input = self.shape();
        let window = self.window(&mut input);
        let output = ConvCase { input, ..plain([1, 1, 1], input.channels, window) }.output();
        let kind = if self.byte().is_multiple_of(2) { PoolKind::Average } else { PoolKind::Max };
        let [min, max] = self.clamp();
        let (multiplier, shift) = (self.word() & i32::MAX, self.between(1, 62));
        let [input_zero, zero_point] = [0; 2].map(|_| self.byte() as i8);
        Pool { kind, input, output, window, input_zero, multiplier, shift, zero_point, min, max }
    }

    fn movement(&mut self) -> Move {
        let (input, output) = (self.shape(), self.shape());
        let channels = self.between(0, output.channels as u8);
        let first_channel = self.between(0, output.channels as u8 - channels).into();
        // Near the map most often, anywhere else now and then.
        let near = !self.byte().is_multiple_of(4);
        let origin = [0; 3].map(|_| self.word() as i16).map(|at| if near { at % 16 } else { at });
        let [step, repeat] = [0; 2].map(|_| [0; 2].map(|_| self.between(1, if near { 3 } else { 255 })));
        let [min, max] = self.clamp();
        let (channels, fill) = (channels.into(), self.byte() as i8);
        Move { input, output, origin, step, repeat, first_channel, channels, fill, min, max }
    }
}

/// Runs the case that `bytes` choose on every instruction set of this machine; false if `memory` is too small.
///
/// # Panics
/// If one differs from the reference, or refuses it.
#[allow(unused_labels, reason = "of `with_isa!`, where there is one instruction set")]
pub fn run_any(bytes: &[u8], memory: &mut Memory) -> bool {
    let mut choices = Choices(bytes);
    let case = match choices.byte() % 12 {
        0 => Case::Conv(choices.convolution()),
        1 => Case::Depthwise(choices.depthwise()),
        2 => Case::Add(choices.addition(), choices.byte().into(), choices.paint()),
        3 => Case::Pool(choices.pool(), choices.paint()),
        4 => Case::Move(choices.movement(), choices.paint()),
        5 => Case::Rescale(choices.rescale()),
        6 => Case::Curve(choices.byte().into(), choices.paint()),
        7 => Case::Prepend([0; 2].map(|_| choices.byte().into()), choices.paint()),
        8 => {
            let (shape, by) = (choices.shape(), [0; 2].map(|_| choices.byte().into()));
            Case::Roll(Roll { shape, by }, choices.paint())
        }
        9 => Case::LayerNorm(choices.normalisation()),
        10 => Case::Softmax([choices.between(1, 255).into(), choices.between(1, 3).into()], choices.line()),
        _ => Case::Attention(choices.attention()),
    };
    for level in Level::available() {
        let found = match level {
            #[cfg(all(target_arch = "arm", feature = "dsp"))]
            Level::Dsp => run(crate::arch::Dsp, &case, memory),
            level => crate::with_isa!(level, |isa| run(isa, &case, memory)),
        };
        if found == Err(Failure::Memory) {
            return false;
        }
        assert_eq!(found, Ok(()), "{}: {case:?}", level.name());
    }
    true
}
