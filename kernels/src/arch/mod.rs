//! One file per instruction set: the only place with `unsafe`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod bytes;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod dsp;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod line;
#[cfg(all(target_arch = "arm", feature = "mve"))]
mod mve;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod room;
mod scalar;
#[cfg(all(target_arch = "arm", any(feature = "dsp", feature = "mve")))]
mod strip;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub use avx512vnni::Avx512Vnni;
pub(crate) use bytes::{signed, unsigned};
#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub use dsp::Dsp;
#[cfg(target_arch = "aarch64")]
pub use i8mm::I8mm;
#[cfg(all(target_arch = "arm", feature = "mve"))]
pub use mve::Mve;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub use vnni::Vnni;
