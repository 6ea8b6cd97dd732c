//! What a device senses of itself, and the budget that it leaves: [`Tmp105`] (temperature) and [`Adm1272`] (supply) over
//! any `embedded_hal::i2c::I2c`, and [`Throttle`], which makes a [`runtime::Budget`] of both.
//!
//! A sensor that does not answer never stops the device: its last reading holds for some frames, then the budget is the
//! most careful one.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod adm1272;
mod throttle;
mod tmp105;

pub use adm1272::Adm1272;
pub use throttle::{Range, Readings, State, Throttle};
pub use tmp105::Tmp105;
