use plan::Image;
use runtime::{Budget, Limit};

use super::{Error, ImageSet, Replay, Setup, replay};
use crate::trace::Trace;

/// Eight pictures of 4x4x3.
fn pixels() -> Vec<u8> {
    (0..8 * 48u32).map(|index| (index * 31 % 256) as u8).collect()
}

fn sample(trace: &Trace, seed: Option<u64>) -> Replay {
    let bytes = plan::sample::writer().finish();
    let pictures = ImageSet { pixels: &pixels(), labels: &[0, 1, 0, 1, 1, 1, 0, 0] };
    replay(&bytes, pictures, &Setup::of(trace.clone(), 240, seed)).unwrap()
}

fn falling() -> Trace {
    let bytes = plan::sample::writer().finish();
    Trace::fall_and_recover(&Image::parse(&bytes).unwrap(), 240)
}

#[test]
fn replays_equally_from_equal_arguments() {
    let first = sample(&falling(), Some(3));
    assert_eq!(first.csv(), sample(&falling(), Some(3)).csv());
    assert_ne!(first.csv(), sample(&falling(), Some(4)).csv(), "another seed steals at other times");
    assert!(first.rows.iter().any(|row| row.stolen > 0));
}

#[test]
fn keeps_every_deadline_when_no_time_is_stolen() {
    let summary = sample(&falling(), None).summary();
    assert_eq!((summary.frames, summary.missed, summary.refused), (240, 0, 0));
    assert!(summary.configs > 1, "the budget falls, so more than one config is used");
}

#[test]
fn records_a_budget_below_every_config_as_a_refusal() {
    let trace = Trace::parse("frame,ticks\n0,1000\n100,29\n110,30\n").unwrap();
    let result = sample(&trace, None);
    let summary = result.summary();
    assert_eq!((summary.frames, summary.refused), (240, 10));
    assert!(result.rows[100..110].iter().all(|row| row.outcome.is_none() && !row.correct()));
    assert_eq!(result.csv().lines().nth(101).unwrap().split(',').take(4).collect::<Vec<_>>(), ["100", "29", "", ""]);
}

#[test]
fn budget_of_memory_bounds_the_config() {
    let bytes = plan::sample::writer().finish();
    let image = Image::parse(&bytes).unwrap();
    let smallest = (0..image.configs()).map(|number| image.config(plan::ConfigId(number)).arena_bytes).min().unwrap();
    let trace = Trace::parse(&format!("frame,ticks,arena_bytes\n0,,{smallest}\n")).unwrap();
    let result = sample(&trace, None);
    assert_eq!(result.rows[0].budget, Budget { memory: Some(Limit::hard(smallest.into())), ..Budget::default() });
    for row in &result.rows {
        assert!(image.config(row.outcome.unwrap().last).arena_bytes <= smallest);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let bytes = plan::sample::writer().finish();
    let setup = Setup::of(falling(), 1, None);
    let refused = |bytes: &[u8], pictures| replay(bytes, pictures, &setup).unwrap_err();
    assert!(matches!(refused(b"no image", ImageSet { pixels: &[], labels: &[] }), Error::Image(_)));
    assert_eq!(refused(&bytes, ImageSet { pixels: &[], labels: &[] }), Error::NoPictures);
    let short = refused(&bytes, ImageSet { pixels: &[0; 95], labels: &[0, 1] });
    assert_eq!(short.to_string(), "95 bytes of pixels for 2 pictures: the image takes 4x4x3 bytes each");
}
