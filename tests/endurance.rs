//! A million frames with faults: no panic, no missed deadline, no drift, no growth.

use std::alloc::System;

use plan::{CutId, Image, SegmentId, sample};
use runtime::policy::Settings;
use runtime::{Outcome, Verdict};
use simulator::{Faults, ImageSet, Row, Scenario, Setup, Strategy, Watch, watch};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FRAMES: u32 = 1_000_000;

/// Sums, and the heap at two points.
#[derive(Default)]
struct Sums {
    frames: u32,
    refused: u32,
    broken: u32,
    degraded: u32,
    faulty: u32,
    elapsed: u64,
    clock: u64,
    heap: Vec<usize>,
}

impl Watch for Sums {
    fn segment(&mut self, _: SegmentId, ticks: u64) {
        self.clock = ticks;
    }

    fn frame(&mut self, row: &Row) -> bool {
        self.frames += 1;
        self.faulty += u32::from(row.stolen > 0 || row.late > 0);
        match row.outcome {
            Some(Outcome { elapsed, verdict, clock_faults, .. }) => {
                self.elapsed += elapsed;
                let broken = matches!(verdict, Verdict::Late { .. } | Verdict::Overdrawn { .. });
                self.broken += u32::from(broken);
                self.degraded += u32::from(verdict == Verdict::Degraded);
                self.faulty += u32::from(clock_faults > 0);
            }
            None => self.refused += 1,
        }
        if self.frames == 1000 || self.frames == FRAMES {
            let stats = HEAP.stats();
            self.heap.push(stats.bytes_allocated - stats.bytes_deallocated);
        }
        true
    }
}

/// The sample with a stitched config that is best, and that a run leaves if its stem took too long: only stems can be
/// slower than predicted.
fn family() -> Vec<u8> {
    let mut writer = sample::writer();
    for (config, score) in writer.configs.iter_mut().zip([6_000, 7_000, 8_000]) {
        config.score = score;
    }
    for (cost, segment) in writer.costs.iter_mut().zip(&writer.segments) {
        if segment.from != CutId(0) {
            cost.bound_ticks = cost.ticks;
        }
    }
    writer.finish()
}

fn run(scenario: fn(&Image<'_>) -> Scenario, beyond_bounds: bool, frames: u32) -> Sums {
    let bytes = family();
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let pixels: Vec<u8> = (0..4 * 48u32).map(|index| (index * 31 % 256) as u8).collect();
    let setup = Setup {
        scenario: scenario(&image),
        frames,
        faults: Faults { seed: Some(11), beyond_bounds, all: true },
        strategy: Strategy::PerCut,
        settings: Settings::default(),
    };
    let mut sums = Sums { heap: Vec::with_capacity(2), ..Sums::default() };
    let pictures = ImageSet { pixels: &pixels, labels: &[0, 1, 0, 1] };
    watch(&bytes, pictures, &setup, &mut sums).unwrap_or_else(|error| panic!("{error}"));
    sums
}

#[test]
fn a_million_frames_with_faults_hold_every_deadline_in_constant_memory() {
    let sums = run(|image| Scenario::bursty(image, 5), false, FRAMES);
    assert_eq!((sums.frames, sums.broken), (FRAMES, 0));
    assert!(sums.faulty > FRAMES / 10, "{} frames with faults", sums.faulty);
    assert!(sums.degraded > 0);
    assert_eq!(sums.elapsed, sums.clock, "the time of all frames is the time of the clock");
    assert_eq!(sums.heap.first(), sums.heap.last(), "the heap after 1,000 and after all frames");
    faults_beyond_every_bound_end_in_outcomes();
}

/// No test of its own: the heap is counted for the whole process.
fn faults_beyond_every_bound_end_in_outcomes() {
    for scenario in [Scenario::thermal, |image: &Image<'_>| Scenario::bursty(image, 6)] {
        let sums = run(scenario, true, 100_000);
        assert_eq!(sums.frames, 100_000);
        assert!(sums.broken > 0, "time beyond the bounds must break some deadlines, or nothing was tested");
        assert!(sums.refused < sums.frames);
    }
}
