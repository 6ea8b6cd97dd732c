//! Checks that tests and fuzz targets share.
//!
//! A body here takes any bytes and panics when a promise is broken; the fuzz targets feed it what the fuzzer
//! finds, `tests/fuzz_seeds.rs` feeds it seeded mutations and everything that was ever found.
#![forbid(unsafe_code)]

pub mod ladder;
pub mod onnx;
mod parse;
pub mod random;
pub mod routes;
mod run;
mod seeds;

pub use parse::{parse_any, reseal};
pub use random::{Random, mutate};
pub use run::run_any;
pub use seeds::seeds;
