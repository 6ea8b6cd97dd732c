//! What a build without the features `transformers` and `detector` takes, and what it refuses:
//! `cargo test -p runtime --no-default-features`, and with `--features transformers`.

use kernels::arch::Scalar;
use plan::{ConfigId, Image, sample};
use runtime::{Engine, RunError};

#[test]
fn an_image_of_a_transformer_runs_with_the_feature_only() {
    let plain = sample::writer().finish();
    let plain = Image::parse(&plain).expect("the sample is valid");
    assert_eq!(plain.first_of_transformer(), None);
    let mut arena = vec![0; plain.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, plain, &mut arena).expect("every build runs it");
    engine.run_config(ConfigId(0)).expect("every build runs it");

    let bytes = sample::transformer().finish();
    let image = Image::parse(&bytes).expect("the sample is valid");
    // Its own ops come behind those of the other sample.
    let first = plain.ops() as u16;
    assert_eq!(image.first_of_transformer().map(|op| op.0), Some(first));
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let built = Engine::new(Scalar, image, &mut arena).map(|_| ());
    let expected = if cfg!(feature = "transformers") { Ok(()) } else { Err(RunError::NotBuilt { op: first }) };
    assert_eq!(built, expected);
}

/// Puts the input of the self test into the arena, which a run overwrites.
fn fill(engine: &mut Engine<'_, Scalar>) {
    let input = engine.image().test_input();
    for (value, &byte) in engine.input_mut().iter_mut().zip(input) {
        *value = byte.cast_signed();
    }
}

#[test]
fn a_detector_runs_with_the_feature_only() {
    for sample in [sample::detector(), sample::dense()] {
        runs_with_the_feature_only(&sample.finish());
    }
}

fn runs_with_the_feature_only(bytes: &[u8]) {
    let image = Image::parse(bytes).expect("the sample is valid");
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let engine = Engine::new(Scalar, image, &mut arena);
    if !cfg!(feature = "detector") {
        assert_eq!(engine.map(|_| ()), Err(RunError::NoDetector));
        return;
    }
    let mut engine = engine.expect("this build runs it");
    assert_eq!(engine.detections().count(), 0, "before a run");
    fill(&mut engine);
    engine.run_config(ConfigId(0)).expect("this build runs it");
    let found: Vec<_> = engine.detections().collect();
    assert!(!found.is_empty() && found.is_sorted_by(|a, b| a.logit >= b.logit), "best first: {found:?}");
    for detection in &found {
        let [left, top, right, bottom] = detection.corners;
        assert!(0 <= left && left <= right && right <= 512 && 0 <= top && top <= bottom && bottom <= 512);
        assert!(detection.class < 2);
    }
    assert_eq!(engine.class(), found[0].class);
    // What was kept of a run is enough to go on from any of its cuts, in the lead and behind it.
    let (maps, expected) = (engine.kept().to_vec(), engine.features().to_vec());
    for done in 1..4 {
        fill(&mut engine);
        engine.begin(ConfigId(0)).expect("it exists");
        for _ in 0..done {
            engine.step().expect("this build runs it");
        }
        let (features, kept) = (engine.features().to_vec(), engine.kept().to_vec());
        assert!(done < 3 || kept == maps, "the backbone has kept its maps");
        engine.input_mut().fill(0);
        engine.run_config(ConfigId(0)).expect("another run, over everything");
        assert!(engine.resume(ConfigId(0), done, &features, &kept[1..]).is_err());
        engine.resume(ConfigId(0), done, &features, &kept).expect("they are of this cut");
        for _ in done..4 {
            engine.step().expect("this build runs it");
        }
        assert_eq!(engine.features(), expected, "from cut {done}");
    }
}
