//! Runs LFM2 packages through ONNX Runtime.
