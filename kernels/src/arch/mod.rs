//! One file per instruction set: the only place with `unsafe`.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bytes;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod dsp;
#[cfg(all(target_arch = "arm", feature = "mve"))]
mod mve;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
pub(crate) use bytes::{signed, unsigned};
#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub use dsp::Dsp;
#[cfg(all(target_arch = "arm", feature = "mve"))]
pub use mve::Mve;
pub use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub use vnni::Vnni;
