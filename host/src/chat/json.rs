//! JSON in the form that Python's `json.dumps` gives it, because prompts have to be the same to the letter.

use std::fmt::Write;

use serde_json::{Number, Value};

/// The options of `json.dumps`.
#[derive(Debug, Clone, Default)]
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    /// Spaces per level, and a line for each item.
    pub(super) indent: Option<usize>,
    /// Between items, and between key and value.
    pub(super) separators: Option<(String, String)>,
}

/// Writes `value`.
pub(super) fn to_json(value: &Value, style: &JsonStyle) -> String {
    let item = if style.indent.is_some() { "," } else { ", " };
    let (item, key) = style.separators.as_ref().map_or((item, ": "), |(item, key)| (item.as_str(), key.as_str()));
    let mut writer = Writer { output: String::new(), style, item, key };
    writer.value(value, 0);
    writer.output
}

struct Writer<'a> {
    output: String,
    style: &'a JsonStyle,
    item: &'a str,
    key: &'a str,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) {
        match value {
            Value::Null => self.output.push_str("null"),
            Value::Bool(true) => self.output.push_str("true"),
            Value::Bool(false) => self.output.push_str("false"),
            Value::Number(number) => self.output.push_str(&python_number(number)),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.list(['[', ']'], items, level, |writer, item| writer.value(item, level + 1)),
            Value::Object(fields) => self.list(['{', '}'], fields, level, |writer, (key, value)| {
                writer.string(key);
                writer.output.push_str(writer.key);
                writer.value(value, level + 1);
            }),
        }
    }

    fn list<I: IntoIterator>(
        &mut self,
        [open, close]: [char; 2],
        items: I,
        level: usize,
        write: impl Fn(&mut Self, I::Item),
    ) {
        self.output.push(open);
        let mut empty = true;
        for item in items {
            if !std::mem::replace(&mut empty, false) {
                self.output.push_str(self.item);
            }
            self.line(level + 1);
            write(self, item);
        }
        if !empty {
            self.line(level);
        }
        self.output.push(close);
    }

    fn line(&mut self, level: usize) {
        if let Some(indent) = self.style.indent {
            self.output.push('\n');
            self.output.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    fn string(&mut self, text: &str) {
        self.output.push('"');
        for character in text.chars() {
            match character {
                '"' => self.output.push_str("\\\""),
                '\\' => self.output.push_str("\\\\"),
                '\n' => self.output.push_str("\\n"),
                '\r' => self.output.push_str("\\r"),
                '\t' => self.output.push_str("\\t"),
                '\u{8}' => self.output.push_str("\\b"),
                '\u{c}' => self.output.push_str("\\f"),
                other if other < ' ' || (self.style.ensure_ascii && other > '~') => self.escape(other),
                other => self.output.push(other),
            }
        }
        self.output.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            if write!(self.output, "\\u{unit:04x}").is_err() {
                return;
            }
        }
    }
}

/// A number as Python prints it: a float always looks like one, and has an exponent below 1e-4 and from 1e16 on.
fn python_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => python_float(float),
        _ => number.to_string(),
    }
}

/// A float as Python's `repr` prints it.
fn python_float(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let digits = format!("{float:e}");
        let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{mantissa}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_are_printed_as_by_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (123456789012345.6, "123456789012345.6"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
        ];
        for (float, text) in cases {
            assert_eq!(python_float(float), text);
        }
    }

    #[test]
    fn styles_are_those_of_json_dumps() {
        let value = json!({"b": [1, "é<&'\u{7f}\n😀"], "a": {}, "c": []});
        let plain = JsonStyle::default();
        assert_eq!(to_json(&value, &plain), "{\"b\": [1, \"é<&'\u{7f}\\n😀\"], \"a\": {}, \"c\": []}");
        let ascii = JsonStyle { ensure_ascii: true, ..plain.clone() };
        assert_eq!(to_json(&value["b"][1], &ascii), r#""\u00e9<&'\u007f\n\ud83d\ude00""#);
        let indented = JsonStyle { indent: Some(2), ..plain.clone() };
        assert_eq!(
            to_json(&value, &indented).lines().collect::<Vec<_>>(),
            ["{", "  \"b\": [", "    1,", "    \"é<&'\u{7f}\\n😀\"", "  ],", "  \"a\": {},", "  \"c\": []", "}"]
        );
        let tight = JsonStyle { separators: Some((",".into(), ":".into())), ..plain };
        assert_eq!(to_json(&json!({"a": [1, 2]}), &tight), r#"{"a":[1,2]}"#);
    }
}
