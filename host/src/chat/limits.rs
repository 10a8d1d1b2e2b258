//! What a template may cost: it comes with a package, so it is as little trusted as any other file.
//!
//! Beyond these limits is the text of a list that contains itself many times over (`[x, x]`, forty times), where it is
//! joined with `~`: the library makes that text before it counts it.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Longest template. Those of real models are below 32 KiB, and the parser takes time that grows with the square.
pub(super) const LONGEST_SOURCE: usize = 64 << 10;

/// Most `~` in a template. The library joins constants while it parses, which takes time with the square of their number.
pub(super) const MOST_JOINS: usize = 1000;

/// Steps that rendering may take; one stands for an instruction, or for 64 bytes of text that are made or printed. It is
/// more than a hundred times what a chat of 100 turns takes, and bounds the memory of all texts to 128 MiB.
pub(super) const FUEL: u64 = 2_000_000;

/// Most spaces that `tojson` puts in for one level.
pub(super) const WIDEST_INDENT: usize = 64;

/// Deepest lists in lists that are printed.
pub(super) const DEEPEST_VALUE: usize = 200;

/// Stack for parsing and rendering. The parser calls itself for every `not` and `-`, so the longest template may need this
/// much; systems hand it out page by page, as it is used.
const STACK: usize = 256 << 20;

/// Runs `work` with a stack that no template within the limits can exhaust.
///
/// # Errors
/// The system has no such thread to give.
pub(super) fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread for the template: {error}"))?;
        thread.join().map_err(|_| "the template engine failed".to_string())
    })
}

/// Pays for what the methods of Python's strings read and make, which the library does not count by itself.
///
/// # Errors
/// Out of fuel; a list where Python takes only text.
pub(super) fn pay_for_method(state: &State, value: &Value, method: &str, arguments: &[Value]) -> Result<(), Error> {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    let bytes = length(value) + arguments.iter().map(length).sum::<usize>();
    state.consume_fuel(bytes as u64 / 64)?;
    let refuse = |what: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("{method}: {what}")));
    match (method, value.kind()) {
        ("join", ValueKind::String) => {
            for argument in arguments {
                for item in argument.try_iter()? {
                    let Some(text) = item.as_str() else { return refuse("all items have to be strings") };
                    state.consume_fuel(1 + text.len() as u64 / 64)?;
                }
            }
            Ok(())
        }
        ("format", ValueKind::String) => {
            if arguments.iter().any(is_container) {
                return refuse("lists and objects have no format; use `tojson`");
            }
            widths(value.as_str().unwrap_or_default()).try_for_each(|width| state.consume_fuel(width / 64))
        }
        ("count", ValueKind::Seq) => {
            if arguments.iter().any(is_container) {
                return refuse("only strings and numbers can be counted");
            }
            state.consume_fuel(value.len().unwrap_or(0) as u64)
        }
        _ => Ok(()),
    }
}

/// Pays for printing a list or an object: the library would count the text only when it is made.
///
/// # Errors
/// Out of fuel; nested too deeply.
pub(super) fn pay_for_value(state: &State, value: &Value, level: usize) -> Result<(), Error> {
    if level > DEEPEST_VALUE {
        let message = format!("a value is nested more than {DEEPEST_VALUE} levels deep");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 64)?;
    if is_container(value) {
        for item in value.try_iter()? {
            if value.kind() == ValueKind::Map {
                pay_for_value(state, &value.get_item(&item)?, level + 1)?;
            }
            pay_for_value(state, &item, level + 1)?;
        }
    }
    Ok(())
}

/// Whether a value has others in it.
pub(super) fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

/// The numbers in a format: how wide it makes its values at least.
fn widths(format: &str) -> impl Iterator<Item = u64> {
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(u64::MAX))
}
