//! LFM2, one block per file.

mod config;

pub use config::{Config, ConfigError, Mixer};
