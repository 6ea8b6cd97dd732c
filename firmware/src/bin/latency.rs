//! How long the board takes: per segment and per config, cold and warm, what every change of config costs, and what a
//! decision costs. The log is what `stitchnet bench --from` reads.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::board::{Clock, Kernels, TARGET, TICKS_PER_SECOND};
use firmware::carried::{ARENA, Aligned, CONFIGS, SEGMENTS, configs, image, policy, target};
use firmware::exit;
use firmware::program::stack_holds;
use plan::Image;
use runtime::policy::{Left, Policy, shares};
use runtime::{Budget, Engine, Progress, RunError};

/// Runs of each config.
const REPEATS: usize = 3;
/// Measurements that are kept of a segment: one in several configs, several times.
const KEPT: usize = 32;
/// Most ticks of a decision, for images of up to 64 configs: instructions under QEMU.
const DECISION_BAR: u64 = 2000;

/// Measurements of one segment or config.
#[derive(Clone, Copy)]
struct Times {
    kept: [u32; KEPT],
    count: usize,
    cold: u32,
}

impl Times {
    const EMPTY: Self = Self { kept: [0; KEPT], count: 0, cold: 0 };

    fn add(&mut self, ticks: u64, cold: bool) {
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        if cold {
            self.cold = self.cold.max(ticks);
        } else if let Some(slot) = self.kept.get_mut(self.count) {
            *slot = ticks;
            self.count += 1;
        } else {
            // Full: the largest must not be lost.
            let least = self.kept.iter_mut().min();
            if let Some(least) = least.filter(|least| **least < ticks) {
                *least = ticks;
            }
        }
    }

    /// Least, median, 99 of 100, most.
    fn summary(&mut self) -> [u32; 4] {
        let times = self.kept.get_mut(..self.count).unwrap_or_default();
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
        [at(0), at(50), at(99), at(100)]
    }
}

struct Tables {
    segments: [Times; SEGMENTS],
    configs: [Times; CONFIGS],
}

fn fill(engine: &mut Engine<'_, Kernels>) {
    let input = engine.image().test_input();
    for (value, &byte) in engine.input_mut().iter_mut().zip(input) {
        *value = byte as i8;
    }
}

/// Every config, segment by segment.
fn runs(clock: &Clock, engine: &mut Engine<'_, Kernels>, tables: &mut Tables) -> Result<(), RunError> {
    for repeat in 0..=REPEATS {
        for config in configs(engine.image()) {
            fill(engine);
            engine.begin(config)?;
            let mut whole = 0;
            loop {
                let (ticks, progress) = clock.ticks(|| engine.step());
                whole += ticks;
                if let Some(times) = tables.segments.get_mut(engine.last_segment().index()) {
                    times.add(ticks, repeat == 0);
                }
                if progress? == Progress::Done {
                    break;
                }
            }
            if let Some(times) = tables.configs.get_mut(config.index()) {
                times.add(whole, repeat == 0);
            }
        }
    }
    Ok(())
}

/// At every cut: each change to a config that shares the path. A line for each; most instructions.
fn switches(clock: &Clock, engine: &mut Engine<'_, Kernels>) -> Result<u64, RunError> {
    let image = *engine.image();
    let mut most = 0;
    for from in configs(&image) {
        let record = image.config(from);
        fill(engine);
        engine.begin(from)?;
        for done in 1..record.segments {
            engine.step()?;
            for to in configs(&image).filter(|&to| to != from && shares(&image, &record, &image.config(to), done)) {
                let (there, result) = clock.ticks(|| engine.switch(to));
                result?;
                engine.switch(from)?;
                most = most.max(there);
                defmt::info!("switch,{},{},{},{}", from.0, to.0, done, there);
            }
        }
    }
    Ok(most)
}

/// Most instructions of a decision at a cut, with budgets from nothing to plenty.
fn decisions(clock: &Clock, image: &Image<'_>, policy: &Policy<'_>) -> u64 {
    let mut most = 0;
    for config in configs(image) {
        let record = image.config(config);
        for done in 1..record.segments {
            for part in 0..4 {
                let budget = Budget::deadline(image.ticks(&record) * part / 2);
                let left = Left::of(&budget, u32::MAX, 0, 0);
                let (instructions, next) = clock.ticks(|| policy.reconsider(config, done, &left));
                assert!(next.0 < image.configs());
                most = most.max(instructions);
            }
        }
    }
    most
}

fn measure(clock: &Clock, image: Image<'static>, arena: &mut [i8], tables: &mut Tables) -> Result<bool, RunError> {
    let mut engine = Engine::new(Kernels, image, arena)?;
    defmt::info!("kernels: {=str}", engine.kernels());
    runs(clock, &mut engine, tables)?;
    defmt::info!("target,{=str},{}", TARGET, TICKS_PER_SECOND);
    for (number, times) in tables.segments.iter_mut().enumerate() {
        let [least, median, p99, most] = times.summary();
        defmt::info!("segment,{},{},{},{},{},{}", number, least, median, p99, most, times.cold);
    }
    for (number, times) in tables.configs.iter_mut().enumerate() {
        let [least, median, p99, most] = times.summary();
        defmt::info!("config,{},{},{},{},{},{}", number, least, median, p99, most, times.cold);
    }
    let switch = switches(clock, &mut engine)?;
    let policy = policy(&image, target(&image, TARGET));
    let decision = decisions(clock, &image, &policy);
    let configs = image.configs();
    defmt::info!("{} configs: a change takes at most {} ticks, a decision {}", configs, switch, decision);
    Ok(configs > 64 || decision <= DECISION_BAR)
}

#[entry]
fn main() -> ! {
    static mut ARENA_BYTES: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    static mut TABLES: Tables = Tables { segments: [Times::EMPTY; SEGMENTS], configs: [Times::EMPTY; CONFIGS] };
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    match measure(&clock, image(), &mut ARENA_BYTES.0, TABLES) {
        Ok(true) if stack_holds() => {
            defmt::info!("passed");
            exit(true)
        }
        Ok(true) => defmt::error!("more stack than is declared"),
        Ok(false) => defmt::error!("a decision takes more than {} instructions", DECISION_BAR),
        Err(error) => defmt::error!("the runtime refused: {}", error),
    }
    exit(false)
}
