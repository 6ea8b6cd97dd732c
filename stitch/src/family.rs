//! Stage 1: the family description, a TOML file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cut::Direction;
use crate::error::Error;
use crate::frontier::Keep;
use crate::learn::Start;

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
    /// Which stitches there are and how they are learned.
    #[serde(default)]
    pub stitch: StitchSpec,
    /// What is not left to the compiler when it chooses integers.
    #[serde(default)]
    pub quantize: QuantizeSpec,
    /// How the weights of convolutions lie in the image.
    #[serde(default)]
    pub packing: Packing,
    /// Whether ops run strip by strip where that lowers a config's arena: less memory for more time.
    #[serde(default = "yes")]
    pub streams: bool,
    /// What may ship.
    #[serde(default)]
    pub limits: Limits,
    /// The head behind the networks, if they are the backbones of a detector.
    pub detector: Option<DetectorSpec>,
    /// Networks, in increasing order of cost.
    #[serde(rename = "anchor")]
    pub anchors: Vec<AnchorSpec>,
}

fn yes() -> bool {
    true
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

/// The head of a detector. Pictures are those of COCO files then, `[data] calibration` and `test`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSpec {
    /// What `export_detector.py` wrote.
    pub head: PathBuf,
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
    /// For fine-tuning; `stitchnet train --images` says otherwise.
    pub train: Option<PathBuf>,
    /// For scores: images that nothing was trained or calibrated on.
    pub test: PathBuf,
}

/// Which stitches there are and how they are learned.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StitchSpec {
    /// Which configs there are.
    pub space: Space,
    /// Which way stitches lead; for [`Space::Stages`] and [`Space::General`].
    pub direction: Direction,
    /// Between equally deep stages; for [`Space::V1`] and [`Space::General`], as are the next five.
    pub window: Option<WindowSpec>,
    /// Between equally deep stages only from a block to a later one.
    pub advancing: bool,
    /// Stages of the anchor that is left to stitch in, counted from 0; all if not given.
    pub stages: Option<Vec<usize>>,
    /// Stitch every pair of anchors, not only neighbours.
    pub all_pairs: bool,
    /// Share layers between unequally deep stages as published checkpoints do, one off (SN-Net §1.5).
    pub shifted_layers: bool,
    /// Leave out the norm before the head in every stitched config, as published checkpoints of DeiT need it (SN-Net §2.4).
    pub skip_last_norm: bool,
    /// Stitches of a config at most: 1 for [`Space::V1`], 2 for [`Space::General`] if not given.
    pub hops: Option<usize>,
    /// The stitches of the space to keep, by name (`small.3>large.3`); all if not given.
    pub only: Option<Vec<String>>,
    /// Configs at most, anchors included; the first ones are taken.
    pub max_configs: usize,
    /// Multiply-accumulates of a stitched config at most.
    pub max_macs: Option<u64>,
    /// Flash of the segments of a stitched config at most.
    pub max_flash_bytes: Option<u64>,
    /// Ridge of the least squares, as a part of the mean variance of the inputs; chosen per stitch by the error on
    /// held-out images if not given.
    pub ridge: Option<f64>,
    /// Whether the statistics of suffixes are corrected.
    pub corrections: bool,
    /// Where the weights of stitches come from where nothing was learned.
    pub start: Start,
    /// What `stitchnet train` learned: the weights of all segments; nothing is fitted then.
    pub learned: Option<PathBuf>,
}

/// What is not left to the compiler when it chooses integers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizeSpec {
    /// Tensors of 16 bits besides those that have to be, as `stitchnet report FAMILY --layers CONFIG` names them.
    pub wide: Vec<String>,
}

/// How the weights of convolutions lie in the image. Any CPU runs both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// A row for each output channel: for Cortex-M.
    #[default]
    Rows,
    /// In blocks of 16 channels where shapes allow it: for AArch64 and AVX-512, which do not have to pack them then.
    Blocks,
}

/// Which configs a family has; [`crate::space`] lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// One stitch, before every block of a stage but its first.
    #[default]
    Stages,
    /// SN-Net: one stitch up, from a sliding window.
    V1,
    /// SN-Netv2: up, down, down and up, up and down.
    V2,
    /// Every path of up to `hops` of the window's stitches.
    General,
}

/// A window that slides over the blocks of a stage.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Blocks of the window.
    pub kernel: usize,
    /// Blocks from one window to the next.
    pub stride: usize,
}

/// What may ship.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes that the image may have; configs are left out until it fits.
    pub flash_bytes: Option<u64>,
    /// Bytes of arena that a config may need; anchors must not need more.
    pub arena_bytes: Option<u32>,
    /// Configs that may ship, anchors included.
    pub configs: Option<usize>,
    /// Which configs are worth shipping at all.
    pub keep: Keep,
}

