//! `lfm2-host eval`.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use lfm2_graphs::contract::Purpose;
use serde::Serialize;

use super::error::Exit;
use super::load;
use super::text::{PlaceArgs, TextArgs, bar, shown};
use super::{CliError, Problems, interrupt};
use crate::cancel::Cancel;
use crate::decoder::{AnyDecoder, Decoder, DecoderError};
use crate::evaluate::{Estimate, Evaluation, EvaluationError, Pass, evaluate, work};
use crate::package::{Package, Prefill};
use crate::text::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  lfm2-host eval --model q4.onnx --reference fp32.onnx --text dialogues.jsonl
      How far the quantized model is from the exact one: divergence, agreement, perplexity.
  lfm2-host eval --model q4.onnx --text book.txt --context 1024 --max-tokens 100000
      The perplexity alone, on the first 100000 tokens.
  lfm2-host eval --model q4.onnx --reference fp32.onnx --text dialogues.jsonl --decode --json
      Token by token, as answers are made; numbers for programs.

Errors behind ± are standard errors. Tokens of one window depend on each other, so they come from how much windows differ.";

/// Measures a model on a text: perplexity, and how far it is from a reference.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EvalArgs {
    /// The package to evaluate: an .onnx file, or a folder with one
    #[arg(short, long, value_name = "PACKAGE")]
    model: PathBuf,

    /// The package to compare with, usually the same checkpoint in fp32
    #[arg(long, value_name = "PACKAGE")]
    reference: Option<PathBuf>,

    #[command(flatten)]
    text: TextArgs,

    /// Give the model one token at a time, as in answers: other kernels compute those, and graphs of fixed shapes need it
    #[arg(long)]
    decode: bool,

    /// What runs the text: same takes the general graph, int8 the package's graph for prompts
    #[arg(long, value_name = "GRAPH", default_value = "same", value_parser = ["same", "int8"], conflicts_with = "decode")]
    prefill: String,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Evaluates, and prints what was found.
