//! A report as Markdown: figures are their tables of numbers.

use super::content::{Part, Report, Table};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut text = format!("# {}\n", escape(&report.title));
    for about in &report.about {
        text += &format!("\n{}\n", escape(about));
    }
    for section in &report.sections {
        text += &format!("\n{} {}\n", "#".repeat(usize::from(section.level)), escape(&section.title));
        for part in &section.parts {
            text += &match part {
                Part::Text(text) => format!("\n{}\n", escape(text)),
                Part::Table(table) => self::table(table),
                Part::Figure(figure) => self::table(&figure.table),
            };
        }
    }
    text
}

fn table(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("\n{}\n\n", escape(&table.caption));
    text += &line(table.columns.iter().map(|column| escape(&column.title)).collect());
    text += &line(table.columns.iter().map(|column| if column.is_number { "--:" } else { "---" }.to_owned()).collect());
    for row in &table.rows {
        text += &line(row.iter().map(|cell| escape(cell)).collect());
    }
    text
}

/// Text that means nothing to Markdown or to the HTML in it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '`' | '[' | ']' | '<' | '>' | '&' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
