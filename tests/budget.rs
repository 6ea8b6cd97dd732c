//! Deadlines hold, choices are the best there are, and whatever a clock or a cost table says ends in an outcome.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use kernels::arch::Scalar;
use plan::{Config, ConfigId, Cost, CutId, Image, ImageWriter, SegmentId, SegmentKind, TargetId, sample};
use runtime::policy::{Left, Policy, Settings, shares};
use runtime::{Budget, Engine, Event, Frame, Limit, Outcome, Platform, Progress, RunError, Verdict};
use simulator::PolicyMemory;
use support::ladder::{Ladder, image};
use support::random::Random;

/// A clock that a test moves, segment by segment.
struct Scripted<F> {
    clock: u64,
    /// Ticks of a segment.
    takes: F,
    slowdown_in_256: u32,
}

impl<F: FnMut(SegmentId) -> u64> Scripted<F> {
    fn new(takes: F) -> Self {
        Self { clock: 0, takes, slowdown_in_256: 256 }
    }
}

impl<F: FnMut(SegmentId) -> u64> Platform for Scripted<F> {
    fn now(&mut self) -> u64 {
        self.clock
    }
    fn slowdown_in_256(&mut self) -> u32 {
        self.slowdown_in_256
    }
    fn next_frame(&mut self, _: &mut [i8]) -> Option<Budget> {
        None
    }
    fn report(&mut self, event: &Event) {
        if let Event::Segment { segment } = *event {
            self.clock = self.clock.wrapping_add((self.takes)(segment));
        }
    }
}

/// Runs one frame of an image that is ready.
fn frame(
    engine: &mut Engine<'_, Scalar>,
    policy: &mut Policy<'_>,
    budget: Budget,
    takes: impl FnMut(SegmentId) -> u64,
) -> Result<Outcome, RunError> {
    let mut platform = Scripted::new(takes);
    engine.input_mut().fill(1);
    engine.run_frame(policy, budget, 0, &mut platform)
}

fn bound(image: &Image<'_>, config: &Config, done: u16) -> Cost {
    let zero = Cost { ticks: 0, bound_ticks: 0, energy_uj: 0, bound_energy_uj: 0 };
    image.path(config).skip(done.into()).map(|segment| image.cost(TargetId(0), segment)).fold(zero, |sum, cost| Cost {
        ticks: sum.ticks + cost.ticks,
        bound_ticks: sum.bound_ticks + cost.bound_ticks,
        energy_uj: sum.energy_uj + cost.energy_uj,
        bound_energy_uj: sum.bound_energy_uj + cost.bound_energy_uj,
    })
}

fn configs<'a>(image: &Image<'a>) -> impl Iterator<Item = (ConfigId, Config)> + use<'a> {
    let image = *image;
    (0..image.configs()).map(move |number| (ConfigId(number), image.config(ConfigId(number))))
}

fn drawn(random: &mut Random) -> Cost {
    let ticks = 1 + random.below(9) as u32;
    let energy_uj = 1 + random.below(9) as u32;
    let (more, drain) = (random.below(6) as u32, random.below(4) as u32);
    Cost { ticks, bound_ticks: ticks + more, energy_uj, bound_energy_uj: energy_uj + drain }
}

fn ladder(random: &mut Random) -> Ladder {
    Ladder {
        anchors: 2 + random.below(3) as u16,
        depth: 2 + random.below(4) as u16,
        hops: 1 + random.below(2) as u16,
        configs: 3 + random.below(30),
        both_ways: random.below(4) > 0,
    }
}

macro_rules! ready {
    ($bytes:expr => $image:ident, $engine:ident, $policy:ident) => {
        let $image = Image::parse($bytes).unwrap_or_else(|error| panic!("{error}"));
        let mut arena = vec![0; $image.meta().arena_bytes as usize];
        let mut $engine = Engine::new(Scalar, $image, &mut arena).expect("the arena is the image's own");
        let mut memory = PolicyMemory::of(&$image);
        let settings = Settings::default();
        let mut $policy = Policy::new(&$image, TargetId(0), settings, memory.lend()).expect("its memory");
    };
}

