//! Sums of products by `vpmaddwd`: a pair of a row's values, the same for all lanes, times the pairs of 16 columns.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
};

/// Columns of a vector: channels of an output, or keys.
pub(super) const LANES: usize = 16;

/// Most rows of a tile: positions, or queries.
pub(super) const ROWS: usize = 8;

/// Two matrices. A row is some lines of values, which lie apart.
pub(super) struct Factors {
    /// Values of 16 bits.
    pub(super) rows: *const i16,
    /// Values from one line of a row to the next.
    pub(super) pitch: usize,
    /// Lines of a row.
    pub(super) lines: usize,
    /// Pairs of values in a line.
    pub(super) pairs: usize,
    /// `[lines][pairs][vectors][16 columns][2]`.
    pub(super) columns: *const i16,
}

impl Factors {
    /// The products of the rows that begin at these places with vectors of columns.
    ///
    /// # Safety
    /// Rows and columns have what the lengths say, for these places and `VECTORS` vectors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn products<const COUNT: usize, const VECTORS: usize>(
        &self,
        places: &[usize; ROWS],
    ) -> [[__m512i; VECTORS]; COUNT] {
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
        let mut columns = self.columns;
        let mut rows: [*const i16; COUNT] = core::array::from_fn(|row| self.rows.wrapping_add(places[row]));
        for _ in 0..self.lines {
            for pair in 0..self.pairs {
                // SAFETY: 32 values of each vector of this pair.
                let of_pair: [__m512i; VECTORS] = core::array::from_fn(|vector| unsafe {
                    _mm512_loadu_si512(columns.wrapping_add(2 * LANES * vector).cast())
                });
                for (sums, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: the pair lies in the line, or its second value is the one behind it.
                    let values = unsafe { row.wrapping_add(2 * pair).cast::<i32>().read_unaligned() };
                    let values = _mm512_set1_epi32(values);
                    for (sum, column) in sums.iter_mut().zip(of_pair) {
                        *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(values, column));
                    }
                }
                columns = columns.wrapping_add(2 * LANES * VECTORS);
            }
            rows = rows.map(|row| row.wrapping_add(self.pitch));
        }
        sums
    }
}

/// Calls a tile of `$size` rows, 8, 4, 2 or 1, by `$vectors` vectors, 3, 2 or 1.
macro_rules! tiles {
    ($size:expr, $vectors:expr, $tile:ident ( $($argument:expr),* )) => {
        match ($size, $vectors) {
            (8, 3) => $tile::<8, 3>($($argument),*),
            (8, 2) => $tile::<8, 2>($($argument),*),
            (8, _) => $tile::<8, 1>($($argument),*),
            (4, 3) => $tile::<4, 3>($($argument),*),
            (4, 2) => $tile::<4, 2>($($argument),*),
            (4, _) => $tile::<4, 1>($($argument),*),
            (2, 3) => $tile::<2, 3>($($argument),*),
            (2, 2) => $tile::<2, 2>($($argument),*),
            (2, _) => $tile::<2, 1>($($argument),*),
            (_, 3) => $tile::<1, 3>($($argument),*),
            (_, 2) => $tile::<1, 2>($($argument),*),
            (_, _) => $tile::<1, 1>($($argument),*),
        }
    };
}
pub(super) use tiles;

/// Rows of the next tile where so many are left.
pub(super) fn rows(left: usize) -> usize {
    1 << left.min(ROWS).ilog2()
}

/// Vectors of the next tile where so many are left: three, two, and one where only one is left.
pub(super) fn vectors(left: usize) -> usize {
    if left == 4 { 2 } else { left.min(3) }
}
