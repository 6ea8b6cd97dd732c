//! A budget that changes from frame to frame.

use plan::{Config, ConfigId, Image, TargetId};
use runtime::{Budget, Limit};

/// A budget and the frame from which it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// First frame, counted from 0.
    pub frame: u32,
    /// Holds until the next step.
    pub budget: Budget,
}

/// Steps in order of their frames. Before the first step there is no limit; the last one holds to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    steps: Vec<Step>,
}

/// A trace file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trace, line {line}, column {column}: found {found}, expected {expected}")]
pub struct TraceError {
    /// Line, counted from 1.
    pub line: usize,
    /// Character of the line, counted from 1.
    pub column: usize,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: &'static str,
}

const HEADER: &str = "`frame,ticks`, `frame,ticks,arena_bytes` or `frame,ticks,arena_bytes,energy_uj`";
const COLUMNS: [&str; 4] = ["frame", "ticks", "arena_bytes", "energy_uj"];

impl Trace {
    /// Reads CSV: a header `frame,ticks[,arena_bytes[,energy_uj]]`, then one step a line. Limits are hard; an empty
    /// field is no limit; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut lines = lines.by_ref().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let (line, header) = lines.next().ok_or_else(|| wrong(1, 1, "", HEADER))?;
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        if names.len() < 2 || !COLUMNS.starts_with(&names) {
            return Err(wrong(line, 1, header, HEADER));
        }
        let mut steps: Vec<Step> = vec![];
        for (line, text) in lines {
            let step = step(line, text, names.len())?;
            if steps.last().is_some_and(|before| before.frame >= step.frame) {
                return Err(wrong(line, 1, &step.frame.to_string(), "a frame after that of the line before"));
            }
            steps.push(step);
        }
        if steps.is_empty() {
            return Err(wrong(line + 1, 1, "", "at least one step, such as `0,1000000`"));
        }
        Ok(Self { steps })
    }

    /// The built-in trace: time falls along a cosine from 15 % above the bound of the costliest config, so that
    /// it may be begun, to 5 % above that of the cheapest, and recovers. A new budget every 1/60 of the replay.
    #[must_use]
    pub fn fall_and_recover(image: &Image<'_>, frames: u32) -> Self {
        const STEPS: u32 = 60;
        let all = || (0..image.configs()).map(|number| image.config(ConfigId(number)));
        let bound = |config: Config| -> u64 {
            image.path(&config).map(|segment| u64::from(image.cost(TargetId(0), segment).bound_ticks)).sum()
        };
        let low = all().map(bound).min().unwrap_or(0) as f64 * 1.05;
        let high = all().map(bound).max().unwrap_or(0) as f64 * 1.15;
        let every = (frames / STEPS).max(1);
        let steps = (0..frames).step_by(every as usize).map(|frame| {
            let turn = std::f64::consts::TAU * f64::from(frame) / f64::from(frames);
            let ticks = (low + (high - low) * (1.0 + turn.cos()) / 2.0) as u64;
            Step { frame, budget: Budget::deadline(ticks) }
        });
        Self { steps: steps.collect() }
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Budget of a frame.
    #[must_use]
    pub fn budget(&self, frame: u32) -> Budget {
        let after = self.steps.partition_point(|step| step.frame <= frame);
        after.checked_sub(1).and_then(|index| self.steps.get(index)).map_or(Budget::default(), |step| step.budget)
    }
}

fn wrong(line: usize, column: usize, found: &str, expected: &'static str) -> TraceError {
    let found = if found.is_empty() { "nothing".to_owned() } else { format!("`{found}`") };
    TraceError { line, column, found, expected }
}

fn step(line: usize, text: &str, fields: usize) -> Result<Step, TraceError> {
    let mut found = text.split(',').scan(1, |column, field| {
        let start = *column;
        *column += field.chars().count() + 1;
        Some((start, field.trim()))
    });
    let end = (text.chars().count() + 1, "");
    let (column, field) = found.next().unwrap_or(end);
    let frame = field.parse().map_err(|_| wrong(line, column, field, "a frame number below 4294967296"))?;
    let (column, field) = found.next().ok_or_else(|| wrong(line, end.0, "", "a comma and ticks"))?;
    let ticks = limit(field).ok_or_else(|| wrong(line, column, field, "whole ticks, or nothing for no limit"))?;
    let (mut arena_bytes, mut energy_uj) = (None, None);
    if fields >= 3 {
        let (column, field) = found.next().ok_or_else(|| wrong(line, end.0, "", "a comma and arena bytes"))?;
        arena_bytes = limit::<u32>(field)
            .ok_or_else(|| wrong(line, column, field, "bytes below 4294967296, or nothing for no limit"))?;
    }
    if fields >= 4 {
        let (column, field) = found.next().ok_or_else(|| wrong(line, end.0, "", "a comma and microjoules"))?;
        energy_uj =
            limit(field).ok_or_else(|| wrong(line, column, field, "whole microjoules, or nothing for no limit"))?;
    }
    if let Some((column, field)) = found.next() {
        return Err(wrong(line, column, field, "the end of the line: the header names no more columns"));
    }
    let hard = |amount: Option<u64>| amount.map(Limit::hard);
    let budget = Budget { time: hard(ticks), energy: hard(energy_uj), memory: hard(arena_bytes.map(u64::from)) };
    Ok(Step { frame, budget })
}

