//! A report as one page of HTML.

use super::content::{Drawing, Figure, Part, Report, Section, Table};
use super::svg::escape;

/// How the page looks, in light, in dark and on paper.
const STYLE: &str = include_str!("style.css");

/// Most characters of a cell that is kept on one line.
const SHORT: usize = 32;

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut body = format!("<h1>{title}</h1>\n");
    for text in &report.about {
        body += &format!("<p>{}</p>\n", escape(text));
    }
    body += &contents(&report.sections);
    let mut figures = 0;
    for (number, section) in report.sections.iter().enumerate() {
        let level = section.level.clamp(2, 6);
        body += &format!("<h{level} id=\"s{number}\">{}</h{level}>\n", escape(&section.title));
        for part in &section.parts {
            match part {
                Part::Text(text) => body += &format!("<p>{}</p>\n", escape(text)),
                Part::Table(table) => body += &self::table(table),
                Part::Figure(figure) => {
                    figures += 1;
                    body += &self::figure(figure, &format!("f{figures}"));
                }
            }
        }
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// Links to the sections, if there are enough to look for one.
fn contents(sections: &[Section]) -> String {
    if sections.len() < 3 {
        return String::new();
    }
    let mut text = "<nav aria-label=\"Contents\">\n<ul>\n".to_owned();
    for (number, section) in sections.iter().enumerate() {
        let class = if section.level > 2 { " class=\"part\"" } else { "" };
        text += &format!("<li{class}><a href=\"#s{number}\">{}</a></li>\n", escape(&section.title));
    }
    text + "</ul>\n</nav>\n"
}

fn figure(figure: &Figure, id: &str) -> String {
    let (image, title) = match &figure.drawing {
        Drawing::Bars(bars) => (bars.svg(id), &bars.title),
        Drawing::Lines(lines) => (lines.svg(id), &lines.title),
    };
    format!(
        "<figure>\n<figcaption>{}</figcaption>\n{image}<details>\n<summary>Numbers</summary>\n{}</details>\n</figure>\n",
        escape(title),
        table(&figure.table)
    )
}

fn table(table: &Table) -> String {
    let class = |index: usize| match table.columns.get(index) {
        Some(column) if column.is_number => " class=\"number\"",
        _ => "",
    };
    // Sentences may be broken; short words and numbers would only get hard to find.
    let short = |cell: &str| cell.chars().count() <= SHORT;
    let mut text = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n<table>\n<caption>{0}</caption>\n<thead>\n<tr>",
        escape(&table.caption)
    );
    for (index, column) in table.columns.iter().enumerate() {
        text += &format!("<th scope=\"col\"{}>{}</th>", class(index), escape(&column.title));
    }
    text += "</tr>\n</thead>\n<tbody>\n";
    for row in &table.rows {
        text += "<tr>";
        for (index, cell) in row.iter().enumerate() {
            let class = if short(cell) && class(index).is_empty() { " class=\"short\"" } else { class(index) };
            let cell = escape(cell);
            text += &match index {
                0 => format!("<th scope=\"row\"{class}>{cell}</th>"),
                _ => format!("<td{class}>{cell}</td>"),
            };
        }
        text += "</tr>\n";
    }
    text + "</tbody>\n</table>\n</div>\n"
}
