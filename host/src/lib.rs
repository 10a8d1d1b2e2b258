//! Runs LFM2 packages through ONNX Runtime.

pub mod decoder;
pub mod sampler;
pub mod stop;
pub mod text;
