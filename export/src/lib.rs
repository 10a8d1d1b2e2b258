//! Turns an LFM2 checkpoint into an ONNX package.

pub mod checkpoint;
pub mod config;
pub mod proto;
pub mod quantize;
pub mod recipe;