/// Every budget from the cheapest bound to beyond the costliest, against every sequence of segment times out of none,
/// the predicted, and the bound: `docs/deadlines.md`.
#[test]
fn no_hard_deadline_is_missed_whatever_the_segments_take() {
    let (mut runs, mut switched) = (0u64, 0u64);
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let shape = Ladder { anchors: 2, depth: 3, hops: 2, configs: 9, both_ways: true };
        let bytes = image(shape, &mut random, drawn);
        ready!(&bytes => image, engine, policy);
        let bounds = || configs(&image).map(|(_, config)| u64::from(bound(&image, &config, 0).bound_ticks));
        let (least, most) = (bounds().min().unwrap(), bounds().max().unwrap());
        for ticks in (least..=most + 1).step_by(3) {
            // A path has at most 6 segments: 4 blocks and 2 stitches.
            for sequence in 0..3u32.pow(6) {
                let mut step = 0;
                let takes = |segment| {
                    let cost = image.cost(TargetId(0), segment);
                    let choice = sequence / 3u32.pow(step) % 3;
                    step += 1;
                    u64::from([0, cost.ticks, cost.bound_ticks][choice as usize])
                };
                let outcome = frame(&mut engine, &mut policy, Budget::deadline(ticks), takes);
                let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}, {ticks} ticks: {error}"));
                assert!(outcome.met(), "seed {seed}, {ticks} ticks, sequence {sequence}: {outcome:?}");
                runs += 1;
                switched += u64::from(outcome.switches > 0);
            }
        }
        let refused = frame(&mut engine, &mut policy, Budget::deadline(least - 1), |_| 0);
        assert!(
            matches!(refused, Err(RunError::BudgetTooSmall { needed_ticks, .. }) if needed_ticks == least),
            "seed {seed}: {refused:?}, the cheapest is bounded by {least}"
        );
    }
    assert!(switched * 20 > runs, "{switched} of {runs} runs changed their path: the test exercises little");
}

