//! What templates find around them: the functions, filters and whitespace rules that transformers gives to Jinja.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat;

use super::ChatError;
use super::json::{JsonStyle, to_json};

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
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
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

/// `raise_exception(message)`: the template refuses.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `strftime_now(format)`: the local date and time.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`: `json.dumps` of Python. The filter
/// that comes with the library escapes characters for HTML.
fn tojson(value: &Value, arguments: Kwargs) -> Result<Value, Error> {
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
    let sort_keys = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    arguments.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson: the value is undefined"));
    }
    let mut value = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    if sort_keys {
        sort(&mut value);
    }
    Ok(Value::from(to_json(&value, &style)))
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