/// `Some(None)` is "no limit", `None` is not a number.
fn limit<T: std::str::FromStr>(field: &str) -> Option<Option<T>> {
    if field.is_empty() { Some(None) } else { field.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::{Step, Trace};
    use plan::Image;
    use runtime::{Budget, Limit};

    #[test]
    fn reads_limits_and_holds_them_until_the_next_step() {
        let text = "# battery\nframe,ticks,arena_bytes\n2,100,\n\n5, ,4096\n";
        let trace = Trace::parse(text).unwrap();
        let hard = |amount: Option<u64>| amount.map(Limit::hard);
        let budget = |ticks, memory| Budget { time: hard(ticks), energy: None, memory: hard(memory) };
        assert_eq!(trace.budget(1), budget(None, None));
        assert_eq!(trace.budget(2), budget(Some(100), None));
        assert_eq!(trace.budget(4), budget(Some(100), None));
        assert_eq!(trace.budget(5), budget(None, Some(4096)));
        assert_eq!(trace.budget(u32::MAX), budget(None, Some(4096)));
        assert_eq!(trace.steps()[0], Step { frame: 2, budget: budget(Some(100), None) });
    }

    #[test]
    fn refuses_with_line_and_column() {
        struct Case {
            text: &'static str,
            line: usize,
            column: usize,
            found: &'static str,
        }
        let cases = [
            Case { text: "", line: 1, column: 1, found: "nothing" },
            Case { text: "ticks,frame\n0,1\n", line: 1, column: 1, found: "`ticks,frame`" },
            Case { text: "frame,ticks\n", line: 2, column: 1, found: "nothing" },
            Case { text: "frame,ticks\nx,1\n", line: 2, column: 1, found: "`x`" },
            Case { text: "frame,ticks\n0,1\n# note\n12,1.5\n", line: 4, column: 4, found: "`1.5`" },
            Case { text: "frame,ticks\n0,-1\n", line: 2, column: 3, found: "`-1`" },
            Case { text: "frame,ticks\n0\n", line: 2, column: 2, found: "nothing" },
            Case { text: "frame,ticks\n0,1,2\n", line: 2, column: 5, found: "`2`" },
            Case { text: "frame,ticks\n3,1\n3,1\n", line: 3, column: 1, found: "`3`" },
            Case { text: "frame,ticks,energy_uj\n0,1,1\n", line: 1, column: 1, found: "`frame,ticks,energy_uj`" },
            Case { text: "frame,ticks,arena_bytes,energy_uj\n0,1,,x\n", line: 2, column: 6, found: "`x`" },
            Case { text: "frame,ticks,arena_bytes\n0,1\n", line: 2, column: 4, found: "nothing" },
            Case { text: "frame,ticks,arena_bytes\n0,1,4294967296\n", line: 2, column: 5, found: "`4294967296`" },
        ];
        for case in cases {
            let error = Trace::parse(case.text).unwrap_err();
            let found = (error.line, error.column, error.found.as_str());
            assert_eq!(found, (case.line, case.column, case.found), "{:?}: {error}", case.text);
        }
    }

    #[test]
    fn built_in_trace_falls_below_the_middle_and_recovers() {
        let bytes = plan::sample::writer().finish();
        let image = Image::parse(&bytes).unwrap();
        let trace = Trace::fall_and_recover(&image, 600);
        let ticks = |frame| trace.budget(frame).time.unwrap().amount;
        assert!(ticks(0) > 40, "the costliest config of the sample takes 40 ticks");
        assert!((30..40).contains(&ticks(300)), "{}: the cheapest is bounded by 30", ticks(300));
        assert!(ticks(599) > 40);
        assert_eq!(trace.steps().len(), 60);
    }
}
