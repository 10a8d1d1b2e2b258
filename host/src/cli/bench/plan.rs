//! From typed arguments or a plan's file to the cells that are to be measured. All problems are reported together.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lfm2_graphs::contract::Target;

use super::args::BenchArgs;
use super::{lists, matrix};
use crate::cli::Problems;
use crate::cli::settings::{LONGEST_DRAFT, MOST_THREADS};
use crate::compiled;
use crate::decoder;
use crate::measure::format::{Format, pipette};
use crate::measure::records::Shard;
use crate::measure::{Cell, Names, Sources, Subject, Test};
use crate::package::{Package, Prefill};
use crate::platform;
use crate::provider::{self, Provider, SessionOptions};

/// What is to be measured, and how it is written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) output: Format,
    pub(super) output_err: Option<Format>,
    /// Models in the order of the arguments, each with its cells.
    pub(super) models: Vec<Model>,
    /// Settings with several values, which a table has to show.
    pub(super) shown: Vec<&'static str>,
    /// How long a cell may take.
    pub(super) timeout: Duration,
    /// All providers of all cells.
    pub(super) providers: Vec<&'static dyn Provider>,
}

/// A model with what is to be measured of it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) subject: Subject,
    pub(super) cells: Vec<Cell>,
}

/// The lists whose every combination is a cell, and what all cells share.
#[derive(Debug)]
pub(super) struct Axes {
    pub(super) plan: Option<String>,
    pub(super) models: Vec<Named<PathBuf>>,
    pub(super) providers: Vec<String>,
    pub(super) threads: Vec<usize>,
    pub(super) spinning: Vec<bool>,
    pub(super) chunks: Vec<usize>,
    pub(super) speculate: Vec<usize>,
    pub(super) low_memory: bool,
    pub(super) prefill: Prefill,
    pub(super) reference: Option<PathBuf>,
    pub(super) tests: Vec<Named<Test>>,
    pub(super) repetitions: usize,
    pub(super) seed: u64,
}

/// Something that a plan may have a name for.
#[derive(Debug)]
pub(super) struct Named<T> {
    pub(super) name: Option<String>,
    pub(super) value: T,
}

impl<T> From<T> for Named<T> {
    fn from(value: T) -> Self {
        Self { name: None, value }
    }
}

impl Plan {
    /// Checks the arguments and opens the packages, without loading anything; with `--verify`, reads them whole.
    pub(super) fn new(args: &BenchArgs) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let axes = match &args.plan {
            Some(file) => matrix::axes(file, &mut problems),
            None => Some(from_flags(args, &mut problems)),
        };
        let output = format("-o", &args.output, &mut problems);
        let output_err = args.output_err.as_deref().map(|text| format("-oe", text, &mut problems));
        let shard = args.shard.parse::<Shard>().map_err(|problem| problems.add("--shard", problem));
        let timeout = problems.number(
            "--cell-timeout",
            Some(args.cell_timeout.clone()),
            "a number of seconds above 0",
            |seconds: &f64| *seconds > 0.0 && Duration::try_from_secs_f64(*seconds).is_ok(),
        );
        let (mut models, mut providers) = (Vec::new(), Vec::new());
        if let Some(axes) = &axes {
            check(axes, &mut problems);
            let told = told(axes, args, &mut problems);
            models = axes.models.iter().filter_map(|model| open(model, axes, &told, args, &mut problems)).collect();
            providers = told.providers;
            reference(axes, &models, &mut problems);
            if [Some(output), output_err].contains(&Some(Format::Pipette)) {
                for_pipette(axes, args, &mut problems);
            }
        }
        if let Some(kind) = args.form_factor.as_deref().filter(|kind| !pipette::FORM_FACTORS.contains(kind)) {
            problems.add("--form-factor", format!("takes {}; not {kind:?}", pipette::FORM_FACTORS.join(", ")));
        }
        let (Some(axes), Ok(shard), true) = (axes, shard, problems.is_empty()) else { return Err(problems) };
        let mut place = 0;
        for model in &mut models {
            model.cells.retain(|_| {
                place += 1;
                shard.has(place - 1)
            });
        }
        let several = [
            ("provider", axes.providers.len()),
            ("chunk", axes.chunks.len()),
            ("spinning", axes.spinning.len()),
            ("speculate", axes.speculate.len()),
        ];
        let shown = several.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect();
        let timeout = Duration::from_secs_f64(timeout.unwrap_or_default());
        Ok(Self { output, output_err, models, shown, timeout, providers })
    }
}

