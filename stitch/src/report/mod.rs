//! What an image offers, for people: a table in the terminal, and a page with pictures.

mod curves;
mod html;
mod plot;
mod table;

use plan::{ConfigId, Image};

use crate::frontier::beats;

pub use curves::curves;
pub use html::{beside, html};
pub use table::{markdown, table};

/// One config.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Number in the image.
    pub number: usize,
    /// Name.
    pub name: String,
    /// Whether it is a trained network of the family, without stitches.
    pub anchor: bool,
    /// Whether no other config is both cheaper and better.
    pub frontier: bool,
    /// Right answers with the device's integers, per cent.
    pub score: f64,
    /// The same of the float path.
    pub float_score: f64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Arena that it needs.
    pub arena_bytes: u32,
    /// Least arena that any placement could need.
    pub live_bytes: u32,
    /// Predicted time.
    pub milliseconds: f64,
    /// Flash of its weights.
    pub flash_bytes: u64,
    /// Flash that no other config uses.
    pub own_bytes: u64,
}

/// An image in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Family.
    pub name: String,
    /// Target whose costs the image carries.
    pub target: String,
    /// Images behind each score.
    pub score_images: u32,
    /// Ticks in a millisecond.
    pub ticks_per_millisecond: f64,
    /// Configs, cheapest first.
    pub rows: Vec<Row>,
    /// Bytes of the image.
    pub image_bytes: usize,
    /// Of these: weights, biases and requantisation.
    pub payload_bytes: u64,
    /// Arena that runs every config.
    pub arena_bytes: u32,
}

/// Bytes that are alive at once at most: no placement of a config's tensors needs less.
fn live_bytes(image: &Image<'_>, config: &plan::Config) -> u32 {
    let of = |(step, id): (usize, plan::SegmentId)| {
        let kept = if step < usize::from(image.meta().lead) { 0 } else { image.kept_bytes() };
        image.segment(id).live_bytes + kept
    };
    image.path(config).enumerate().map(of).max().unwrap_or(0)
}

impl Facts {
    /// Collects the facts.
    #[must_use]
    pub fn of(image: &Image<'_>) -> Self {
        let (meta, target) = (image.meta(), image.target(plan::TargetId(0)));
        let ticks_per_millisecond = f64::from(target.ticks_per_second.max(1)) / 1000.0;
        let configs: Vec<_> = (0..image.configs()).map(|number| image.config(ConfigId(number))).collect();
        let own = own_bytes(image);
        let facts: Vec<_> =
            configs.iter().map(|config| (image.ticks(config), config.arena_bytes, config.score)).collect();
        let beaten = |number: usize| facts.iter().any(|&other| beats(other, facts[number]));
        let mut rows: Vec<Row> = configs
            .iter()
            .enumerate()
            .map(|(number, config)| Row {
                number,
                name: image.config_name(ConfigId(number as u16)).to_string(),
                anchor: number < usize::from(meta.anchors),
                frontier: !beaten(number),
                score: f64::from(config.score) / 100.0,
                float_score: f64::from(config.float_score) / 100.0,
                macs: image.macs(config),
                arena_bytes: config.arena_bytes,
                live_bytes: live_bytes(image, config),
                milliseconds: facts[number].0 as f64 / ticks_per_millisecond,
                flash_bytes: image.flash_bytes(config),
                own_bytes: own[number],
            })
            .collect();
        rows.sort_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds).then(a.number.cmp(&b.number)));
        let text = |range, other: &str| match image.text(range) {
            "" => other.to_owned(),
            name => name.to_owned(),
        };
        Self {
            name: text(meta.name, "unnamed"),
            target: text(target.name, "unnamed target"),
            score_images: meta.score_images,
            ticks_per_millisecond,
            rows,
            image_bytes: image.bytes().len(),
            payload_bytes: payload(image),
            arena_bytes: meta.arena_bytes,
        }
    }

    /// The trained networks.
    pub fn anchors(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.anchor)
    }

    /// Bytes that are not weights, biases or requantisation, in per cent of those.
    #[must_use]
    pub fn overhead_percent(&self) -> f64 {
        let overhead = (self.image_bytes as u64).saturating_sub(self.payload_bytes);
        100.0 * overhead as f64 / self.payload_bytes.max(1) as f64
    }

    /// The config that loses most by integers, and what it loses: percentage points of the float score, negative if
    /// every config gains.
    #[must_use]
    pub fn largest_loss(&self) -> Option<(&Row, f64)> {
        // Scores are whole hundredths of a per cent; so is what lies between them.
        let loss = |row: &Row| ((row.float_score - row.score) * 100.0).round() / 100.0;
        self.rows.iter().map(|row| (row, loss(row))).max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// What integers cost, in a sentence.
    #[must_use]
    pub fn integers(&self) -> String {
        let images = grouped(self.score_images.into());
        match self.largest_loss() {
            Some((row, loss)) if loss > 0.0 => {
                format!("Integers: at most {loss:.2} points below float on {images} images, in {}.", row.name)
            }
            _ => format!("Integers: no config is below float on {images} images."),
        }
    }

    /// Largest arena above the bound that no placement can be below, per cent.
    #[must_use]
    pub fn arena_percent(&self) -> f64 {
        let above = |row: &Row| 100.0 * (f64::from(row.arena_bytes) / f64::from(row.live_bytes.max(1)) - 1.0);
        self.rows.iter().map(above).fold(0.0, f64::max)
    }

    /// What the image costs and saves, a sentence each: what, the alternative, the one image.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let anchors = self.anchors().count();
        let configs = self.rows.len();
        let sum =
            |part: &dyn Fn(&Row) -> u64, all: bool| self.rows.iter().filter(|row| all || row.anchor).map(part).sum();
        let flash = |row: &Row| row.flash_bytes;
        let arena = |row: &Row| u64::from(row.arena_bytes);
        let image = self.image_bytes as u64;
        vec![
            format!(
                "Flash: {configs} separate models would need {}, the {anchors} anchors alone {}; this image is {}.",
                kib(sum(&flash, true)),
                kib(sum(&flash, false)),
                kib(image)
            ),
            format!(
                "RAM: {configs} separate models ready side by side would need arenas of {}, the {anchors} anchors alone {}; \
                 this image runs all {configs} configs in one of {}.",
                kib(sum(&arena, true)),
                kib(sum(&arena, false)),
                kib(u64::from(self.arena_bytes))
            ),
            format!(
                "Arena: at most {:.1} % above the bytes that are alive at once, which no placement can be below.",
                self.arena_percent()
            ),
            self.integers(),
            format!(
                "Overhead: {} beyond weights, biases and requantisation, {:.1} % of them.",
                kib(image.saturating_sub(self.payload_bytes)),
                self.overhead_percent()
            ),
        ]
    }
}

