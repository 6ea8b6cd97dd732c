//! The judge of the float path: tract, on the original ONNX file of an anchor and on any path written as ONNX.

mod proto;

use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::error::Error;
use crate::network::{Path, Stitched};

/// A network in tract, ready to run images of one shape.
pub struct Judge {
    model: Arc<TypedRunnableModel>,
    shape: [usize; 3],
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::Stage { stage: "float judge", what: format!("{what:#}") }
}

impl Judge {
    /// An ONNX file as it is, for images of `shape` `[H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Stage`] with what tract said.
    pub fn of_file(bytes: &[u8], shape: [usize; 3]) -> Result<Self, Error> {
        let mut proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]).map_err(bad)?;
        // ONNX lets nodes share a name, tract does not.
        let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
        nodes.enumerate().for_each(|(number, node)| node.name = format!("{number} {}", node.name));
        Self::new(&proto, shape)
    }

    /// One path of a family, with its own biases.
    ///
    /// # Errors
    /// [`Error::Stage`] with what tract said, or with the node that ONNX has no form for.
    pub fn of_path(stitched: &Stitched, path: &Path) -> Result<Self, Error> {
        let shape = stitched.cuts[0].shape;
        Self::new(&proto::of_path(stitched, path)?, shape)
    }

    fn new(proto: &pb::ModelProto, shape: [usize; 3]) -> Result<Self, Error> {
        let [height, width, channels] = shape;
        let load = || {
            let fact = f32::fact([1, channels, height, width]);
            let model = tract_onnx::onnx().model_for_proto_model(proto)?.with_input_fact(0, fact.into())?;
            model.into_optimized()?.into_runnable()
        };
        Ok(Self { model: load().map_err(bad)?, shape })
    }

    /// The last output for one normalised image `[H, W, C]`, in the order of the ONNX file: channels first.
    ///
    /// # Errors
    /// [`Error::Stage`] if the image has another size, or with what tract said.
    pub fn output(&self, image: &[f32]) -> Result<Vec<f32>, Error> {
        let [height, width, channels] = self.shape;
        if image.len() != height * width * channels {
            return Err(bad(format!("{} values; an image of {:?} is expected", image.len(), self.shape)));
        }
        let input = tract_ndarray::Array4::from_shape_fn([1, channels, height, width], |(_, c, y, x)| {
            image[(y * width + x) * channels + c]
        });
        let run = || {
            let outputs = self.model.run(tvec!(Tensor::from(input).into()))?;
            let Some(output) = outputs.last() else { return Ok(vec![]) };
            Ok(output.to_plain_array_view::<f32>()?.iter().copied().collect())
        };
        run().map_err(|error: TractError| bad(error))
    }
}

#[cfg(test)]
mod tests;
