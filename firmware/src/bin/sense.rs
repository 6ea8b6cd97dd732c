//! A station that senses its temperature and its supply, and runs each frame within what they leave.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use embedded_hal::i2c::I2c;
use firmware::board::{Clock, Kernels, TARGET, bus};
use firmware::carried::{ARENA, Aligned, configs, image, policy, target};
use firmware::exit;
use firmware::program::stack_holds;
use plan::{Cost, Image, TargetId};
use runtime::{Budget, Engine, Event, Platform, RunError};
use sensors::{Adm1272, Range, Readings, State, Throttle, Tmp105};

/// Frames until the station ends by itself.
const FRAMES: u32 = 120;
/// Frames for which a silent sensor's last reading holds.
const PATIENCE: u16 = 3;
const TEMPERATURE: Tmp105 = Tmp105 { address: 0x48 };
const SUPPLY: Adm1272 = Adm1272 { address: 0x10 };

/// What became of the frames.
#[derive(Default)]
struct Statistics {
    frames: u32,
    met: u32,
    degraded: u32,
    missed: u32,
    refused: u32,
    switches: u32,
    remembered: u32,
    careful: u32,
}

struct Station<'a, B> {
    clock: &'a Clock,
    bus: B,
    image: Image<'static>,
    throttle: Throttle,
    readings: Readings,
    state: State,
    statistics: Statistics,
}

impl<B: I2c> Platform for Station<'_, B> {
    fn now(&mut self) -> u64 {
        self.clock.elapsed()
    }

    fn next_frame(&mut self, input: &mut [i8]) -> Option<Budget> {
        if self.statistics.frames == FRAMES {
            return None;
        }
        self.statistics.frames += 1;
        for (value, &byte) in input.iter_mut().zip(self.image.test_input()) {
            *value = byte as i8;
        }
        let millivolts = SUPPLY.millivolts(&mut self.bus).ok();
        // A bus that floats reads as ones, which is more than the monitor can measure.
        let millivolts = millivolts.filter(|&found| found <= Adm1272::MOST).and_then(|found| i32::try_from(found).ok());
        self.readings = Readings { millidegrees: TEMPERATURE.millidegrees(&mut self.bus).ok(), millivolts };
        let (budget, state) = self.throttle.budget(self.readings);
        self.state = state;
        match state {
            State::Sensed => {}
            State::Remembered => self.statistics.remembered += 1,
            State::Careful => self.statistics.careful += 1,
        }
        Some(budget)
    }

    fn report(&mut self, event: &Event) {
        let statistics = &mut self.statistics;
        match *event {
            Event::Segment { .. } => {}
            Event::Switch { .. } => statistics.switches += 1,
            Event::Refused(error) => {
                statistics.refused += 1;
                defmt::warn!("frame {}: {}", statistics.frames, error);
            }
            Event::Frame(outcome) => {
                statistics.met += u32::from(outcome.met());
                statistics.missed += u32::from(!outcome.met());
                statistics.degraded += u32::from(outcome.verdict == runtime::Verdict::Degraded);
                defmt::info!(
                    "frame {}: {} {} config {}, {} of {} {}",
                    statistics.frames,
                    self.readings,
                    self.state,
                    outcome.last.0,
                    outcome.elapsed,
                    outcome.budget,
                    outcome.verdict
                );
            }
        }
    }
}

/// Between the cheapest config's bounds, with a tick and a microjoule in a hundred to spare, and the costliest's.
fn throttle(image: &Image<'_>, target: TargetId) -> Throttle {
    let sum = |of: fn(&Cost) -> u32| {
        let of_config = move |id| {
            let path = image.path(&image.config(id));
            path.map(|segment| u64::from(of(&image.cost(target, segment)))).sum::<u64>()
        };
        let (least, most) = configs(image)
            .map(of_config)
            .fold((u64::MAX, 0), |(least, most), sum: u64| (least.min(sum), most.max(sum)));
        (least + least / 100, most)
    };
    let ((least_ticks, ticks), (least_uj, uj)) = (sum(|cost| cost.bound_ticks), sum(|cost| cost.bound_energy_uj));
    // Two lead-acid batteries of 12 V.
    let time = Range { good: 60_000, bad: 80_000, least: least_ticks, most: ticks };
    let energy = Range { good: 24_000, bad: 20_000, least: least_uj, most: uj };
    Throttle::new(time, energy, PATIENCE)
}

fn run(clock: &Clock, arena: &mut [i8]) -> Result<Statistics, RunError> {
    let image = image();
    let target = target(&image, TARGET);
    defmt::info!("costs of target {}: {=str}", target.0, image.text(image.target(target).name));
    let mut bus = bus();
    if TEMPERATURE.configure(&mut bus).is_err() {
        defmt::warn!("no temperature sensor at {=u8:#x}: budgets stay careful", TEMPERATURE.address);
    }
    let mut policy = policy(&image, target);
    let mut engine = Engine::new(Kernels, image, arena)?;
    defmt::info!("kernels: {=str}", engine.kernels());
    let throttle = throttle(&image, target);
    let (readings, state) = (Readings::default(), State::Careful);
    let mut station = Station { clock, bus, image, throttle, readings, state, statistics: Statistics::default() };
    runtime::run(&mut engine, &mut policy, &mut station)?;
    Ok(station.statistics)
}

#[entry]
fn main() -> ! {
    static mut ARENA_BYTES: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    match run(&clock, &mut ARENA_BYTES.0) {
        Ok(statistics) => {
            let Statistics { frames, met, degraded, missed, refused, switches, remembered, careful } = statistics;
            defmt::info!(
                "statistics: frames {} met {} degraded {} missed {} refused {} switches {} remembered {} careful {}",
                frames,
                met,
                degraded,
                missed,
                refused,
                switches,
                remembered,
                careful
            );
            if stack_holds() {
                defmt::info!("passed");
                exit(true)
            }
            defmt::error!("more stack than is declared");
            exit(false)
        }
        Err(error) => {
            defmt::error!("the runtime refused: {}", error);
            exit(false)
        }
    }
}
