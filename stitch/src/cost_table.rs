//! Costs that were measured on a target: as text, and as part of an image.
//!
//! ```text
//! target,stm32f407 at 168 MHz,1000000      name, ticks in one second
//! segment,0,120,122,131,140,190            number; least, median, 99 %, most ticks; most with cold caches
//! config,0,900,905,950,990,1200            the same of a whole run; for people
//! switch,3,5,2,1                           from config, to config, after so many segments; ticks; for people
//! ```
//!
//! `stitchnet bench --csv` writes it, and so does the firmware's `latency`. Lines that begin otherwise are skipped, so a log may
//! be given as it is.

use std::fmt::Write as _;

use plan::{Cost, Image, ImageWriter, Target, TargetId};

use crate::error::Error;

/// Ticks of one segment, or of one config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Least.
    pub least: u32,
    /// Half of all are at most this.
    pub median: u32,
    /// 99 of 100 are at most this.
    pub p99: u32,
    /// Most.
    pub most: u32,
    /// Most when caches were cold.
    pub cold: u32,
}

/// A measured cost table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostTable {
    /// Name of the target.
    pub target: String,
    /// Ticks in one second.
    pub ticks_per_second: u32,
    /// Of each segment.
    pub segments: Vec<Times>,
}

/// What is not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// Bound of a segment over the most that was measured, in 1/100.
    pub bound_percent: u32,
    /// Power while it computes, milliwatts. 0: energy is not known, and costs nothing.
    pub milliwatts: u32,
}

impl CostTable {
    /// Reads a table of an image with so many segments.
    ///
    /// # Errors
    /// The first line that is wrong, or what is missing.
    pub fn parse(text: &str, segments: usize) -> Result<Self, Error> {
        let mut target: Option<(String, u32)> = None;
        let mut found: Vec<Option<Times>> = vec![None; segments];
        for (line, text) in (1..).zip(text.lines()) {
            // A log has its level before the message.
            let start = ["target,", "segment,"].iter().find_map(|kind| text.find(kind));
            let fields: Vec<&str> = text.get(start.unwrap_or(text.len())..).unwrap_or_default().split(',').collect();
            let wrong = |what: String| Error::Stage { stage: "cost table", what: format!("line {line}: {what}") };
            match fields.as_slice() {
                ["target", name @ .., ticks] => {
                    let ticks = ticks.trim().parse().ok().filter(|&ticks| ticks > 0);
                    let ticks =
                        ticks.ok_or_else(|| wrong(format!("`{text}` ends without ticks per second, 1 or more")))?;
                    target = Some((name.join(","), ticks));
                }
                ["segment", numbers @ ..] => {
                    let read =
                        |text: &&str| text.trim().parse::<u32>().map_err(|error| wrong(format!("`{text}`: {error}")));
                    let numbers = numbers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                    let &[number, least, median, p99, most, cold] = numbers.as_slice() else {
                        return Err(wrong(format!("{} numbers after `segment`, 6 are expected", numbers.len())));
                    };
                    let slot = found.get_mut(number as usize).ok_or_else(|| {
                        wrong(format!(
                            "segment {number}, the image has {segments}, counted from 0: is it of another image?"
                        ))
                    })?;
                    if slot.replace(Times { least, median, p99, most, cold }).is_some() {
                        return Err(wrong(format!("segment {number} is there twice")));
                    }
                }
                _ => {}
            }
        }
        let missing = |what: String| Error::Stage { stage: "cost table", what };
        let (target, ticks_per_second) =
            target.ok_or_else(|| missing("there is no line `target,NAME,TICKS_PER_SECOND`".into()))?;
        if let Some(number) = found.iter().position(Option::is_none) {
            return Err(missing(format!("there is no line `segment,{number},…`; the image has {segments} segments")));
        }
        Ok(Self { target, ticks_per_second, segments: found.into_iter().flatten().collect() })
    }

