//! What a run may use.

/// Limits of one frame; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    /// Time, in ticks of the image's cost table.
    pub ticks: Option<u64>,
    /// Activation memory. The engine's own arena is a limit in any case.
    pub arena_bytes: Option<u32>,
}
