//! A case from any bytes, and its run on every instruction set: the body of the fuzz target `kernels`.

use super::{Case, ConvCase, Failure, Memory, Paint, plain, run};
use crate::{Add, Level, Move, Pool, PoolKind, Shape, Window};

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
        let groups = u16::from(self.between(1, 4));
        input.channels = input.channels.next_multiple_of(groups);
        let outputs = groups * u16::from(self.between(1, 12));
        let shift = self.byte().is_multiple_of(2).then(|| self.between(1, 62));
        let paint = self.paint();
        ConvCase { groups, shift, paint, ..plain([input.height, input.width, input.channels], outputs, window) }
    }

    fn depthwise(&mut self) -> ConvCase {
        let case = self.convolution();
        ConvCase { groups: case.input.channels, outputs: case.input.channels, ..case }
    }

    fn addition(&mut self) -> Add {
        let [min, max] = self.clamp();
        // The bounds of V16, whatever the constant.
        let multiplier = [0; 2].map(|_| (self.word() as i16).max(-i16::MAX));
        Add { multiplier, offset: self.word() >> 1, shift: self.between(0, 30), min, max }
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
    let case = match choices.byte() % 5 {
        0 => Case::Conv(choices.convolution()),
        1 => Case::Depthwise(choices.depthwise()),
        2 => Case::Add(choices.addition(), choices.byte().into(), choices.paint()),
        3 => Case::Pool(choices.pool(), choices.paint()),
        _ => Case::Move(choices.movement(), choices.paint()),
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
