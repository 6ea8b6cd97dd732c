//! The file of a head: tensors by name, and what its metadata says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::Array4;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::network::Extent;

/// A head as `export_detector.py` wrote it.
#[derive(Clone, Debug)]
pub struct HeadFile {
    /// Where it was read from.
    pub path: PathBuf,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

impl HeadFile {
    /// Reads a safetensors file of float32.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Content`] if it is none, or holds another type or a number that is not finite.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
        let bad = |what: String| Error::Content { path: path.into(), what };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let found = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
        let mut tensors = HashMap::new();
        for (name, view) in found.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(bad(format!("`{name}` holds {:?}; float32 is expected", view.dtype())));
            }
            let values: Vec<f32> =
                view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(bad(format!("`{name}` holds {} at element {index}", values[index])));
            }
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Self { path: path.into(), tensors, metadata })
    }

    /// An error that names the file.
    pub fn bad(&self, what: impl ToString) -> Error {
        Error::Content { path: self.path.clone(), what: what.to_string() }
    }

    /// An entry of the metadata, a JSON value.
    ///
    /// # Errors
    /// [`Error::Content`] if it is missing or of another form.
    pub fn entry<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let text =
            self.metadata.get(name).ok_or_else(|| self.bad(format!("the metadata has no `{name}`; export it anew")))?;
        serde_json::from_str(text).map_err(|error| self.bad(format!("`{name}` in the metadata is {text}: {error}")))
    }

    fn values(&self, name: &str, count: usize) -> Result<Vec<f32>, Error> {
        match self.tensors.get(name) {
            Some((_, values)) if values.len() == count => Ok(values.clone()),
            Some((shape, _)) => Err(self.bad(format!("`{name}` is {shape:?}, {count} elements are expected"))),
            None => Err(self.bad(format!("`{name}` is missing; export it anew"))),
        }
    }

    /// A vector of a length.
    ///
    /// # Errors
    /// [`Error::Content`] if it is missing or has another length.
    pub fn vector(&self, name: &str, count: usize) -> Result<Vec<f32>, Error> {
        self.values(name, count)
    }

    /// The bias of a layer, zeros without one.
    ///
    /// # Errors
    /// [`Error::Content`] if it has another length.
    pub fn bias(&self, layer: &str, count: usize) -> Result<Vec<f32>, Error> {
        let name = format!("{layer}.bias");
        if self.tensors.contains_key(&name) { self.values(&name, count) } else { Ok(vec![0.0; count]) }
    }

    /// `layer.weight`, `[outputs, inputs, rows, columns]` in the file with 1 where it has fewer axes, as `[O, KH, KW, I]`.
    ///
    /// # Errors
    /// [`Error::Content`] if it is missing or has another number of elements.
    pub fn weights(&self, layer: &str, [outputs, rows, columns, inputs]: [usize; 4]) -> Result<Array4<f32>, Error> {
        let name = format!("{layer}.weight");
        let values = self.values(&name, outputs * rows * columns * inputs)?;
        let array =
            Array4::from_shape_vec([outputs, inputs, rows, columns], values).map_err(|error| self.bad(error))?;
        Ok(array.permuted_axes([0, 2, 3, 1]).as_standard_layout().to_owned())
    }

    /// What a map was seen to hold.
    ///
    /// # Errors
    /// [`Error::Content`] if it is missing.
    pub fn range(&self, map: &str) -> Result<Extent, Error> {
        let values = self.values(&format!("range.{map}"), 2)?;
        Ok(Extent { min: values[0].min(0.0), max: values[1].max(0.0) })
    }
}
