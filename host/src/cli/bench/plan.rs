//! From typed arguments to the cells that are to be measured. All problems are reported together.

use std::num::NonZeroUsize;

use super::args::BenchArgs;
use super::lists;
use crate::cli::Problems;
use crate::cli::settings::MOST_THREADS;
use crate::measure::{Cell, Subject, Test, format::Format};
use crate::package::{Package, Prefill};
use crate::{platform, provider};

/// What is to be measured, and how it is written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) output: Format,
    pub(super) output_err: Option<Format>,
    /// Models in the order of the arguments, each with its cells.
    pub(super) models: Vec<Model>,
    /// Settings with several values, which a table has to show.
    pub(super) shown: Vec<&'static str>,
}

/// A model with what is to be measured of it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) subject: Subject,
    pub(super) cells: Vec<Cell>,
}

/// What the arguments say.
struct Settings {
    provider: &'static str,
    threads: Vec<usize>,
    chunks: Vec<usize>,
    spinning: Vec<bool>,
    prefill: Prefill,
    tests: Vec<Test>,
    repetitions: usize,
    seed: u64,
    output: Format,
    output_err: Option<Format>,
}

impl Plan {
    /// Checks the arguments and opens the packages, without loading anything; with `--verify`, reads them whole.
    pub(super) fn new(args: &BenchArgs) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let settings = settings(args, &mut problems);
        let mut models = Vec::new();
        for path in &args.model {
            let opened = Package::open(path).and_then(|package| {
                if args.verify {
                    package.verify()?;
                }
                Ok(package)
            });
            match opened {
                Err(error) => problems.say(error),
                Ok(package) => {
                    let subject = Subject::new(&package, args.verify);
                    let model = Model { cells: cells(args, path, &settings), subject };
                    too_long(&model, &mut problems);
                    models.push(model);
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let several = [("chunk", settings.chunks.len()), ("spinning", settings.spinning.len())];
        let shown = several.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect();
        Ok(Self { output: settings.output, output_err: settings.output_err, models, shown })
    }
}

/// What the arguments say, with empty lists in the place of those that are wrong.
fn settings(args: &BenchArgs, problems: &mut Problems) -> Settings {
    let mut list = |flag: &str, texts: &[String], smallest: usize| -> Vec<usize> {
        let numbers = texts.iter().map(|text| lists::numbers(text, smallest));
        numbers
            .filter_map(|it| it.map_err(|problem| problems.add(flag, format!("is wrong: {problem}"))).ok())
            .flatten()
            .collect()
    };
    let prompts = list("-p", &args.n_prompt, 0);
    let answers = list("-n", &args.n_gen, 0);
    let depths = list("-d", &args.n_depth, 0);
    let mut threads = list("-t", &args.threads, 1);
    let chunks = list("--chunk", &args.chunk, 1);
    let spinning = list("--spinning", &args.spinning, 0);
    let both: Vec<_> = args.pg.iter().map(|text| (text, lists::numbers(text, 1))).collect();
    if args.threads.is_empty() {
        threads.push(platform::default_threads());
    }
    if let Some(many) = threads.iter().find(|threads| **threads > MOST_THREADS) {
        problems.add("-t", format!("asks for {many} threads; there can be {MOST_THREADS}"));
    }
    if spinning.iter().any(|value| *value > 1) {
        problems.add("--spinning", "takes 0 and 1");
    }
    let prefill = Prefill::named(&args.prefill);
    if prefill.is_none() {
        problems.add("--prefill", format!("{:?} is not one of auto, int8 and same", args.prefill));
    }
    let mut pairs = Vec::new();
    for (text, numbers) in both {
        match numbers.as_deref() {
            Ok(&[prompt, answer]) => pairs.push((prompt, answer)),
            _ => problems.add("-pg", format!("takes two whole numbers above 0 as P,N, not {text:?}")),
        }
    }
    let kinds = prompts.iter().map(|&prompt| (prompt, 0)).chain(answers.iter().map(|&answer| (0, answer))).chain(pairs);
    let kinds: Vec<_> = kinds.filter(|kind| *kind != (0, 0)).collect();
    if kinds.is_empty() && problems.is_empty() {
        problems.say("there is nothing to measure: give -p, -n or -pg numbers above 0");
    }
    let test = |depth| kinds.iter().map(move |&(prompt, generate)| Test { prompt, generate, depth });
    let tests = depths.iter().flat_map(|&depth| test(depth)).collect();
    let mut format = |flag: &str, text: &str| {
        text.parse()
            .map_err(|problem: String| problems.add(flag, format!("is wrong: {problem}")))
            .unwrap_or(Format::Markdown)
    };
    let output = format("-o", &args.output);
    let output_err = args.output_err.as_deref().map(|text| format("-oe", text));
    let provider = provider::named(&args.ep).map_err(|error| problems.say(error)).map(|it| it.name());
    let repetitions =
        problems.number("-r", Some(args.repetitions.clone()), "a whole number of at least 1", |_: &NonZeroUsize| true);
    let seed =
        problems.number("--seed", Some(args.seed.clone()), "a whole number from 0 to 18446744073709551615", |_| true);
    Settings {
        provider: provider.unwrap_or_default(),
        threads,
        chunks,
        spinning: spinning.into_iter().map(|value| value == 1).collect(),
        prefill: prefill.unwrap_or_default(),
        tests,
        repetitions: repetitions.map_or(1, NonZeroUsize::get),
        seed: seed.unwrap_or_default(),
        output,
        output_err,
    }
}

/// The cells of one model, with what costs the least to vary varied most often.
fn cells(args: &BenchArgs, model: &std::path::Path, settings: &Settings) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &threads in &settings.threads {
        for &spinning in &settings.spinning {
            for &chunk in &settings.chunks {
                cells.extend(settings.tests.iter().map(|&test| Cell {
                    model: model.to_owned(),
                    library: args.ort_lib.clone(),
                    provider: settings.provider.to_owned(),
                    threads,
                    spinning,
                    chunk,
                    prefill: settings.prefill,
                    test,
                    repetitions: settings.repetitions,
                    seed: settings.seed,
                }));
            }
        }
    }
    cells
}

/// Names the tests that do not fit into the context of the model.
fn too_long(model: &Model, problems: &mut Problems) {
    let limit = model.subject.contract.context_length;
    let mut named = Vec::new();
    for test in model.cells.iter().map(|cell| cell.test).filter(|test| test.context() > limit) {
        if !named.contains(&test) {
            named.push(test);
            problems.say(format!(
                "{test} needs a context of {}, and {} was exported for {limit} tokens; export it with a larger --max-context, or ask for fewer",
                test.context(),
                model.subject.model_filename
            ));
        }
    }
}
