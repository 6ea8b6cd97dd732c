//! Time that other tasks take from a run, from a seed.

/// One segment in this many is interrupted.
const ONE_IN: u64 = 12;
/// An interruption takes at most this part of the segment's own ticks, in 1/256.
const MOST_IN_256: u64 = 128;

/// Decides after each segment how many ticks were stolen. Equal seeds steal equally.
#[derive(Clone, Debug)]
pub struct Theft {
    /// State of the generator; `None` steals nothing.
    state: Option<u64>,
}

impl Theft {
    /// Steals by `seed`, or never.
    #[must_use]
    pub fn new(seed: Option<u64>) -> Self {
        Self { state: seed }
    }

    /// Ticks stolen from a segment that takes `ticks` by itself.
    pub fn after(&mut self, ticks: u32) -> u64 {
        let Some(state) = &mut self.state else { return 0 };
        let random = splitmix(state);
        if !random.is_multiple_of(ONE_IN) {
            return 0;
        }
        u64::from(ticks) * ((random >> 32) % (MOST_IN_256 + 1)) / 256
    }
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, figure 17.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::Theft;

    #[test]
    fn steals_equally_from_equal_seeds_and_at_most_half() {
        let stolen = |seed| {
            let mut theft = Theft::new(Some(seed));
            (0..1000).map(|_| theft.after(1000)).collect::<Vec<_>>()
        };
        assert_eq!(stolen(7), stolen(7));
        assert_ne!(stolen(7), stolen(8));
        let hits = stolen(7).iter().filter(|&&ticks| ticks > 0).count();
        assert!((40..140).contains(&hits), "{hits} of 1000 segments were interrupted");
        assert!(stolen(7).iter().all(|&ticks| ticks <= 500));
    }

    #[test]
    fn steals_nothing_without_a_seed() {
        let mut theft = Theft::new(None);
        assert!((0..100).all(|_| theft.after(1_000_000) == 0));
    }
}
