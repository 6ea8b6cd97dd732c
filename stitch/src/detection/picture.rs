//! Pictures: JPEG and PNG in, stretched to a network's input, PNG out.

use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::error::Error;

/// Rows or columns of a picture at most: a header may promise more than there is memory.
const LARGEST_SIDE: usize = 1 << 14;

/// A picture, red, green, blue, 8 bits each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Reads a JPEG or PNG file; what it is follows from its first bytes.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`] with what was found and what is expected.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
        Self::decode(&bytes).map_err(|what| Error::Content { path: path.into(), what })
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let picture = match bytes {
            [0xff, 0xd8, ..] => jpeg(bytes),
            [0x89, b'P', b'N', b'G', ..] => png(bytes),
            _ => Err("neither a JPEG nor a PNG file".into()),
        }?;
        let Self { height, width, ref pixels } = picture;
        if height == 0 || width == 0 || pixels.len() != height * width * 3 {
            return Err(format!("{} bytes for {width}x{height} pixels of three channels", pixels.len()));
        }
        Ok(picture)
    }

    /// Stretched to other sides with a triangle as wide as a pixel of the coarser of both grids: what PIL calls bilinear,
    /// and what networks were trained on.
    #[must_use]
    pub fn stretched(&self, height: usize, width: usize) -> Self {
        let pixels: Vec<f32> = self.pixels.iter().map(|&value| f32::from(value)).collect();
        // [H, W, 3]: columns of rows, then rows of whole rows.
        let across = resampled(&pixels, self.height, self.width, width, 3);
        let down = resampled(&across, 1, self.height, height, width * 3);
        // Weights are positive and sum to 1, so the values stay within 8 bits.
        Self { height, width, pixels: down.into_iter().map(|value| value.round() as u8).collect() }
    }

    /// As a PNG file.
    #[must_use]
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = vec![];
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&self.pixels)?;
            writer.finish()
        });
        debug_assert!(written.is_ok(), "a vector takes every byte");
        bytes
    }
}

