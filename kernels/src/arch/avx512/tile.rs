//! Sums of products by `vpmaddwd`: tiles of rows by vectors of columns, up to 24 vectors of sums.
//!
//! What the lanes of a vector of columns are differs. *Wide*: two values of each of 16 columns, and two values of a row for all
//! lanes; a lane is a sum. *Deep*: four values of each of eight columns, and four values of a row for all eights; each column has
//! two sums, added up at the end. So lie weights in blocks, which then need widening alone.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_permutex2var_epi32, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_setr_epi32, _mm512_setzero_si512,
};

/// Columns whose outputs are a vector: channels, or keys.
pub(in crate::arch) const LANES: usize = 16;

/// Most rows of a tile: positions, or queries.
pub(in crate::arch) const ROWS: usize = 8;

/// Deep: values of a column in a vector, and vectors of 16 columns.
pub(super) const DEPTH: usize = 4;
pub(super) const HALVES: usize = 2;

/// Two matrices. A row is some lines of values, which lie apart.
pub(in crate::arch) struct Factors<V = i16> {
    /// Values of 16 bits, or of another kind.
    pub(in crate::arch) rows: *const V,
    /// Values from one line of a row to the next.
    pub(in crate::arch) pitch: usize,
    /// Lines of a row.
    pub(in crate::arch) lines: usize,
    /// Steps of a line: of two values, or of [`DEPTH`].
    pub(in crate::arch) steps: usize,
    /// Vectors of 64 bytes.
    pub(in crate::arch) columns: *const V,
}

/// Vectors of columns lie in the order in which they are read.
impl Factors {
    /// The products of the rows that begin at these places with 16 columns in each vector: `columns` is
    /// `[lines][steps][vectors][16 columns][2]`.
    ///
    /// # Safety
    /// Rows, of whole steps, and columns have what the lengths say.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn wide<const COUNT: usize, const VECTORS: usize>(
        &self,
        places: &[usize; ROWS],
    ) -> [[__m512i; VECTORS]; COUNT] {
        let load = |row: *const i16| {
            // SAFETY: two values of the row.
            _mm512_set1_epi32(unsafe { row.cast::<i32>().read_unaligned() })
        };
        // SAFETY: as the caller says.
        unsafe { self.sums(places, 2, load) }
    }

    /// The products of the rows that begin at these places with 16 columns: `columns` is `[lines][steps][2][8 columns][4]`.
    ///
    /// # Safety
    /// Rows, of whole steps, and columns have what the lengths say.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn deep<const COUNT: usize>(&self, places: &[usize; ROWS]) -> [__m512i; COUNT] {
        let load = |row: *const i16| {
            // SAFETY: four values of the row.
            _mm512_set1_epi64(unsafe { row.cast::<i64>().read_unaligned() })
        };
        // SAFETY: as the caller says.
        let sums = unsafe { self.sums::<COUNT, HALVES>(places, DEPTH, load) };
        let mut rows = [_mm512_setzero_si512(); COUNT];
        for (row, sums) in rows.iter_mut().zip(sums) {
            *row = folded(sums);
        }
        rows
    }

    /// # Safety
    /// `load` reads `step` values, and rows and columns have them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn sums<const COUNT: usize, const VECTORS: usize>(
        &self,
        places: &[usize; ROWS],
        step: usize,
        load: impl Fn(*const i16) -> __m512i,
    ) -> [[__m512i; VECTORS]; COUNT] {
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
        let mut columns = self.columns;
        let mut rows: [*const i16; COUNT] = core::array::from_fn(|row| self.rows.wrapping_add(places[row]));
        let mut start = 0;
        if self.lines > 0 && self.steps > 0 {
            // The first products need no sum to be added to: short rows, as those of transformed maps, notice.
            // SAFETY: 32 values of each vector of the first step.
            let of_step: [__m512i; VECTORS] = unsafe { vectors_at(columns) };
            for (sums, row) in sums.iter_mut().zip(rows) {
                let values = load(row);
                for (sum, column) in sums.iter_mut().zip(of_step) {
                    *sum = _mm512_madd_epi16(values, column);
                }
            }
            columns = columns.wrapping_add(32 * VECTORS);
            start = 1;
        }
        for _ in 0..self.lines {
            for number in start..self.steps {
                // SAFETY: 32 values of each vector of this step.
                let of_step: [__m512i; VECTORS] = unsafe { vectors_at(columns) };
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let values = load(row.wrapping_add(step * number));
                    for (sum, column) in sums.iter_mut().zip(of_step) {
                        *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(values, column));
                    }
                }
                columns = columns.wrapping_add(32 * VECTORS);
            }
            start = 0;
            rows = rows.map(|row| row.wrapping_add(self.pitch));
        }
        sums
    }
}

/// Neighbouring vectors.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn vectors_at<const VECTORS: usize>(place: *const i16) -> [__m512i; VECTORS] {
    // SAFETY: as the caller says; a vector may lie at any address.
    core::array::from_fn(|vector| unsafe { _mm512_loadu_si512(place.wrapping_add(32 * vector).cast()) })
}

/// The two sums of each of eight columns in each of two vectors, to a sum of each column.
#[inline]
#[target_feature(enable = "avx512f")]
fn folded([low, high]: [__m512i; HALVES]) -> __m512i {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    _mm512_add_epi32(_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high))
}

/// Calls a tile of `$size` rows, 8, 4, 2 or 1, by `$vectors` vectors, 3, 2 or 1.
macro_rules! tiles {
    ($size:expr, $vectors:expr, $($tile:ident)::+ ( $($argument:expr),* )) => {
        match ($size, $vectors) {
            (8, 3) => $($tile)::+::<8, 3>($($argument),*),
            (8, 2) => $($tile)::+::<8, 2>($($argument),*),
            (8, _) => $($tile)::+::<8, 1>($($argument),*),
            (4, 3) => $($tile)::+::<4, 3>($($argument),*),
            (4, 2) => $($tile)::+::<4, 2>($($argument),*),
            (4, _) => $($tile)::+::<4, 1>($($argument),*),
            (2, 3) => $($tile)::+::<2, 3>($($argument),*),
            (2, 2) => $($tile)::+::<2, 2>($($argument),*),
            (2, _) => $($tile)::+::<2, 1>($($argument),*),
            (_, 3) => $($tile)::+::<1, 3>($($argument),*),
            (_, 2) => $($tile)::+::<1, 2>($($argument),*),
            (_, _) => $($tile)::+::<1, 1>($($argument),*),
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