/// Random families, budgets of time, energy and memory together, a slow clock, and time that is stolen within what the
/// caller has set aside.
#[test]
fn limits_hold_in_random_families() {
    let seed = Random::seed(0x5eed);
    println!("STITCHNET_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut runs, mut refused) = (0, 0);
    for round in 0..400 {
        let shape = ladder(&mut random);
        let bytes = image(shape, &mut random, drawn);
        ready!(&bytes => image, engine, policy);
        let spans: Vec<Cost> = configs(&image).map(|(_, config)| bound(&image, &config, 0)).collect();
        let arenas: Vec<u32> = configs(&image).map(|(_, config)| config.arena_bytes).collect();
        for _ in 0..50 {
            let slowdown = 256 + random.below(400) as u32;
            policy.set_slowdown(slowdown);
            let slow = |ticks: u32| (u64::from(ticks) * u64::from(slowdown)).div_ceil(256);
            let pick = random.below(spans.len());
            let reserve = random.below(20) as u64;
            // A clock in whole ticks rounds each segment up once.
            let ticks = slow(spans[pick].bound_ticks) + u64::from(image.config(ConfigId(pick as u16)).segments);
            let hard = |random: &mut Random, amount: u64| {
                (random.below(2) == 0).then(|| Limit::hard(amount + random.below(10) as u64))
            };
            let budget = Budget {
                time: Some(Limit::hard(ticks)),
                energy: hard(&mut random, spans[pick].bound_energy_uj.into()),
                memory: hard(&mut random, arenas[pick].into()),
            };
            let mut stolen = reserve;
            let mut noise = Random::new(random.next());
            let takes = |segment| {
                let bound = image.cost(TargetId(0), segment).bound_ticks;
                let theft = (noise.below(4) as u64).min(stolen);
                stolen -= theft;
                slow(noise.below(bound as usize + 1) as u32) + theft
            };
            let outcome = frame(&mut engine, &mut policy, budget, takes);
            let outcome =
                outcome.unwrap_or_else(|error| panic!("round {round}: config {pick} fits {budget:?}: {error}"));
            runs += 1;
            let used = outcome.elapsed.saturating_sub(reserve);
            assert!(used <= ticks, "round {round}, {budget:?}, {reserve} set aside: {outcome:?}");
            // Once time is stolen the deadline goes before energy.
            let holds = budget.energy.is_none_or(|limit| outcome.energy_uj <= limit.amount);
            assert!(holds || stolen < reserve, "round {round}: {outcome:?}");
            let arena = u64::from(image.config(outcome.last).arena_bytes);
            assert!(budget.memory.is_none_or(|limit| arena <= limit.amount), "round {round}: {outcome:?}");
            let tiny = Budget { memory: Some(Limit::hard(0)), ..budget };
            refused += u32::from(frame(&mut engine, &mut policy, tiny, |_| 0).is_err());
        }
    }
    assert_eq!(refused, runs, "a budget of no memory is refused");
}

/// The quickest way to finish of a run that has `done` segments of a config behind it.
fn way_out(image: &Image<'_>, config: &Config, done: u16) -> Cost {
    let own = bound(image, config, done);
    let ways = configs(image).map(|(_, way)| way).filter(|way| {
        shares(image, config, way, done)
            && way.arena_bytes <= config.arena_bytes
            && bound(image, way, done).bound_energy_uj <= own.bound_energy_uj
    });
    // Of equally quick ways out none is promised; the energy of the least is what may count.
    ways.map(|way| bound(image, &way, done)).min_by_key(|cost| cost.bound_ticks).unwrap_or(own)
}

/// How good a config is by the definitions, one after another over all configs: what `choose` and `reconsider` must
/// find the best of. `None`: it may not run.
fn by_definition(
    image: &Image<'_>,
    current: Option<(ConfigId, u16)>,
    left: &Left,
    id: ConfigId,
) -> Option<(u8, u16, u32)> {
    let config = image.config(id);
    let done = current.map_or(0, |(_, done)| done);
    let on_the_way = current.is_none_or(|(running, _)| shares(image, &image.config(running), &config, done));
    if config.arena_bytes > left.arena_bytes || !on_the_way {
        return None;
    }
    let next = image.cost(TargetId(0), image.path_segment(&config, done));
    let way = way_out(image, &config, done + 1);
    let need_ticks = next.bound_ticks + way.bound_ticks;
    let need_energy = next.bound_energy_uj + way.bound_energy_uj;
    let ahead = bound(image, &config, done);
    // What must be left here for every need on the way to be met, if all takes what is predicted.
    let (mut gone_ticks, mut gone_energy, mut reach_ticks, mut reach_energy) = (0, 0, 0, 0);
    for step in done..config.segments {
        let next = image.cost(TargetId(0), image.path_segment(&config, step));
        let way = way_out(image, &config, step + 1);
        reach_ticks = reach_ticks.max(gone_ticks + next.bound_ticks + way.bound_ticks);
        reach_energy = reach_energy.max(gone_energy + next.bound_energy_uj + way.bound_energy_uj);
        (gone_ticks, gone_energy) = (gone_ticks + next.ticks, gone_energy + next.energy_uj);
    }
    let switch = image.target(TargetId(0)).switch_ticks;
    let cold = if current.is_some_and(|(running, _)| running != id) { switch } else { 0 };
    let holds =
        |limit: Option<Limit>, need: u32| limit.is_none_or(|limit| !limit.hard || u64::from(need) <= limit.amount);
    let fits = |limit: Option<Limit>, used: u32| limit.is_none_or(|limit| u64::from(used) <= limit.amount);
    let predicted = fits(left.time, ahead.ticks + cold)
        && fits(left.energy, ahead.energy_uj)
        && holds(left.time, reach_ticks)
        && holds(left.energy, reach_energy);
    Some(match (holds(left.time, need_ticks), holds(left.energy, need_energy), predicted) {
        (true, true, true) => (4, config.score, u32::MAX - ahead.ticks),
        (true, true, false) => (3, 0, u32::MAX - ahead.ticks),
        (true, false, _) => (2, 0, u32::MAX - need_energy),
        (false, true, _) => (1, 0, u32::MAX - need_ticks),
        (false, false, _) => (0, 0, u32::MAX - need_ticks),
    })
}

#[test]
fn choices_are_those_of_the_definition() {
    let seed = Random::seed(77);
    println!("STITCHNET_SEED={seed}");
    let mut random = Random::new(seed);
    let mut changed = 0;
    for round in 0..200 {
        let shape = ladder(&mut random);
        // Costs far apart, so that no two ways out are equally quick.
        let bytes = image(shape, &mut random, |random| {
            let cost = drawn(random);
            let ticks = cost.ticks * 1000 + random.below(1000) as u32;
            Cost { ticks, bound_ticks: ticks + random.below(4000) as u32, ..cost }
        });
        ready!(&bytes => image, _engine, policy);
        for _ in 0..60 {
            let limit = |random: &mut Random, most: usize| match random.below(3) {
                0 => None,
                1 => Some(Limit::soft(random.below(most) as u64)),
                _ => Some(Limit::hard(random.below(most) as u64)),
            };
            let budget = Budget { time: limit(&mut random, 90_000), energy: limit(&mut random, 90), memory: None };
            let left = Left::of(&budget, image.meta().arena_bytes - 16 * random.below(2) as u32, 0, 0);
            let rank = |current, id| by_definition(&image, current, &left, id);
            let best = |current| configs(&image).filter_map(|(id, _)| rank(current, id)).max();
            policy.forget();
            // The cheapest of those that are about as good as the best.
            let worth = |(fit, score, cost): (u8, u16, u32)| {
                let least = (fit, score.saturating_sub(Settings::default().least_gain), 0);
                let ranks = configs(&image).filter_map(|(id, _)| rank(None, id));
                ranks.filter(|rank| *rank >= least).max_by_key(|(_, _, cost)| *cost).unwrap_or((fit, score, cost))
            };
            let (first, most) = (policy.choose(&left).ok(), best(None).filter(|(fit, ..)| *fit >= 3).map(worth));
            let [found, most] =
                [first.and_then(|id| rank(None, id)), most].map(|rank| rank.map(|(fit, _, cost)| (fit, cost)));
            assert_eq!(found, most, "round {round}, {left:?}: {first:?}");
            let current = ConfigId(random.below(image.configs().into()) as u16);
            if image.config(current).arena_bytes > left.arena_bytes {
                continue;
            }
            for at in (1..image.config(current).segments).map(|done| (current, done)) {
                let next = policy.reconsider(current, at.1, &left);
                let (found, most) = (rank(Some(at), next), best(Some(at)));
                assert_eq!(found, most, "round {round}, {at:?}, {left:?}: {next:?}");
                assert!(next == current || rank(Some(at), current) != most, "it changes for nothing better");
                changed += u32::from(next != current);
            }
        }
    }
    assert!(changed > 1000, "{changed} changes: the test exercises little");
}

/// Where everything takes what is predicted, a frame that was predicted to finish finishes, or on something better: its
/// last segments' bounds are in the prediction.
#[test]
fn a_path_that_is_predicted_to_fit_is_not_left_for_a_worse_one() {
    let mut begun = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let shape = ladder(&mut random);
        // Bounds of up to twice what is predicted.
        let bytes = image(shape, &mut random, |random| {
            let (ticks, energy_uj) = (20 + random.below(80) as u32, 20 + random.below(80) as u32);
            let (more, drain) = (random.below(ticks as usize) as u32, random.below(energy_uj as usize) as u32);
            Cost { ticks, bound_ticks: ticks + more, energy_uj, bound_energy_uj: energy_uj + drain }
        });
        ready!(&bytes => image, engine, policy);
        for limit in (100..1500).step_by(7) {
            let energy = (limit % 2 == 0).then(|| Limit::hard(limit * 9 / 10));
            let budget = Budget { energy, ..Budget::deadline(limit) };
            let left = Left::of(&budget, image.meta().arena_bytes, 0, 0);
            policy.forget();
            let takes = |segment| image.cost(TargetId(0), segment).ticks.into();
            let Ok(outcome) = frame(&mut engine, &mut policy, budget, takes) else { continue };
            if by_definition(&image, None, &left, outcome.first).is_some_and(|(fit, ..)| fit == 4) {
                assert_eq!(outcome.verdict, Verdict::Met, "seed {seed}, {budget:?}: {outcome:?}");
                begun += 1;
            }
        }
    }
    assert!(begun > 1000, "{begun} frames were predicted to fit: the test exercises little");
}

