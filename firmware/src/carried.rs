//! The image that the firmware carries, and memory of its size.

use plan::{ConfigId, Image, ImageError, TargetId};
use runtime::policy::{Ahead, Estimate, Memory, Policy, Route, Settings};

use crate::exit;

include!(concat!(env!("OUT_DIR"), "/sizes.rs"));

/// Bytes that start at a multiple of 16, so that a core may load words.
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of the image.
pub static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/image.bin")));

/// The image; ends the program if it is refused.
#[must_use]
pub fn image() -> Image<'static> {
    match Image::parse(&IMAGE.0) {
        Ok(image) => image,
        Err(error) => {
            refused(&error);
            exit(false)
        }
    }
}

/// Says why an image was refused: the rule as `docs/image-format.md` numbers it. Its sentence would bring all of `core::fmt`.
pub fn refused(error: &ImageError) {
    let ImageError { rule, section, record, found, expected } = *error;
    defmt::error!(
        "the image was refused: rule V{=u8}: section {=u16}, record {=u32}: found {=u64}, expected {=u64}",
        rule.number(),
        section.id(),
        record,
        found,
        expected
    );
}

/// The target of a name, or target 0, which is an estimate.
#[must_use]
pub fn target(image: &Image<'_>, name: &str) -> TargetId {
    let named = |id: &TargetId| image.text(image.target(*id).name) == name;
    (0..image.targets()).map(TargetId).find(named).unwrap_or(TargetId(0))
}

/// Static memory of a policy; once.
fn policy_memory() -> Option<Memory<'static>> {
    let segments = cortex_m::singleton!(: [Estimate; SEGMENTS] = [Estimate { ticks: 0, energy_uj: 0 }; SEGMENTS])?;
    let routes = cortex_m::singleton!(: [Route; CONFIGS] = [Route::EMPTY; CONFIGS])?;
    let ahead = cortex_m::singleton!(: [Ahead; AHEAD] = [Ahead::EMPTY; AHEAD])?;
    Some(Memory { segments, routes, ahead })
}

/// A policy on a target, in static memory; ends the program if it is refused.
#[must_use]
pub fn policy(image: &Image<'_>, target: TargetId) -> Policy<'static> {
    let Some(memory) = policy_memory() else { exit(false) };
    match Policy::new(image, target, Settings::default(), memory) {
        Ok(policy) => policy,
        Err(error) => {
            defmt::error!("no policy: {}", error);
            exit(false)
        }
    }
}

/// Every config of an image.
pub fn configs(image: &Image<'_>) -> impl Iterator<Item = ConfigId> + Clone + use<> {
    (0..image.configs()).map(ConfigId)
}
