//! Scores of the same configs in several images over their MACs: one colour per image.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, BLUE, Drawing, Mark, ORANGE, Panel, SOFT, Scale, VERMILLION, WIDTH, legend, svg, write};
use crate::report::Facts;
use crate::report::curves::{Curve, configs, means};

const HEIGHT: u32 = 540;
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);

/// The picture.
pub fn curves(images: &[(&str, &Facts)]) -> String {
    svg(HEIGHT, |area| draw(area, images))
}

/// The mark of an image's stitched configs, and its colour.
fn mark(image: usize) -> (Mark, RGBColor) {
    let color = [SOFT, ORANGE, BLUE, VERMILLION, GREEN][image % 5];
    (if image.is_multiple_of(2) { Mark::Cross(color) } else { Mark::Disc(color) }, color)
}

fn draw(area: &Area<'_>, images: &[(&str, &Facts)]) -> Drawing {
    let configs = configs(images);
    let panel = panel(&configs);
    write(area, "score", 13, SOFT, (panel.x.from - 10, panel.y.to - 14), (HPos::Right, VPos::Center))?;
    panel.rows(area, 7, " %", true)?;
    panel.columns(area, 8, " M", "multiply-accumulates of one frame")?;
    let point =
        |config: &Curve<'_>, score: f64| (panel.x.at(config.macs as f64 / 1e6), panel.y.at(score.max(panel.y.low)));
    for image in 0..images.len() {
        let (mark, color) = mark(image);
        let points = |anchor: bool| {
            let of = configs.iter().filter(move |config| config.anchor == anchor);
            of.filter_map(|config| Some(point(config, config.scores[image]?))).collect::<Vec<_>>()
        };
        area.draw(&PathElement::new(points(true), color.mix(0.5).stroke_width(1)))?;
        points(true).into_iter().try_for_each(|at| Mark::Diamond(color).draw(area, at, 5))?;
        points(false).into_iter().try_for_each(|at| mark.draw(area, at, 4))?;
    }
    let means = means(&configs);
    let texts: Vec<String> = images
        .iter()
        .enumerate()
        .map(|(image, (name, _))| match &means {
            Some((_, means)) => format!("{name}: stitched {:.1} % on average", means[image]),
            None => (*name).into(),
        })
        .collect();
    // Two to a row.
    for (row, texts) in texts.chunks(2).enumerate() {
        let entries: Vec<(Mark, &str)> =
            texts.iter().enumerate().map(|(column, text)| (mark(2 * row + column).0, &text[..])).collect();
        legend(area, (panel.x.from, 14 + 20 * row as i32), &entries)?;
    }
    Ok(())
}

/// The axes. Scores of less than half the best, as of stitches that learned nothing, would leave the others no room.
fn panel(configs: &[Curve<'_>]) -> Panel {
    let scores = || configs.iter().flat_map(|config| config.scores.iter().flatten().copied());
    let best = scores().fold(0.0, f64::max);
    let worst = scores().filter(|score| *score >= best / 2.0).fold(best, f64::min);
    let dearest = configs.iter().map(|config| config.macs as f64 / 1e6).fold(0.0, f64::max);
    let margin = ((best - worst) * 0.12).max(0.5);
    Panel {
        x: Scale { low: 0.0, high: dearest.max(f64::MIN_POSITIVE) * 1.06, from: 70, to: WIDTH as i32 - 24 },
        y: Scale { low: (worst - margin).max(0.0), high: best + margin, from: HEIGHT as i32 - 54, to: 80 },
    }
}
