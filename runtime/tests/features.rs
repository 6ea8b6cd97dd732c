//! What a build without the feature `transformers` takes, and what it refuses:
//! `cargo test -p runtime --no-default-features`.

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