/// The sample, every segment 100 ticks, a stem 150 at most: a path that is best if no time is lost, falls back to the worst
/// if some is, and shares its stem with it; and one a little below the best that nothing can stop.
fn risky() -> Vec<u8> {
    let mut writer = sample::writer();
    let bound_ticks =
        |kind_from: (SegmentKind, CutId)| if kind_from == (SegmentKind::Block, CutId(0)) { 150 } else { 100 };
    let bounds: Vec<u32> = writer.segments.iter().map(|segment| bound_ticks((segment.kind, segment.from))).collect();
    for (cost, bound_ticks) in writer.costs.iter_mut().zip(bounds) {
        *cost = Cost { ticks: 100, bound_ticks, energy_uj: 1, bound_energy_uj: 1 };
    }
    for (config, score) in writer.configs.iter_mut().zip([7000, 9400, 9500]) {
        config.score = score;
    }
    writer.finish()
}

#[test]
fn time_that_was_lost_lately_is_counted_on() {
    let bytes = risky();
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let [tiny, wide, stitched] = [0, 1, 2].map(ConfigId);
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the arena is the image's own");
    let mut memory = PolicyMemory::of(&image);
    // Segments are taken at the image's word: what is learned is about frames.
    let settings = Settings { quantile_percent: 0, ..Settings::default() };
    let mut policy = Policy::new(&image, TargetId(0), settings, memory.lend()).expect("its memory");
    let mut frame = |late: bool| {
        let takes = |segment| {
            let cost = image.cost(TargetId(0), segment);
            (if late { cost.bound_ticks } else { cost.ticks }).into()
        };
        let outcome = frame(&mut engine, &mut policy, Budget::deadline(420), takes).expect("it fits");
        assert!(outcome.met(), "{outcome:?}");
        (outcome.first, outcome.last)
    };
    assert_eq!(frame(false), (stitched, stitched));
    assert_eq!(frame(true), (stitched, tiny), "nobody knew");
    for number in 0..50 {
        assert_eq!(frame(true), (wide, wide), "late frame {number}");
    }
    let before = (0..100).take_while(|_| frame(false).0 == wide).count();
    assert!((10..90).contains(&before), "begun again after {before} frames without a delay");
    assert_eq!(frame(false), (stitched, stitched));
}

