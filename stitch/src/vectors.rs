//! Stored inputs with the outputs of every config, for a device to compare with: the `.svec` file.
//!
//! Little-endian: `SVEC`, count, input bytes, configs, output bytes (`u32` each); then of each vector the input and
//! the output of every config.

use kernels::arch::Scalar;
use kernels::{Isa, Level};
use plan::{ConfigId, Image};
use runtime::{Engine, RunError};

/// First bytes of the file.
const MAGIC: &[u8; 4] = b"SVEC";

/// Why no vectors were made.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// The bytes are not an image.
    #[error(transparent)]
    Image(#[from] plan::ImageError),
    /// The runtime refused.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Two kernel sets of this machine do not agree.
    #[error("input {vector}, config {config}: `{isa}` differs from `scalar`; this is a bug in the kernels")]
    Differs {
        /// The input.
        vector: usize,
        /// The config.
        config: u16,
        /// The kernel set that is not the scalar one.
        isa: &'static str,
    },
}

/// The file's bytes. Every input is run on every config, by the scalar kernels and by the best ones of this CPU.
///
/// # Errors
/// [`VectorError`].
pub fn vectors(image: &[u8], inputs: &[Vec<i8>]) -> Result<Vec<u8>, VectorError> {
    let image = Image::parse(image)?;
    let elements = |shape: [u16; 3]| shape.iter().map(|&side| usize::from(side)).product::<usize>();
    let input_len = elements(image.cut(image.meta().input).shape);
    let output_len = elements(image.cut(image.meta().output).shape);
    let mut file = MAGIC.to_vec();
    for field in [inputs.len(), input_len, usize::from(image.configs()), output_len] {
        file.extend((field as u32).to_le_bytes());
    }
    for (vector, input) in inputs.iter().enumerate() {
        let outputs = run(Scalar, image, input)?;
        for level in Level::available() {
            let found = kernels::with_isa!(level, |isa| run(isa, image, input))?;
            if let Some(config) = outputs.iter().zip(&found).position(|(scalar, found)| scalar != found) {
                return Err(VectorError::Differs { vector, config: config as u16, isa: level.name() });
            }
        }
        file.extend(input.iter().chain(outputs.iter().flatten()).map(|&value| value as u8));
    }
    Ok(file)
}

/// Outputs of all configs.
fn run<I: Isa>(isa: I, image: Image<'_>, input: &[i8]) -> Result<Vec<Vec<i8>>, RunError> {
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(isa, image, &mut arena)?;
    let mut outputs = Vec::new();
    for config in (0..image.configs()).map(ConfigId) {
        let slot = engine.input_mut();
        if slot.len() != input.len() {
            return Err(RunError::InputSize { found: input.len() as u32, expected: slot.len() as u32 });
        }
        slot.copy_from_slice(input);
        outputs.push(engine.run_config(config)?.to_vec());
    }
    Ok(outputs)
}