pub(super) fn eval(args: EvalArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut problems = Problems::default();
    let text = args.text.settings(&mut problems);
    let reference = args.reference.map(|path| args.place.clone().settings(path, &mut problems));
    let mut model = args.place.settings(args.model, &mut problems);
    model.prefill = if args.prefill == "int8" { Prefill::Int8 } else { Prefill::Same };
    // The same flags were checked for both.
    problems.distinct()?;

    let cancel = Cancel::new();
    interrupt::takes_over(&cancel).map_err(CliError::failed)?;
    let package = load::open(&model, Purpose::General)?;
    let tokenizer = Tokenizer::load(package.folder()).map_err(CliError::failed)?;
    let other = reference.as_ref().map(|settings| load::open(settings, Purpose::General)).transpose()?;
    if let Some(other) = &other {
        let reference = Tokenizer::load(other.folder()).map_err(CliError::failed)?;
        if !tokenizer.has_vocabulary_of(&reference) {
            return Err(CliError::failed(OtherVocabulary {
                model: shown(package.graph()),
                reference: shown(other.graph()),
            }));
        }
    }
    let read = text.read(&package, &tokenizer)?;
    let mut decoder = load::decoder(&model, &package, &cancel)?.decoder;
    let mut reference = match (&reference, &other) {
        (Some(settings), Some(other)) => Some(load::decoder(settings, other, &cancel)?.decoder),
        _ => None,
    };

    let pass = if args.decode { Pass::Decode } else { Pass::Prefill };
    let bar = bar(work(&read.windows), quiet)?;
    let start = Instant::now();
    let found = evaluate(&mut decoder, reference.as_mut(), &read.windows, pass, &cancel, &mut |done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let evaluation = match found {
        Err(EvaluationError::Decoder(DecoderError::Cancelled)) => return Ok(Exit::Interrupted),
        found => found.map_err(CliError::failed)?,
    };
    let runs = decoder.run_time() + reference.as_ref().map(Decoder::run_time).unwrap_or_default();
    tracing::info!(
        seconds = start.elapsed().as_secs_f64(),
        in_the_runtime = runs.as_secs_f64(),
        "the text is evaluated"
    );
    let report = Report {
        model: Subject::new(&package, &decoder),
        reference: other.as_ref().zip(reference.as_ref()).map(|(package, decoder)| Subject::new(package, decoder)),
        text: shown(&text.file),
        documents: read.documents,
        context: text.context,
        pass,
        evaluation,
    };
    print(&report, args.json).map_err(CliError::output)?;
    Ok(Exit::Done)
}

/// Distributions over different tokens cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("{model} and {reference} have different vocabularies; compare exports of one checkpoint")]
struct OtherVocabulary {
    model: String,
    reference: String,
}

/// What was evaluated, and what came out.
#[derive(Debug, Serialize)]
struct Report {
    model: Subject,
    reference: Option<Subject>,
    text: String,
    documents: usize,
    context: usize,
    pass: Pass,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// A package.
#[derive(Debug, Serialize)]
struct Subject {
    graph: String,
    precision: String,
    dialect: String,
    /// Number formats that the text was computed with: a recipe's name, or int8 for a graph for prompts.
    prefill: String,
}

impl Subject {
    fn new(package: &Package, decoder: &AnyDecoder) -> Self {
        let contract = package.contract();
        Self {
            graph: shown(package.graph()),
            precision: contract.formats(),
            dialect: contract.dialect.clone(),
            prefill: decoder.settings().prefill,
        }
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut output = super::output::output();
    if json {
        serde_json::to_writer(&mut output, report)?;
        writeln!(output)?;
    } else {
        write!(output, "{report}")?;
    }
    output.flush()
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.graph, self.precision, self.dialect)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evaluation { tokens, windows, perplexity, fidelity } = &self.evaluation;
        let pass = match self.pass {
            Pass::Prefill => "",
            Pass::Decode => ", one token at a time",
        };
        writeln!(f, "model       {}{pass}", self.model)?;
        if let Some(reference) = &self.reference {
            writeln!(f, "reference   {reference}")?;
        }
        let (text, documents, context) = (&self.text, self.documents, self.context);
        writeln!(
            f,
            "text        {text}: documents {documents}, windows of {context} or fewer tokens {windows}, predicted tokens {tokens}"
        )?;
        writeln!(f)?;
        if let Some(fidelity) = fidelity {
            let divergence = &fidelity.divergence;
            let agreement = Estimate {
                value: fidelity.agreement.value * 100.0,
                standard_error: fidelity.agreement.standard_error.map(|error| error * 100.0),
            };
            writeln!(f, "divergence  mean    {} nats", Shown(divergence.mean))?;
            writeln!(f, "            median  {}", Shown(divergence.median))?;
            writeln!(f, "            p99     {}", Shown(divergence.p99))?;
            writeln!(f, "            p99.9   {}", Shown(divergence.p999))?;
            writeln!(f, "            max     {}", significant(divergence.max, divergence.max))?;
            writeln!(f, "agreement   top-1   {} %", Shown(agreement))?;
            writeln!(f, "perplexity  model   {}", Shown(*perplexity))?;
            writeln!(f, "            refer.  {}", Shown(fidelity.reference_perplexity))?;
            writeln!(f, "            ratio   {}", Shown(fidelity.perplexity_ratio))
        } else {
            writeln!(f, "perplexity  {}", Shown(*perplexity))
        }
    }
}

/// An estimate with as many digits as its error leaves.
struct Shown(Estimate);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { value, standard_error } = self.0;
        match standard_error.filter(|error| *error > 0.0) {
            Some(error) => write!(f, "{} ± {}", significant(value, error * 10.0), significant(error, error * 10.0)),
            None => write!(f, "{}", significant(value, value)),
        }
    }
}

/// `value` with the digits that show three significant ones of `scale`.
fn significant(value: f64, scale: f64) -> String {
    let places = if scale > 0.0 && scale.is_finite() { (2.0 - scale.log10().floor()).clamp(0.0, 12.0) } else { 0.0 };
    format!("{value:.0$}", places as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_have_two_digits_of_their_error() {
        let shown = |value, standard_error| Shown(Estimate { value, standard_error }).to_string();
        assert_eq!(shown(0.063_214, Some(0.001_26)), "0.0632 ± 0.0013");
        assert_eq!(shown(83.4321, Some(0.52)), "83.43 ± 0.52");
        assert_eq!(shown(1234.5, Some(12.0)), "1234 ± 12");
        assert_eq!(shown(0.0, Some(0.0)), "0");
        assert_eq!(shown(3.512_36, None), "3.51");
    }
}
