//! Right answers of every config over a part of the images, as a small text file: what a run that was killed takes up
//! again, and what the parts of an evaluation that was spread over machines are merged from.
//!
//! ```text
//! stitchnet tally 1
//! image 89abcdef          checksum of the image
//! data 01234567           checksum of the files with the pictures
//! images 2000             pictures that all shards have together
//! shard 1 of 4            this one has every fourth picture, from the first on
//! done 320                pictures of the shard that were evaluated
//! right 289 small         right answers and name, config by config
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use plan::{ConfigId, Image};

use super::Answers;
use crate::error::Error;

const FIRST_LINE: &str = "stitchnet tally 1";

/// A part of an evaluation: every `of`-th image, `number` of them counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 to `of`.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// The only one.
    pub const ALL: Self = Self { number: 1, of: 1 };

    /// Whether an image is one of its own.
    #[must_use]
    pub fn has(self, image: usize) -> bool {
        image % self.of == self.number - 1
    }

    /// How many of `images` it has.
    #[must_use]
    pub fn share(self, images: usize) -> usize {
        (images + self.of - self.number) / self.of
    }
}

/// `1/4`.
impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("a number, a slash and how many there are, counted from 1, are expected: 1/4 to 4/4".into()),
        }
    }
}

/// Right answers so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Checksum of the image.
    pub image: u32,
    /// Checksum of the pictures' files.
    pub data: u32,
    /// Pictures of all shards.
    pub images: usize,
    /// Which of them are counted here.
    pub shard: Shard,
    /// Pictures that were evaluated: the first ones of the shard.
    pub done: usize,
    /// Name and right answers of each config.
    pub configs: Vec<(String, usize)>,
}

impl Tally {
    /// Nothing is evaluated yet.
    #[must_use]
    pub fn new(image: &Image<'_>, data: u32, images: usize, shard: Shard) -> Self {
        let name = |number| image.config_name(ConfigId(number)).to_string().replace(char::is_control, "?");
        let configs = (0..image.configs()).map(|number| (name(number), 0)).collect();
        Self { image: plan::checksum(image.bytes()), data, images, shard, done: 0, configs }
    }

    /// Counts the answers for one more image.
    pub fn add(&mut self, answers: &Answers, label: u16) {
        self.done += 1;
        for ((_, right), &class) in self.configs.iter_mut().zip(&answers.classes) {
            *right += usize::from(class == label);
        }
    }

    /// Whether the shard is evaluated.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.done == self.shard.share(self.images)
    }

    /// Reads a file's text; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Content`] with the line, what was found and what is expected.
    pub fn parse(text: &str, path: &std::path::Path) -> Result<Self, Error> {
        Self::read(text).map_err(|what| Error::Content { path: path.into(), what })
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut lines = (1..).zip(text.lines());
        let mut field = |key: &str, what: &str| -> Result<(Option<String>, String), String> {
            let (number, line) = lines.next().ok_or_else(|| format!("it ends before `{key}`: {what} is expected"))?;
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
            Ok((value.map(str::to_owned), format!("line {number}: `{line}`; `{key}` and {what} are expected")))
        };
        fn value<T>((text, bad): (Option<String>, String), read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
            text.and_then(|text| read(&text)).ok_or(bad)
        }
        value(field("stitchnet", "`tally 1`")?, |text| (format!("stitchnet {text}") == FIRST_LINE).then_some(()))?;
        let sum = |text: &str| u32::from_str_radix(text, 16).ok();
        let image = value(field("image", "a checksum")?, sum)?;
        let data = value(field("data", "a checksum")?, sum)?;
        let images = value(field("images", "a number")?, |text| text.parse::<u32>().ok())? as usize;
        let shard: Shard = value(field("shard", "`1 of 4`, say,")?, |text| text.replace(" of ", "/").parse().ok())?;
        let most = shard.share(images);
        let done = value(field("done", &format!("a number up to {most}"))?, |text| {
            text.parse().ok().filter(|done| *done <= most)
        })?;
        let mut configs = vec![];
        for (number, line) in lines {
            let config = line.strip_prefix("right ").and_then(|rest| rest.split_once(' '));
            let config = config.and_then(|(right, name)| Some((name.to_owned(), right.parse().ok()?)));
            let config = config.filter(|(_, right)| *right <= done);
            configs.push(config.ok_or_else(|| {
                format!("line {number}: `{line}`; `right`, a number up to {done} and a name are expected")
            })?);
        }
        Ok(Self { image, data, images, shard, done, configs })
    }

    /// Scores of the configs, correct answers in 10,000.
    #[must_use]
    pub fn scores(&self) -> Vec<u16> {
        self.configs.iter().map(|&(_, right)| super::score(right, self.done)).collect()
    }

    /// Whether another tally counts the same image over the same pictures; else what differs.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn same_run(&self, other: &Self) -> Result<(), String> {
        let names = |tally: &Self| tally.configs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if self.image != other.image || names(self) != names(other) {
            Err(format!("it counts the image {:08x}, not {:08x}", self.image, other.image))
        } else if self.data != other.data {
            Err(format!("its pictures have the checksum {:08x}, not {:08x}", self.data, other.data))
        } else if self.images != other.images {
            Err(format!("it is of {} pictures, not of {}", self.images, other.images))
        } else if self.shard.of != other.shard.of {
            Err(format!("it is one of {} shards, not of {}", self.shard.of, other.shard.of))
        } else {
            Ok(())
        }
    }
}

/// The text of the file.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, data, images, shard, done, configs } = self;
        writeln!(f, "{FIRST_LINE}\nimage {image:08x}\ndata {data:08x}\nimages {images}")?;
        writeln!(f, "shard {} of {}\ndone {done}", shard.number, shard.of)?;
        configs.iter().try_for_each(|(name, right)| writeln!(f, "right {right} {name}"))
    }
}

/// The whole evaluation from all its shards: what one run would have counted.
///
/// # Errors
/// [`Error::Content`] with the file that is of another run, unfinished or there twice; [`Error::Stage`] with the shards that are
/// missing.
pub fn merge(parts: &[(PathBuf, Tally)]) -> Result<Tally, Error> {
    let Some((first_path, first)) = parts.first() else {
        return Err(Error::Stage { stage: "merge", what: "no files; one per shard is needed".into() });
    };
    let mut owners = BTreeMap::new();
    let mut sum = Tally { shard: Shard::ALL, ..first.clone() };
    for (index, (path, part)) in parts.iter().enumerate() {
        let bad = |what: String| Error::Content { path: path.clone(), what };
        part.same_run(first).map_err(|what| bad(format!("{what} as {}", first_path.display())))?;
        if !part.is_complete() {
            let share = part.shard.share(part.images);
            return Err(bad(format!("{} of {share} pictures are done; run its `evaluate` again to end it", part.done)));
        }
        let Shard { number, of } = part.shard;
        if let Some(other) = owners.insert(number, path) {
            return Err(bad(format!("shard {number} of {of} is in {} already", other.display())));
        }
        if index > 0 {
            sum.done += part.done;
            for ((_, right), (_, more)) in sum.configs.iter_mut().zip(&part.configs) {
                *right += more;
            }
        }
    }
    if owners.len() < first.shard.of {
        let missing = (1..=first.shard.of).filter(|number| !owners.contains_key(number)).take(8);
        let missing = missing.map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
        let (found, of) = (owners.len(), first.shard.of);
        return Err(Error::Stage { stage: "merge", what: format!("{found} of {of} shards; missing: {missing}") });
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
