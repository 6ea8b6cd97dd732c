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
    /// The image has an op that this build of the runtime leaves out: its feature `transformers` is off.
    NotBuilt {
        /// The op.
        op: u16,
    },
    /// The image is a detector, and this build of the runtime leaves heads out: its feature `detector` is off.
    NoDetector,
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
    /// A hard limit excludes every config. The least of each resource that some config needs:
    BudgetTooSmall {
        /// Ticks, by the bounds of the cost table.
        needed_ticks: u64,
        /// Microjoules, likewise.
        needed_energy_uj: u64,
        /// Arena, bytes.
        needed_bytes: u32,
    },
    /// The image has no costs of this target.
    NoSuchTarget {
        /// The number given.
        target: u16,
        /// Targets of the image.
        targets: u16,
    },
    /// A slice of the policy's memory is too short.
    PolicyMemory {
        /// Records given.
        found: u32,
        /// Records needed.
        needed: u32,
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
            Self::NotBuilt { op } => {
                write!(f, "op {op} is of a transformer: build the runtime with its feature `transformers`")
            }
            Self::NoDetector => write!(f, "the image is a detector: build the runtime with its feature `detector`"),
            Self::NoSuchConfig { config, configs } => {
                write!(f, "there is no config {config}: the image has {configs}, counted from 0")
            }
            Self::InputSize { found, expected } => {
                write!(f, "the input has {found} elements, the image expects {expected}")
            }
            Self::BudgetTooSmall { needed_ticks, needed_energy_uj, needed_bytes } => write!(
                f,
                "no config fits the budget: the least bounds are {needed_ticks} ticks and {needed_energy_uj} µJ, the least \
                 arena is {needed_bytes} bytes"
            ),
            Self::NoSuchTarget { target, targets } => {
                write!(f, "there is no target {target}: the image has costs of {targets}, counted from 0")
            }
            Self::PolicyMemory { found, needed } => {
                write!(f, "a slice of the policy's memory has {found} records, {needed} are needed")
            }
            Self::OtherPath { config, done } => {
                write!(f, "config {config} does not share the {done} segments that were already run")
            }
            Self::NotRunning => write!(f, "no config is running: call begin first"),
            Self::Kernel { op } => write!(f, "op {op} does not fit the kernels of this build; compile the image again"),
        }
    }
}

impl core::error::Error for RunError {}
