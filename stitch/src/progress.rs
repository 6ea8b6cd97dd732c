//! Progress of a compilation: bars on a terminal, one line per stage elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stitch::pipeline::{Progress, Stage};

/// The stage that runs, and since when.
pub struct Bars {
    terminal: bool,
    now: Mutex<Option<Running>>,
}

struct Running {
    stage: Stage,
    since: Instant,
    bar: ProgressBar,
}

impl Bars {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), now: Mutex::new(None) }
    }

    /// The last stage is over.
    pub fn finish(&self) {
        self.change(None);
    }

    fn change(&self, next: Option<Running>) {
        let mut now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(done) = std::mem::replace(&mut *now, next) {
            done.bar.finish_and_clear();
            eprintln!("  {:<30} {:>6.1} s", words(done.stage), done.since.elapsed().as_secs_f64());
        }
    }

    fn bar(&self, stage: Stage, steps: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let (bar, style) = if steps == 0 {
            (ProgressBar::new_spinner(), "  {msg:<30} {spinner}")
        } else {
            (ProgressBar::new(steps), "  {msg:<30} {bar:40.blue/dim} {pos}/{len} {eta}")
        };
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(words(stage));
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

impl Progress for Bars {
    fn stage(&self, stage: Stage, steps: u64) {
        self.change(None);
        self.change(Some(Running { stage, since: Instant::now(), bar: self.bar(stage, steps) }));
    }

    fn advance(&self) {
        let now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = &*now {
            running.bar.inc(1);
        }
    }

    fn note(&self, text: &str) {
        let now = self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*now {
            Some(running) => running.bar.suspend(|| eprintln!("  {text}")),
            None => eprintln!("  {text}"),
        }
    }
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Import => "read the networks",
        Stage::Simplify => "simplify",
        Stage::Cut => "find cuts",
        Stage::Learn => "learn stitches",
        Stage::Calibrate => "calibrate ranges",
        Stage::Quantize => "quantise",
        Stage::Place => "place tensors",
        Stage::Evaluate => "score every config",
        Stage::Frontier => "choose configs",
        Stage::Emit => "lay out the image",
        Stage::Verify => "run the image, compare",
    }
}
