//! The pictures, as SVG.
//!
//! Colours are Okabe and Ito's, which stay apart for colour-blind eyes; shapes say the same as colours do.

mod curves;
mod frontier;
mod label;
mod timeline;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(super) use curves::curves;
pub(super) use frontier::{Price, frontier};
pub(super) use timeline::timeline;

const INK: RGBColor = RGBColor(0x1b, 0x24, 0x30);
const SOFT: RGBColor = RGBColor(0x5b, 0x66, 0x75);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const FAINT: RGBColor = RGBColor(0xb3, 0xbb, 0xc6);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const VERMILLION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const WIDTH: u32 = 1000;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
/// A picture that could not be drawn. It never happens: an SVG backend on a string has nothing to fail.
type Drawing = Result<(), Box<dyn std::error::Error>>;

/// Draws on a fresh canvas of `height` rows.
fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawing) -> String {
    let mut text = String::new();
    let done = draw(&SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area());
    if let Err(error) = done {
        return format!("<p>This picture could not be drawn: {error}</p>");
    }
    let size = format!("width=\"{WIDTH}\" height=\"{height}\" ");
    text.replacen(&size, "role=\"img\" ", 1)
}

/// Text of `size` pixels, written from `at` in direction `pos`.
fn write(area: &Area<'_>, text: &str, size: u32, color: RGBColor, at: (i32, i32), pos: (HPos, VPos)) -> Drawing {
    // plotters writes a font size 1.24 times smaller than it was asked for.
    let style = ("sans-serif", f64::from(size) * 1.24).into_font().color(&color).pos(Pos::new(pos.0, pos.1));
    area.draw_text(text, &style, at)?;
    Ok(())
}

/// Round steps for an axis: at most `most` of them between `low` and `high`, of 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let rough = ((high - low) / most.max(1) as f64).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A number with the decimals that its axis needs.
fn plain(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// A straight scale from numbers to pixels.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: i32,
    to: i32,
}

impl Scale {
    fn at(&self, value: f64) -> i32 {
        let part = (value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE);
        self.from + (part * f64::from(self.to - self.from)).round() as i32
    }
}

/// A panel with its axes.
struct Panel {
    x: Scale,
    y: Scale,
}

impl Panel {
    /// Numbers to the left, with or without lines.
    fn rows(&self, area: &Area<'_>, most: usize, unit: &str, lines: bool) -> Drawing {
        let values = ticks(self.y.low, self.y.high, most);
        let step = values.get(1).zip(values.first()).map_or(1.0, |(b, a)| b - a);
        for value in values {
            let y = self.y.at(value);
            if lines {
                area.draw(&PathElement::new(vec![(self.x.from, y), (self.x.to, y)], GRID))?;
            }
            let text = format!("{}{unit}", plain(value, step));
            write(area, &text, 13, SOFT, (self.x.from - 10, y), (HPos::Right, VPos::Center))?;
        }
        Ok(())
    }

    /// The line at the bottom, numbers below it, and what they count.
    fn columns(&self, area: &Area<'_>, most: usize, unit: &str, what: &str) -> Drawing {
        let bottom = self.y.from;
        area.draw(&PathElement::new(vec![(self.x.from, bottom), (self.x.to, bottom)], FAINT))?;
        let values = ticks(self.x.low, self.x.high, most);
        let step = values.get(1).zip(values.first()).map_or(1.0, |(b, a)| b - a);
        for value in values {
            let x = self.x.at(value);
            area.draw(&PathElement::new(vec![(x, bottom), (x, bottom + 5)], FAINT))?;
            let text = format!("{}{unit}", plain(value, step));
            write(area, &text, 13, SOFT, (x, bottom + 9), (HPos::Center, VPos::Top))?;
        }
        write(area, what, 13, SOFT, (self.x.to, bottom + 30), (HPos::Right, VPos::Top))
    }

    /// Horizontal, then vertical.
    fn steps(&self, points: &[(f64, f64)]) -> Vec<(i32, i32)> {
        let mut path: Vec<(i32, i32)> = vec![];
        for &(x, y) in points {
            let point = (self.x.at(x), self.y.at(y));
            if let Some(&(_, before)) = path.last() {
                path.push((point.0, before));
            }
            path.push(point);
        }
        path
    }
}

#[derive(Clone, Copy)]
enum Mark {
    Disc(RGBColor),
    Diamond(RGBColor),
    Ring(RGBColor),
    Line(RGBColor),
    Cross(RGBColor),
}

impl Mark {
    fn draw(self, area: &Area<'_>, (x, y): (i32, i32), size: i32) -> Drawing {
        match self {
            Self::Disc(color) => area.draw(&Circle::new((x, y), size, color.filled()))?,
            Self::Ring(color) => {
                area.draw(&Circle::new((x, y), size, WHITE.filled()))?;
                area.draw(&Circle::new((x, y), size, color.stroke_width(2)))?;
            }
            Self::Diamond(color) => {
                let size = size + 2;
                let corners = vec![(x - size, y), (x, y - size), (x + size, y), (x, y + size)];
                area.draw(&Polygon::new(corners, color.filled()))?;
            }
            Self::Line(color) => {
                area.draw(&PathElement::new(vec![(x - 10, y), (x + 10, y)], color.stroke_width(3)))?;
            }
            Self::Cross(color) => {
                for ends in [[(x - size, y - size), (x + size, y + size)], [(x - size, y + size), (x + size, y - size)]]
                {
                    area.draw(&PathElement::new(ends.to_vec(), color.stroke_width(2)))?;
                }
            }
        }
        Ok(())
    }
}

/// Marks and what they mean, in a row from `at` to the right.
fn legend(area: &Area<'_>, at: (i32, i32), entries: &[(Mark, &str)]) -> Drawing {
    let mut x = at.0;
    for &(mark, text) in entries {
        mark.draw(area, (x + 10, at.1), 5)?;
        write(area, text, 14, INK, (x + 28, at.1), (HPos::Left, VPos::Center))?;
        x += 28 + label::width(text, 14) + 22;
    }
    Ok(())
}
