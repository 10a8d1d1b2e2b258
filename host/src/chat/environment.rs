//! What templates find around them: the functions, filters and whitespace rules that transformers gives to Jinja.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter};
use minijinja_contrib::pycompat;

use super::ChatError;
use super::json::{JsonStyle, python_float, to_json};
use super::limits::{DEEPEST_VALUE, FUEL, WIDEST_INDENT, is_container, pay_for_method, pay_for_value};

/// An environment for the templates of `file`.
pub(super) fn environment(file: &Path) -> Result<Environment<'static>, ChatError> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| ChatError::Parse { file: file.to_path_buf(), message: error.to_string() })?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    // A prompt is not HTML, whatever the name of a template ends with.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        pay_for_method(state, value, method, arguments)?;
        pycompat::unknown_method_callback(state, value, method, arguments)
    });
    environment.set_formatter(|output, state, value| match as_python_float(value) {
        Some(float) => output.write_str(&float).map_err(Error::from),
        None => {
            if is_container(value) {
                pay_for_value(state, value, 1)?;
            }
            escape_formatter(output, state, value)
        }
    });
    environment.add_filter("string", string);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// Rewrites `{% generation %}` and `{% endgeneration %}`, which mark the answers for training and print nothing, to a
/// block that prints its content too and is as local to its variables. Lines stay where they are.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag, after)) = next_tag(rest) {
        result.push_str(before);
        let name = tag.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        let replacement = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        };
        result.push_str("{%");
        result.push_str(&if replacement == name { tag.to_string() } else { tag.replace(name, replacement) });
        result.push_str("%}");
        rest = after;
    }
    result + rest
}

/// What is before the next block tag, inside, and after it.
fn next_tag(source: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = source.split_once("{%")?;
    let (tag, after) = rest.split_once("%}")?;
    Some((before, tag, after))
}

/// A float as Python prints it, with an exponent where Rust writes zeros. `None` if the value is something else.
///
/// Out of reach are floats within lists and in `a ~ b`.
fn as_python_float(value: &Value) -> Option<String> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok().map(python_float)).flatten()
}

/// `value | string`.
fn string(state: &mut State, value: Value) -> Result<String, Error> {
    // As it would be printed, which is counted while it is made.
    state.format(value)
}

/// `raise_exception(message)`: the template refuses.
fn raise_exception(state: &mut State, message: Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, state.format(message)?))
}

/// `strftime_now(format)`: the local date and time.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`: `json.dumps` of Python. The filter
/// that comes with the library escapes characters for HTML.
fn tojson(state: &State, value: &Value, arguments: Kwargs) -> Result<Value, Error> {
    let separators: Option<(String, String)> = match arguments.get::<Option<Value>>("separators")? {
        Some(value) if !value.is_none() => {
            let [item, key] = <[Value; 2]>::try_from(value.try_iter()?.collect::<Vec<_>>()).map_err(|_| {
                Error::new(ErrorKind::InvalidOperation, "tojson: separators has to be a pair of strings")
            })?;
            Some((item.to_string(), key.to_string()))
        }
        _ => None,
    };
    let style = JsonStyle {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: arguments.get::<Option<usize>>("indent")?,
        separators,
    };
    if style.indent.is_some_and(|indent| indent > WIDEST_INDENT) {
        let message = format!("tojson: indent is above {WIDEST_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    arguments.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson: the value is undefined"));
    }
    let mut value = json_value(state, value, &style, 1)?;
    if sort_keys {
        sort(&mut value);
    }
    Ok(Value::from(to_json(&value, &style)))
}

/// `value` as JSON. Every part of it pays for its text with fuel before that is made.
fn json_value(state: &State, value: &Value, style: &JsonStyle, level: usize) -> Result<serde_json::Value, Error> {
    let refuse = |message: String| Error::new(ErrorKind::InvalidOperation, format!("tojson: {message}"));
    if level > DEEPEST_VALUE {
        return Err(refuse(format!("the value is nested more than {DEEPEST_VALUE} levels deep")));
    }
    let around = style.indent.unwrap_or(0) * level;
    let separators = style.separators.as_ref().map_or(0, |(item, key)| item.len() + key.len());
    state.consume_fuel(1 + (around + separators + value.as_str().map_or(0, str::len)) as u64 / 16)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| json_value(state, &item, style, level + 1)).collect()
        }
        ValueKind::Map => {
            let mut object = serde_json::Map::new();
            for key in value.try_iter()? {
                let item = json_value(state, &value.get_item(&key)?, style, level + 1)?;
                let key = match json_value(state, &key, style, level + 1)? {
                    serde_json::Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, item);
            }
            Ok(object.into())
        }
        _ => serde_json::to_value(value).map_err(|error| refuse(error.to_string())),
    }
}

/// Puts the keys of every object into order.
fn sort(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            let sorted: BTreeMap<String, serde_json::Value> = std::mem::take(object).into_iter().collect();
            *object = sorted.into_iter().collect();
            object.values_mut().for_each(sort);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}
