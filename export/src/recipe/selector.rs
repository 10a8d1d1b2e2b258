//! What a rule of a recipe calls weights.

use std::fmt;

use lfm2_graphs::ir::Role;

/// Weights by what they are for, or by their names in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All weights with this role.
    Role(Role),
    /// All weights whose whole name the pattern describes; `*` stands for any text, dots included.
    Pattern(String),
}

/// The roles that recipes know, by name.
const ROLES: [(&str, Role); 3] = [("table", Role::Table), ("head", Role::Head), ("matrix", Role::Matrix)];

impl Selector {
    /// Reads a selector; the error says what it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((_, role)) = ROLES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Role(*role));
        }
        if text.contains(['.', '*']) {
            return Ok(Self::Pattern(text.to_owned()));
        }
        let roles = ROLES.map(|(name, _)| name).join(", ");
        Err(format!("{text:?} is neither one of {roles} nor a pattern such as \"*.feed_forward.w2.weight\""))
    }

    /// Whether it names the weight.
    pub fn matches(&self, name: &str, role: Role) -> bool {
        match self {
            Self::Role(wanted) => *wanted == role,
            Self::Pattern(pattern) => describes(pattern, name),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => {
                let name = ROLES.iter().find(|(_, known)| known == role).map(|(name, _)| *name);
                f.write_str(name.unwrap_or_default())
            }
            Self::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

/// Whether the pattern describes the whole name. The parts between stars are looked for from left to right, each as early as
/// possible, which finds a way if there is one; the last part must end the name.
fn describes(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*", "", true),
            ("*.w2.weight", "model.layers.0.feed_forward.w2.weight", true),
            ("model.layers.*.w2.weight", "model.layers.0.feed_forward.w2.weight", true),
            ("model.*.w*.weight", "model.layers.0.feed_forward.w2.weight", true),
            ("model.layers.1*.weight", "model.layers.0.feed_forward.w2.weight", false),
            ("a*b*b", "ab", false),
            ("a*ab", "ab", false),
            ("a*b", "acbdb", true),
        ] {
            assert_eq!(describes(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn selectors_are_written_as_they_are_read() {
        for text in ["table", "head", "matrix", "*.w2.weight"] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        }
        assert!(Selector::parse("tables").unwrap_err().contains("table, head, matrix"));
    }
}
