//! Why a family was refused: the stage, the place, what was found and what would do.

use std::path::PathBuf;

/// One error for the whole compiler. Libraries return it, only `main` prints it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but does not hold what it should.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        what: String,
    },
    /// An ONNX operation, attribute or form that is not supported.
    #[error("{anchor}: node `{node}` ({op}) is not supported: {detail}")]
    Unsupported {
        /// The anchor.
        anchor: String,
        /// Name of the node.
        node: String,
        /// ONNX operator.
        op: String,
        /// Which attribute or form, and what would do.
        detail: String,
    },
    /// Weights that are NaN or infinite.
    #[error("{anchor}: `{tensor}` holds {value} at element {index}; every weight must be finite")]
    NotFinite {
        /// The anchor.
        anchor: String,
        /// The initializer.
        tensor: String,
        /// First such element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The anchors do not form a family.
    #[error("family: {0}")]
    Family(String),
    /// Too few images.
    #[error("{stage}: {found} images, at least {needed} are needed")]
    TooFewImages {
        /// What needs them.
        stage: &'static str,
        /// How many there are.
        found: usize,
        /// How many would do.
        needed: usize,
    },
    /// A stage cannot do its work.
    #[error("{stage}: {what}")]
    Stage {
        /// The stage.
        stage: &'static str,
        /// What was found, where, and what was expected.
        what: String,
    },
    /// The bytes are not an image.
    #[error(transparent)]
    Image(#[from] plan::ImageError),
    /// The runtime refused.
    #[error(transparent)]
    Run(#[from] runtime::RunError),
}
