//! A training on disk, so that it can go on after a break.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use super::{Moments, Training};
use crate::error::Error;
use crate::learn::learned::save;

/// Writes everything that the next step needs.
///
/// # Errors
/// [`Error::Content`], [`Error::File`].
pub fn write(path: &Path, training: &Training) -> Result<(), Error> {
    let refused = |error: candle_core::Error| Error::Content { path: path.into(), what: error.to_string() };
    let mut tensors = HashMap::new();
    let mut add = |name: String, values: &[f32]| {
        tensors.insert(name, Tensor::from_slice(values, values.len(), &Device::Cpu)?);
        Ok(())
    };
    for (number, (parameter, moments)) in training.net.parameters.iter().zip(&training.moments).enumerate() {
        add(format!("{number}/value"), &parameter.values).map_err(refused)?;
        // A tensor cannot be empty.
        if moments.steps > 0 {
            add(format!("{number}/first"), &moments.first).map_err(refused)?;
            add(format!("{number}/second"), &moments.second).map_err(refused)?;
        }
        if let Some((_, best)) = &training.best {
            add(format!("{number}/best"), &best[number]).map_err(refused)?;
        }
    }
    let mut add = |name: &str, tensor: candle_core::Result<Tensor>| {
        tensors.insert(name.into(), tensor.map_err(refused)?);
        Ok::<(), Error>(())
    };
    let steps: Vec<u32> = training.moments.iter().map(|moments| moments.steps).collect();
    add("steps", Tensor::new(steps, &Device::Cpu))?;
    add("step", Tensor::new(&[training.step as i64], &Device::Cpu))?;
    add("options", Tensor::new(training.fingerprint().as_bytes(), &Device::Cpu))?;
    if let Some((loss, _)) = training.best {
        add("best", Tensor::new(&[loss], &Device::Cpu))?;
    }
    save(path, &tensors)
}

/// Brings a new training to where the file's was.
///
/// # Errors
/// [`Error::File`]; [`Error::Content`] if the file is of a training with other options, or of another family.
pub fn read(path: &Path, training: &mut Training) -> Result<(), Error> {
    let bad = |what: String| Error::Content { path: path.into(), what };
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
    let tensors = safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| bad(error.to_string()))?;
    let tensor = |name: &str| tensors.get(name).ok_or_else(|| bad(format!("`{name}` is missing")));
    let unread = |name: &str, error: candle_core::Error| bad(format!("`{name}`: {error}"));
    let options = tensor("options")?.to_vec1::<u8>().map_err(|error| unread("options", error))?;
    let (found, expected) = (String::from_utf8_lossy(&options), training.fingerprint());
    if found != expected {
        return Err(bad(format!(
            "a training with {found}, this one has {expected}; give the same options, or another folder with -o"
        )));
    }
    let values = |name: String, len: usize| -> Result<Vec<f32>, Error> {
        let values = tensor(&name)?.to_vec1::<f32>().map_err(|error| unread(&name, error))?;
        if values.len() == len {
            Ok(values)
        } else {
            Err(bad(format!("`{name}` has {} values, not {len}", values.len())))
        }
    };
    let steps = tensor("steps")?.to_vec1::<u32>().map_err(|error| unread("steps", error))?;
    let best = tensors.get("best").and_then(|best| best.to_vec1::<f64>().ok()?.first().copied());
    if steps.len() != training.net.parameters.len() {
        return Err(bad(format!("{} parameters, this family has {}", steps.len(), training.net.parameters.len())));
    }
    let mut best_values = vec![];
    let parameters = training.net.parameters.iter_mut().zip(&mut training.moments).zip(steps);
    for (number, ((parameter, moments), steps)) in parameters.enumerate() {
        let len = parameter.values.len();
        parameter.values = values(format!("{number}/value"), len)?;
        *moments = Moments { steps, ..Moments::default() };
        if steps > 0 {
            moments.first = values(format!("{number}/first"), len)?;
            moments.second = values(format!("{number}/second"), len)?;
        }
        if best.is_some() {
            best_values.push(values(format!("{number}/best"), len)?);
        }
    }
    training.best = best.map(|loss| (loss, best_values));
    let step = tensor("step")?.to_vec1::<i64>().map_err(|error| unread("step", error))?;
    training.step = step.first().and_then(|&step| u64::try_from(step).ok()).ok_or_else(|| bad("no step".into()))?;
    Ok(())
}
