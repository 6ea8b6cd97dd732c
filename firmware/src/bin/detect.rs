//! Runs every config of a detector on the picture that its image carries, prints what it finds, and compares each byte with the
//! host's. With vectors: runs one config on each picture instead, in turns, and prints what its head took.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::board::{Clock, Kernels};
use firmware::carried::{ARENA, Aligned, Vectors, configs, image};
use firmware::exit;
use firmware::program::stack_holds;
use heapless::Vec;
use plan::layout::{MAX_DETECTIONS, PER_BOX, PER_PATCH};
use plan::{ConfigId, Image};
use runtime::{Detection, Engine, Progress, RunError};

/// Logit (Q12) from which a detection is printed: a probability of one half.
const THRESHOLD: i16 = 0;

/// Instructions of a run, and of its last segment, the head; patches and boxes of that.
#[derive(Default)]
struct Took {
    all: u64,
    head: u64,
    patches: usize,
    boxes: usize,
}

/// Runs a config on an input.
fn detect(clock: &Clock, engine: &mut Engine<'_, Kernels>, config: ConfigId, input: &[u8]) -> Result<Took, RunError> {
    let image = *engine.image();
    for (value, &byte) in engine.input_mut().iter_mut().zip(input) {
        *value = byte as i8;
    }
    engine.begin(config)?;
    let mut took = Took::default();
    loop {
        let (mut patches, mut boxes) = (0, 0);
        let look = |id, written: &[i8]| {
            let op = image.op(id);
            let part = |most: u16| written.len() * usize::from(most) / image.tensor(op.output).bytes() as usize;
            if op.flags & PER_PATCH != 0 {
                patches = part(image.meta().patches);
            } else if op.flags & PER_BOX != 0 {
                boxes = part(image.meta().boxes);
            }
        };
        let (ticks, progress) = clock.ticks(|| engine.step_watched(look));
        took = Took { all: took.all + ticks, head: ticks, patches, boxes };
        if progress? == Progress::Done {
            return Ok(took);
        }
    }
}

fn equal(engine: &Engine<'_, Kernels>, expected: &[u8]) -> bool {
    engine.features().iter().map(|&value| value as u8).eq(expected.iter().copied())
}

/// Whether each picture gives on one config, in turns, what the host computed.
fn run_vectors(clock: &Clock, image: Image<'static>, vectors: &Vectors, arena: &mut [i8]) -> Result<bool, RunError> {
    let mut engine = Engine::new(Kernels, image, arena)?;
    defmt::info!("kernels: {=str}", engine.kernels());
    let mut differ = 0;
    for (vector, config) in (0..vectors.count).zip(configs(&image).cycle()) {
        let took = detect(clock, &mut engine, config, vectors.input(vector))?;
        defmt::info!("{} patches, {} boxes: {} instructions in the head", took.patches, took.boxes, took.head);
        differ += u32::from(!equal(&engine, vectors.output(vector, config)));
    }
    defmt::info!("compared {} runs with the host: {} differ", vectors.count, differ);
    Ok(differ == 0)
}

/// Whether all configs find what the host found.
fn run(clock: &Clock, image: Image<'static>, arena: &mut [i8]) -> Result<bool, RunError> {
    let mut engine = Engine::new(Kernels, image, arena)?;
    defmt::info!("kernels: {=str}", engine.kernels());
    let mut differ = 0;
    for config in configs(&image) {
        let took = detect(clock, &mut engine, config, image.test_input())?;
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
        differ += u32::from(!equal(&engine, image.test_output(config)));
    }
    defmt::info!("compared {} runs with the host: {} differ", image.configs(), differ);
    Ok(differ == 0)
}

#[entry]
fn main() -> ! {
    static mut ARENA_BYTES: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    let image = image();
    let arena = &mut ARENA_BYTES.0;
    let ran = match Vectors::carried(&image) {
        Some(vectors) => run_vectors(&clock, image, &vectors, arena),
        None => run(&clock, image, arena),
    };
    let equal = match ran {
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
