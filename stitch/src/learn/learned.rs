//! The file of learned numbers: weights and biases of every segment, and the biases that paths have of their own.
//!
//! A `safetensors` file, 16-bit floats: int8 weights come of them, so more would not show. Names are `segment/node/weights`,
//! `segment/node/bias` and `path/segment/node/bias`, nodes counted within the segment. `anchors` holds a checksum of the
//! ONNX files, so that numbers never meet anchors that they were not learned with.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};

use crate::error::Error;
use crate::graph::Op;
use crate::network::{Correction, Kind, Stitched};

/// Name of the checksum.
const ANCHORS: &str = "anchors";

/// Writes what was learned; `anchors` is the checksum of the ONNX files.
///
/// # Errors
/// [`Error::Content`] with what the library or the system says.
pub fn write(path: &Path, stitched: &Stitched, anchors: u32) -> Result<(), Error> {
    let refused = |error: candle_core::Error| Error::Content { path: path.into(), what: error.to_string() };
    let tensor =
        |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F16);
    let mut tensors = HashMap::new();
    for segment in &stitched.segments {
        for (node, found) in segment.nodes.iter().enumerate() {
            let Op::Conv { weights, bias, .. } = &found.op else { continue };
            let [weights_name, bias_name] = names(&segment.name, node);
            let values = tensor(weights.iter().copied().collect(), weights.shape()).map_err(refused)?;
            tensors.insert(weights_name, values);
            tensors.insert(bias_name, tensor(bias.clone(), &[bias.len()]).map_err(refused)?);
        }
    }
    for found in &stitched.paths {
        for Correction { segment, node, bias } in &found.corrections {
            let name = own_name(&found.name, &stitched.segments[*segment].name, *node);
            tensors.insert(name, tensor(bias.clone(), &[bias.len()]).map_err(refused)?);
        }
    }
    let checksum = Tensor::new(&[anchors], &Device::Cpu).map_err(refused)?;
    tensors.insert(ANCHORS.into(), checksum);
    save(path, &tensors)
}

/// Writes tensors; the file appears whole or not at all.
pub(crate) fn save(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<(), Error> {
    let unfinished = path.with_extension("unfinished");
    let refused = |error: candle_core::Error| Error::Content { path: unfinished.clone(), what: error.to_string() };
    safetensors::save(tensors, &unfinished).map_err(refused)?;
    std::fs::rename(&unfinished, path).map_err(|source| Error::File { path: path.into(), source })
}

/// Brings the anchors of a family back towards `origin`, which has the same: `keep` is the part of what they learned that
/// stays, 0 to 1. Stitches and own biases stay as they are.
pub fn pull_back(stitched: &mut Stitched, origin: &Stitched, keep: f32) {
    for (segment, origin) in stitched.segments.iter_mut().zip(&origin.segments) {
        if segment.kind == Kind::Stitch {
            continue;
        }
        for (node, origin) in segment.nodes.iter_mut().zip(&origin.nodes) {
            let (Op::Conv { weights, bias, .. }, Op::Conv { weights: first, bias: first_bias, .. }) =
                (&mut node.op, &origin.op)
            else {
                continue;
            };
            let numbers = weights.iter_mut().zip(first).chain(bias.iter_mut().zip(first_bias));
            numbers.for_each(|(now, first)| *now = first + keep * (*now - first));
        }
    }
}

fn names(segment: &str, node: usize) -> [String; 2] {
    [format!("{segment}/{node}/weights"), format!("{segment}/{node}/bias")]
}

fn own_name(path: &str, segment: &str, node: usize) -> String {
    format!("{path}/{segment}/{node}/bias")
}

/// Gives a family the numbers of a file; own biases that the file lacks are dropped, and a block of which it has nothing
/// stays as the anchor's file has it.
///
/// # Errors
/// [`Error::Content`] naming the tensor that is missing (of a stitch, or one of two), left over, of another shape or not finite, or saying that the
/// file was learned with other anchors.
pub fn read(path: &Path, stitched: &mut Stitched, anchors: u32) -> Result<(), Error> {
    let bad = |what: String| Error::Content { path: path.into(), what };
    let again = "; `stitchnet train` learns it anew";
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
    let mut tensors = safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| bad(error.to_string()))?;
    let checksum = tensors.remove(ANCHORS).and_then(|tensor| tensor.to_vec1::<u32>().ok());
    if checksum.as_deref() != Some(&[anchors]) {
        return Err(bad(format!("the anchors are not those that it was learned with{again}")));
    }
    let mut take = |name: &str, shape: &[usize]| -> Result<Option<Vec<f32>>, Error> {
        let Some(tensor) = tensors.remove(name) else { return Ok(None) };
        if tensor.dims() != shape {
            return Err(bad(format!("`{name}` is {:?}, {shape:?} is expected{again}", tensor.dims())));
        }
        let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let values = values.map_err(|error| bad(format!("`{name}`: {error}")))?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(bad(format!("`{name}` holds {} at element {index}", values[index]))),
            None => Ok(Some(values)),
        }
    };
    for segment in &mut stitched.segments {
        for (node, found) in segment.nodes.iter_mut().enumerate() {
            let Op::Conv { weights, bias, .. } = &mut found.op else { continue };
            let [weights_name, bias_name] = names(&segment.name, node);
            let shape = weights.shape().to_vec();
            let missing = |name: &str| bad(format!("`{name}` is missing{again}"));
            match (take(&weights_name, &shape)?, take(&bias_name, &[bias.len()])?) {
                (Some(values), Some(found)) => {
                    weights.iter_mut().zip(values).for_each(|(weight, value)| *weight = value);
                    *bias = found;
                }
                (None, None) if segment.kind == Kind::Block => {}
                (None, _) => return Err(missing(&weights_name)),
                (_, None) => return Err(missing(&bias_name)),
            }
        }
    }
    for found in &mut stitched.paths {
        found.corrections.clear();
        for &number in &found.segments {
            let segment = &stitched.segments[number];
            for (node, op) in segment.nodes.iter().enumerate() {
                let Op::Conv { bias, .. } = &op.op else { continue };
                if let Some(bias) = take(&own_name(&found.name, &segment.name, node), &[bias.len()])? {
                    found.corrections.push(Correction { segment: number, node, bias });
                }
            }
        }
    }
    match tensors.keys().min() {
        Some(name) => Err(bad(format!("`{name}` belongs to no segment and no path of this family{again}"))),
        None => Ok(()),
    }
}
