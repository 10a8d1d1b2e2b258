//! Plans: what is to be measured, as a TOML file that people write.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::plan::{Axes, Named};
use crate::cli::Problems;
use crate::measure::Test;
use crate::package::Prefill;
use crate::platform;

/// Most bytes of a plan.
const LARGEST: u64 = 1 << 20;

/// A plan as it is written. `benches/plans/` explains the keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    name: Option<String>,
    providers: Option<Vec<String>>,
    threads: Option<Vec<usize>>,
    chunk: Option<Vec<usize>>,
    spinning: Option<Vec<bool>>,
    speculate: Option<Vec<usize>>,
    prefill: Option<Prefill>,
    repetitions: Option<usize>,
    seed: Option<u64>,
    #[serde(default)]
    low_memory: bool,
    reference: Option<PathBuf>,
    models: Vec<Model>,
    tests: Vec<Entry>,
}

/// A model of a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: Option<String>,
    path: PathBuf,
}

/// A test of a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    test: String,
}

/// Reads the plan in `file`, whose paths are relative to its folder. What is wrong is reported, and nothing comes back if it is no
/// plan at all. What no plan says is as it is without flags.
pub(super) fn axes(file: &Path, problems: &mut Problems) -> Option<Axes> {
    let read = || -> Result<Matrix, String> {
        let size = fs::metadata(file).map_err(|error| format!("cannot be read: {error}"))?.len();
        if size > LARGEST {
            return Err(format!("has {size} bytes, which is no plan"));
        }
        let text = fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
        toml::from_str(&text).map_err(|error| format!("is no plan: {}", error.to_string().trim_end()))
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    match read() {
        Ok(matrix) => Some(matrix.axes(folder, &file.display().to_string(), problems)),
        Err(problem) => {
            problems.add("--plan", format!("{} {problem}", file.display()));
            None
        }
    }
}

impl Matrix {
    fn axes(self, folder: &Path, file: &str, problems: &mut Problems) -> Axes {
        let mut tests = Vec::new();
        for Entry { name, test } in self.tests {
            match test.parse::<Test>() {
                Ok(value) => tests.push(Named { name, value }),
                Err(problem) => problems.add("--plan", format!("{file}: {problem}")),
            }
        }
        let models = self.models.into_iter().map(|model| Named { name: model.name, value: folder.join(model.path) });
        let models: Vec<_> = models.collect();
        let repetitions = self.repetitions.unwrap_or(5);
        let names = |names: Vec<Option<&String>>| {
            let mut names: Vec<_> = names.into_iter().flatten().cloned().collect();
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
        };
        let mut wrong = |problem: String| problems.add("--plan", format!("{file}: {problem}"));
        let twice = [
            names(models.iter().map(|model| model.name.as_ref()).collect()),
            names(tests.iter().map(|test| test.name.as_ref()).collect()),
        ];
        for name in twice.into_iter().flatten() {
            wrong(format!("the name {name:?} is given twice"));
        }
        let lists = [
            ("models", models.is_empty()),
            ("tests", tests.is_empty()),
            ("providers", self.providers.as_ref().is_some_and(Vec::is_empty)),
            ("threads", self.threads.as_ref().is_some_and(|list| list.is_empty() || list.contains(&0))),
            ("chunk", self.chunk.as_ref().is_some_and(|list| list.is_empty() || list.contains(&0))),
            ("spinning", self.spinning.as_ref().is_some_and(Vec::is_empty)),
            ("speculate", self.speculate.as_ref().is_some_and(Vec::is_empty)),
        ];
        for (key, _) in lists.iter().filter(|(_, is_wrong)| *is_wrong) {
            wrong(format!("{key} must have an entry, and numbers above 0 unless it is speculate"));
        }
        if repetitions == 0 {
            wrong("repetitions must be at least 1".to_owned());
        }
        Axes {
            plan: self.name,
            models,
            providers: self.providers.unwrap_or_else(|| vec!["cpu".to_owned()]),
            threads: self.threads.unwrap_or_else(|| vec![platform::default_threads()]),
            spinning: self.spinning.unwrap_or_else(|| vec![true]),
            chunks: self.chunk.unwrap_or_else(|| vec![512]),
            speculate: self.speculate.unwrap_or_else(|| vec![0]),
            low_memory: self.low_memory,
            prefill: self.prefill.unwrap_or_default(),
            reference: self.reference.map(|path| folder.join(path)),
            tests,
            repetitions,
            seed: self.seed.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Axes>, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plan.toml");
        fs::write(&file, text).unwrap();
        let mut problems = Problems::default();
        let axes = axes(&file, &mut problems);
        (axes, problems.to_string())
    }

    #[test]
    fn the_example_is_a_plan() {
        let example = include_str!("../../../../benches/plans/example.toml");
        let (axes, problems) = read(example);
        let axes = axes.unwrap_or_else(|| panic!("{problems}"));
        assert!(axes.plan.is_some() && axes.models.len() > 1 && axes.tests.len() > 2, "{axes:?}");
        assert!(axes.models[0].value.is_absolute(), "relative to the plan's folder: {axes:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let (axes, problems) = read("models = [{ path = \"a\" }]\ntests = [{ test = \"pp5\" }]\nthread = [1]\n");
        assert!(axes.is_none() && problems.contains("thread") && problems.contains("line 3"), "{problems}");
        let text = "repetitions = 0\nthreads = [0]\nmodels = []\ntests = [{ test = \"pp\" }, { name = \"x\", test = \"tg1\" }, { name = \"x\", test = \"tg2\" }]\n";
        let (_, problems) = read(text);
        for part in ["repetitions", "threads", "models", "\"pp\"", "\"x\" is given twice"] {
            assert!(problems.contains(part), "{part} is missing in {problems}");
        }
        let mut problems = Problems::default();
        assert!(super::axes(Path::new("gone.toml"), &mut problems).is_none());
        assert!(problems.to_string().contains("gone.toml"));
    }
}
