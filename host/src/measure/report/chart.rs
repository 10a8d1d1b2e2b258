//! Charts: bars and lines, drawn as SVG. Colours are classes of the page, which has them for light and for dark.

use super::number::{plain, round_up, tick};
use super::svg::{Anchor, Svg};

/// Width of all charts.
const WIDTH: f64 = 720.0;

/// Number of colours of the page: `c0` to `c7`.
const COLOURS: usize = 8;

/// Bars, one below the other, each with its label above and its number behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What is shown.
    pub title: String,
    /// What the numbers are.
    pub unit: String,
    /// What the lines across bars are, if some have one.
    pub limit: Option<String>,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// How long it is.
    pub value: f64,
    /// The number as text, with what there is to say about it.
    pub text: String,
    /// The smallest and the largest of what the value stands for.
    pub range: Option<(f64, f64)>,
    /// How long it could be.
    pub limit: Option<f64>,
    /// Number of its colour.
    pub colour: usize,
}

/// Lines over a quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// What is shown.
    pub title: String,
    /// The quantity.
    pub x: String,
    /// What is shown over it.
    pub y: String,
    /// What the dotted lines are, if there are some.
    pub limit: Option<String>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub label: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
    /// The points of its limit, by x.
    pub limit: Vec<(f64, f64)>,
}

impl Bars {
    /// The image.
    pub(super) fn svg(&self, id: &str) -> String {
        const ROW: f64 = 42.0;
        const BAR: f64 = 14.0;
        const VALUES: f64 = 180.0;
        let key = if self.limit.is_some() { 24.0 } else { 4.0 };
        let height = ROW * self.bars.len() as f64 + key;
        let ends = self.bars.iter().flat_map(|bar| [Some(bar.value), bar.range.map(|(_, high)| high), bar.limit]);
        let largest = ends.flatten().filter(|end| end.is_finite()).fold(0.0, f64::max);
        let scale = (WIDTH - VALUES) / if largest > 0.0 { largest } else { 1.0 };
        let mut svg = Svg::new(WIDTH, height, &self.title, &self.description());
        for (index, bar) in self.bars.iter().enumerate() {
            let top = ROW * index as f64;
            let (middle, length) = (top + 22.0 + BAR / 2.0, bar.value * scale);
            let colour = bar.colour % COLOURS;
            svg.text("label", (0.0, top + 15.0), Anchor::Start, &bar.label);
            svg.rectangle("track", [0.0, top + 22.0, WIDTH - VALUES, BAR]);
            svg.rectangle(&format!("bar c{colour}"), [0.0, top + 22.0, length, BAR]);
            if let Some((low, high)) = bar.range {
                let (low, high) = (low * scale, high * scale);
                svg.line("range", [low, middle, high, middle]);
                svg.line("range", [low, middle - 4.0, low, middle + 4.0]);
                svg.line("range", [high, middle - 4.0, high, middle + 4.0]);
            }
            if let Some(limit) = bar.limit {
                svg.line("limit-mark", [limit * scale, top + 19.0, limit * scale, top + 25.0 + BAR]);
            }
            svg.text("value", (WIDTH - VALUES + 10.0, middle + 4.5), Anchor::Start, &bar.text);
        }
        if let Some(limit) = &self.limit {
            let y = height - 8.0;
            svg.line("limit-mark", [3.0, y - 9.0, 3.0, y + 3.0]);
            svg.text("key", (12.0, y), Anchor::Start, limit);
        }
        svg.finish(id)
    }

    fn description(&self) -> String {
        let bars = self.bars.iter().map(|bar| format!("{}: {}", bar.label, bar.text));
        format!("Bars, in {}. {}.", self.unit, bars.collect::<Vec<_>>().join("; "))
    }
}

