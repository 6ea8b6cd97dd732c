//! [`Throttle`]: from what is sensed to what a frame may use.
//!
//! ```text
//! allowed   most ┤────────╮                        most ┤              ╭────────
//!                │         ╲                            │            ╱
//!          least ┤          ╰──────             least ┤──────────╯
//!                └────────┬──┬────► temperature         └──────────┬──┬────► supply
//!                      warm hot                               empty full
//! ```
//!
//! Temperature bounds the time of a frame, which is what warms the chip; the supply bounds its energy.

use runtime::{Budget, Limit};

/// From which reading to which, and what is allowed at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Reading at which the most is allowed.
    pub good: i32,
    /// Reading at which the least is allowed.
    pub bad: i32,
    /// What is allowed at `bad` and beyond.
    pub least: u64,
    /// What is allowed at `good` and beyond.
    pub most: u64,
}

impl Range {
    /// What a reading allows: on a straight line between the ends.
    #[must_use]
    pub fn allows(&self, reading: i32) -> u64 {
        let span = i64::from(self.good) - i64::from(self.bad);
        let above = i64::from(reading) - i64::from(self.bad);
        // Both have the sign of `good - bad` inside the range.
        let (span, above) = if span < 0 { (-span, -above) } else { (span, above) };
        let (span, above) = (span.unsigned_abs(), above.clamp(0, span).unsigned_abs());
        let room = self.most.saturating_sub(self.least);
        if span == 0 {
            return self.least + room;
        }
        // `room * above / span`, without the 1.5 KB that a division of 128 bits takes: of these products the first is at most
        // `room`, and the factors of the second have 32 bits.
        self.least + room / span * above + room % span * above / span
    }
}

/// What the sensors said; `None`: no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Readings {
    /// Thousandths of a degree Celsius.
    pub millidegrees: Option<i32>,
    /// Supply.
    pub millivolts: Option<i32>,
}

/// What a budget rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// Both sensors answered.
    Sensed,
    /// A sensor is silent; its last reading holds.
    Remembered,
    /// A sensor has been silent for too long: the least is allowed.
    Careful,
}

/// Makes budgets of readings.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    /// Temperature, thousandths of a degree → ticks.
    pub time: Range,
    /// Supply, millivolts → microjoules.
    pub energy: Range,
    /// Frames for which a reading holds after the last answer.
    pub patience: u16,
    last: Readings,
    silent: [u16; 2],
}

impl Throttle {
    /// Has sensed nothing yet: until a sensor answers, it allows the least.
    #[must_use]
    pub fn new(time: Range, energy: Range, patience: u16) -> Self {
        Self { time, energy, patience, last: Readings::default(), silent: [0; 2] }
    }

    /// The budget of the frame to come, hard limits of time and energy, and what it rests on.
    pub fn budget(&mut self, readings: Readings) -> (Budget, State) {
        let Self { time, energy, patience, last, silent: [no_degrees, no_volts] } = self;
        let [degrees, volts] = [
            (readings.millidegrees, &mut last.millidegrees, no_degrees),
            (readings.millivolts, &mut last.millivolts, no_volts),
        ]
        .map(|(reading, last, silent)| {
            *silent = if reading.is_some() { 0 } else { silent.saturating_add(1) };
            *last = reading.or(*last);
            last.filter(|_| *silent <= *patience)
        });
        let allowed =
            |range: &Range, reading: Option<i32>| reading.map_or(range.least, |reading| range.allows(reading));
        let budget = Budget {
            time: Some(Limit::hard(allowed(time, degrees))),
            energy: Some(Limit::hard(allowed(energy, volts))),
            memory: None,
        };
        let state = match (degrees, volts) {
            (None, _) | (_, None) => State::Careful,
            _ if readings.millidegrees.is_none() || readings.millivolts.is_none() => State::Remembered,
            _ => State::Sensed,
        };
        (budget, state)
    }
}

#[cfg(test)]
mod tests {
    use super::{Range, Readings, State, Throttle};

    const TIME: Range = Range { good: 60_000, bad: 80_000, least: 100, most: 300 };
    const ENERGY: Range = Range { good: 24_000, bad: 20_000, least: 10, most: 50 };

    #[test]
    fn allows_less_the_worse_it_is_and_never_less_than_the_least() {
        let time = [-40_000, 60_000, 65_000, 70_000, 80_000, 125_000].map(|reading| TIME.allows(reading));
        assert_eq!(time, [300, 300, 250, 200, 100, 100]);
        let energy = [0, 20_000, 21_000, 24_000, i32::MAX].map(|reading| ENERGY.allows(reading));
        assert_eq!(energy, [10, 10, 20, 50, 50]);
        assert_eq!(TIME.allows(i32::MIN), 300);
        let point = Range { good: 5, bad: 5, least: 1, most: u64::MAX };
        assert_eq!(point.allows(5), u64::MAX, "a range without width allows the most");
        let wide = Range { good: i32::MAX, bad: i32::MIN, least: 0, most: u64::MAX };
        assert_eq!((wide.allows(i32::MIN), wide.allows(i32::MAX)), (0, u64::MAX));
    }

    #[test]
    fn a_silent_sensor_is_remembered_and_then_nobody_takes_risks() {
        let mut throttle = Throttle::new(TIME, ENERGY, 2);
        let mut budget = |millidegrees, millivolts| {
            let (budget, state) = throttle.budget(Readings { millidegrees, millivolts });
            (budget.time.unwrap().amount, budget.energy.unwrap().amount, state)
        };
        assert_eq!(budget(None, Some(24_000)), (100, 50, State::Careful), "nothing sensed yet");
        assert_eq!(budget(Some(70_000), Some(24_000)), (200, 50, State::Sensed));
        assert_eq!(budget(None, Some(21_000)), (200, 20, State::Remembered));
        assert_eq!(budget(None, Some(21_000)), (200, 20, State::Remembered));
        assert_eq!(budget(None, Some(21_000)), (100, 20, State::Careful));
        assert_eq!(budget(Some(60_000), None), (300, 20, State::Remembered));
        for _ in 0..70_000u32 {
            budget(Some(60_000), None);
        }
        assert_eq!(budget(Some(60_000), None), (300, 10, State::Careful), "the count of silence does not wrap");
        assert_eq!(budget(Some(60_000), Some(24_000)), (300, 50, State::Sensed));
    }
}
