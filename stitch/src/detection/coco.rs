//! A set of pictures with boxes: a COCO file, and the pictures beside it.
//!
//! The networks see every picture stretched to their input, whatever its shape, so boxes are kept in units of the picture:
//! 0 to 1 from left to right and from top to bottom.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::detection::picture::Picture;
use crate::error::Error;
use crate::images::ImageSet;

/// Pictures and what is on them.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxSet {
    /// Names of the classes, in order of their numbers in the file.
    pub classes: Vec<String>,
    /// In the file's order.
    pub pictures: Vec<BoxedPicture>,
}

/// One picture, still a file.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxedPicture {
    /// JPEG or PNG.
    pub path: PathBuf,
    /// Boxes, clipped to the picture; none without area.
    pub truths: Vec<Truth>,
}

/// One object of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Left, top, right, bottom in units of the picture.
    pub corners: [f64; 4],
    /// Position of its class in [`BoxSet::classes`].
    pub class: u16,
}

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: PathBuf,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
    /// Left, top, width, height in pixels.
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

impl BoxSet {
    /// Reads a COCO file; pictures are looked for beside it, and not opened yet. Regions that stand for crowds are left out.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`] with what was found and what is expected.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
        let bad = |what: String| Error::Content { path: path.into(), what };
        let file: File = serde_json::from_str(&text).map_err(|error| bad(format!("no COCO file: {error}")))?;
        Self::of(file, path.parent().unwrap_or(Path::new("."))).map_err(bad)
    }

    /// The first `count` pictures, or all.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.pictures.truncate(count);
        self
    }

    /// All pictures, stretched to `[H, W, 3]`, each with the class that most of its boxes have; of equal ones the first.
    ///
    /// # Errors
    /// [`Error::Content`] if networks read something else than red, green and blue, [`Error::File`], what is wrong with a
    /// picture.
    pub fn images(&self, shape: [usize; 3]) -> Result<ImageSet, Error> {
        let [height, width, channels] = shape;
        let (mut pixels, mut labels) = (vec![], vec![]);
        for BoxedPicture { path, truths } in &self.pictures {
            if channels != 3 {
                let what = format!("pictures have three channels, {channels} are expected");
                return Err(Error::Content { path: path.clone(), what });
            }
            pixels.extend(Picture::read(path)?.stretched(height, width).pixels);
            let count = |class: &u16| truths.iter().filter(|truth| truth.class == *class).count();
            let classes = 0..self.classes.len() as u16;
            labels.push(classes.rev().max_by_key(count).unwrap_or(0));
        }
        Ok(ImageSet { pixels, shape, labels })
    }

    fn of(File { images, annotations, mut categories }: File, folder: &Path) -> Result<Self, String> {
        categories.sort_by_key(|category| category.id);
        if let Some(pair) = categories.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(format!("categories `{}` and `{}` have one id, {}", pair[0].name, pair[1].name, pair[0].id));
        }
        if categories.is_empty() || images.is_empty() {
            let (classes, pictures) = (categories.len(), images.len());
            return Err(format!("{classes} categories and {pictures} images; at least one of each is needed"));
        }
        let mut classes = HashMap::new();
        for (class, category) in categories.iter().enumerate() {
            let class = u16::try_from(class).map_err(|_| format!("{} categories; at most 65536", categories.len()))?;
            classes.insert(category.id, class);
        }
        let (mut numbers, mut pictures) = (HashMap::new(), vec![]);
        for Image { id, file_name, width, height } in images {
            if width == 0 || height == 0 {
                return Err(format!("image {id} has {width}x{height} pixels; at least one is needed"));
            }
            if numbers.insert(id, (pictures.len(), [width, height].map(f64::from))).is_some() {
                return Err(format!("two images have one id, {id}"));
            }
            pictures.push(BoxedPicture { path: folder.join(file_name), truths: vec![] });
        }
        for (number, Annotation { image_id, category_id, bbox, iscrowd }) in annotations.into_iter().enumerate() {
            let unknown =
                |what: &str, id: u64| format!("annotation {number} names {what} {id}, which is not in the file");
            let &(picture, [width, height]) = numbers.get(&image_id).ok_or_else(|| unknown("image", image_id))?;
            let &class = classes.get(&category_id).ok_or_else(|| unknown("category", category_id))?;
            let [left, top, across, down] = bbox;
            let corners = [left / width, top / height, (left + across) / width, (top + down) / height];
            let corners = corners.map(|corner| corner.clamp(0.0, 1.0));
            if iscrowd == 0 && corners[2] > corners[0] && corners[3] > corners[1] {
                pictures[picture].truths.push(Truth { corners, class });
            }
        }
        Ok(Self { classes: categories.into_iter().map(|category| category.name).collect(), pictures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BoxSet, String> {
        let file = serde_json::from_str(text).map_err(|error| error.to_string())?;
        BoxSet::of(file, Path::new("folder"))
    }

    const IMAGES: &str = r#""images": [{"id": 7, "file_name": "a/b.jpg", "width": 200, "height": 100}]"#;
    const CLASSES: &str =
        r#""categories": [{"id": 9, "name": "late"}, {"id": 2, "name": "early", "supercategory": "x"}]"#;

    #[test]
    fn boxes_are_clipped_and_classes_are_numbered_by_id() {
        let annotations = r#""annotations": [
            {"image_id": 7, "category_id": 9, "bbox": [50, 25, 100, 50.0], "iscrowd": 0, "area": 1},
            {"image_id": 7, "category_id": 2, "bbox": [-20, 90, 30, 20]},
            {"image_id": 7, "category_id": 2, "bbox": [200, 10, 5, 5]},
            {"image_id": 7, "category_id": 2, "bbox": [10, 10, 0, 5]},
            {"image_id": 7, "category_id": 2, "bbox": [10, 10, 5, 5], "iscrowd": 1}]"#;
        let set = read(&format!("{{{IMAGES}, {annotations}, {CLASSES}}}")).expect("a set");
        assert_eq!(set.classes, ["early", "late"]);
        let truths = vec![
            Truth { corners: [0.25, 0.25, 0.75, 0.75], class: 1 },
            Truth { corners: [0.0, 0.9, 0.05, 1.0], class: 0 },
        ];
        assert_eq!(set.pictures, [BoxedPicture { path: "folder/a/b.jpg".into(), truths }]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let with = |images: &str, annotation: &str, classes: &str| {
            read(&format!(r#"{{{images}, "annotations": [{annotation}], {classes}}}"#)).expect_err("refused")
        };
        let annotation = r#"{"image_id": 8, "category_id": 9, "bbox": [1, 2, 3, 4]}"#;
        assert_eq!(with(IMAGES, annotation, CLASSES), "annotation 0 names image 8, which is not in the file");
        let annotation = r#"{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}"#;
        assert_eq!(with(IMAGES, annotation, CLASSES), "annotation 0 names category 3, which is not in the file");
        assert_eq!(with(r#""images": []"#, "", CLASSES), "2 categories and 0 images; at least one of each is needed");
        let flat = IMAGES.replace("100", "0");
        assert_eq!(with(&flat, "", CLASSES), "image 7 has 200x0 pixels; at least one is needed");
        let twice = CLASSES.replace('9', "2");
        assert_eq!(with(IMAGES, "", &twice), "categories `late` and `early` have one id, 2");
        let three = r#"{"image_id": 7, "category_id": 9, "bbox": [1, 2, 3]}"#;
        assert!(with(IMAGES, three, CLASSES).contains("expected an array of length 4"));
        let endless = r#"{"image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 1e999]}"#;
        assert!(with(IMAGES, endless, CLASSES).contains("out of range"));
    }
}