impl Lines {
    /// The image.
    pub(super) fn svg(&self, id: &str) -> String {
        const PLOT: [f64; 4] = [62.0, 14.0, WIDTH - 20.0, 300.0];
        const STEPS: usize = 5;
        let [left, top, right, bottom] = PLOT;
        let has_limits = self.lines.iter().any(|line| !line.limit.is_empty());
        let keys = self.lines.len() + usize::from(has_limits);
        let mut svg = Svg::new(WIDTH, bottom + 56.0 + 20.0 * keys as f64, &self.title, &self.description());

        let points = || self.lines.iter().flat_map(|line| line.points.iter().chain(&line.limit));
        let largest = round_up(points().map(|(_, y)| *y).filter(|y| y.is_finite()).fold(0.0, f64::max));
        let y = |value: f64| bottom - (bottom - top) * value / largest;
        let mut ticks: Vec<f64> = self.lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).collect();
        ticks.sort_unstable_by(f64::total_cmp);
        ticks.dedup();
        let ends = (ticks.first().copied().unwrap_or_default(), ticks.last().copied().unwrap_or_default());
        let (first, last) = (spread(ends.0), spread(ends.1));
        let x = |value: f64| match last - first {
            width if width > 0.0 => left + 14.0 + (right - left - 28.0) * (spread(value) - first) / width,
            _ => (left + right) / 2.0,
        };

        for step in 0..=STEPS {
            let value = largest * step as f64 / STEPS as f64;
            svg.line(if step == 0 { "axis" } else { "grid" }, [left, y(value), right, y(value)]);
            svg.text("tick", (left - 8.0, y(value) + 4.0), Anchor::End, &tick(value));
        }
        let mut free = f64::NEG_INFINITY;
        for &place in &ticks {
            svg.line("axis", [x(place), bottom, x(place), bottom + 4.0]);
            // Numbers that would stand on each other are left out.
            if x(place) > free {
                svg.text("tick", (x(place), bottom + 18.0), Anchor::Middle, &tick(place));
                free = x(place) + 34.0;
            }
        }
        svg.text("axis-label", ((left + right) / 2.0, bottom + 38.0), Anchor::Middle, &self.x);

        for (number, line) in self.lines.iter().enumerate() {
            let colour = number % COLOURS;
            let place = |points: &[(f64, f64)]| points.iter().map(|&(at, value)| (x(at), y(value))).collect::<Vec<_>>();
            if line.limit.len() > 1 {
                svg.path(&format!("limit k{colour}"), &place(&line.limit));
            } else if let Some(&(at, value)) = line.limit.first() {
                svg.line(&format!("limit k{colour}"), [x(at) - 12.0, y(value), x(at) + 12.0, y(value)]);
            }
            let points = place(&line.points);
            svg.path(&format!("line k{colour}"), &points);
            for (at, value) in points {
                svg.mark(&format!("mark c{colour}"), number, at, value);
            }
            let key = bottom + 62.0 + 20.0 * number as f64;
            svg.line(&format!("line k{colour}"), [left, key - 4.0, left + 26.0, key - 4.0]);
            svg.mark(&format!("mark c{colour}"), number, left + 13.0, key - 4.0);
            svg.text("key", (left + 36.0, key), Anchor::Start, &line.label);
        }
        if let (Some(limit), true) = (&self.limit, has_limits) {
            let key = bottom + 62.0 + 20.0 * self.lines.len() as f64;
            svg.line("limit", [left, key - 4.0, left + 26.0, key - 4.0]);
            svg.text("key", (left + 36.0, key), Anchor::Start, limit);
        }
        svg.finish(id)
    }

    fn description(&self) -> String {
        let line = |line: &Line| {
            let points = line.points.iter().map(|(x, y)| format!("{} at {x}", plain(*y)));
            format!("{}: {}", line.label, points.collect::<Vec<_>>().join(", "))
        };
        let lines = self.lines.iter().map(line).collect::<Vec<_>>().join("; ");
        format!("{} over {}. {lines}.", self.y, self.x)
    }
}

/// Where a number of tokens lies: logarithmic, and linear near 0, so that 0 has a place too.
fn spread(tokens: f64) -> f64 {
    const LINEAR: f64 = 64.0;
    (tokens / LINEAR).asinh()
}
