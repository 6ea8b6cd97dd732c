//! What goes wrong, from a seed: the same for every strategy, whatever it runs.

use plan::SegmentId;

/// What can go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Seed of everything below; `None`: nothing goes wrong.
    pub seed: Option<u64>,
    /// Time that is stolen may break a segment's bound. Otherwise it stays within it, and deadlines hold.
    pub beyond_bounds: bool,
    /// Frames come late, flash is slow now and then, a sensor falls silent, the clock jumps back.
    pub all: bool,
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, figure 17.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Equal seeds draw equally.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A segment of a contended frame is interrupted once in this many.
const ONE_IN: u64 = 4;
/// Of its own ticks an interruption takes at most this part, in 1/256.
const MOST_IN_256: u64 = 200;
/// What an interruption beyond all bounds takes at most.
const BEYOND_IN_256: u64 = 1024;
/// Frames that a spell of slow flash, or of a silent sensor, lasts.
const SPELL: u64 = 16;

impl Faults {
    /// Other tasks steal time by `seed`, within the bounds.
    #[must_use]
    pub fn steal(seed: Option<u64>) -> Self {
        Self { seed, ..Self::default() }
    }

    /// A number that depends on the seed, the frame and a place in it, and on nothing that was run.
    fn number(&self, frame: u32, place: u64) -> Option<u64> {
        let seed = self.seed?;
        Some(Draw::new(seed ^ u64::from(frame) << 20 ^ place.wrapping_mul(0xd134_2543_de82_ef95)).next())
    }

    /// Ticks that a segment takes: `ticks` of its own, and what is stolen; within `bound` unless bounds may break.
    #[must_use]
    pub fn ticks(&self, frame: u32, segment: SegmentId, contended: bool, ticks: u64, bound: u64) -> u64 {
        let Some(random) = self.number(frame, segment.0.into()).filter(|_| contended) else { return ticks };
        let mut taken = ticks;
        if random.is_multiple_of(ONE_IN) {
            let most = if self.beyond_bounds { BEYOND_IN_256 } else { MOST_IN_256 };
            taken += ticks * ((random >> 32) % (most + 1)) / 256;
        }
        if self.all && self.spell(frame, 1) {
            // Flash with another reader: weights come at four fifths of the speed.
            taken += ticks / 4;
        }
        if self.beyond_bounds { taken } else { taken.min(bound.max(ticks)) }
    }

    /// Whether a spell of kind `kind` holds in a frame: one in eight.
    fn spell(&self, frame: u32, kind: u64) -> bool {
        let spell = (u64::from(frame) / SPELL) as u32;
        self.number(spell, kind << 40).is_some_and(|random| random.is_multiple_of(8))
    }

    /// Whether the sensor behind the budget is silent, so that the device is told what it was told before.
    #[must_use]
    pub fn silent(&self, frame: u32) -> bool {
        self.all && self.spell(frame, 2)
    }

    /// Ticks by which a frame comes late: they are gone when it begins.
    #[must_use]
    pub fn late(&self, frame: u32, allowed: u64) -> u64 {
        let random = self.number(frame, 3 << 40).filter(|random| self.all && random.is_multiple_of(16));
        random.map_or(0, |random| allowed * ((random >> 32) % 64) / 256)
    }

    /// Whether the clock jumps back behind a segment.
    #[must_use]
    pub fn clock_jumps(&self, frame: u32, segment: SegmentId) -> bool {
        let random = self.number(frame, 4 << 40 | u64::from(segment.0));
        self.all && self.beyond_bounds && random.is_some_and(|random| random.is_multiple_of(997))
    }
}

#[cfg(test)]
mod tests {
    use super::Faults;
    use plan::SegmentId;

    #[test]
    fn equal_seeds_steal_equally_and_within_the_bound() {
        let stolen = |seed| {
            let faults = Faults::steal(Some(seed));
            (0..1000).map(|frame| faults.ticks(frame, SegmentId(3), true, 1000, 1500)).collect::<Vec<_>>()
        };
        assert_eq!(stolen(7), stolen(7));
        assert_ne!(stolen(7), stolen(8));
        let hits = stolen(7).iter().filter(|&&ticks| ticks > 1000).count();
        assert!((180..320).contains(&hits), "{hits} of 1000 segments were interrupted");
        assert!(stolen(7).iter().all(|&ticks| (1000..=1500).contains(&ticks)));
        let beyond = Faults { beyond_bounds: true, ..Faults::steal(Some(7)) };
        assert!((0..1000).any(|frame| beyond.ticks(frame, SegmentId(3), true, 1000, 1500) > 1500));
    }

    #[test]
    fn nothing_goes_wrong_without_a_seed() {
        let faults = Faults { seed: None, beyond_bounds: true, all: true };
        for frame in 0..100 {
            assert_eq!(faults.ticks(frame, SegmentId(1), true, 70, 80), 70);
            assert_eq!((faults.late(frame, 100), faults.silent(frame)), (0, false));
            assert!(!faults.clock_jumps(frame, SegmentId(1)));
        }
    }
}
