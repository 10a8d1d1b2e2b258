//! Typed access to the keys of a config, collecting problems.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::problems::Problems;

/// A problem was found and is in the reader's list already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported;

/// Reads keys and remembers everything that is wrong.
pub(super) struct Reader<'a> {
    json: &'a Map<String, Value>,
    problems: Problems,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(json: &'a Map<String, Value>) -> Self {
        Self { json, problems: Problems::default(), notes: Vec::new() }
    }

    /// The problems and the notes.
    pub(super) fn finish(self) -> (Problems, Vec<String>) {
        (self.problems, self.notes)
    }

    /// Adds a problem.
    pub(super) fn problem(&mut self, problem: String) -> Reported {
        self.problems.add(problem);
        Reported
    }

    /// Adds something that the user should know.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The raw value of `key`; null counts as absent.
    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there with the value null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(Value::is_null)
    }

    /// The value of `key`, which must be there.
    pub(super) fn required<T: Scalar>(&mut self, key: &str) -> Result<T, Reported> {
        self.optional(key)?.ok_or_else(|| self.problem(format!("{key} is missing")))
    }

    /// The value of `key`, if it is there.
    pub(super) fn optional<T: Scalar>(&mut self, key: &str) -> Result<Option<T>, Reported> {
        self.raw(key).map(|value| self.scalar(key, value)).transpose()
    }

    /// The value of either key. If both are there, they must be equal.
    pub(super) fn agreeing<T: Scalar + PartialEq + Display>(
        &mut self,
        first: &str,
        second: &str,
    ) -> Result<Option<T>, Reported> {
        let (left, right) = (self.optional::<T>(first), self.optional::<T>(second));
        match (left?, right?) {
            (Some(left), Some(right)) if left != right => {
                Err(self.problem(format!("{first} is {left} but {second} is {right}")))
            }
            (left, right) => Ok(left.or(right)),
        }
    }

    /// A value called `key` in messages.
    pub(super) fn scalar<T: Scalar>(&mut self, key: &str, value: &Value) -> Result<T, Reported> {
        T::from_value(value).ok_or_else(|| self.problem(format!("{key} is {}, {} is needed", brief(value), T::WHAT)))
    }

    /// A list called `key`.
    pub(super) fn list<T: Scalar>(&mut self, key: &str) -> Result<Option<Vec<T>>, Reported> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let values = value.as_array().map(|values| values.iter().map(T::from_value).collect::<Option<Vec<T>>>());
        match values.flatten() {
            Some(values) => Ok(Some(values)),
            None => {
                Err(self.problem(format!("{key} is {}, a list is needed of which each is {}", brief(value), T::WHAT)))
            }
        }
    }

    /// The token id `key`, if there is one.
    pub(super) fn token_id(&mut self, key: &str) -> Result<Option<u32>, Reported> {
        self.optional(key)
    }

    /// The token id `key`, where some trainers write a negative number for none.
    pub(super) fn padding_id(&mut self, key: &str) -> Result<Option<u32>, Reported> {
        match self.raw(key).and_then(Value::as_i64) {
            Some(id) if id < 0 => {
                self.note(format!("{key} is {id}, which is taken for none"));
                Ok(None)
            }
            _ => self.token_id(key),
        }
    }

    /// The token ids `key`: one, a list, or none.
    pub(super) fn token_ids(&mut self, key: &str) -> Result<Vec<u32>, Reported> {
        if self.raw(key).is_some_and(Value::is_array) {
            return Ok(self.list(key)?.unwrap_or_default());
        }
        Ok(self.token_id(key)?.into_iter().collect())
    }
}

/// A value that a key may have.
pub(super) trait Scalar: Sized {
    /// The kind of value, as in "… is needed".
    const WHAT: &str;

    fn from_value(value: &Value) -> Option<Self>;
}

impl Scalar for usize {
    const WHAT: &str = "a whole number";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| number.try_into().ok())
    }
}

impl Scalar for u32 {
    const WHAT: &str = "a token id";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| number.try_into().ok())
    }
}

impl Scalar for f64 {
    const WHAT: &str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Scalar for bool {
    const WHAT: &str = "true or false";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Scalar for String {
    const WHAT: &str = "a text";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

/// A value as it is in the file, shortened if it is long.
pub(super) fn brief(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}
