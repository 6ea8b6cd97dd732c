//! Stage 1: the family description, a TOML file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cut::Direction;
use crate::error::Error;
use crate::frontier::Keep;

/// Least standard deviation of a channel whose pixels lie in 0..=1: less than a thousandth of one step of 8 bits.
const LEAST_STD: f32 = 1e-6;

/// A family as its description says; paths are relative to the file until [`read`] has resolved them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilySpec {
    /// Folder of the description.
    #[serde(skip)]
    pub directory: PathBuf,
    /// Name of the family.
    pub name: String,
    /// Class names, in the order of the networks' outputs.
    pub labels: Vec<String>,
    /// What the networks read.
    pub input: InputSpec,
    /// Image sets.
    pub data: DataSpec,
    /// How stitches are learned.
    #[serde(default)]
    pub stitch: StitchSpec,
    /// What may ship.
    #[serde(default)]
    pub limits: Limits,
    /// Networks, in increasing order of cost.
    #[serde(rename = "anchor")]
    pub anchors: Vec<AnchorSpec>,
}

/// One network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorSpec {
    /// Name.
    pub name: String,
    /// ONNX file.
    pub file: PathBuf,
}

impl AnchorSpec {
    /// Bytes of the file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        std::fs::read(&self.file).map_err(|source| Error::File { path: self.file.clone(), source })
    }
}

/// What the networks read: `(pixel / 255 − mean) / std`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Per channel.
    pub mean: Vec<f32>,
    /// Per channel, positive.
    pub std: Vec<f32>,
}

/// Folders of images; see [`crate::images::ImageSet::read`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// For stitches and ranges: images that the anchors may have been trained on.
    pub calibration: PathBuf,
    /// For scores: images that nothing was trained or calibrated on.
    pub test: PathBuf,
}

/// How stitches are learned.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StitchSpec {
    /// Which way stitches lead.
    pub direction: Direction,
    /// Ridge of the least squares, as a part of the mean of the Gram matrix' diagonal.
    pub ridge: f64,
    /// Whether the statistics of suffixes are corrected.
    pub corrections: bool,
}

/// What may ship.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes that the image may have; configs are left out until it fits.
    pub flash_bytes: Option<u64>,
    /// Which configs are worth shipping at all.
    pub keep: Keep,
}

impl Default for StitchSpec {
    fn default() -> Self {
        Self { direction: Direction::Up, ridge: 1e-3, corrections: true }
    }
}

/// Reads a description.
///
/// # Errors
/// [`Error::File`], [`Error::Content`] with what was found and what is expected.
pub fn read(path: &Path) -> Result<FamilySpec, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let bad = |what: String| Error::Content { path: path.into(), what };
    let mut spec: FamilySpec = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let InputSpec { height, width, channels, .. } = spec.input;
    if [height, width, channels].iter().any(|side| !(1..=65_535).contains(side)) {
        return Err(bad(format!("input of {height}x{width}x{channels}; sides from 1 to 65535 are expected")));
    }
    for (name, values) in [("mean", &spec.input.mean), ("std", &spec.input.std)] {
        if values.len() != channels {
            return Err(bad(format!("input.{name} has {} values for {channels} channels", values.len())));
        }
    }
    if let Some(mean) = spec.input.mean.iter().find(|mean| !mean.is_finite()) {
        return Err(bad(format!("input.mean holds {mean}; every value must be finite")));
    }
    // Smaller ones would make infinite inputs.
    if let Some(std) = spec.input.std.iter().find(|&&std| !(std.is_finite() && std >= LEAST_STD)) {
        return Err(bad(format!("input.std holds {std}; numbers from {LEAST_STD} are expected")));
    }
    if spec.anchors.is_empty() || spec.labels.is_empty() {
        return Err(bad("at least one [[anchor]] and one label are needed".into()));
    }
    if let Some(label) = spec.labels.iter().find(|label| label.contains('\n') || label.is_empty()) {
        return Err(bad(format!("label {label:?}: a label is one line of text")));
    }
    let ridge = spec.stitch.ridge;
    if !(ridge.is_finite() && ridge >= 0.0) {
        return Err(bad(format!("stitch.ridge is {ridge}; a number from 0 is expected")));
    }
    let names = || spec.anchors.iter().map(|anchor| &anchor.name);
    if let Some(name) = names().chain([&spec.name]).find(|name| name.contains('\n') || name.is_empty()) {
        return Err(bad(format!("name {name:?}: a name is one line of text")));
    }
    if let Some((place, name)) = names().enumerate().find(|(place, name)| names().take(*place).any(|n| n == *name)) {
        return Err(bad(format!("anchor {} is called {name:?}, as one before it; names must differ", place + 1)));
    }
    spec.directory = path.parent().unwrap_or(Path::new(".")).into();
    let directory = &spec.directory;
    for anchor in &mut spec.anchors {
        anchor.file = directory.join(&anchor.file);
    }
    spec.data.calibration = directory.join(&spec.data.calibration);
    spec.data.test = directory.join(&spec.data.test);
    Ok(spec)
}