/// What the flags say, with empty lists in the place of those that are wrong.
fn from_flags(args: &BenchArgs, problems: &mut Problems) -> Axes {
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
    let speculate = list("--speculate", &args.speculate, 0);
    let both: Vec<_> = args.pg.iter().map(|text| (text, lists::numbers(text, 1))).collect();
    if args.threads.is_empty() {
        threads.push(platform::default_threads());
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
    let tests = depths.iter().flat_map(|&depth| test(depth)).map(Named::from).collect();
    let repetitions =
        problems.number("-r", Some(args.repetitions.clone()), "a whole number of at least 1", |_: &NonZeroUsize| true);
    let seed =
        problems.number("--seed", Some(args.seed.clone()), "a whole number from 0 to 18446744073709551615", |_| true);
    Axes {
        plan: None,
        models: args.model.iter().cloned().map(Named::from).collect(),
        providers: args.ep.clone(),
        threads,
        spinning: spinning.into_iter().map(|value| value == 1).collect(),
        chunks,
        speculate,
        low_memory: args.low_memory,
        prefill: prefill.unwrap_or_default(),
        reference: args.reference.clone(),
        tests,
        repetitions: repetitions.map_or(1, NonZeroUsize::get),
        seed: seed.unwrap_or_default(),
    }
}

fn format(flag: &str, text: &str, problems: &mut Problems) -> Format {
    let format = text.parse().map_err(|problem: String| problems.add(flag, format!("is wrong: {problem}")));
    format.unwrap_or(Format::Markdown)
}

/// What holds for flags and plans.
fn check(axes: &Axes, problems: &mut Problems) {
    if let Some(many) = axes.threads.iter().find(|threads| **threads > MOST_THREADS) {
        problems.add("-t", format!("asks for {many} threads; there can be {MOST_THREADS}"));
    }
    if let Some(long) = axes.speculate.iter().find(|tokens| **tokens > LONGEST_DRAFT) {
        problems.add("--speculate", format!("asks for {long} tokens at once; there can be {LONGEST_DRAFT}"));
    }
}

/// What is told to providers.
#[derive(Debug, Default)]
struct Told {
    /// The providers that there are; each of them may be missing on this machine, which is what rows are for.
    providers: Vec<&'static dyn Provider>,
    options: Vec<(String, String)>,
}

fn told(axes: &Axes, args: &BenchArgs, problems: &mut Problems) -> Told {
    let mut told = Told::default();
    for name in &axes.providers {
        match provider::named(name) {
            Ok(provider) => told.providers.push(provider),
            Err(error) => problems.say(error),
        }
    }
    for option in &args.ep_option {
        match option.split_once('=') {
            Some((key, value)) => told.options.push((key.to_owned(), value.to_owned())),
            None => problems.add("--ep-option", format!("{option} has no value: give KEY=VALUE")),
        }
    }
    if told.providers.len() == axes.providers.len() {
        provider::option_problems(&told.providers, &told.options).into_iter().for_each(|problem| problems.say(problem));
        if args.ep_lib.is_some() && told.providers.iter().filter(|provider| provider.plugin().is_some()).count() != 1 {
            problems.add("--ep-lib", "is for one provider that comes as a plugin; measure those one by one");
        }
        if args.compiled.is_some() && !told.providers.iter().any(|provider| provider.name() == compiled::PROVIDER) {
            problems.add("--compiled", format!("is for --ep {}", compiled::PROVIDER));
        }
    }
    told
}

/// Opens a package and lists its cells. Nothing comes back if there is a problem.
fn open(model: &Named<PathBuf>, axes: &Axes, told: &Told, args: &BenchArgs, problems: &mut Problems) -> Option<Model> {
    let path = &model.value;
    let package = Package::open(path).map_err(|error| problems.say(error)).ok()?;
    let runs: Vec<_> = told.providers.iter().map(|provider| Runs::new(&package, *provider, axes.prefill)).collect();
    if args.verify {
        let companions = runs.iter().filter_map(|runs| runs.companion.as_ref());
        for package in [&package].into_iter().chain(runs.iter().flat_map(|runs| &runs.others)).chain(companions) {
            package.verify().map_err(|error| problems.say(error)).ok()?;
        }
        if let Some(folder) = &args.compiled {
            let options = SessionOptions { provider: told.options.clone(), ..SessionOptions::default() };
            compiled::verify(folder, &options).map_err(|error| problems.say(error)).ok()?;
        }
    }
    let subject = Subject::new(&package, args.verify);
    let model = Model { cells: cells(args, path, model.name.as_ref(), axes, told, &runs), subject };
    too_long(&model, &runs, problems);
    Some(model)
}

/// What a provider runs of a package.
struct Runs {
    provider: &'static dyn Provider,
    /// Its graphs, but for the general one.
    others: Vec<Package>,
    /// The graph that runs prompts in the place of the general one where that is worth it, if there is one.
    companion: Option<Package>,
    /// Tokens of a prompt that its graphs run at once, if that is for them to say.
    chunk: Option<usize>,
    context_length: usize,
    /// What the exporter calls that.
    flag: &'static str,
}

impl Runs {
    /// Without graphs for the provider, or with a companion that cannot be used, measuring says so in a row.
    fn new(package: &Package, provider: &'static dyn Provider, prefill: Prefill) -> Self {
        let graphs = decoder::graphs(package, provider).unwrap_or_else(|_| vec![package.clone()]);
        let inputs = graphs.first().and_then(|graph| graph.contract().rows().ok());
        let contract = graphs.last().unwrap_or(package).contract();
        let others = graphs.iter().filter(|graph| graph.graph() != package.graph());
        // As it is opened: only the processor's graph has one.
        let has_companion = Target::named(provider.name()) == Some(Target::Cpu);
        let companion = has_companion.then(|| package.prefill(prefill).ok().flatten()).flatten();
        Self {
            provider,
            chunk: inputs.map(|inputs| inputs.tokens),
            flag: if inputs.is_some() { "--static-context" } else { "--max-context" },
            context_length: contract.context_length,
            others: others.cloned().collect(),
            companion,
        }
    }
}

/// The cells of one model, with what costs the least to vary varied most often.
fn cells(args: &BenchArgs, path: &Path, name: Option<&String>, axes: &Axes, told: &Told, runs: &[Runs]) -> Vec<Cell> {
    // What is wrong with it is told where it is checked.
    let reference = axes.reference.as_ref().and_then(|path| Package::open(path).ok()?.fingerprint());
    let mut cells = Vec::new();
    let allow_fallback = match (args.strict, args.allow_fallback) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    };
    let runs = runs.iter().flat_map(|runs| axes.threads.iter().map(move |threads| (runs, threads)));
    for (Runs { provider, others, companion, chunk, .. }, &threads) in runs {
        let is_known = |key: &str| provider.known_options().iter().any(|option| option.key == key);
        let options = told.options.iter().filter(|(key, _)| is_known(key)).cloned();
        let options: BTreeMap<String, String> = options.collect();
        let plugin = args.ep_lib.clone().filter(|_| provider.plugin().is_some());
        let ahead = args.compiled.clone().filter(|_| provider.name() == compiled::PROVIDER);
        let session = SessionOptions { provider: options.clone().into_iter().collect(), ..SessionOptions::default() };
        let chip = ahead.as_ref().and_then(|folder| compiled::chip(folder, &session).ok());
        let graphs = others.iter().filter_map(Package::fingerprint).collect();
        let companion = companion.as_ref().map(|package| match package.fingerprint() {
            Some(fingerprint) => format!("int8 {fingerprint}"),
            None => "int8".to_owned(),
        });
        let sources = Sources { graphs, prefill: None, reference: reference.clone(), chip };
        let sources = |test: Test, chunk| Sources {
            prefill: companion.clone().filter(|_| decoder::takes_part(axes.prefill, test.longest_run(), chunk)),
            ..sources.clone()
        };
        // Chunks of graphs of fixed shapes are as long as they are.
        let chunks = chunk.map_or_else(|| axes.chunks.clone(), |chunk| vec![chunk]);
        for &spinning in &axes.spinning {
            for &chunk in &chunks {
                for &speculate in &axes.speculate {
                    cells.extend(axes.tests.iter().map(|test| Cell {
                        model: path.to_owned(),
                        library: args.ort_lib.clone(),
                        provider: provider.name().to_owned(),
                        provider_options: options.clone(),
                        plugin: plugin.clone(),
                        allow_fallback,
                        compiled: ahead.clone(),
                        threads,
                        spinning,
                        chunk,
                        low_memory: axes.low_memory,
                        prefill: axes.prefill,
                        speculate,
                        reference: axes.reference.clone(),
                        sources: sources(test.value, chunk),
                        test: test.value,
                        repetitions: axes.repetitions,
                        seed: axes.seed,
                        names: Names { plan: axes.plan.clone(), model: name.cloned(), test: test.name.clone() },
                    }));
                }
            }
        }
    }
    cells
}

