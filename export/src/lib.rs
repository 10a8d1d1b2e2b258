//! Turns an LFM2 checkpoint into an ONNX package.
