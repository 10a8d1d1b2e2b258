//! What is told about an answer: as JSON for programs, as a line for people.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Answer, FinishReason, Timings};

/// What an answer was made with.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The ONNX file.
    pub(super) model: String,
    /// Number formats, as in the contract.
    pub(super) precision: String,
    /// Execution provider.
    pub(super) provider: String,
    /// Nodes of the graph on each provider, by ONNX Runtime's names for them.
    pub(super) placement: BTreeMap<String, usize>,
}

/// The JSON object of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    text: &'a str,
    tokens: &'a [u32],
    prompt_tokens: usize,
    finish_reason: FinishReason,
    seed: u64,
    model: &'a str,
    precision: &'a str,
    provider: &'a str,
    placement: &'a BTreeMap<String, usize>,
    timings: TimingReport,
}

/// Milliseconds, tokens and tokens per second.
#[derive(Debug, Serialize)]
struct TimingReport {
    load_ms: f64,
    prefill_tokens: usize,
    reused_tokens: usize,
    prefill_ms: f64,
    prefill_tokens_per_second: Option<f64>,
    first_token_ms: Option<f64>,
    decode_tokens: usize,
    decode_runs: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    decode_ms: f64,
    decode_tokens_per_second: Option<f64>,
    run_ms: f64,
    sampling_ms: f64,
    output_ms: f64,
    host_ms: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(answer: &'a Answer, origin: &'a Origin, load: Duration) -> Self {
        let timings = &answer.timings;
        Self {
            text: &answer.text,
            tokens: &answer.tokens,
            prompt_tokens: answer.prompt_tokens,
            finish_reason: answer.finish_reason,
            seed: answer.seed,
            model: &origin.model,
            precision: &origin.precision,
            provider: &origin.provider,
            placement: &origin.placement,
            timings: TimingReport {
                load_ms: milliseconds(load),
                prefill_tokens: timings.prefill_tokens,
                reused_tokens: timings.reused_tokens,
                prefill_ms: milliseconds(timings.prefill),
                prefill_tokens_per_second: timings.prefill_rate(),
                first_token_ms: first_token(answer),
                decode_tokens: timings.decode_tokens,
                decode_runs: timings.decode_runs,
                drafted_tokens: timings.drafted_tokens,
                accepted_tokens: timings.accepted_tokens,
                decode_ms: milliseconds(timings.decode),
                decode_tokens_per_second: timings.decode_rate(),
                run_ms: milliseconds(timings.run),
                sampling_ms: milliseconds(timings.sampling),
                output_ms: milliseconds(timings.output),
                host_ms: milliseconds(timings.host()),
            },
        }
    }
}

/// The same facts in a few lines.
pub(super) fn statistics(answer: &Answer) -> String {
    let Timings { prefill_tokens, reused_tokens, decode_tokens, .. } = answer.timings;
    let timings = &answer.timings;
    let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!(", {rate:.1} tokens/s"));
    let share = |part: Duration| 100.0 * part.as_secs_f64() / timings.decode.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut text = format!(
        "prefill: {prefill_tokens} tokens in {:.1} ms{}, {reused_tokens} more were known",
        milliseconds(timings.prefill),
        rate(timings.prefill_rate()),
    );
    text += &match first_token(answer) {
        Some(time) => format!("; first token after {time:.1} ms"),
        None => "; stopped before the first token".to_owned(),
    };
    if decode_tokens > 0 {
        text += &format!(
            "\ndecode: {decode_tokens} tokens in {:.1} ms{}; runtime {:.1}%, sampling {:.1}%, output {:.1}%, other {:.1}%",
            milliseconds(timings.decode),
            rate(timings.decode_rate()),
            share(timings.run),
            share(timings.sampling),
            share(timings.output),
            share(timings.host()),
        );
    }
    if timings.drafted_tokens > 0 {
        let Timings { decode_runs, drafted_tokens, accepted_tokens, .. } = timings;
        text += &format!("\ndrafts: {accepted_tokens} of {drafted_tokens} tokens were right; {decode_runs} runs");
    }
    text + &format!("\nfinish: {}; seed: {}", answer.finish_reason.name(), answer.seed)
}

/// Milliseconds until the first token, if there is one.
fn first_token(answer: &Answer) -> Option<f64> {
    (!answer.tokens.is_empty()).then(|| milliseconds(answer.timings.first_token))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
