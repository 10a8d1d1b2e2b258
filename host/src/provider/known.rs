//! The options that providers take. ONNX Runtime ignores what it does not know, so that a mistyped key would do nothing and say
//! nothing: every key and value is checked here first.

use std::fmt;

/// An option of a provider.
#[derive(Clone, Copy, Debug)]
pub struct KnownOption {
    /// Its name, as the provider spells it.
    pub key: &'static str,
    /// What it may be set to.
    pub values: Values,
}

/// What an option may be set to.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// 0 or 1.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// One or more, with commas between them, of the words and numbers that a table has.
    Listed(&'static str, fn(&str) -> bool),
    /// A path.
    Path,
    /// Any text but an empty one.
    Text,
}

impl KnownOption {
    /// An option with these values.
    pub(super) const fn new(key: &'static str, values: Values) -> Self {
        Self { key, values }
    }

    /// An option that is 0 or 1.
    pub(super) const fn switch(key: &'static str) -> Self {
        Self { key, values: Values::Switch }
    }
}

/// Whole numbers without a bound of their own.
pub(super) const ANY_NUMBER: Values = Values::Number(0, u64::MAX);

impl Values {
    /// Whether `value` is one of them.
    pub fn allow(self, value: &str) -> bool {
        match self {
            Self::Switch => ["0", "1"].contains(&value),
            Self::OneOf(words) => words.contains(&value),
            Self::Number(least, most) => value.parse().is_ok_and(|number: u64| (least..=most).contains(&number)),
            Self::Listed(_, is_known) => value.split(',').all(is_known),
            Self::Path | Self::Text => !value.is_empty(),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => write!(f, "0 or 1"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Number(0, u64::MAX) => write!(f, "a whole number"),
            Self::Number(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Listed(what, _) => write!(f, "{what}"),
            Self::Path => write!(f, "a path"),
            Self::Text => write!(f, "a text"),
        }
    }
}

/// What is wrong with `key=value` for the providers `names`, which know the options `known` together.
pub(super) fn problem(names: &str, known: &[KnownOption], key: &str, value: &str) -> Option<String> {
    let mut same = known.iter().filter(|option| option.key == key).peekable();
    if same.peek().is_none() {
        let mut text = format!("--ep-option {key}: --ep {names} has no such option");
        let nearest =
            known.iter().map(|option| (distance(&option.key.to_lowercase(), &key.to_lowercase()), option.key));
        match nearest.min() {
            None => text += ", and no others",
            // Of a key that is mostly wrong, nobody can tell what was meant.
            Some((wrong, nearest)) if wrong <= key.chars().count() / 3 + 1 => {
                text += &format!("; did you mean {nearest}?")
            }
            Some(_) => {
                let mut keys: Vec<_> = known.iter().map(|option| option.key).collect();
                keys.dedup();
                text += &format!("; it has {}", keys.join(", "));
            }
        }
        return Some(text);
    }
    let refused = same.find(|option| !option.values.allow(value))?;
    Some(format!("--ep-option {key}={value}: {key} takes {}", refused.values))
}

/// How many letters have to be added, left out or replaced to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j].min(diagonal) + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[KnownOption] = &[
        KnownOption { key: "soc_model", values: Values::Listed("numbers", |it| it == "69" || it == "43") },
        KnownOption { key: "mode", values: Values::OneOf(&["burst", "balanced"]) },
        KnownOption { key: "level", values: Values::Number(0, 3) },
        KnownOption { key: "enable_fp16", values: Values::Switch },
    ];

    fn problem_of(option: &str) -> Option<String> {
        let (key, value) = option.split_once('=').unwrap();
        problem("npu", KNOWN, key, value)
    }

    #[test]
    fn what_is_known_passes() {
        for option in ["soc_model=69", "soc_model=69,43", "mode=burst", "level=0", "level=3", "enable_fp16=1"] {
            assert_eq!(problem_of(option), None, "{option}");
        }
    }

    #[test]
    fn values_are_checked() {
        for option in
            ["soc_model=70", "soc_model=69,", "soc_model=", "mode=Burst", "level=4", "level=-1", "enable_fp16=true"]
        {
            let message = problem_of(option).unwrap();
            assert!(message.contains(option) && message.contains("takes"), "{message}");
        }
        assert!(problem_of("mode=fast").unwrap().contains("one of burst, balanced"));
    }

    #[test]
    fn the_nearest_key_is_suggested() {
        assert!(problem_of("soc_modle=69").unwrap().contains("did you mean soc_model?"));
        assert!(problem_of("ENABLE_FP16=1").unwrap().contains("did you mean enable_fp16?"));
        let message = problem_of("something_else=1").unwrap();
        assert!(message.contains("--ep npu") && KNOWN.iter().all(|option| message.contains(option.key)), "{message}");
        assert!(problem("cpu", &[], "x", "1").unwrap().contains("no others"));
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
