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

/// The bytes of the vectors; none if the program carries none.
pub static VECTORS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/vectors.bin")));

/// Stored inputs and the outputs of the host: `SVEC`, count, input bytes, configs, output bytes; then of each
/// vector the input and one output per config.
#[derive(Clone, Copy)]
pub struct Vectors {
    /// Inputs.
    pub count: usize,
    input: usize,
    configs: usize,
    /// Bytes of an output.
    pub output: usize,
    body: &'static [u8],
}

impl Vectors {
    /// The vectors that the program carries, if it has some and they are of an image.
    #[must_use]
    pub fn carried(image: &Image<'_>) -> Option<Self> {
        Self::parse(core::hint::black_box(&VECTORS.0)).filter(|vectors| vectors.configs == usize::from(image.configs()))
    }

    fn parse(bytes: &'static [u8]) -> Option<Self> {
        let (header, body) = bytes.strip_prefix(b"SVEC")?.split_at_checked(16)?;
        let field = |index: usize| header.as_chunks::<4>().0.get(index).map(|&word| u32::from_le_bytes(word) as usize);
        let vectors = Self { count: field(0)?, input: field(1)?, configs: field(2)?, output: field(3)?, body };
        (vectors.count > 0 && vectors.count.checked_mul(vectors.stride())? == body.len()).then_some(vectors)
    }

    fn stride(&self) -> usize {
        self.input + self.configs * self.output
    }

    /// Input number `vector`, int8.
    #[must_use]
    pub fn input(&self, vector: usize) -> &'static [u8] {
        self.body.get(vector * self.stride()..).and_then(|rest| rest.get(..self.input)).unwrap_or_default()
    }

    /// What the host computed for it.
    #[must_use]
    pub fn output(&self, vector: usize, config: ConfigId) -> &'static [u8] {
        let start = vector * self.stride() + self.input + config.index() * self.output;
        self.body.get(start..start + self.output).unwrap_or_default()
    }
}

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
