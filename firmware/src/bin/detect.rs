//! Runs every config of a detector on the picture that its image carries, prints what it finds, and compares each byte with the
//! host's.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::board::{Clock, Kernels};
use firmware::carried::{ARENA, Aligned, configs, image};
use firmware::exit;
use firmware::program::stack_holds;
use heapless::Vec;
use plan::layout::MAX_DETECTIONS;
use plan::{ConfigId, Image};
use runtime::{Detection, Engine, Progress, RunError};

/// Logit (Q12) from which a detection is printed: a probability of one half.
const THRESHOLD: i16 = 0;

/// Instructions of a run, and of its last segment: the head.
struct Took {
    all: u64,
    head: u64,
}

/// Runs a config on the input of the self test.
fn detect(clock: &Clock, engine: &mut Engine<'_, Kernels>, config: ConfigId) -> Result<Took, RunError> {
    let image = *engine.image();
    for (value, &byte) in engine.input_mut().iter_mut().zip(image.test_input()) {
        *value = byte as i8;
    }
    engine.begin(config)?;
    let mut took = Took { all: 0, head: 0 };
    loop {
        let (ticks, progress) = clock.ticks(|| engine.step());
        took = Took { all: took.all + ticks, head: ticks };
        if progress? == Progress::Done {
            return Ok(took);
        }
    }
}

/// Whether all configs find what the host found.
fn run(clock: &Clock, image: Image<'static>, arena: &mut [i8]) -> Result<bool, RunError> {
    let mut engine = Engine::new(Kernels, image, arena)?;
    defmt::info!("kernels: {=str}", engine.kernels());
    let mut differ = 0;
    for config in configs(&image) {
        let took = detect(clock, &mut engine, config)?;
        let name = image.config_name(config);
        let found: Vec<Detection, { MAX_DETECTIONS as usize }> = engine.detections().collect();
        let sure = found.iter().filter(|detection| detection.logit > THRESHOLD);
        defmt::info!(
            "{}: {} objects, {} instructions, {} of them in the head",
            defmt::Display2Format(&name),
            sure.clone().count(),
            took.all,
            took.head
        );
        for Detection { corners, class, logit } in sure {
            // Pixels of the network's input.
            let [left, top, right, bottom] = corners.map(|corner| (corner + 8) >> 4);
            let label = image.label((*class).into());
            defmt::info!("  {=str} {} {} {} {} logit {}/4096", label, left, top, right, bottom, logit);
        }
        let equal = engine.features().iter().map(|&value| value as u8).eq(image.test_output(config).iter().copied());
        differ += u32::from(!equal);
    }
    defmt::info!("compared {} runs with the host: {} differ", image.configs(), differ);
    Ok(differ == 0)
}

#[entry]
fn main() -> ! {
    static mut ARENA_BYTES: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    let equal = match run(&clock, image(), &mut ARENA_BYTES.0) {
        Ok(equal) => equal,
        Err(error) => {
            defmt::error!("the runtime refused: {}", error);
            false
        }
    };
    let passed = equal && stack_holds();
    defmt::info!("{=str}", if passed { "passed" } else { "FAILED" });
    exit(passed)
}
