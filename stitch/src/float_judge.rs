//! The judge of the float path: tract on the original ONNX file.

use rayon::prelude::*;
use tract_onnx::prelude::*;

use crate::error::Error;

/// Outputs of the network for normalised images `[H, W, C]`.
///
/// # Errors
/// [`Error::Stage`] with what tract said.
pub fn outputs(bytes: &[u8], images: &[Vec<f32>], shape: [usize; 3]) -> Result<Vec<Vec<f32>>, Error> {
    run(bytes, images, shape).map_err(|error| Error::Stage { stage: "float judge", what: error.to_string() })
}

fn run(bytes: &[u8], images: &[Vec<f32>], [height, width, channels]: [usize; 3]) -> TractResult<Vec<Vec<f32>>> {
    let fact = f32::fact([1, channels, height, width]);
    let model = tract_onnx::onnx().model_for_read(&mut &bytes[..])?.with_input_fact(0, fact.into())?;
    let model = model.into_optimized()?.into_runnable()?;
    images
        .par_iter()
        .map(|image| {
            let input = tract_ndarray::Array4::from_shape_fn([1, channels, height, width], |(_, c, y, x)| {
                image[(y * width + x) * channels + c]
            });
            let outputs = model.run(tvec!(Tensor::from(input).into()))?;
            Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
        })
        .collect()
}
