//! Slices of signed and of unsigned bytes, one seen as the other.
#![allow(unsafe_code)]

#[inline(always)]
pub(crate) fn unsigned(values: &[i8]) -> &[u8] {
    // SAFETY: i8 and u8 have one size, one alignment and no invalid bit pattern.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

#[inline(always)]
pub(crate) fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}
