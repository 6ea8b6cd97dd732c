//! [`Strategy`]: who decides which config runs. Two are the product; the others are what it is measured against.

use kernels::Isa;
use plan::{Config, ConfigId, Image, TargetId};
use runtime::policy::{Policy, Settings};
use runtime::{Budget, Engine, Event, Limit, Outcome, Platform, RunError, Verdict};

use crate::memory::PolicyMemory;
use crate::platform::{Virtual, Watch};

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One config for all frames, as a device with one model has it. It is run whatever the budget says.
    Fixed(ConfigId),
    /// The runtime's policy, at the start of each frame only.
    PerFrame,
    /// The runtime's policy, at every cut.
    PerCut,
    /// Knows before each frame what every segment will take, and picks the best config that holds the budget.
    Oracle,
}

impl Strategy {
    /// The strategies of a comparison, with their names: the smallest and the largest config, the best single config
    /// for a mean budget of `[ticks, microjoules]`, and the three that choose.
    #[must_use]
    pub fn compared(image: &Image<'_>, mean: [Option<u64>; 2]) -> Vec<(String, Self)> {
        let all = || (0..image.configs()).map(|number| (ConfigId(number), image.config(ConfigId(number))));
        let title = |what: &str, id: ConfigId| format!("{what}: {}", image.config_name(id));
        let smallest = all().min_by_key(|(_, config)| image.ticks(config)).map_or(ConfigId(0), |(id, _)| id);
        let largest =
            all().max_by_key(|(_, config)| (config.score, image.ticks(config))).map_or(ConfigId(0), |(id, _)| id);
        let fitting = all().filter(|(_, config)| {
            mean[0].is_none_or(|ticks| image.ticks(config) <= ticks)
                && mean[1].is_none_or(|energy_uj| energy_of(image, config) <= energy_uj)
        });
        let mean = fitting.max_by_key(|(_, config)| config.score).map_or(smallest, |(id, _)| id);
        vec![
            (title("fixed smallest", smallest), Self::Fixed(smallest)),
            (title("fixed best", largest), Self::Fixed(largest)),
            (title("fixed for the mean", mean), Self::Fixed(mean)),
            ("choose per frame".to_owned(), Self::PerFrame),
            ("choose per cut".to_owned(), Self::PerCut),
            ("oracle".to_owned(), Self::Oracle),
        ]
    }

    /// Runs all frames of a platform.
    pub(crate) fn run<I: Isa, W: Watch>(
        self,
        engine: &mut Engine<'_, I>,
        platform: &mut Virtual<'_, W>,
        settings: Settings,
    ) -> Result<(), RunError> {
        match self {
            Self::PerFrame | Self::PerCut => {
                let image = *engine.image();
                let mut memory = PolicyMemory::of(&image);
                let settings = Settings { switch_at_cuts: self == Self::PerCut, ..settings };
                let mut policy = Policy::new(&image, TargetId(0), settings, memory.lend())?;
                runtime::run(engine, &mut policy, platform)
            }
            Self::Fixed(config) => run_given(engine, platform, |_, _, _| Some(config)),
            Self::Oracle => run_given(engine, platform, |platform, image, budget| best(platform, image, budget)),
        }
    }
}

/// Microjoules of a whole run, by the cost table.
fn energy_of(image: &Image<'_>, config: &Config) -> u64 {
    image.path(config).map(|segment| u64::from(image.cost(TargetId(0), segment).energy_uj)).sum()
}

/// The best config of those that will hold the budget; of equal ones the cheapest.
fn best<W: Watch>(platform: &Virtual<'_, W>, image: &Image<'_>, budget: &Budget) -> Option<ConfigId> {
    let within = |limit: Option<Limit>, used: u64| limit.is_none_or(|limit| used <= limit.amount);
    let cost = |id: ConfigId| {
        let config = image.config(id);
        let ticks: u64 = image.path(&config).map(|segment| platform.takes(segment).0).sum();
        (ticks, energy_of(image, &config), config)
    };
    (0..image.configs())
        .map(|number| (ConfigId(number), cost(ConfigId(number))))
        .filter(|(_, (ticks, energy, config))| {
            within(budget.time, *ticks)
                && within(budget.energy, *energy)
                && within(budget.memory, config.arena_bytes.into())
        })
        .max_by_key(|(id, (ticks, _, config))| (config.score, u64::MAX - ticks, u16::MAX - id.0))
        .map(|(id, _)| id)
}

/// Runs on each frame the config that `pick` gives, to its end.
fn run_given<I: Isa, W: Watch>(
    engine: &mut Engine<'_, I>,
    platform: &mut Virtual<'_, W>,
    pick: impl Fn(&Virtual<'_, W>, &Image<'_>, &Budget) -> Option<ConfigId>,
) -> Result<(), RunError> {
    let image = *engine.image();
    while let Some(budget) = platform.next_frame(engine.input_mut()) {
        let Some(config) = pick(platform, &image, &budget) else {
            platform.end(None);
            continue;
        };
        let started = platform.now();
        engine.begin(config)?;
        let mut done = false;
        while !done {
            done = engine.step()? == runtime::Progress::Done;
            platform.report(&Event::Segment { segment: engine.last_segment() });
        }
        let energy_uj = energy_of(&image, &image.config(config));
        let elapsed = platform.now().saturating_sub(started);
        platform.answer(engine.features());
        platform.report(&Event::Frame(Outcome {
            first: config,
            last: config,
            switches: 0,
            elapsed,
            energy_uj,
            budget,
            verdict: Verdict::of(&budget, elapsed, energy_uj, false),
            overruns: 0,
            clock_faults: 0,
            class: engine.class(),
        }));
    }
    Ok(())
}