#[test]
fn a_gain_that_no_test_could_show_is_not_paid_for() {
    let bytes = |better: u16| {
        let mut writer = sample::writer();
        for (config, score) in writer.configs.iter_mut().zip([9000, 9000 + better, 8000]) {
            config.score = score;
        }
        writer.finish()
    };
    let first = |better, least_gain| {
        let bytes = bytes(better);
        let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = PolicyMemory::of(&image);
        let settings = Settings { least_gain, ..Settings::default() };
        let mut policy = Policy::new(&image, TargetId(0), settings, memory.lend()).expect("its memory");
        policy.choose(&Left::of(&Budget::deadline(1000), u32::MAX, 0, 0)).expect("there is time")
    };
    let [tiny, wide] = [0, 1].map(ConfigId);
    assert_eq!([first(5, 10), first(10, 10), first(11, 10), first(5, 0)], [tiny, tiny, wide, wide]);
}

#[test]
fn a_segment_that_was_slow_when_it_ran_last_is_tried_again_some_day() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    engine.cancel();
    let before = policy.estimates()[0].ticks;
    for _ in 0..200 {
        policy.learn(&image, SegmentId(0), 1000, None);
    }
    let slow = policy.estimates()[0].ticks;
    for _ in 0..2000 {
        policy.learn(&image, SegmentId(1), 10, None);
        policy.refresh(&image);
    }
    let after = policy.estimates()[0].ticks;
    assert_eq!((slow, after), (8 * before, before));
}

#[test]
fn cancelled_or_turned_at_any_cut_a_run_gives_what_a_fresh_one_gives() {
    let mut random = Random::new(9);
    let shape = Ladder { anchors: 3, depth: 4, hops: 2, configs: 40, both_ways: true };
    let bytes = image(shape, &mut random, drawn);
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let mut arena = vec![0x5a; image.meta().arena_bytes as usize];
    let mut engine = Engine::new(Scalar, image, &mut arena).expect("the arena is the image's own");
    let input = [3, -6, 17, 90];
    let mut fresh = vec![];
    for (id, _) in configs(&image) {
        engine.input_mut().copy_from_slice(&input);
        fresh.push(engine.run_config(id).expect("it runs").to_vec());
    }
    assert!(fresh.iter().any(|output| output != &fresh[0]), "the configs compute different things");
    let mut turned = 0;
    for (from, config) in configs(&image) {
        for done in 0..config.segments {
            for (to, other) in configs(&image).filter(|(_, other)| shares(&image, &config, other, done)) {
                engine.input_mut().copy_from_slice(&input);
                engine.begin(from).expect("it fits");
                for _ in 0..done {
                    engine.step().expect("a step");
                }
                engine.switch(to).expect("it shares the path");
                while engine.done() < other.segments {
                    engine.step().expect("a step");
                }
                assert_eq!(engine.features(), fresh[to.index()], "{from:?} turned to {to:?} after {done}");
                turned += usize::from(from != to);
            }
            // Cancelled: the next run knows nothing of it.
            engine.input_mut().copy_from_slice(&input);
            engine.begin(from).expect("it fits");
            for _ in 0..done {
                engine.step().expect("a step");
            }
            engine.cancel();
            assert_eq!(engine.step(), Err(RunError::NotRunning));
            engine.input_mut().copy_from_slice(&input);
            assert_eq!(engine.run_config(from).expect("it runs"), fresh[from.index()]);
        }
    }
    assert!(turned > 500, "{turned} turns");
}

