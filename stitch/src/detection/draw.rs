//! Detections drawn on a picture.

use font8x8::{BASIC_FONTS, UnicodeFonts};

use crate::detection::picture::Picture;

/// The longer side that a drawing has at least, so that labels can be read.
const LEAST_SIDE: usize = 640;
/// Pixels of a line.
const LINE: usize = 2;
/// Pixels of a letter, each way.
const LETTER: usize = 8;
/// Pixels of a label above and below its letters.
const MARGIN: usize = 2;
/// Colours of classes, again from the first one on where there are more.
const COLOURS: [[u8; 3]; 8] = [
    [228, 26, 28],
    [55, 126, 184],
    [77, 175, 74],
    [152, 78, 163],
    [255, 127, 0],
    [166, 86, 40],
    [247, 129, 191],
    [0, 150, 150],
];

/// A box and what is written above it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Left, top, right, bottom in units of the picture; what lies outside is not drawn.
    pub corners: [f64; 4],
    /// Decides the colour.
    pub class: u16,
    /// Label; letters beyond ASCII become `?`.
    pub label: String,
}

/// The picture, enlarged by a whole number if it is small, with all marks; the first ones lie on top.
#[must_use]
pub fn draw(picture: &Picture, marks: &[Mark]) -> Picture {
    let times = LEAST_SIDE.div_ceil(picture.height.max(picture.width).max(1)).max(1);
    let mut canvas = picture.stretched(picture.height * times, picture.width * times);
    for mark in marks.iter().rev() {
        let colour = COLOURS[usize::from(mark.class) % COLOURS.len()];
        let place = |corner: f64, side: usize| (corner.clamp(0.0, 1.0) * side as f64) as usize;
        let [left, right] = [mark.corners[0], mark.corners[2]].map(|corner| place(corner, canvas.width));
        let [top, bottom] = [mark.corners[1], mark.corners[3]].map(|corner| place(corner, canvas.height));
        for (rows, columns) in [
            (top..top + LINE, left..right),
            (bottom.saturating_sub(LINE)..bottom, left..right),
            (top..bottom, left..left + LINE),
            (top..bottom, right.saturating_sub(LINE)..right),
        ] {
            rows.for_each(|row| columns.clone().for_each(|column| set(&mut canvas, row, column, colour)));
        }
        label(&mut canvas, [top, left], &mark.label, colour);
    }
    canvas
}

/// Writes a label on a strip above a corner, or below it at the upper border.
fn label(canvas: &mut Picture, [top, left]: [usize; 2], text: &str, colour: [u8; 3]) {
    let height = LETTER + 2 * MARGIN;
    let first = top.checked_sub(height).unwrap_or(top);
    let width = (text.chars().count() * LETTER + 2 * MARGIN).min(canvas.width);
    let left = left.min(canvas.width - width);
    for row in first..first + height {
        (left..left + width).for_each(|column| set(canvas, row, column, colour));
    }
    for (number, letter) in text.chars().enumerate() {
        let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
        for (row, bits) in glyph.into_iter().enumerate() {
            for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
                set(canvas, first + MARGIN + row, left + MARGIN + number * LETTER + column, [255; 3]);
            }
        }
    }
}

/// Colours a pixel, if it is one of the picture's.
fn set(canvas: &mut Picture, row: usize, column: usize, colour: [u8; 3]) {
    if row < canvas.height && column < canvas.width {
        let start = (row * canvas.width + column) * 3;
        canvas.pixels[start..start + 3].copy_from_slice(&colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(picture: &Picture, row: usize, column: usize) -> [u8; 3] {
        let start = (row * picture.width + column) * 3;
        [0, 1, 2].map(|channel| picture.pixels[start + channel])
    }

    #[test]
    fn a_box_has_its_place_and_a_label_above_it() {
        let grey = Picture { height: 80, width: 160, pixels: vec![100; 80 * 160 * 3] };
        let mark = Mark { corners: [0.25, 0.5, 0.5, 1.0], class: 1, label: "1".into() };
        let drawn = draw(&grey, &[mark]);
        assert_eq!((drawn.height, drawn.width), (320, 640));
        let colour = COLOURS[1];
        for (row, column) in [(160, 160), (161, 319), (319, 200), (200, 160), (200, 319)] {
            assert_eq!(pixel(&drawn, row, column), colour, "{row} {column}");
        }
        for (row, column) in [(200, 200), (200, 159), (200, 320), (147, 165)] {
            assert_eq!(pixel(&drawn, row, column), [100; 3], "{row} {column}");
        }
        // The foot of the digit is the lowest row of the font that has ink.
        assert_eq!(pixel(&drawn, 148, 160), colour);
        let white = (148..160).flat_map(|row| (160..172).map(move |column| (row, column)));
        assert!(white.filter(|&(row, column)| pixel(&drawn, row, column) == [255; 3]).count() > 10);
    }

    #[test]
    fn marks_may_lie_anywhere() {
        let black = Picture { height: 3, width: 700, pixels: vec![0; 3 * 700 * 3] };
        let marks = [[-1.0, -1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0], [0.9, 0.9, 0.1, 0.1], [f64::NAN; 4]];
        let marks = marks.map(|corners| Mark { corners, class: u16::MAX, label: "é".repeat(200) });
        assert_eq!(draw(&black, &marks).pixels.len(), 3 * 700 * 3);
    }
}