/// `[outer, from, inner]` → `[outer, to, inner]`.
fn resampled(values: &[f32], outer: usize, from: usize, to: usize, inner: usize) -> Vec<f32> {
    let scale = from as f32 / to as f32;
    let reach = scale.max(1.0);
    let taps = |target: usize| {
        let centre = (target as f32 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let last = ((centre + reach + 0.5) as usize).min(from);
        let weight = |source: usize| (1.0 - (source as f32 + 0.5 - centre).abs() / reach).max(0.0);
        let weights: Vec<f32> = (first..last).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.into_iter().map(move |weight| weight / sum).collect::<Vec<_>>())
    };
    let taps: Vec<_> = (0..to).map(taps).collect();
    let mut out = vec![0.0; outer * to * inner];
    for (values, out) in values.chunks_exact(from * inner).zip(out.chunks_exact_mut(to * inner)) {
        for ((first, weights), out) in taps.iter().zip(out.chunks_exact_mut(inner)) {
            for (weight, values) in weights.iter().zip(values[first * inner..].chunks_exact(inner)) {
                out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
    out
}

fn jpeg(bytes: &[u8]) -> Result<Picture, String> {
    let options = DecoderOptions::default()
        .set_max_width(LARGEST_SIDE)
        .set_max_height(LARGEST_SIDE)
        // A file that was cut short is no picture.
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(|error| format!("JPEG: {error}"))?;
    let (width, height) = decoder.dimensions().ok_or("JPEG without a size")?;
    Ok(Picture { height, width, pixels })
}

fn png(bytes: &[u8]) -> Result<Picture, String> {
    let said = |error: png::DecodingError| format!("PNG: {error}");
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(said)?;
    let [height, width] = [reader.info().height, reader.info().width].map(|side| side as usize);
    if height.max(width) > LARGEST_SIDE {
        return Err(format!("{width}x{height} pixels; at most {LARGEST_SIDE} each way are read"));
    }
    let mut values = vec![0; reader.output_buffer_size().ok_or("PNG: too large")?];
    let frame = reader.next_frame(&mut values).map_err(said)?;
    values.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        png::ColorType::Rgb => values,
        png::ColorType::Rgba => values.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        png::ColorType::Grayscale => values.into_iter().flat_map(|value| [value; 3]).collect(),
        png::ColorType::GrayscaleAlpha => values.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return Err("PNG: a palette was not resolved".into()),
    };
    Ok(Picture { height, width, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_is_what_pil_does() {
        let mut value = 0u32;
        let mut next = || {
            value = (value * 137 + 41) % 256;
            value as u8
        };
        let picture = Picture { height: 4, width: 5, pixels: (0..60).map(|_| next()).collect() };
        // PIL's `resize((3, 6), BILINEAR)` and `resize((2, 2), BILINEAR)` of the same bytes.
        let (smaller, squeezed): (&[u8], &[u8]) = (
            &[
                59, 27, 85, 101, 84, 147, 159, 157, 80, 101, 120, 124, 157, 69, 156, 159, 107, 131, 157, 205, 172, 209,
                60, 171, 161, 53, 162, 211, 176, 209, 195, 87, 197, 171, 40, 83, 216, 146, 206, 152, 90, 161, 177, 54,
                63, 206, 123, 193, 112, 86, 117, 180, 71, 62,
            ],
            &[138, 103, 153, 161, 88, 137, 186, 128, 190, 169, 63, 107],
        );
        for (height, width, expected) in [(6, 3, smaller), (2, 2, squeezed)] {
            let found = picture.stretched(height, width);
            assert_eq!((found.height, found.width, found.pixels.len()), (height, width, expected.len()));
            // PIL rounds between rows and columns too.
            assert!(found.pixels.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{found:?}");
        }
        assert_eq!(picture.stretched(4, 5), picture);
    }

    #[test]
    fn a_jpeg_is_what_the_recipe_sees() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/blood-cells/data/pictures/BloodImage_00007.jpg");
        let picture = Picture::read(&file).expect("a picture");
        assert_eq!((picture.height, picture.width), (240, 320));
        let input = picture.stretched(160, 160);
        // `Pictures.whole` of models/recipe/box_data.py, which reads with PIL.
        let mean = |channel: usize| {
            let values = input.pixels.iter().skip(channel).step_by(3);
            values.map(|&value| f64::from(value)).sum::<f64>() / 25_600.0
        };
        for (channel, expected) in [188.914_84, 178.712_97, 182.050_94].into_iter().enumerate() {
            assert!((mean(channel) - expected).abs() < 0.3, "{} {expected}", mean(channel));
        }
        for (row, column, expected) in [
            (40, 40, [185, 166, 171]),
            (80, 30, [194, 200, 198]),
            (100, 120, [202, 207, 201]),
            (33, 77, [191, 182, 183u8]),
        ] {
            let start = (row * 160 + column) * 3;
            let found = &input.pixels[start..start + 3];
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2), "{row} {column} {found:?}");
        }
    }

    #[test]
    fn pictures_are_written_and_read_back() {
        let picture = Picture { height: 2, width: 3, pixels: (0..18).collect() };
        assert_eq!(Picture::decode(&picture.png()).expect("a picture"), picture);
    }

    #[test]
    fn broken_files_are_refused() {
        let whole = Picture { height: 9, width: 9, pixels: vec![7; 243] }.png();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/blood-cells/data/pictures");
        let jpeg = std::fs::read(folder.join("BloodImage_00007.jpg")).expect("a file");
        assert!(Picture::decode(b"").is_err() && Picture::decode(b"GIF89a").is_err());
        for bytes in [&whole[..], &jpeg[..]] {
            for length in [4, 20, bytes.len() / 4] {
                assert!(Picture::decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
            }
            // Whatever the bytes, the answer is a picture or an error.
            for place in (2..bytes.len().min(700)).step_by(7) {
                let mut changed = bytes.to_vec();
                changed[place] ^= 0x55;
                let _ = Picture::decode(&changed);
            }
        }
    }
}
