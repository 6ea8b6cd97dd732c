//! What a run may use.

/// How much of something a frame may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Limit {
    /// The amount.
    pub amount: u64,
    /// A hard limit rests on the bounds of the cost table: what might exceed it is refused or not begun. A soft one
    /// rests on what is predicted: if nothing fits, the cheapest is run.
    pub hard: bool,
}

impl Limit {
    /// A limit that must hold.
    #[must_use]
    pub const fn hard(amount: u64) -> Self {
        Self { amount, hard: true }
    }

    /// A limit that should hold.
    #[must_use]
    pub const fn soft(amount: u64) -> Self {
        Self { amount, hard: false }
    }
}

/// Limits of one frame; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    /// Ticks of the target, from the start of the frame to its answer.
    pub time: Option<Limit>,
    /// Microjoules.
    pub energy: Option<Limit>,
    /// Bytes of activation memory. The engine's own arena is a hard limit in any case.
    pub memory: Option<Limit>,
}

impl Budget {
    /// A hard deadline and nothing else.
    #[must_use]
    pub const fn deadline(ticks: u64) -> Self {
        Self { time: Some(Limit::hard(ticks)), energy: None, memory: None }
    }
}
