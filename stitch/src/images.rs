//! Image sets: a folder of PNG sheets and a list of labels.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Pixels of one file at most: a header may promise more than there is memory.
const LARGEST_SHEET: usize = 1 << 28;

/// Labelled images of one shape, 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// `[N, H, W, C]`.
    pub pixels: Vec<u8>,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// Class of each image.
    pub labels: Vec<u16>,
}

impl ImageSet {
    /// Reads every `*.png` of a folder in order of their names. Each is a sheet of tiles of `shape` in reading order (a
    /// picture of exactly that size is one tile); `labels.txt` has one class number a line, and as many lines as there
    /// are images: tiles behind the last label are filling.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`] with what was found and what is expected.
    pub fn read(folder: &Path, shape: [usize; 3], classes: usize) -> Result<Self, Error> {
        if shape.contains(&0) {
            let what = format!("images of {shape:?} [H, W, C]; every side must be at least 1");
            return Err(Error::Content { path: folder.into(), what });
        }
        let entries = std::fs::read_dir(folder).map_err(|source| Error::File { path: folder.into(), source })?;
        let mut sheets: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        sheets.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        sheets.sort();
        if sheets.is_empty() {
            return Err(Error::Content { path: folder.into(), what: "no PNG file in this folder".into() });
        }
        let labels = labels(&folder.join("labels.txt"), classes)?;
        let mut pixels = vec![];
        for sheet in &sheets {
            tiles(sheet, shape, &mut pixels)?;
        }
        let size: usize = shape.iter().product();
        let tiles = pixels.len() / size;
        if tiles < labels.len() {
            let what = format!("{} labels for {tiles} images", labels.len());
            return Err(Error::Content { path: folder.join("labels.txt"), what });
        }
        pixels.truncate(labels.len() * size);
        Ok(Self { pixels, shape, labels })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none; [`ImageSet::read`] never returns such a set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels `[H, W, C]` of an image.
    #[must_use]
    pub fn image(&self, number: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[number * size..(number + 1) * size]
    }

    /// The first `count` images, or all.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.labels.truncate(count);
        self.pixels.truncate(self.labels.len() * self.shape.iter().product::<usize>());
        self
    }

    /// `(pixel / 255 − mean) / std`, `[N, H, W, C]`.
    #[must_use]
    pub fn normalised(&self, mean: &[f32], std: &[f32]) -> Vec<f32> {
        let channels = mean.iter().zip(std).cycle();
        self.pixels.iter().zip(channels).map(|(&pixel, (mean, std))| (f32::from(pixel) / 255.0 - mean) / std).collect()
    }
}

fn labels(path: &Path, classes: usize) -> Result<Vec<u16>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let bad = |what: String| Error::Content { path: path.into(), what };
    let label = |(line, text): (usize, &str)| match text.trim().parse::<u16>() {
        Ok(label) if usize::from(label) < classes => Ok(label),
        _ => Err(bad(format!("line {}: `{text}`; a class number below {classes} is expected", line + 1))),
    };
    let labels = text.lines().enumerate().map(label).collect::<Result<Vec<_>, _>>()?;
    if labels.is_empty() { Err(bad("no labels: the set is empty".into())) } else { Ok(labels) }
}

/// Appends the tiles of one sheet.
fn tiles(path: &Path, [height, width, channels]: [usize; 3], pixels: &mut Vec<u8>) -> Result<(), Error> {
    let file = File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
    let bad = |what: String| Error::Content { path: path.into(), what };
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| bad(error.to_string()))?;
    let (rows, columns) = (reader.info().height as usize, reader.info().width as usize);
    if rows % height != 0 || columns % width != 0 || rows == 0 || columns == 0 {
        return Err(bad(format!("{columns}x{rows} pixels; a multiple of {width}x{height} is expected")));
    }
    if rows * columns > LARGEST_SHEET {
        return Err(bad(format!("{columns}x{rows} pixels; at most {LARGEST_SHEET} are read from one file")));
    }
    let size = reader.output_buffer_size().ok_or_else(|| bad("too large".into()))?;
    let mut sheet = vec![0; size];
    let info = reader.next_frame(&mut sheet).map_err(|error| bad(error.to_string()))?;
    let found = info.color_type.samples();
    if found != channels {
        return Err(bad(format!("{found} channels; {channels} are expected")));
    }
    for tile in 0..(rows / height) * (columns / width) {
        let (top, left) = (tile / (columns / width) * height, tile % (columns / width) * width);
        for row in top..top + height {
            let start = (row * columns + left) * channels;
            pixels.extend_from_slice(&sheet[start..start + width * channels]);
        }
    }
    Ok(())
}