#[test]
fn two_engines_take_one_arena_in_turn() {
    let mut random = Random::new(4);
    let shape = Ladder { anchors: 2, depth: 3, hops: 1, configs: 6, both_ways: true };
    let bytes = image(shape, &mut random, drawn);
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let mut arena = vec![0; image.meta().arena_bytes as usize];
    let mut lent: &mut [i8] = &mut arena;
    for (first, config) in configs(&image) {
        for done in 1..config.segments {
            let mut engine = Engine::new(Scalar, image, lent).expect("it is large enough");
            engine.input_mut().fill(7);
            let expected = engine.run_config(first).expect("it runs").to_vec();
            engine.input_mut().fill(7);
            engine.begin(first).expect("it fits");
            for _ in 0..done {
                engine.step().expect("a step");
            }
            let kept = engine.features().to_vec();
            // Another one runs to its end in the same memory.
            let mut other = Engine::new(Scalar, image, engine.into_arena()).expect("it is large enough");
            other.input_mut().fill(-100);
            other.run_config(ConfigId(0)).expect("it runs");
            let mut engine = Engine::new(Scalar, image, other.into_arena()).expect("it is large enough");
            engine.resume(first, done, &kept, &[]).expect("they are of this cut");
            while let Progress::Cut(_) = engine.step().expect("a step") {}
            assert_eq!(engine.features(), expected);
            lent = engine.into_arena();
        }
    }
}

#[test]
fn the_async_form_yields_at_every_cut_and_can_be_dropped() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let plain = frame(&mut engine, &mut policy, Budget::default(), |_| 5).expect("no limit");
    let mut context = Context::from_waker(Waker::noop());
    // Left alone, it is polled once for every segment.
    let mut platform = Scripted::new(|_| 5);
    engine.input_mut().fill(1);
    let polls = {
        let mut future = pin!(engine.run_frame_async(&mut policy, Budget::default(), 0, &mut platform));
        let mut polls = 1;
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => {
                    assert_eq!(outcome, Ok(plain));
                    break polls;
                }
                Poll::Pending => polls += 1,
            }
        }
    };
    assert_eq!(polls, u32::from(image.config(plain.last).segments));
    // Dropped at the first cut, the engine runs on as if nothing had been.
    {
        let mut future = pin!(engine.run_frame_async(&mut policy, Budget::default(), 0, &mut platform));
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(frame(&mut engine, &mut policy, Budget::default(), |_| 5), Ok(plain));
}

/// The sample with another cost for every segment.
fn priced(cost: Cost) -> Vec<u8> {
    let mut writer: ImageWriter = sample::writer();
    writer.costs.fill(cost);
    writer.finish()
}

#[test]
fn absurd_cost_tables_end_in_an_outcome() {
    let nothing = Cost { ticks: 0, bound_ticks: 0, energy_uj: 0, bound_energy_uj: 0 };
    let bytes = priced(nothing);
    ready!(&bytes => image, engine, policy);
    // Everything seems free: the best config is begun, and what it took is told.
    let outcome = frame(&mut engine, &mut policy, Budget::deadline(50), |_| 20).expect("it costs nothing");
    let segments = u64::from(image.config(outcome.last).segments);
    assert_eq!((outcome.verdict, outcome.overruns), (Verdict::Late { by: 20 * segments - 50 }, segments as u16));
    let outcome = frame(&mut engine, &mut policy, Budget::deadline(50), |_| 0).expect("it costs nothing");
    assert_eq!((outcome.verdict, outcome.overruns), (Verdict::Met, 0));

    let far = u32::MAX / 4;
    let bytes = priced(Cost { ticks: far, bound_ticks: u32::MAX, energy_uj: far, bound_energy_uj: u32::MAX });
    ready!(&bytes => image, engine, policy);
    let refused = frame(&mut engine, &mut policy, Budget::deadline(1_000_000), |_| 1).expect_err("it is dear");
    let expected = RunError::BudgetTooSmall {
        needed_ticks: u32::MAX.into(),
        needed_energy_uj: u32::MAX.into(),
        needed_bytes: configs(&image).map(|(_, config)| config.arena_bytes).min().unwrap(),
    };
    assert_eq!(refused, expected);
    let soft = Budget { time: Some(Limit::soft(10)), ..Budget::default() };
    assert!(frame(&mut engine, &mut policy, soft, |_| 1).is_ok_and(|outcome| outcome.met()));
    assert!(frame(&mut engine, &mut policy, Budget::deadline(u64::MAX), |_| u64::MAX / 8).is_ok());
}

