//! Turns an LFM2 checkpoint into an ONNX package.

pub mod bind;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod config;
mod entries;
pub mod hub;
mod input;
pub mod layout;
pub mod package;
mod problems;
pub mod proto;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod sidecars;
pub mod write;
