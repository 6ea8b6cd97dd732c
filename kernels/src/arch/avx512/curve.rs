//! Tables of 256 bytes, 32 values at a time: two shuffles look up words among 64 each, which hold two bytes.

use core::arch::x86_64::{
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_and_si512, _mm512_cvtepi16_epi8, _mm512_cvtepu8_epi16,
    _mm512_loadu_si512, _mm512_mask_mov_epi16, _mm512_permutex2var_epi16, _mm512_set1_epi16, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_srlv_epi16, _mm512_test_epi16_mask,
};

/// See [`crate::Isa::curve`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn curve(table: &[u8; 256], values: &mut [i8]) {
    let words = |quarter: usize| {
        // SAFETY: a quarter of the table is 64 bytes.
        unsafe { _mm512_loadu_si512(table.as_ptr().wrapping_add(64 * quarter).cast()) }
    };
    let [a, b, c, d] = [words(0), words(1), words(2), words(3)];
    let (blocks, rest) = values.as_chunks_mut::<32>();
    for block in blocks {
        // SAFETY: 32 bytes.
        let indices = _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(block.as_ptr().cast()) });
        let places = _mm512_srli_epi16::<1>(indices);
        // The shuffles heed the low six bits of a place.
        let high = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(128));
        let low = _mm512_permutex2var_epi16(a, places, b);
        let words = _mm512_mask_mov_epi16(low, high, _mm512_permutex2var_epi16(c, places, d));
        let odd = _mm512_slli_epi16::<3>(_mm512_and_si512(indices, _mm512_set1_epi16(1)));
        let bytes = _mm512_cvtepi16_epi8(_mm512_srlv_epi16(words, odd));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), bytes) };
    }
    crate::curve::in_place(table, rest);
}

#[cfg(test)]
mod tests {
    use crate::arch::Avx512;
    use crate::isa::Isa;

    #[test]
    fn every_value_is_looked_up() {
        let Some(isa) = Avx512::new() else { return };
        // 91 is odd: no two entries are equal.
        let table = core::array::from_fn(|index| (index * 91 + 7) as u8);
        // Every value in a block, and 19 behind the last one.
        let mut values: [i8; 256 + 19] = core::array::from_fn(|index| index as u8 as i8);
        isa.curve(&table, &mut values);
        for (index, value) in values.into_iter().enumerate() {
            assert_eq!(value as u8, table[index % 256], "value {index}");
        }
    }
}
