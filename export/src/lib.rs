//! Turns an LFM2 checkpoint into an ONNX package.

pub mod bind;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod hub;
pub mod layout;
pub mod package;
pub mod proto;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod sidecars;
pub mod write;
