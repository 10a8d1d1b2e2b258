//! A small writer of SVG elements, which escapes whatever comes from outside.

use std::fmt::Display;

/// Text for the content and the attributes of elements of HTML and SVG. Characters that no document may have are left out.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// An image that is being drawn. Lengths are pixels of a page as wide as the image.
pub(super) struct Svg {
    width: f64,
    height: f64,
    title: String,
    description: String,
    body: String,
}

/// Which end of a text stands at its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty image. Title and description are for those who do not see it.
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        let (title, description) = (title.to_owned(), description.to_owned());
        Self { width, height, title, description, body: String::new() }
    }

    /// An element without content. Attributes are written with two digits.
    fn element(&mut self, name: &str, class: &str, attributes: &[(&str, f64)]) {
        let mut text = format!("<{name} class=\"{class}\"");
        for (name, value) in attributes {
            push(&mut text, format_args!(" {name}=\"{}\"", short(*value)));
        }
        self.body.push_str(&text);
        self.body.push_str("/>\n");
    }

    pub(super) fn rectangle(&mut self, class: &str, [x, y, width, height]: [f64; 4]) {
        let size = [("x", x), ("y", y), ("width", width.max(0.0)), ("height", height.max(0.0))];
        self.element("rect", class, &size);
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        self.element("line", class, &[("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)]);
    }

    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut text = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            push(&mut text, format_args!("{letter}{} {}", short(*x), short(*y)));
        }
        push(&mut self.body, format_args!("<path class=\"{class}\" d=\"{text}\"/>\n"));
    }

    /// A mark at a place; each of the first six numbers has a form of its own, so that colours are not needed to tell them apart.
    pub(super) fn mark(&mut self, class: &str, number: usize, x: f64, y: f64) {
        const SIZE: f64 = 4.5;
        let around = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let mut points: Vec<_> = points.iter().map(|(dx, dy)| (x + SIZE * dx, y + SIZE * dy)).collect();
            points.extend(points.first().copied());
            points
        };
        match number % 6 {
            0 => self.element("circle", class, &[("cx", x), ("cy", y), ("r", SIZE - 0.5)]),
            1 => self.rectangle(class, [x - SIZE + 0.7, y - SIZE + 0.7, 2.0 * SIZE - 1.4, 2.0 * SIZE - 1.4]),
            2 => self.path(class, &around(&[(0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)])),
            3 => self.path(class, &around(&[(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)])),
            4 => self.path(class, &around(&[(0.0, 1.1), (1.1, -0.9), (-1.1, -0.9)])),
            _ => self.path(class, &around(&[(-1.0, -0.4), (-0.4, -1.0), (1.0, 0.4), (0.4, 1.0)])),
        }
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (short(x), short(y), escape(text));
        push(
            &mut self.body,
            format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>\n"),
        );
    }

    /// The element. `id` tells its title and description from those of other images on the page.
    pub(super) fn finish(self, id: &str) -> String {
        let (width, height) = (short(self.width), short(self.height));
        let (title, description) = (escape(&self.title), escape(&self.description));
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-desc\">{description}</desc>\n{}</svg>\n",
            self.body
        )
    }
}

/// A coordinate with two digits at most. What is no number becomes 0, so that the image stays whole.
fn short(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Appends; a string takes everything.
fn push(text: &mut String, value: impl Display) {
    text.push_str(&value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        assert_eq!(escape("<a b='c'>\"&\u{0}\u{1b}é"), "&lt;a b=&#39;c&#39;&gt;&quot;&amp;é");
        let mut svg = Svg::new(10.0, 20.0, "<t>", "d & e");
        svg.text("label", (1.0, 2.0), Anchor::End, "</text><script>");
        let text = svg.finish("f1");
        assert!(!text.contains("<script") && text.contains("&lt;t&gt;") && text.contains("d &amp; e"), "{text}");
    }

    #[test]
    fn coordinates_are_short_numbers() {
        for (value, text) in [(1.0, "1"), (0.126, "0.13"), (-0.001, "0"), (f64::NAN, "0"), (250.5, "250.5")] {
            assert_eq!(short(value), text);
        }
    }
}
