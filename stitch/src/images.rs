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

/// `(pixel / 255 − mean) / std`: what networks read, wherever a pixel becomes a number.
#[must_use]
pub fn normalised(pixel: u8, mean: f32, std: f32) -> f32 {
    (f32::from(pixel) / 255.0 - mean) / std
}

impl ImageSet {
    /// All images of a folder: [`Sheets`] at once.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`] with what was found and what is expected.
    pub fn read(folder: &Path, shape: [usize; 3], classes: usize) -> Result<Self, Error> {
        let sheets = Sheets::open(folder, shape, classes)?;
        let all = sheets.batches(sheets.len(), |_| true).next();
        all.unwrap_or_else(|| Ok(Self { pixels: vec![], shape, labels: vec![] }))
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

    /// An image as numbers, `[H, W, C]`.
    #[must_use]
    pub fn normalised(&self, number: usize, mean: &[f32], std: &[f32]) -> Vec<f32> {
        let channels = mean.iter().zip(std).cycle();
        self.image(number).iter().zip(channels).map(|(&pixel, (mean, std))| normalised(pixel, *mean, *std)).collect()
    }
}

/// A folder of images that is read sheet by sheet, whatever its size.
#[derive(Clone, Debug)]
pub struct Sheets {
    /// Each file, and the number of its first image.
    files: Vec<(PathBuf, usize)>,
    labels_file: PathBuf,
    shape: [usize; 3],
    labels: Vec<u16>,
}

impl Sheets {
    /// Finds every `*.png` of a folder in order of their names. Each is a sheet of tiles of `shape` in reading order (a
    /// picture of exactly that size is one tile); `labels.txt` has one class number a line, and as many lines as there
    /// are images: tiles behind the last label are filling.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`] with what was found and what is expected.
    pub fn open(folder: &Path, shape: [usize; 3], classes: usize) -> Result<Self, Error> {
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
        let labels_file = folder.join("labels.txt");
        let labels = labels(&labels_file, classes)?;
        let (mut files, mut tiles) = (vec![], 0);
        for path in sheets {
            let [rows, columns] = header(&path, shape)?.1;
            files.push((path, tiles));
            tiles += rows * columns;
        }
        if tiles < labels.len() {
            let what = format!("{} labels for {tiles} images", labels.len());
            return Err(Error::Content { path: labels_file, what });
        }
        Ok(Self { files, labels_file, shape, labels })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The first `count` images, or all.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.labels.truncate(count);
        self
    }

    /// Checksum of the bytes of all files: two folders that have the same hold the same images.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn checksum(&self) -> Result<u32, Error> {
        let mut of_files = vec![];
        for path in self.files.iter().map(|(path, _)| path).chain([&self.labels_file]) {
            let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?;
            of_files.extend(plan::crc32(&bytes).to_le_bytes());
        }
        Ok(plan::crc32(&of_files))
    }

    /// The images whose number is `wanted`, in order, at most `most` at a time. One sheet is in memory besides.
    pub fn batches<W: Fn(usize) -> bool>(&self, most: usize, wanted: W) -> Batches<'_, W> {
        Batches { sheets: self, most, wanted, next: 0, sheet: None }
    }
}

/// Iterator of [`Sheets::batches`]; it ends with the first error.
#[derive(Clone, Debug)]
pub struct Batches<'a, W> {
    sheets: &'a Sheets,
    most: usize,
    wanted: W,
    next: usize,
    /// The sheet that was decoded last, and its tiles.
    sheet: Option<(usize, Vec<u8>)>,
}

impl<W> Batches<'_, W> {
    /// Appends the pixels of an image.
    fn read(&mut self, number: usize, pixels: &mut Vec<u8>) -> Result<(), Error> {
        let Sheets { files, shape, .. } = self.sheets;
        // The first file starts with image 0.
        let sheet = files.partition_point(|&(_, first)| first <= number) - 1;
        let (path, first) = &files[sheet];
        let tiles = match &mut self.sheet {
            Some((last, tiles)) if *last == sheet => tiles,
            other => &mut other.insert((sheet, tiles(path, *shape)?)).1,
        };
        let size: usize = shape.iter().product();
        let start = (number - first) * size;
        let tile = tiles.get(start..start + size).ok_or_else(|| Error::Content {
            path: path.clone(),
            what: format!("image {} is no longer there: the file has changed", number - first),
        })?;
        pixels.extend_from_slice(tile);
        Ok(())
    }
}

impl<W: Fn(usize) -> bool> Iterator for Batches<'_, W> {
    type Item = Result<ImageSet, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = ImageSet { pixels: vec![], shape: self.sheets.shape, labels: vec![] };
        while batch.len() < self.most && self.next < self.sheets.len() {
            let number = self.next;
            self.next += 1;
            if (self.wanted)(number) {
                if let Err(error) = self.read(number, &mut batch.pixels) {
                    self.next = self.sheets.len();
                    return Some(Err(error));
                }
                batch.labels.push(self.sheets.labels[number]);
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
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

/// A sheet that is opened, and its tiles in rows and columns.
fn header(
    path: &Path,
    [height, width, channels]: [usize; 3],
) -> Result<(png::Reader<BufReader<File>>, [usize; 2]), Error> {
    let file = File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
    let bad = |what: String| Error::Content { path: path.into(), what };
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let reader = decoder.read_info().map_err(|error| bad(error.to_string()))?;
    let (rows, columns) = (reader.info().height as usize, reader.info().width as usize);
    if rows % height != 0 || columns % width != 0 || rows == 0 || columns == 0 {
        return Err(bad(format!("{columns}x{rows} pixels; a multiple of {width}x{height} is expected")));
    }
    if rows * columns > LARGEST_SHEET {
        return Err(bad(format!("{columns}x{rows} pixels; at most {LARGEST_SHEET} are read from one file")));
    }
    let found = reader.output_color_type().0.samples();
    if found != channels {
        return Err(bad(format!("{found} channels; {channels} are expected")));
    }
    Ok((reader, [rows / height, columns / width]))
}

/// The tiles of one sheet.
fn tiles(path: &Path, shape: [usize; 3]) -> Result<Vec<u8>, Error> {
    let (mut reader, [rows, columns]) = header(path, shape)?;
    let bad = |what: String| Error::Content { path: path.into(), what };
    let size = reader.output_buffer_size().ok_or_else(|| bad("too large".into()))?;
    let mut sheet = vec![0; size];
    reader.next_frame(&mut sheet).map_err(|error| bad(error.to_string()))?;
    let [height, width, channels] = shape;
    let mut pixels = Vec::with_capacity(size);
    for tile in 0..rows * columns {
        let (top, left) = (tile / columns * height, tile % columns * width);
        for row in top..top + height {
            let start = (row * columns * width + left) * channels;
            pixels.extend_from_slice(&sheet[start..start + width * channels]);
        }
    }
    Ok(pixels)
}
