//! Runs LFM2 packages through ONNX Runtime.

pub mod cancel;
pub mod decoder;
pub mod platform;
pub mod runtime;
pub mod sampler;
pub mod stop;
pub mod text;
