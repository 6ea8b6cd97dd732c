//! The judge of the float path: tract on the original ONNX file.

use rayon::prelude::*;
use tract_onnx::prelude::*;

use crate::error::Error;

/// Outputs of the network for normalised images `[N, H, W, C]`.
///
/// # Errors
/// [`Error::Stage`] with what tract said, or if the images are not whole ones of `shape`.
pub fn outputs(bytes: &[u8], images: &[f32], shape: [usize; 3]) -> Result<Vec<Vec<f32>>, Error> {
    let bad = |what: String| Error::Stage { stage: "float judge", what };
    let size: usize = shape.iter().product();
    if size == 0 || !images.len().is_multiple_of(size) {
        return Err(bad(format!("{} values; whole images of {shape:?} are expected", images.len())));
    }
    run(bytes, images, shape).map_err(|error| bad(format!("{error:#}")))
}

fn run(bytes: &[u8], images: &[f32], [height, width, channels]: [usize; 3]) -> TractResult<Vec<Vec<f32>>> {
    let fact = f32::fact([1, channels, height, width]);
    let model = tract_onnx::onnx().model_for_read(&mut &bytes[..])?.with_input_fact(0, fact.into())?;
    let model = model.into_optimized()?.into_runnable()?;
    images
        .par_chunks_exact(height * width * channels)
        .map(|image| {
            let input = tract_ndarray::Array4::from_shape_fn([1, channels, height, width], |(_, c, y, x)| {
                image[(y * width + x) * channels + c]
            });
            let outputs = model.run(tvec!(Tensor::from(input).into()))?;
            let Some(output) = outputs.first() else { return Ok(vec![]) };
            Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
        })
        .collect()
}