#[test]
fn a_clock_that_goes_back_or_wraps_costs_the_bound_and_is_counted() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let cost = image.cost(TargetId(0), SegmentId(0));
    // 15 ticks of bound for each segment; the third one seems to end before it began.
    let mut step = 0;
    let takes = |_| {
        step += 1;
        if step == 2 { 0u64.wrapping_sub(7) } else { 10 }
    };
    let mut platform = Scripted::new(takes);
    platform.clock = 1000;
    engine.input_mut().fill(1);
    let budget = Budget::deadline(1000);
    let outcome = engine.run_frame(&mut policy, budget, 1000, &mut platform).expect("there is time");
    let segments = u64::from(image.config(outcome.last).segments);
    assert_eq!(outcome.clock_faults, 1);
    assert_eq!(outcome.elapsed, 10 * (segments - 1) + u64::from(cost.bound_ticks));
    assert_eq!(outcome.verdict, Verdict::Met);
    // Wraps around: the same as going back.
    let mut platform = Scripted::new(|_| 10);
    platform.clock = u64::MAX - 5;
    engine.input_mut().fill(1);
    let outcome = engine.run_frame(&mut policy, budget, u64::MAX - 5, &mut platform).expect("there is time");
    assert_eq!((outcome.clock_faults, outcome.verdict), (1, Verdict::Met));
    // The frame seems to have begun in the future.
    let outcome = engine.run_frame(&mut policy, budget, u64::MAX, &mut Scripted::new(|_| 10)).expect("there is time");
    assert_eq!(outcome.clock_faults, 1);
}

#[test]
fn outcomes_say_how_late_how_much_and_how_well() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let [tiny, wide, stitched] = [0, 1, 2].map(ConfigId);
    // Soft and too small: the cheapest is run, and it is late.
    let soft = |ticks| Budget { time: Some(Limit::soft(ticks)), ..Budget::default() };
    let outcome = frame(&mut engine, &mut policy, soft(5), |_| 10).expect("a soft limit refuses nothing");
    assert_eq!((outcome.last, outcome.verdict), (tiny, Verdict::Late { by: 15 }));
    // tiny.1>wide.1 is better than tiny and shares its stem: the stem took too long, so tiny it is.
    policy.forget();
    let mut memory = PolicyMemory::of(&image);
    let mut slow = Policy::new(&image, TargetId(0), Settings::default(), memory.lend()).expect("its memory");
    engine.input_mut().fill(1);
    let mut platform = Scripted::new(|segment| if segment == SegmentId(0) { 25 } else { 10 });
    let memory_of = |id: ConfigId| u64::from(image.config(id).arena_bytes);
    assert!(memory_of(stitched) >= memory_of(tiny));
    let mut frame_of = |budget| {
        slow.forget();
        engine.run_frame(&mut slow, budget, platform.clock, &mut platform)
    };
    let outcome = frame_of(soft(45)).expect("a soft limit refuses nothing");
    assert!(outcome.first == wide || outcome.first == stitched, "{outcome:?}");
    if outcome.first == stitched {
        assert_eq!((outcome.last, outcome.verdict, outcome.switches), (tiny, Verdict::Degraded, 1));
    }
    let energy = Budget { energy: Some(Limit::soft(1)), ..Budget::default() };
    let outcome = frame_of(energy).expect("a soft limit refuses nothing");
    assert_eq!((outcome.last, outcome.verdict), (tiny, Verdict::Overdrawn { by_uj: 7 }));
}

/// A clock of 5 ticks a segment, and a meter that a test reads.
struct Metered {
    clock: u64,
    meter: u64,
    draws: u64,
}

impl Platform for Metered {
    fn now(&mut self) -> u64 {
        self.clock
    }
    fn energy_uj(&mut self) -> Option<u64> {
        Some(self.meter)
    }
    fn next_frame(&mut self, _: &mut [i8]) -> Option<Budget> {
        None
    }
    fn report(&mut self, event: &Event) {
        if let Event::Segment { .. } = event {
            self.clock += 5;
            self.meter = self.meter.wrapping_add(self.draws);
        }
    }
}

