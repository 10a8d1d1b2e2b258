//! Recipes as TOML. Everything that is wrong is told at once, with its line.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lfm2_graphs::ir::{Blocks, DType};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{CALIBRATE_SUFFIX, Choice, Precision, Recipe, Rule, Selector};
use crate::input::read_file;
use crate::problems::{Problems, lines};
use crate::quantize::Method;

/// Keys of a recipe.
const KEYS: [&str; 4] = ["name", "description", "activations", "rule"];

/// Keys of a rule: the weights, and either `dtype` or the others.
const RULE_KEYS: [&str; 6] = ["weights", "dtype", "bits", "block", "symmetric", "method"];

/// Most bytes of a recipe.
const LARGEST: u64 = 256 << 10;

/// Most characters of a recipe's name, which becomes part of file names.
const LONGEST_NAME: usize = 40;

impl Recipe {
    /// Reads the file at `path`, which may not take the name of a preset that it differs from.
    pub fn load(path: &Path) -> Result<Self, RecipeFileError> {
        let refused = |source| RecipeFileError::Io { path: path.to_owned(), source };
        let bytes = read_file(path, LARGEST).map_err(refused)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))?;
        let origin = path.display().to_string();
        let recipe = Self::parse(&text, &origin)?;
        if let Ok(preset) = recipe.name.parse::<Precision>()
            && !preset.recipe()?.is_as_good_as(&recipe)
        {
            return Err(RecipeFileError::PresetName { origin, name: recipe.name });
        }
        let taken = recipe.suffix() == CALIBRATE_SUFFIX
            || Precision::ALL.iter().any(|it| it.suffix() == recipe.suffix() && it.as_str() != recipe.name);
        if taken {
            return Err(RecipeFileError::FileName { origin, suffix: recipe.suffix(), name: recipe.name });
        }
        Ok(recipe)
    }

    /// Reads TOML; `origin` is what messages call it.
    pub fn parse(text: &str, origin: &str) -> Result<Self, RecipeError> {
        let mut reader = Reader { text, origin, problems: Problems::default() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.refuse(error.span().unwrap_or(0..0), error.message().to_owned());
        }
        // What could not be read is missing from the table; to complain about that as well would mislead.
        let recipe = if reader.problems.is_empty() { reader.recipe(&table) } else { None };
        match recipe {
            Some(recipe) if reader.problems.is_empty() => Ok(recipe),
            _ => Err(RecipeError { problems: reader.problems.into_list() }),
        }
    }

    /// Whether both make the same packages.
    fn is_as_good_as(&self, other: &Self) -> bool {
        let rules = |recipe: &Self| -> Vec<_> {
            recipe.rules.iter().map(|rule| (rule.selectors.clone(), rule.choice)).collect()
        };
        self.activations == other.activations && rules(self) == rules(other)
    }
}

/// Everything that is wrong with a recipe.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the recipe cannot be used:{}", lines(problems))]
pub struct RecipeError {
    /// One sentence for each, beginning with file and line.
    pub problems: Vec<String>,
}

/// Why the file of a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeFileError {
    /// The file system refused.
    #[error("the recipe {path} cannot be read: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Packages would claim to be what they are not.
    #[error("{origin}: `name` is \"{name}\", a preset that this recipe differs from; give it a name of its own")]
    PresetName {
        /// The file.
        origin: String,
        /// The name in it.
        name: String,
    },
    /// Packages would overwrite those of others.
    #[error(
        "{origin}: `name` is \"{name}\", and model{suffix}.onnx is the file of another precision; give it another name"
    )]
    FileName {
        /// The file.
        origin: String,
        /// The name in it.
        name: String,
        /// What it appends to names of files.
        suffix: String,
    },
}

struct Reader<'t> {
    text: &'t str,
    origin: &'t str,
    problems: Problems,
}

type Table<'t> = DeTable<'t>;
type Value<'t> = Spanned<DeValue<'t>>;

