//! Runs LFM2 packages through ONNX Runtime.

pub mod decoder;
