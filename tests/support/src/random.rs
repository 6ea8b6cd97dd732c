//! Numbers from a seed, and mutations from numbers.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for every seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: `STITCHNET_SEED`, or `default`. Tests print it.
    ///
    /// # Panics
    /// If the variable is not a number.
    #[must_use]
    pub fn seed(default: u64) -> u64 {
        std::env::var("STITCHNET_SEED").map_or(default, |text| text.parse().expect("STITCHNET_SEED is a number"))
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Numbers at which code breaks.
const EDGES: [u32; 16] = [0, 1, 2, 3, 4, 15, 16, 17, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// Changes `bytes` in one to four places: a bit, a field set to an edge or moved by one, a field copied from
/// elsewhere, and now and then the length.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let width = 1 << random.below(3);
        let places = bytes.len() / width;
        let field = |place: usize| place * width..(place + 1) * width;
        let to = field(random.below(places));
        match random.below(16) {
            0..3 => {
                let byte = random.below(bytes.len());
                bytes[byte] ^= 1 << random.below(8);
            }
            3..8 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                bytes[to].copy_from_slice(&edge[..width]);
            }
            8..12 => {
                let up = random.below(2) == 0;
                bytes[to.start] = if up { bytes[to.start].wrapping_add(1) } else { bytes[to.start].wrapping_sub(1) };
            }
            12..15 => {
                let from = field(random.below(places));
                bytes.copy_within(from, to.start);
            }
            _ => {
                let kept = bytes.len() - random.below(bytes.len() / 2);
                bytes.truncate(kept);
            }
        }
    }
}
