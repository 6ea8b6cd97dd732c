//! Parsing never panics, and after it no accessor does.

use plan::layout::MAGIC;
use plan::{ConfigId, CutId, Image, OpId, SegmentId, TensorId};

/// Where the header says how long the image is.
const LENGTH: std::ops::Range<usize> = 8..12;

/// Parses `bytes` as they are, and again with their length and checksum put right: no mutation survives the
/// checksum, so without this only the header would be tested. Reads every record of what is accepted.
pub fn parse_any(bytes: &[u8]) {
    read(bytes);
    if let Some(sealed) = reseal(bytes) {
        read(&sealed);
    }
}

/// The bytes with the right length and checksum, if they start like an image.
#[must_use]
pub fn reseal(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.strip_prefix(&MAGIC).map(|_| bytes.to_vec())?;
    let length = u32::try_from(sealed.len()).ok()?;
    sealed.get_mut(LENGTH)?.copy_from_slice(&length.to_le_bytes());
    plan::seal(&mut sealed);
    Some(sealed)
}

fn read(bytes: &[u8]) {
    let image = match Image::parse(bytes) {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().contains("rule V"), "an error names its rule");
            return;
        }
    };
    let ids = |count: usize| 0..u16::try_from(count).expect("rule V10 bounds every count");
    let meta = image.meta();
    for text in [meta.name, image.target(plan::TargetId(0)).name, meta.labels, meta.anchor_names] {
        assert_eq!(image.text(text).len(), text.len as usize);
    }
    for cut in ids(image.cuts()) {
        let _ = image.cut(CutId(cut));
    }
    for tensor in ids(image.tensors()) {
        assert!(image.tensor(TensorId(tensor)).bytes() > 0);
    }
    for op in ids(image.ops()) {
        let _ = image.op(OpId(op));
    }
    for segment in ids(image.segments()) {
        let _ = image.segment(SegmentId(segment));
    }
    let input = image.cut(meta.input).shape;
    assert!((0..input[2]).all(|channel| image.preprocess(channel).len() == 256));
    for id in (0..image.configs()).map(ConfigId) {
        let config = image.config(id);
        assert!(config.arena_bytes <= meta.arena_bytes);
        assert_eq!(image.path(&config).count(), usize::from(config.segments));
        assert!((0..config.overlays).all(|overlay| image.overlay(&config, overlay).op.index() < image.ops()));
        let _ = image.config_name(id).to_string();
        let _ = (image.ticks(&config), image.macs(&config), image.flash_bytes(&config), image.record_bytes(&config));
        assert!(image.same_path(&config, &config, config.segments));
        let shape = image.cut(meta.output).shape;
        assert_eq!(image.test_output(id).len(), shape.iter().map(|&side| usize::from(side)).product());
    }
}