impl Reader<'_> {
    fn recipe(&mut self, table: &Spanned<Table<'_>>) -> Option<Recipe> {
        let whole = 0..0;
        let table = table.get_ref();
        self.refuse_unknown(table, &KEYS);
        let name = self.required(table, "name", &whole).and_then(|value| self.name(value));
        let description = self.required(table, "description", &whole).and_then(|value| self.text(value, "description"));
        let activations =
            self.required(table, "activations", &whole).and_then(|value| self.dtype(value, "activations"));
        let mut rules = Vec::new();
        if let Some(value) = table.get("rule") {
            match value.get_ref().as_array() {
                Some(array) => {
                    for value in array.iter() {
                        rules.push(self.rule(value, activations));
                    }
                }
                None => self.refuse(value.span(), "`rule` is no list of tables: begin each with [[rule]]".to_owned()),
            }
        }
        let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Recipe {
            name: name?,
            description: description?,
            activations: activations?,
            rules,
            origin: self.origin.to_owned(),
        })
    }

    /// A rule; `activations` is absent if that is wrong itself.
    fn rule(&mut self, value: &Value<'_>, activations: Option<DType>) -> Option<Rule> {
        let span = value.span();
        let Some(table) = value.get_ref().as_table() else {
            self.refuse(span, "`rule` is no list of tables: begin each with [[rule]]".to_owned());
            return None;
        };
        self.refuse_unknown(table, &RULE_KEYS);
        let selectors = self.required(table, "weights", &span).and_then(|value| self.selectors(value));
        let choice = match table.get("dtype") {
            Some(value) => {
                for key in &RULE_KEYS[2..] {
                    if let Some(value) = table.get(*key) {
                        self.refuse(
                            value.span(),
                            format!("`{key}` is for blocks, and `dtype` for plain numbers; leave one out"),
                        );
                    }
                }
                let dtype = self.dtype(value, "dtype");
                if (dtype, activations) == (Some(DType::Float32), Some(DType::Float16)) {
                    let problem =
                        "float32 weights would be rounded to the type of the activations, float16; write that";
                    self.refuse(value.span(), format!("`dtype`: {problem}"));
                }
                dtype.map(Choice::Dense)
            }
            None => self.blocks(table, &span, activations),
        };
        Some(Rule { line: self.line(&span), selectors: selectors?, choice: choice? })
    }

    fn blocks(&mut self, table: &Table<'_>, rule: &Range<usize>, activations: Option<DType>) -> Option<Choice> {
        let bits = self.required(table, "bits", rule).and_then(|value| self.one_of(value, "bits", &[4, 8]));
        let sizes = [16, 32, 64, 128, 256];
        let block_size = self.required(table, "block", rule).and_then(|value| self.one_of(value, "block", &sizes));
        let symmetric = self.required(table, "symmetric", rule).and_then(|value| {
            let found = value.get_ref().as_bool();
            if found.is_none() {
                self.refuse(value.span(), "`symmetric` is neither true nor false".to_owned());
            }
            found
        });
        let method = self.required(table, "method", rule).and_then(|value| {
            let found = value.get_ref().as_str().and_then(Method::named);
            if found.is_none() {
                let known = Method::ALL.map(Method::as_str).join("\" or \"");
                self.refuse(value.span(), format!("`method` is not \"{known}\""));
            }
            found
        });
        let blocks = Blocks { bits: bits?, block_size: block_size?, zero_points: !symmetric?, scales: activations? };
        Some(Choice::Blocks { blocks, method: method? })
    }

    fn selectors(&mut self, value: &Value<'_>) -> Option<Vec<Selector>> {
        let texts: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        if texts.is_empty() {
            self.refuse(value.span(), "`weights` is empty".to_owned());
            return None;
        }
        let parsed: Vec<Option<Selector>> = texts
            .into_iter()
            .map(|text| match self.text(text, "weights").map(|it| Selector::parse(&it)) {
                Some(Ok(selector)) => Some(selector),
                Some(Err(problem)) => {
                    self.refuse(text.span(), format!("`weights`: {problem}"));
                    None
                }
                None => None,
            })
            .collect();
        parsed.into_iter().collect()
    }

    fn name(&mut self, value: &Value<'_>) -> Option<String> {
        let name = self.text(value, "name")?;
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_allowed) {
            let rule = format!("1 to {LONGEST_NAME} lower-case letters, digits, - and _");
            self.refuse(value.span(), format!("`name` becomes part of file names: {rule}"));
            return None;
        }
        Some(name)
    }

    fn text(&mut self, value: &Value<'_>, key: &str) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.refuse(value.span(), format!("`{key}` is {}, not text in quotes", value.get_ref().type_str()));
        }
        text
    }

    fn dtype(&mut self, value: &Value<'_>, key: &str) -> Option<DType> {
        match value.get_ref().as_str() {
            Some("float32") => Some(DType::Float32),
            Some("float16") => Some(DType::Float16),
            _ => {
                self.refuse(value.span(), format!("`{key}` is neither \"float32\" nor \"float16\""));
                None
            }
        }
    }

    fn one_of(&mut self, value: &Value<'_>, key: &str, known: &[usize]) -> Option<usize> {
        let integer = value.get_ref().as_integer();
        let number = integer.and_then(|it| usize::from_str_radix(it.as_str(), it.radix()).ok());
        let found = number.filter(|number| known.contains(number));
        if found.is_none() {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            self.refuse(value.span(), format!("`{key}` is none of {}", known.join(", ")));
        }
        found
    }

    fn required<'v, 't>(&mut self, table: &'v Table<'t>, key: &str, at: &Range<usize>) -> Option<&'v Value<'t>> {
        let value = table.get(key);
        if value.is_none() {
            self.refuse(at.clone(), format!("`{key}` is missing"));
        }
        value
    }

    fn refuse_unknown(&mut self, table: &Table<'_>, known: &[&str]) {
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                self.refuse(
                    key.span(),
                    format!("there is no key `{}`; known ones are {}", key.get_ref(), known.join(", ")),
                );
            }
        }
    }

    fn refuse(&mut self, span: Range<usize>, problem: String) {
        let line = self.line(&span);
        self.problems.add(format!("{}:{line}: {problem}", self.origin));
    }

    /// The line in which a span begins, from 1.
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}
