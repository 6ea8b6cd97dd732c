//! [`Delays`]: how much longer than predicted frames took lately.

/// Parts of a predicted time that are told apart: 1/32 each.
const PARTS: u32 = 32;
/// Delays that are told apart; a longer one is among those that never fit.
const BINS: usize = 16;
/// A frame changes a chance by one part in so many of what is missing.
const MEMORY: u16 = 16;
/// A chance of one.
pub(super) const CERTAIN: u32 = u16::MAX as u32;

/// For each delay, the part of the recent frames that took no longer: an average that forgets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    /// Of `CERTAIN`. Number `n`: no more than `n / PARTS` above the prediction.
    within: [u16; BINS],
    /// Of the frame under way.
    predicted: u64,
    taken: u64,
}

impl Delays {
    /// None so far: predictions are taken at their word.
    pub const NONE: Self = Self { within: [u16::MAX; BINS], predicted: 0, taken: 0 };

    /// A frame begins; what is left of one that was cancelled does not count.
    pub fn begin(&mut self) {
        (self.predicted, self.taken) = (0, 0);
    }

    /// A segment took so long.
    pub fn add(&mut self, predicted: u32, taken: u64) {
        self.predicted = self.predicted.saturating_add(predicted.into());
        self.taken = self.taken.saturating_add(taken);
    }

    /// The frame is done.
    pub fn end(&mut self) {
        let over = self.taken.saturating_sub(self.predicted).saturating_mul(PARTS.into());
        if self.predicted > 0 {
            for (within, part) in self.within.iter_mut().zip(0u64..) {
                if over <= part.saturating_mul(self.predicted) {
                    *within += (u16::MAX - *within).div_ceil(MEMORY);
                } else {
                    *within -= within.div_ceil(MEMORY);
                }
            }
        }
        self.begin();
    }

    /// The chance, of [`CERTAIN`], that what is predicted to take `ticks` takes no more than `slack` longer.
    #[inline]
    pub fn chance(&self, slack: u32, ticks: u32) -> u32 {
        let part = slack / (ticks / PARTS + 1);
        self.within.get(part as usize).map_or(CERTAIN, |&within| within.into())
    }
}
