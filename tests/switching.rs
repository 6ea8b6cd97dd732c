//! When a run may go on as another config, and what comes out.

use kernels::arch::Scalar;
use plan::{ConfigId, Image, ImageWriter, Overlay, sample};
use runtime::{Engine, Progress, RunError, policy};

/// `tiny.1>wide.1` of the sample: stem, stitch, a residual block with an overlay, head.
const STITCHED: ConfigId = ConfigId(2);
/// The same path, added by [`with_a_twin`].
const TWIN: ConfigId = ConfigId(3);

/// The sample and a fourth config on the stitched path, with other overlays.
fn with_a_twin(overlays: &[Overlay]) -> Vec<u8> {
    let mut writer: ImageWriter = sample::writer();
    let mut twin = writer.configs[STITCHED.index()];
    let sample = writer.finish();
    let path: Vec<_> = Image::parse(&sample).expect("the sample is valid").path(&twin).collect();
    twin.first_run = writer.put_path(&path);
    twin.first_overlay = writer.overlays.len() as u16;
    twin.overlays = overlays.len() as u16;
    writer.overlays.extend(overlays);
    writer.configs.push(twin);
    writer.meta.test_outputs = writer.put(&[0; 8]);
    writer.finish()
}

/// Runs `first` for `done` segments, goes on as `next` to the end.
fn output(image: Image<'_>, first: ConfigId, done: u16, next: ConfigId) -> Result<Vec<i8>, RunError> {
    features(image, first, done, next, u16::MAX)
}

/// The same, but ends after `most` segments.
fn features(image: Image<'_>, first: ConfigId, done: u16, next: ConfigId, most: u16) -> Result<Vec<i8>, RunError> {
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena)?;
    for (value, &byte) in engine.input_mut().iter_mut().zip(image.test_input()) {
        *value = byte.cast_signed();
    }
    engine.begin(first)?;
    for _ in 0..done {
        engine.step()?;
    }
    engine.switch(next)?;
    while engine.done() < most && matches!(engine.step()?, Progress::Cut(_)) {}
    Ok(engine.features().to_vec())
}

#[test]
fn a_run_changes_only_to_a_config_that_computed_the_same() {
    let bytes = with_a_twin(&[]);
    let image = Image::parse(&bytes).expect("the twin is valid");
    let overlay = image.overlay(&image.config(STITCHED), 0);
    assert_eq!(overlay.step, 2, "the block is the third segment of the path");
    for (from, to) in [(STITCHED, TWIN), (TWIN, STITCHED)] {
        // Before the block the two are one; what follows is the other config's, to the last byte.
        for (done, most) in (0..=overlay.step).flat_map(|done| [(done, overlay.step + 1), (done, u16::MAX)]) {
            let alone = features(image, to, 0, to, most);
            assert_eq!(features(image, from, done, to, most), alone, "after {done} segments");
        }
        // Behind it they have used different biases.
        let refused = Err(RunError::OtherPath { config: to.0, done: overlay.step + 1 });
        assert_eq!(output(image, from, overlay.step + 1, to), refused);
    }
    // At the end of the block, as the sample's head is too coarse to show it.
    let behind = |config| features(image, config, 0, config, overlay.step + 1);
    assert_ne!(behind(TWIN), behind(STITCHED), "the overlay changes nothing");
}

#[test]
fn equal_overlays_keep_a_path_shared_to_its_end() {
    let overlay = sample::writer().overlays[0];
    let bytes = with_a_twin(&[overlay]);
    let image = Image::parse(&bytes).expect("the twin is valid");
    let [stitched, twin] = [STITCHED, TWIN].map(|id| image.config(id));
    assert!((0..=stitched.segments).all(|done| policy::shares(&image, &stitched, &twin, done)));
    let last = stitched.segments - 1;
    assert_eq!(output(image, STITCHED, last, TWIN), output(image, TWIN, 0, TWIN));
}

#[test]
fn another_path_is_refused_wherever_the_run_stands() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample is valid");
    // Stem and stitch of tiny, then wide: shared with tiny after one segment, with wide never.
    let [tiny, wide] = [ConfigId(0), ConfigId(1)];
    assert!(output(image, STITCHED, 1, tiny).is_ok());
    for (done, to) in [(2, tiny), (1, wide), (2, wide)] {
        assert_eq!(output(image, STITCHED, done, to), Err(RunError::OtherPath { config: to.0, done }));
    }
    assert_eq!(output(image, STITCHED, 1, ConfigId(3)), Err(RunError::NoSuchConfig { config: 3, configs: 3 }));
}

#[test]
fn a_run_is_taken_up_from_what_another_computed() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).expect("the sample is valid");
    for done in 0..image.config(STITCHED).segments {
        let kept = features(image, STITCHED, 0, STITCHED, done).expect("it runs");
        // Another arena, larger and not clean: nothing but the features counts.
        let mut arena = vec![0x33; image.meta().arena_bytes as usize + 64];
        let mut engine = Engine::new(Scalar, image, &mut arena).expect("it is large enough");
        engine.resume(STITCHED, done, &kept, &[]).expect("they fit");
        while let Progress::Cut(_) = engine.step().expect("a step") {}
        assert_eq!(engine.features(), output(image, STITCHED, 0, STITCHED).expect("it runs"), "after {done} segments");
        let refused = engine.resume(STITCHED, done, &kept[1..], &[]);
        let sizes = (kept.len() as u32 - 1, kept.len() as u32);
        assert_eq!(refused, Err(RunError::InputSize { found: sizes.0, expected: sizes.1 }));
    }
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("it is large enough");
    let end = image.config(STITCHED).segments;
    assert_eq!(engine.resume(STITCHED, end, &[], &[]), Err(RunError::OtherPath { config: STITCHED.0, done: end }));
    assert_eq!(engine.resume(TWIN, 0, &[], &[]), Err(RunError::NoSuchConfig { config: 3, configs: 3 }));
}
