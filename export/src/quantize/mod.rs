//! From numbers to blocks: one method per file.

mod rounding;

pub use rounding::round_to_nearest;
