//! Boxes on pictures: data sets, scores, drawings.

pub mod average_precision;
pub mod coco;
pub mod draw;
pub mod evaluate;
pub mod picture;
