//! [`Engine`]: walks the segments of a config.

use kernels::Isa;
use plan::layout::ARENA_ALIGN;
use plan::{Config, ConfigId, Cut, CutId, Image, OpId, Segment, SegmentId};

use crate::arena::{View, usable};
use crate::error::RunError;
use crate::exec::head::{self, Boxes, Detection};
use crate::exec::{self, Running};
use crate::policy;

/// Where a run stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At a cut: go on, switch, yield or stop.
    Cut(CutId),
    /// The output is ready.
    Done,
}

/// An image, an arena and the position on a path.
pub struct Engine<'a, I> {
    isa: I,
    image: Image<'a>,
    arena: &'a mut [i8],
    /// Config that is running.
    config: ConfigId,
    record: Config,
    /// Segments already run; `None` before `begin`.
    done: Option<u16>,
    /// The next segment has its input at the high end.
    mirrored: bool,
    /// Bytes of the arena between its two ends behind the lead; kept maps lie behind them.
    ends: usize,
    /// Segments at the start of a path to which the kept maps' bytes belong too.
    lead: u16,
}

fn elements(cut: &Cut) -> usize {
    cut.bytes() as usize
}

impl<'a, I: Isa> Engine<'a, I> {
    /// An engine on an image and the memory for its activations. Of `arena` the largest multiple of 16 bytes is
    /// used; configs that need more are never chosen.
    ///
    /// # Errors
    /// [`RunError::ArenaTooSmall`] with the bytes of the smallest config if not even that one fits;
    /// [`RunError::NotBuilt`] without the feature `transformers` if the image needs it, [`RunError::NoDetector`] likewise.
    pub fn new(isa: I, image: Image<'a>, arena: &'a mut [i8]) -> Result<Self, RunError> {
        if !head::DETECTOR && image.is_detector() {
            return Err(RunError::NoDetector);
        }
        if let Some(op) = (!exec::TRANSFORMERS).then(|| image.first_of_transformer()).flatten() {
            return Err(RunError::NotBuilt { op: op.0 });
        }
        let found = u32::try_from(usable(arena.len())).unwrap_or(u32::MAX - u32::MAX % ARENA_ALIGN);
        let needed = (0..image.configs()).map(|number| image.config(ConfigId(number)).arena_bytes).min().unwrap_or(0);
        if found < needed {
            return Err(RunError::ArenaTooSmall { found, needed });
        }
        let arena = arena.get_mut(..found as usize).unwrap_or_default();
        let config = ConfigId(0);
        let ends = arena.len() - if head::DETECTOR { image.kept_bytes() as usize } else { 0 };
        let lead = if head::DETECTOR { image.meta().lead } else { 0 };
        Ok(Self { isa, image, arena, config, record: image.config(config), done: None, mirrored: false, ends, lead })
    }

    /// How a segment behind `done` others lies. The first behind the lead has its input at the low end, which all share.
    fn view(&self, done: u16, mirrored: bool) -> View {
        View { len: if done < self.lead { self.arena.len() } else { self.ends }, mirrored }
    }

    /// Whether the segment behind one lies the other way round.
    fn turns(&self, segment: &Segment) -> bool {
        self.image.tensor(segment.output).offset > 0
    }