/// Names the tests that do not fit into the contexts of the graphs.
fn too_long(model: &Model, runs: &[Runs], problems: &mut Problems) {
    let mut named = Vec::new();
    for cell in &model.cells {
        let Some(runs) = runs.iter().find(|runs| runs.provider.name() == cell.provider) else { continue };
        let (test, limit) = (cell.test, runs.context_length);
        if test.context() <= limit || named.contains(&(test, limit)) {
            continue;
        }
        named.push((test, limit));
        problems.say(format!(
            "{test} needs a context of {}, and {} was exported for {limit} tokens{}; export it with a larger {}, or ask for fewer",
            test.context(),
            model.subject.model_filename,
            if runs.chunk.is_some() { format!(" on {}", cell.provider) } else { String::new() },
            runs.flag,
        ));
    }
}

/// Whether the reference can be compared with all models.
fn reference(axes: &Axes, models: &[Model], problems: &mut Problems) {
    let Some(path) = &axes.reference else { return };
    let package = match Package::open(path) {
        Ok(package) => package,
        Err(error) => return problems.say(error),
    };
    let contract = package.contract();
    if contract.precision != "fp32" {
        let (precision, file) = (&contract.precision, path.display());
        tracing::warn!("--reference {file} is {precision}, which is not exact itself: agreement is usually with fp32");
    }
    for model in models.iter().filter(|model| model.subject.contract.vocab_size != contract.vocab_size) {
        let (file, own) = (&model.subject.model_filename, model.subject.contract.vocab_size);
        let other = contract.vocab_size;
        problems.add("--reference", format!("has {other} token ids and {file} has {own}: they cannot be compared"));
    }
}

/// What Pipette asks for.
fn for_pipette(axes: &Axes, args: &BenchArgs, problems: &mut Problems) {
    for (flag, value) in [("--device", &args.device), ("--form-factor", &args.form_factor)] {
        if value.is_none() {
            problems.add(flag, "is missing, which Pipette's submissions need");
        }
    }
    if axes.repetitions < pipette::REPETITIONS {
        let least = pipette::REPETITIONS;
        problems
            .add("-r", format!("{} is too few for Pipette, whose rules ask for {least} repetitions", axes.repetitions));
    }
    for test in axes.tests.iter().map(|test| test.value).filter(|test| pipette::benchmark_id(*test).is_none()) {
        problems.say(format!("Pipette has no benchmark like {test}: its prompts have nothing before them"));
    }
}
