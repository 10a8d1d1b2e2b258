//! What a report consists of, whatever it is written as. All text is plain: who writes it escapes it.

use super::chart::{Bars, Lines};

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// What it is about, in a few sentences.
    pub about: Vec<String>,
    /// Its sections, in order.
    pub sections: Vec<Section>,
}

/// A part of a report with a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// 2 for a section, 3 for a part of the one before.
    pub level: u8,
    /// What stands there, in order.
    pub parts: Vec<Part>,
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
}

/// A table. All rows have as many cells as there are columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows; the first cell of each is its heading.
    pub rows: Vec<Vec<String>>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub title: String,
    /// Whether it has numbers, which stand on the right.
    pub is_number: bool,
}

/// A figure, with its numbers as a table for those who do not see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What is drawn.
    pub drawing: Drawing,
    /// Its numbers.
    pub table: Table,
}

/// What a figure shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Drawing {
    /// Bars, one below the other.
    Bars(Bars),
    /// Lines over a quantity.
    Lines(Lines),
}

impl Table {
    /// A table without rows. Columns whose titles begin with `#` have numbers.
    pub(super) fn new(caption: impl Into<String>, columns: &[&str]) -> Self {
        let column = |title: &&str| Column {
            title: title.trim_start_matches('#').to_owned(),
            is_number: title.starts_with('#'),
        };
        Self { caption: caption.into(), columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Leaves out the columns in which no row has anything, but the first.
    pub(super) fn without_empty_columns(mut self) -> Self {
        for index in (1..self.columns.len()).rev() {
            if self.rows.iter().all(|row| row.get(index).is_none_or(String::is_empty)) {
                self.columns.remove(index);
                self.rows.iter_mut().filter(|row| index < row.len()).for_each(|row| drop(row.remove(index)));
            }
        }
        self
    }
}
