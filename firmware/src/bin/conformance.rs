//! Runs every config of an image on every stored input with every kernel set, compares each byte with the vectors
//! of the host, and counts instructions of runs and of switches.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::board::{Clock, Kernels};
use firmware::carried::{ARENA, Aligned, IMAGE, VECTORS, Vectors, refused};
use firmware::exit;
use firmware::program::{sizes, stack_holds};
use kernels::Isa;
use kernels::arch::Scalar;
use plan::{ConfigId, Image};
use runtime::{Engine, RunError, policy};

/// Most instructions that a change of config may take.
const SWITCH_BAR: u64 = 500;

/// What all checks need.
struct Bench {
    clock: Clock,
    image: Image<'static>,
    vectors: Vectors,
    failures: u32,
}

fn fill<I: Isa>(engine: &mut Engine<'_, I>, input: &[u8]) {
    for (value, &byte) in engine.input_mut().iter_mut().zip(input) {
        *value = byte as i8;
    }
}

impl Bench {
    fn fail(&mut self) {
        self.failures += 1;
    }

    fn configs(&self) -> impl Iterator<Item = ConfigId> + use<> {
        (0..self.image.configs()).map(ConfigId)
    }

    /// One run: instructions, after the output was compared.
    fn run<I: Isa>(&mut self, isa: I, arena: &mut [i8], vector: usize, config: ConfigId) -> Result<u64, RunError> {
        let mut engine = Engine::new(isa, self.image, arena)?;
        fill(&mut engine, self.vectors.input(vector));
        let (instructions, output) = self.clock.ticks(|| engine.run_config(config));
        let output = output?;
        let expected = self.vectors.output(vector, config);
        let equal = |(&found, &expected): (&i8, &u8)| found as u8 == expected;
        if output.len() != expected.len() || !output.iter().zip(expected).all(equal) {
            let expected: &[u8] = expected;
            defmt::error!("{=str}: input {}, config {}: {} instead of {}", I::NAME, vector, config.0, output, expected);
            self.failures += 1;
        }
        Ok(instructions)
    }

    /// Every config on every input with both kernel sets.
    fn outputs(&mut self, arena: &mut [i8]) -> Result<(), RunError> {
        let mut compared = 0;
        for vector in 0..self.vectors.count {
            for config in self.configs() {
                let scalar = self.run(Scalar, arena, vector, config)?;
                let fast = self.run(Kernels, arena, vector, config)?;
                compared += 2;
                if vector == 0 {
                    let name = self.image.config_name(config);
                    defmt::info!(
                        "config {}: instructions {} {=str}, {} scalar  {}",
                        config.0,
                        fast,
                        Kernels::NAME,
                        scalar,
                        defmt::Display2Format(&name)
                    );
                }
            }
        }
        let (inputs, bytes) = (self.vectors.count, self.vectors.output);
        defmt::info!("compared {} runs of {} bytes on {} inputs: {} differ", compared, bytes, inputs, self.failures);
        Ok(())
    }

    /// A fresh engine that has run `done` segments of `config`.
    fn advance<'a>(&self, arena: &'a mut [i8], config: ConfigId, done: u16) -> Result<Engine<'a, Kernels>, RunError>
    where
        'static: 'a,
    {
        arena.fill(0);
        let mut engine = Engine::new(Kernels, self.image, arena)?;
        fill(&mut engine, self.vectors.input(0));
        engine.begin(config)?;
        for _ in 0..done {
            engine.step()?;
        }
        Ok(engine)
    }

    /// At every cut that configs share: from one to each other and back. Instructions of each change, and that the
    /// arena is the same as without any change.
    fn switches(&mut self, arena: &mut [i8], other: &mut [i8]) -> Result<(), RunError> {
        let (mut most, mut changes, mut written) = (0, 0u32, 0);
        for config in self.configs() {
            let record = self.image.config(config);
            let shares = |with: ConfigId, done| policy::shares(&self.image, &record, &self.image.config(with), done);
            for done in 1..record.segments {
                // The first config of those that share a start stands for all.
                let first = (0..config.0).all(|earlier| !shares(ConfigId(earlier), done));
                let mut sharing =
                    (config.0 + 1..self.image.configs()).map(ConfigId).filter(|&with| shares(with, done)).peekable();
                if !first || sharing.peek().is_none() {
                    continue;
                }
                self.advance(other, config, done)?;
                let mut engine = self.advance(arena, config, done)?;
                for with in sharing {
                    for to in [with, config] {
                        let (instructions, result) = self.clock.ticks(|| engine.switch(to));
                        result?;
                        most = most.max(instructions);
                        changes += 1;
                    }
                }
                written += arena.iter().zip(&*other).filter(|(a, b)| a != b).count();
            }
        }
        self.bar("switch", changes, most, written);
        other.copy_from_slice(arena);
        let mut engine = Engine::new(Kernels, self.image, arena)?;
        let mut most = 0;
        for config in self.configs() {
            let (instructions, result) = self.clock.ticks(|| engine.begin(config));
            result?;
            most = most.max(instructions);
        }
        written = arena.iter().zip(&*other).filter(|(a, b)| a != b).count();
        self.bar("begin", self.image.configs().into(), most, written);
        Ok(())
    }

    fn bar(&mut self, what: &str, changes: u32, most: u64, written: usize) {
        let passed = most <= SWITCH_BAR && written == 0;
        let verdict = if passed { "ok" } else { "FAILED" };
        defmt::info!(
            "{=str}: {} changes, at most {} instructions (bar {}), {} arena bytes changed: {=str}",
            what,
            changes,
            most,
            SWITCH_BAR,
            written,
            verdict
        );
        if !passed {
            self.fail();
        }
    }
}

fn check(bench: &mut Bench, arena: &mut [i8], other: &mut [i8]) -> Result<(), RunError> {
    bench.outputs(arena)?;
    bench.switches(arena, other)
}

#[entry]
fn main() -> ! {
    static mut FIRST: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    static mut SECOND: Aligned<[i8; ARENA]> = Aligned([0; ARENA]);
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    let (parsing, image) = clock.ticks(|| Image::parse(&IMAGE.0));
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            refused(&error);
            exit(false)
        }
    };
    let Some(vectors) = Vectors::carried(&image) else {
        defmt::error!("the vectors do not belong to the image: make both again");
        exit(false)
    };
    defmt::info!("kernels: {=str}, and {=str}", Kernels::NAME, Scalar::NAME);
    let name = image.text(image.meta().name);
    let (bytes, configs) = (IMAGE.0.len(), image.configs());
    defmt::info!("{=str}: {} bytes, {} configs, parsed in {} instructions", name, bytes, configs, parsing);
    let mut bench = Bench { clock, image, vectors, failures: 0 };
    let (arena, other) = (&mut FIRST.0[..], &mut SECOND.0[..]);
    if let Err(error) = check(&mut bench, arena, other) {
        defmt::error!("the runtime refused: {}", error);
        bench.fail();
    }
    let program = sizes();
    let carried = (IMAGE.0.len() + VECTORS.0.len()) as u32;
    defmt::info!(
        "flash {} bytes: code {}, image {}, vectors {}",
        program.flash,
        program.code,
        bytes,
        carried - bytes as u32
    );
    defmt::info!("RAM: arena {} bytes, other statics {}", ARENA, program.ram - 2 * ARENA as u32);
    if !stack_holds() {
        defmt::error!("more stack than is declared");
        bench.fail();
    }
    defmt::info!("{=str}", if bench.failures == 0 { "passed" } else { "FAILED" });
    exit(bench.failures == 0)
}
