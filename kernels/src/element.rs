//! What the values of a map are.

/// Type of the values of a map, or of a table in flash.
///
/// Int16 lies in the same byte slices as int8, two bytes a value, little-endian; its zero point is 0, and a result that does
/// not fit is saturated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// One byte.
    #[default]
    Int8,
    /// Two bytes.
    Int16,
}

impl Element {
    /// Bytes of a value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Int16 => 2,
        }
    }

    /// Value `index` of a slice; 0 behind its end.
    #[inline(always)]
    pub(crate) fn read(self, values: &[i8], index: usize) -> i32 {
        match self {
            Self::Int8 => values.get(index).copied().unwrap_or(0).into(),
            Self::Int16 => values.as_chunks().0.get(index).map_or(0, |&pair| wide(pair)).into(),
        }
    }
}

/// An Int16 from its bytes.
#[inline(always)]
pub(crate) fn wide([low, high]: [i8; 2]) -> i16 {
    i16::from_le_bytes([low as u8, high as u8])
}

/// The nearest Int16, as bytes.
#[inline(always)]
pub(crate) fn saturated(value: i32) -> [i8; 2] {
    let [low, high] = (value.clamp(i16::MIN.into(), i16::MAX.into()) as i16).to_le_bytes();
    [low as i8, high as i8]
}
