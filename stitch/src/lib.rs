//! The host compiler: a family of ONNX networks becomes one image.
//!
//! One file per stage, each with a type of its own; [`pipeline::compile`] is the whole job in order.
#![forbid(unsafe_code)]

pub mod auto16;
pub mod calibrate;
pub mod cost;
pub mod cost_table;
pub mod cut;
pub mod detection;
pub mod emit;
pub mod error;
pub mod evaluate;
pub mod family;
pub mod float;
pub mod float_judge;
pub mod frontier;
pub mod graph;
pub mod head;
pub mod images;
pub mod import;
pub mod layers;
pub mod learn;
pub mod network;
pub mod pipeline;
pub mod place;
pub mod quantize;
pub mod report;
pub mod simplify;
pub mod space;
pub mod stream;
pub mod vectors;
pub mod verify;