impl Default for StitchSpec {
    fn default() -> Self {
        Self {
            space: Space::Stages,
            direction: Direction::Up,
            window: None,
            advancing: false,
            stages: None,
            all_pairs: false,
            shifted_layers: false,
            skip_last_norm: false,
            hops: None,
            only: None,
            max_configs: 4096,
            max_macs: None,
            max_flash_bytes: None,
            ridge: None,
            corrections: true,
            start: Start::LeastSquares,
            learned: None,
        }
    }
}

impl StitchSpec {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let windowed = matches!(self.space, Space::V1 | Space::General);
        let idle = [
            ("window", self.window.is_some()),
            ("advancing", self.advancing),
            ("stages", self.stages.is_some()),
            ("all_pairs", self.all_pairs),
            ("shifted_layers", self.shifted_layers),
            ("skip_last_norm", self.skip_last_norm),
            ("hops", self.hops.is_some()),
        ];
        if let Some((name, _)) = idle.iter().find(|(_, given)| *given && !windowed) {
            return Some(format!("stitch.{name} is given, and only the spaces \"v1\" and \"general\" know it"));
        }
        if self.direction == Direction::Both && matches!(self.space, Space::V1 | Space::V2) {
            let what = "stitch.direction is \"both\", and only the spaces \"stages\" and \"general\" know it: \"v1\" leads up, \
                        \"v2\" both ways";
            return Some(what.into());
        }
        if let Some(WindowSpec { kernel, stride }) = self.window
            && !(1..=kernel).contains(&stride)
        {
            return Some(format!(
                "stitch.window has kernel {kernel} and stride {stride}; a kernel from 1 and a stride from 1 to the kernel \
                     are expected: no block is left out"
            ));
        }
        if let Some(hops) = self.hops.filter(|hops| !(1..=16).contains(hops)) {
            return Some(format!("stitch.hops is {hops}; 1 to 16 stitches are expected"));
        }
        if !(1..=plan::layout::MAX_RECORDS).contains(&self.max_configs) {
            let most = plan::layout::MAX_RECORDS;
            return Some(format!("stitch.max_configs is {}; 1 to {most} are expected", self.max_configs));
        }
        if let Some(ridge) = self.ridge.filter(|ridge| !(ridge.is_finite() && *ridge >= 0.0)) {
            return Some(format!("stitch.ridge is {ridge}; a number from 0 is expected"));
        }
        None
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
    if let Some(fault) = spec.stitch.fault() {
        return Err(bad(fault));
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
    spec.data.train = spec.data.train.as_ref().map(|train| directory.join(train));
    if let Some(detector) = &mut spec.detector {
        detector.head = directory.join(&detector.head);
    }
    spec.stitch.learned = spec.stitch.learned.as_ref().map(|learned| directory.join(learned));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<String> {
        match toml::from_str::<StitchSpec>(text) {
            Ok(spec) => spec.fault(),
            Err(error) => Some(error.message().into()),
        }
    }

    #[test]
    fn a_space_is_read_or_refused_with_what_would_do() {
        let accepted = [
            "",
            "space = \"stages\"\ndirection = \"both\"",
            "space = \"v1\"\nwindow = { kernel = 3, stride = 2 }\nall_pairs = true\nhops = 2",
            "space = \"v2\"\nmax_configs = 134\nmax_macs = 5_000_000\nmax_flash_bytes = 1_000_000",
            "space = \"general\"\nhops = 3\ndirection = \"both\"\nadvancing = true\nstages = [1, 2]",
        ];
        for text in accepted {
            assert_eq!(fault(text), None, "{text}");
        }
        let refused = [
            ("space = \"v3\"", "unknown variant `v3`, expected one of `stages`, `v1`, `v2`, `general`"),
            ("hops = 2", "stitch.hops is given, and only the spaces \"v1\" and \"general\" know it"),
            (
                "space = \"v2\"\nwindow = { kernel = 2, stride = 1 }",
                "stitch.window is given, and only the spaces \"v1\" and \"general\" know it",
            ),
            (
                "space = \"v1\"\ndirection = \"both\"",
                "stitch.direction is \"both\", and only the spaces \"stages\" and \"general\" know it: \"v1\" leads up, \"v2\" \
                 both ways",
            ),
            (
                "space = \"v1\"\nwindow = { kernel = 2, stride = 3 }",
                "stitch.window has kernel 2 and stride 3; a kernel from 1 and a stride from 1 to the kernel are expected: no \
                 block is left out",
            ),
            ("space = \"general\"\nhops = 17", "stitch.hops is 17; 1 to 16 stitches are expected"),
            ("max_configs = 0", "stitch.max_configs is 0; 1 to 65535 are expected"),
            ("ridge = -1.0", "stitch.ridge is -1; a number from 0 is expected"),
        ];
        for (text, expected) in refused {
            assert_eq!(fault(text).as_deref(), Some(expected), "{text}");
        }
    }
}
