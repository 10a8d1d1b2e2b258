//! Fixtures, references and comparisons that the tests share.

pub mod compare;
pub mod packages;
pub mod reference;
