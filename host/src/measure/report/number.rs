//! Numbers for people.

/// Bytes of a mebibyte.
const MEBIBYTE: f64 = 1_048_576.0;

/// A number with three digits or more that say something.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size >= 0.995 => format!("{value:.2}"),
        size if size >= 0.0001 => {
            let digits = (2.0 - size.log10().floor()).clamp(2.0, 7.0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.1e}"),
    }
}

/// A round number on an axis.
pub(super) fn tick(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nanoseconds as milliseconds.
pub(super) fn milliseconds(nanoseconds: f64) -> String {
    plain(nanoseconds / 1e6)
}

/// Bytes as mebibytes.
pub(super) fn mebibytes(bytes: f64) -> f64 {
    bytes / MEBIBYTE
}

/// A share as percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The text of a number that may be missing.
pub(super) fn or_nothing(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.map_or(String::new(), text)
}

/// A round number of at least `value`: 1, 2, 2.5 or 5 times a power of ten.
pub(super) fn round_up(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_that_say_something() {
        for (value, text) in [
            (1234.5, "1234"),
            (41.54, "41.5"),
            (9.0, "9.00"),
            (0.25, "0.250"),
            (0.031_25, "0.0312"),
            (0.0, "0"),
            (0.0005, "0.000500"),
            (1e-7, "1.0e-7"),
        ] {
            assert_eq!(plain(value), text);
        }
        assert_eq!([90.0, 0.0, 0.25, 2048.0].map(tick), ["90", "0", "0.25", "2048"]);
        assert_eq!((milliseconds(1_010_000_000.0), percent(0.875)), ("1010".to_owned(), "87.5".to_owned()));
    }

    #[test]
    fn round_numbers_are_not_smaller() {
        for (value, round) in [(41.0, 50.0), (101.0, 150.0), (0.7, 0.8), (1000.0, 1000.0), (0.0, 1.0), (f64::NAN, 1.0)]
        {
            assert!((round_up(value) - round).abs() < 1e-9 * round, "{value}");
        }
    }
}
