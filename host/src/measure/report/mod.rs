//! A report of measurements: what rows say, as tables and figures, as one page of HTML or as Markdown.
//!
//! ```text
//! rows -> entries by machine -> sections of tables and figures -> HTML with SVG, or Markdown
//! ```

mod chart;
mod content;
mod details;
mod entry;
mod html;
mod markdown;
mod number;
mod sections;
mod svg;
#[cfg(test)]
mod tests;

pub use content::{Column, Figure, Part, Report, Section, Table};

use super::records::Record;

/// A report of these objects: rows of `bench`, of any version, what `eval --json` says, and what `benches/baselines/compare.py` has
/// measured. Other objects are left out and counted.
pub fn report(objects: &[Record], title: &str) -> Report {
    sections::report(objects, title)
}

impl Report {
    /// One page that needs nothing else: no scripts, no fonts, no files.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The same as Markdown, with the numbers of the figures as tables.
    pub fn markdown(&self) -> String {
        markdown::page(self)
    }
}