/// Weights, biases and requantisation: of the segments, and the biases of the overlays.
fn payload(image: &Image<'_>) -> u64 {
    let segments: u64 =
        (0..image.segments()).map(|index| u64::from(image.segment(plan::SegmentId(index as u16)).flash_bytes)).sum();
    let configs = (0..image.configs()).map(|number| image.config(ConfigId(number)));
    segments + configs.map(|config| image.overlay_bytes(&config)).sum::<u64>()
}

/// Flash that only one config uses: its overlays and the segments that no other path runs.
fn own_bytes(image: &Image<'_>) -> Vec<u64> {
    let configs = || (0..image.configs()).map(|number| image.config(ConfigId(number)));
    let mut users = vec![0; image.segments()];
    configs().for_each(|config| image.path(&config).for_each(|id| users[id.index()] += 1));
    let own = |config: plan::Config| {
        let alone = image.path(&config).filter(|id| users[id.index()] == 1);
        alone.map(|id| u64::from(image.segment(id).flash_bytes)).sum::<u64>() + image.overlay_bytes(&config)
    };
    configs().map(own).collect()
}

/// Bytes in KiB or MiB, one decimal.
#[must_use]
pub fn kib(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1000.0 { format!("{kib:.1} KiB") } else { format!("{:.2} MiB", kib / 1024.0) }
}

/// A whole number with a comma every three digits.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Multiply-accumulates in millions.
fn millions(macs: u64) -> String {
    format!("{:.2} M", macs as f64 / 1e6)
}

/// Milliseconds, three digits that matter.
#[must_use]
pub fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0} ms"),
        value if value >= 10.0 => format!("{value:.1} ms"),
        value if value >= 0.1 => format!("{value:.2} ms"),
        value => format!("{:.1} µs", value * 1000.0),
    }
}

/// Column heads and cells of the table, as the terminal and the page show them.
pub(crate) const HEADS: [&str; 10] =
    ["config", "", "score", "float", "MACs", "arena", "least", "predicted", "flash", "own"];

/// Cells of a row, in the order of [`HEADS`].
pub(crate) fn cells(row: &Row) -> [String; 10] {
    let kind = match (row.anchor, row.frontier) {
        (true, true) => "anchor, frontier",
        (true, false) => "anchor",
        (false, true) => "frontier",
        (false, false) => "",
    };
    [
        row.name.clone(),
        kind.to_owned(),
        format!("{:.2} %", row.score),
        format!("{:.2} %", row.float_score),
        millions(row.macs),
        format!("{} B", grouped(row.arena_bytes.into())),
        format!("{} B", grouped(row.live_bytes.into())),
        milliseconds(row.milliseconds),
        kib(row.flash_bytes),
        kib(row.own_bytes),
    ]
}

#[cfg(test)]
mod tests;