#[test]
fn a_meter_is_charged_instead_of_the_table_and_learned() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let budget = Budget { energy: Some(Limit::soft(25)), ..Budget::default() };
    let mut platform = Metered { clock: 0, meter: 100, draws: 9 };
    engine.input_mut().fill(1);
    // wide is 12 by the table, 27 by the meter. Behind its stem 16 are left: 8 are predicted to the end.
    let outcome = engine.run_frame(&mut policy, budget, 0, &mut platform).expect("a soft limit refuses nothing");
    assert_eq!((outcome.first, outcome.energy_uj, outcome.verdict), (ConfigId(1), 27, Verdict::Overdrawn { by_uj: 2 }));
    assert!(policy.estimates().iter().any(|estimate| estimate.energy_uj > 4), "the meter's numbers are learned");
    // A meter that goes back says nothing: the table is charged.
    let mut platform = Metered { clock: 0, meter: 1 << 60, draws: u64::MAX };
    engine.input_mut().fill(1);
    let outcome = engine.run_frame(&mut policy, Budget::default(), 0, &mut platform).expect("no limit");
    assert_eq!(outcome.energy_uj, 4 * u64::from(image.config(outcome.last).segments));
}

#[test]
fn estimates_follow_what_is_measured_but_no_outlier() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let estimate = |policy: &Policy<'_>| policy.estimates()[0].ticks;
    let before = estimate(&policy);
    policy.learn(&image, SegmentId(0), u64::MAX, None);
    assert_eq!(estimate(&policy), before + 1, "one outlier moves it by at most a sixteenth and one");
    for _ in 0..200 {
        policy.learn(&image, SegmentId(0), u64::MAX, None);
    }
    assert_eq!(estimate(&policy), 8 * before, "and never beyond eight times the image's number");
    for _ in 0..2000 {
        policy.learn(&image, SegmentId(0), 14, None);
    }
    assert_eq!(estimate(&policy), 14);
    // A slow clock is no slow segment.
    policy.set_slowdown(512);
    for _ in 0..2000 {
        policy.learn(&image, SegmentId(0), 28, None);
    }
    assert_eq!(estimate(&policy), 14);
    engine.cancel();
}

#[test]
fn a_trembling_budget_keeps_its_config() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let changes = |hysteresis_in_256| {
        let mut memory = PolicyMemory::of(&image);
        let settings = Settings { hysteresis_in_256, ..Settings::default() };
        let mut policy = Policy::new(&image, TargetId(0), settings, memory.lend()).expect("its memory");
        let mut choices: Vec<ConfigId> = (0..40)
            .map(|frame| {
                let budget = Budget { time: Some(Limit::soft(29 + 2 * (frame % 2))), ..Budget::default() };
                policy.choose(&Left::of(&budget, u32::MAX, 0, 0)).expect("a soft limit refuses nothing")
            })
            .collect();
        choices.dedup();
        choices.len() - 1
    };
    // tiny takes 20 ticks and wide 30, and a change one more: 29 and 31 are on either side of wide.
    assert_eq!(changes(0), 39);
    assert_eq!(changes(32), 0, "wide is begun only with an eighth to spare");
}

#[test]
fn too_little_memory_or_no_such_target_is_refused_by_name() {
    let bytes = sample::writer().finish();
    let image = Image::parse(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = PolicyMemory::of(&image);
    let refused = Policy::new(&image, TargetId(1), Settings::default(), memory.lend()).err();
    assert_eq!(refused, Some(RunError::NoSuchTarget { target: 1, targets: 1 }));
    let mut short = memory.lend();
    short.routes = &mut short.routes[..2];
    let error = Policy::new(&image, TargetId(0), Settings::default(), short).expect_err("a route is missing");
    assert_eq!(error, RunError::PolicyMemory { found: 2, needed: 3 });
    assert_eq!(error.to_string(), "a slice of the policy's memory has 2 records, 3 are needed");
}

#[test]
fn a_frame_can_be_stepped_by_hand() {
    let bytes = sample::writer().finish();
    ready!(&bytes => image, engine, policy);
    let mut platform = Scripted::new(|_| 5);
    engine.input_mut().fill(1);
    let mut frame = Frame::begin(&mut engine, &mut policy, Budget::default(), 0, &mut platform).expect("no limit");
    let mut steps = 1;
    let outcome = loop {
        match frame.step(&mut engine, &mut policy, &mut platform).expect("a step") {
            Some(outcome) => break outcome,
            None => steps += 1,
        }
    };
    assert_eq!(steps, image.config(outcome.last).segments);
    assert_eq!(outcome.elapsed, 5 * u64::from(steps));
}