    /// The image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// Name of the kernel set that it runs, as `docs/kernels.md` calls it.
    #[must_use]
    pub fn kernels(&self) -> &'static str {
        I::NAME
    }

    /// Usable bytes of the arena.
    #[must_use]
    pub fn arena_bytes(&self) -> u32 {
        self.arena.len() as u32
    }

    /// Where the input goes: int8 `[H, W, C]`. Ends a run that was under way; a run overwrites it.
    pub fn input_mut(&mut self) -> &mut [i8] {
        self.done = None;
        let len = elements(&self.image.cut(self.image.meta().input));
        self.arena.get_mut(..len).unwrap_or_default()
    }

    /// Writes the input from pixels `[H, W, C]` of 0..=255, by the image's own tables.
    ///
    /// # Errors
    /// [`RunError::InputSize`].
    pub fn preprocess(&mut self, pixels: &[u8]) -> Result<(), RunError> {
        let image = self.image;
        let channels = image.cut(image.meta().input).shape[2];
        let input = self.input_mut();
        if pixels.len() != input.len() {
            return Err(RunError::InputSize { found: pixels.len() as u32, expected: input.len() as u32 });
        }
        for channel in 0..channels {
            let table = image.preprocess(channel);
            let (first, every) = (usize::from(channel), usize::from(channels));
            for (value, &pixel) in input.iter_mut().zip(pixels).skip(first).step_by(every) {
                *value = table.get(usize::from(pixel)).copied().unwrap_or_default() as i8;
            }
        }
        Ok(())
    }

    /// Starts a config on the input that is in the arena.
    ///
    /// # Errors
    /// [`RunError::NoSuchConfig`], [`RunError::ArenaTooSmall`].
    pub fn begin(&mut self, config: ConfigId) -> Result<(), RunError> {
        self.record = self.fitting(config)?;
        self.config = config;
        (self.done, self.mirrored) = (Some(0), false);
        Ok(())
    }

    /// Takes up a run of `config` behind its first `done` segments: `features` is what they computed, int8 `[H, W, C]`, as
    /// [`Engine::features`] gave it, and `kept` what [`Engine::kept`] gave. So many configs can go on from one start that was run
    /// once.
    ///
    /// # Errors
    /// [`RunError::NoSuchConfig`], [`RunError::ArenaTooSmall`]; [`RunError::OtherPath`] if the config has no more than
    /// `done` segments; [`RunError::InputSize`] if the features are not those of its cut.
    pub fn resume(&mut self, config: ConfigId, done: u16, features: &[i8], kept: &[i8]) -> Result<(), RunError> {
        let record = self.fitting(config)?;
        if done >= record.segments {
            return Err(RunError::OtherPath { config: config.0, done });
        }
        let segment = self.image.segment(self.image.path_segment(&record, done));
        // In the lead it is so; behind it either end will do.
        let mirrored = done % 2 == 1;
        let view = self.view(done, mirrored);
        let behind = self.arena.get_mut(self.ends..).unwrap_or_default();
        if behind.len() != kept.len() {
            return Err(RunError::InputSize { found: kept.len() as u32, expected: behind.len() as u32 });
        }
        behind.copy_from_slice(kept);
        let range = view.range(&segment, &self.image.tensor(segment.input));
        let input = self.arena.get_mut(range).unwrap_or_default();
        if input.len() != features.len() {
            return Err(RunError::InputSize { found: features.len() as u32, expected: input.len() as u32 });
        }
        input.copy_from_slice(features);
        (self.config, self.record, self.done, self.mirrored) = (config, record, Some(done), mirrored);
        Ok(())
    }

    fn fitting(&self, config: ConfigId) -> Result<Config, RunError> {
        if config.0 >= self.image.configs() {
            return Err(RunError::NoSuchConfig { config: config.0, configs: self.image.configs() });
        }
        let record = self.image.config(config);
        if record.arena_bytes > self.arena_bytes() {
            return Err(RunError::ArenaTooSmall { found: self.arena_bytes(), needed: record.arena_bytes });
        }
        Ok(record)
    }

    /// At a cut: goes on as another config that shares the segments already run. Nothing is copied.
    ///
    /// # Errors
    /// [`RunError::NotRunning`], [`RunError::OtherPath`], [`RunError::NoSuchConfig`], [`RunError::ArenaTooSmall`].
    pub fn switch(&mut self, config: ConfigId) -> Result<(), RunError> {
        let done = self.done.ok_or(RunError::NotRunning)?;
        let record = self.fitting(config)?;
        if !policy::shares(&self.image, &self.record, &record, done) {
            return Err(RunError::OtherPath { config: config.0, done });
        }
        self.config = config;
        self.record = record;
        Ok(())
    }

    /// Runs the next segment.
    ///
    /// # Errors
    /// [`RunError::NotRunning`] before `begin` and after the last segment; [`RunError::Kernel`].
    pub fn step(&mut self) -> Result<Progress, RunError> {
        self.step_watched(|_, _| ())
    }

    /// [`Engine::step`] that shows what each op wrote, as it lies in the arena, and of a stream what its last op did: for tools that look
    /// inside a segment.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn step_watched(&mut self, mut watch: impl FnMut(OpId, &[i8])) -> Result<Progress, RunError> {
        let done = self.done.filter(|&done| done < self.record.segments).ok_or(RunError::NotRunning)?;
        let segment = self.image.segment(self.image.path_segment(&self.record, done));
        let view = self.view(done, self.mirrored);
        let mut boxes = Boxes::default();
        let Self { image, record, .. } = *self;
        // The bias that the config gives an op, if it does.
        let bias = |op: OpId| {
            let mut overlays = (0..record.overlays).map(|index| image.overlay(&record, index));
            overlays.find(|overlay| overlay.op == op).map(|overlay| overlay.bias)
        };
        let running = Running { image: &image, segment: &segment, view };
        let mut next = segment.first_op;
        while next < segment.first_op + segment.ops {
            let first = OpId(next);
            let op = image.op(first);
            let (last, written) = if op.is_streamed() {
                exec::stream::run(self.isa, &running, (first, &op), bias, self.arena, &mut boxes)?
            } else {
                (first, exec::run(self.isa, &running, (first, &op), bias(first), self.arena, &mut boxes, None)?)
            };
            watch(last, self.arena.get(written).unwrap_or_default());
            next = last.0 + 1;
        }
        self.done = Some(done + 1);
        self.mirrored ^= self.turns(&segment);
        Ok(if done + 1 == self.record.segments { Progress::Done } else { Progress::Cut(segment.to) })
    }

    /// Segments already run.
    #[must_use]
    pub fn done(&self) -> u16 {
        self.done.unwrap_or(0)
    }

    /// Config that is running.
    #[must_use]
    pub fn config(&self) -> ConfigId {
        self.config
    }

    /// The segment that was run last.
    #[must_use]
    pub fn last_segment(&self) -> SegmentId {
        self.image.path_segment(&self.record, self.done().saturating_sub(1))
    }

    /// Ends a run at the cut where it is. The next one begins, or resumes, as if it had never been.
    pub fn cancel(&mut self) {
        self.done = None;
    }

    /// Gives the arena back, for another engine on this image or another. A run that is to go on later keeps a copy
    /// of [`Engine::features`] and takes it up with [`Engine::resume`].
    #[must_use]
    pub fn into_arena(self) -> &'a mut [i8] {
        self.arena
    }

    /// The tensor at the cut that was reached last: int8 `[H, W, C]`; the input before the first step.
    #[must_use]
    pub fn features(&self) -> &[i8] {
        let Some(step) = self.done().checked_sub(1) else {
            let len = elements(&self.image.cut(self.image.meta().input));
            return self.arena.get(..len).unwrap_or_default();
        };
        let segment: Segment = self.image.segment(self.image.path_segment(&self.record, step));
        let view = self.view(step, self.mirrored ^ self.turns(&segment));
        let range = view.range(&segment, &self.image.tensor(segment.output));
        self.arena.get(range).unwrap_or_default()
    }

    /// What a detector found, best first: corners in 1/16 pixel of the input, logits Q12. Nothing before a run is done, or if the
    /// image is no detector.
    pub fn detections(&self) -> impl Iterator<Item = Detection> {
        let done = head::DETECTOR && self.image.is_detector() && self.done == Some(self.record.segments);
        head::detections(if done { self.features() } else { &[] })
    }

    /// Maps that a head will read, as far as the run has come: bytes, for [`Engine::resume`]. Empty if the image has none.
    #[must_use]
    pub fn kept(&self) -> &[i8] {
        self.arena.get(self.ends..).unwrap_or_default()
    }

    /// Class with the highest score of the output; of equal ones the first; of a detector that of the best detection. 0 before a run
    /// is done.
    #[must_use]
    pub fn class(&self) -> u16 {
        if head::DETECTOR && self.image.is_detector() {
            return self.detections().next().map_or(0, |best| best.class);
        }
        let classes = usize::from(self.image.meta().classes);
        let mut best = (0, i8::MIN);
        // In this order: a count of 16 bits that goes first would step once behind the last of 65,535 classes.
        for (&score, class) in self.features().iter().take(classes).zip(0u16..) {
            if score > best.1 {
                best = (class, score);
            }
        }
        best.0
    }

    /// Runs a config on the input that is in the arena and returns the output, int8.
    ///
    /// # Errors
    /// What [`Engine::begin`] and [`Engine::step`] return.
    pub fn run_config(&mut self, config: ConfigId) -> Result<&[i8], RunError> {
        self.begin(config)?;
        while let Progress::Cut(_) = self.step()? {}
        Ok(self.features())
    }
}
