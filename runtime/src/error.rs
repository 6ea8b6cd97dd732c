//! Why a run was refused.

use core::fmt;

/// Small and `Copy`; every variant says what would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RunError {
    /// The arena cannot hold the config, or not even the smallest one.
    ArenaTooSmall {
        /// Usable bytes of the arena given.
        found: u32,
        /// Bytes needed.
        needed: u32,
    },
    /// The image has no config of this number.
    NoSuchConfig {
        /// The number given.
        config: u16,
        /// Configs of the image.
        configs: u16,
    },
    /// The input has another size.
    InputSize {
        /// Elements given.
        found: u32,
        /// Elements of the input cut.
        expected: u32,
    },
    /// No config fits the budget.
    BudgetTooSmall {
        /// Ticks that the cheapest config needs.
        needed_ticks: u64,
        /// Arena bytes that the smallest config needs.
        needed_bytes: u32,
    },
    /// The config does not share the path that was already run.
    OtherPath {
        /// The config asked for.
        config: u16,
        /// Segments already run.
        done: u16,
    },
    /// `step` after the last segment, or before `begin`.
    NotRunning,
    /// An op asks its kernel for something it refuses: the image was compiled for other kernels.
    Kernel {
        /// The op.
        op: u16,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ArenaTooSmall { found, needed } => {
                write!(f, "the arena has {found} usable bytes, {needed} are needed")
            }
            Self::NoSuchConfig { config, configs } => {
                write!(f, "there is no config {config}: the image has {configs}, counted from 0")
            }
            Self::InputSize { found, expected } => {
                write!(f, "the input has {found} elements, the image expects {expected}")
            }
            Self::BudgetTooSmall { needed_ticks, needed_bytes } => write!(
                f,
                "no config fits the budget: the cheapest needs {needed_ticks} ticks, the smallest {needed_bytes} bytes"
            ),
            Self::OtherPath { config, done } => {
                write!(f, "config {config} does not share the {done} segments that were already run")
            }
            Self::NotRunning => write!(f, "no config is running: call begin first"),
            Self::Kernel { op } => write!(f, "op {op} does not fit the kernels of this build; compile the image again"),
        }
    }
}

impl core::error::Error for RunError {}