    /// The table as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("target,{},{}\n", self.target, self.ticks_per_second);
        for (number, times) in self.segments.iter().enumerate() {
            let Times { least, median, p99, most, cold } = times;
            let _ = writeln!(text, "segment,{number},{least},{median},{p99},{most},{cold}");
        }
        text
    }

    /// The image with these costs: of the target of this name, or of a new one behind the others.
    #[must_use]
    pub fn put_into(&self, image: &Image<'_>, margins: Margins) -> Vec<u8> {
        let mut writer = ImageWriter::of(image);
        let costs: Vec<Cost> = self.segments.iter().map(|times| self.cost(times, margins)).collect();
        let named = |id: &TargetId| image.text(image.target(*id).name) == self.target;
        // A change of path costs what cold caches cost a segment, mostly.
        let mut cold: Vec<u32> = self.segments.iter().map(|times| times.cold.saturating_sub(times.median)).collect();
        cold.sort_unstable();
        let switch_ticks = cold.get(cold.len() / 2).copied().unwrap_or(0);
        let ticks_per_second = self.ticks_per_second;
        if let Some(id) = (0..image.targets()).map(TargetId).find(named) {
            let name = image.target(id).name;
            writer.targets[id.index()] = Target { name, ticks_per_second, switch_ticks };
            let first = id.index() * costs.len();
            writer.costs[first..first + costs.len()].copy_from_slice(&costs);
        } else {
            let name = writer.put(self.target.as_bytes());
            writer.targets.push(Target { name, ticks_per_second, switch_ticks });
            writer.costs.extend(costs);
        }
        writer.finish()
    }

    fn cost(&self, times: &Times, margins: Margins) -> Cost {
        let whole = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        let bound = u64::from(times.most.max(times.cold)) * u64::from(margins.bound_percent.max(100));
        let bound_ticks = whole(bound.div_ceil(100)).max(times.median);
        // ticks / (ticks/s) · mW = mJ; · 1000 = µJ
        let energy = |ticks: u32| {
            let product = u64::from(ticks) * u64::from(margins.milliwatts) * 1000;
            whole(product.div_ceil(self.ticks_per_second.max(1).into()))
        };
        Cost { ticks: times.median, bound_ticks, energy_uj: energy(times.median), bound_energy_uj: energy(bound_ticks) }
    }
}

#[cfg(test)]
mod tests {
    use super::{CostTable, Margins, Times};
    use plan::{Image, SegmentId, TargetId, sample};

    fn table(target: &str) -> CostTable {
        let times = |n: u32| Times { least: n, median: n + 1, p99: n + 2, most: n + 3, cold: n + 9 };
        CostTable { target: target.into(), ticks_per_second: 1000, segments: (0..6).map(times).collect() }
    }

    #[test]
    fn what_is_written_is_read_again_out_of_a_log() {
        let text = table("a board, rev 2").text().replace("segment,", "INFO  segment,");
        let log = format!("booted\n{text}config,0,1,2,3,4,5\npassed\n");
        assert_eq!(CostTable::parse(&log, 6).unwrap(), table("a board, rev 2"));
    }

    #[test]
    fn refuses_with_the_line_or_what_is_missing() {
        let good = table("x").text();
        let cases = [
            (good.replace("target,x,1000\n", ""), "there is no line `target"),
            (good.replace("target,x,1000", "target,x,0"), "line 1: `target,x,0` ends without ticks per second"),
            (good.replace("segment,3,3,", "segment,3,-3,"), "line 5: `-3`: invalid digit"),
            (good.replace("segment,3,3,4,5,6,12", "segment,3,3"), "line 5: 2 numbers after `segment`, 6 are expected"),
            (good.replace("segment,5,", "segment,6,"), "line 7: segment 6, the image has 6"),
            (good.replace("segment,5,", "segment,4,"), "line 7: segment 4 is there twice"),
            (good.replace("segment,5,5,6,7,8,14\n", ""), "there is no line `segment,5"),
        ];
        for (text, expected) in cases {
            let error = CostTable::parse(&text, 6).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected: {expected}");
        }
    }

    #[test]
    fn an_image_takes_the_costs_of_a_new_target_and_of_its_own() {
        let bytes = sample::writer().finish();
        let image = Image::parse(&bytes).unwrap();
        let margins = Margins { bound_percent: 150, milliwatts: 2000 };
        for (name, target, targets) in [("new", TargetId(1), 2), ("none", TargetId(0), 1)] {
            let written = table(name).put_into(&image, margins);
            let with = Image::parse(&written).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((with.targets(), with.text(with.target(target).name)), (targets, name));
            let cost = with.cost(target, SegmentId(2));
            // (2 + 9) · 1.5 = 16.5; 3 ticks of a millisecond at 2 W are 6 mJ.
            assert_eq!((cost.ticks, cost.bound_ticks, cost.energy_uj, cost.bound_energy_uj), (3, 17, 6000, 34_000));
            assert_eq!(with.target(target).switch_ticks, 8);
            // Measured again: the target is there already.
            assert_eq!(table(name).put_into(&with, margins), written);
        }
    }
}
