//! Runs LFM2 packages through ONNX Runtime.

pub mod cancel;
pub mod decoder;
pub mod package;
pub mod platform;
pub mod provider;
pub mod runtime;
pub mod session;
mod state;
