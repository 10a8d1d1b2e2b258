//! What is recorded of a cell: the result, and everything that it depends on.

use serde::Serialize;

use super::{Cell, MeasureError, Measured, Subject, roofline, statistics};
use crate::package::sha256;
use crate::platform::Machine;
use crate::runtime::Runtime;

/// A row of results. The fields that llama-bench has too mean what they mean there. Bytes, nanoseconds (`_ns`) and tokens per
/// second (`_ts`); rates are derived from the times.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The program and the runtime.
    #[serde(flatten)]
    pub program: Program,
    /// The machine.
    #[serde(flatten)]
    pub machine: Machine,
    /// The model.
    #[serde(flatten)]
    pub subject: Subject,

    /// Execution provider.
    pub provider: String,
    /// Number of threads.
    pub n_threads: usize,
    /// Whether threads waited actively for more work.
    pub spinning: bool,
    /// Tokens of a prompt that were run at once.
    pub chunk: usize,
    /// Number formats that prompts were computed with.
    pub prefill: String,
    /// Most tokens drafted ahead.
    pub speculate: usize,
    /// Element type of keys and values.
    pub kv: String,

    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Tokens of the answer.
    pub n_gen: usize,
    /// Tokens in the state before.
    pub n_depth: usize,
    /// How often it was measured.
    pub repetitions: usize,
    /// Seed of the tokens.
    pub seed: u64,
    /// When, in UTC.
    pub test_time: String,

    /// Mean of `samples_ns`.
    pub avg_ns: u64,
    /// Standard deviation of `samples_ns`; none for one sample.
    pub stddev_ns: Option<u64>,
    /// Median of `samples_ns`.
    pub median_ns: u64,
    /// Mean of `samples_ts`.
    pub avg_ts: f64,
    /// Standard deviation of `samples_ts`; none for one sample.
    pub stddev_ts: Option<f64>,
    /// Median of `samples_ts`.
    pub median_ts: f64,

    /// Mean time until the first token of an answer to the prompt is chosen.
    pub first_token_avg_ns: Option<u64>,
    /// Median of the same.
    pub first_token_median_ns: Option<u64>,
    /// Median time from one token of an answer to the next.
    pub inter_token_p50_ns: Option<u64>,
    /// 95th percentile of the same.
    pub inter_token_p95_ns: Option<u64>,
    /// 99th percentile of the same.
    pub inter_token_p99_ns: Option<u64>,
    /// Part of the time that went neither into the runtime nor into choosing tokens.
    pub host_percent: f64,

    /// From opening the package to a decoder that is ready, with loading ONNX Runtime.
    pub load_ns: u64,
    /// Creating the session, as a part of that.
    pub session_ns: u64,
    /// The first run, of one token.
    pub first_run_ns: u64,
    /// The largest number of bytes resident, with loading.
    pub peak_memory: Option<u64>,
    /// The same without what only loading needs.
    pub peak_run_memory: Option<u64>,
    /// Bytes of the state in use at the end.
    pub state_bytes: u64,

    /// Bytes per second that as many threads read from memory.
    pub read_bandwidth: Option<f64>,
    /// Bytes of weights and state that one token of the answer has to read.
    pub bytes_per_token: Option<f64>,
    /// Tokens of an answer per second that memory allows: `read_bandwidth / bytes_per_token`.
    pub roofline_tokens_per_second: Option<f64>,
    /// `avg_ts` as part of that.
    pub roofline_percent: Option<f64>,

    /// The time of each repetition.
    pub samples_ns: Vec<u64>,
    /// Tokens per second of each repetition.
    pub samples_ts: Vec<f64>,
    /// The time to the first token of each repetition with a prompt.
    pub first_token_samples_ns: Vec<u64>,
    /// The time of each token of an answer, all repetitions one after the other.
    pub inter_token_samples_ns: Vec<u64>,
}

/// What ran the test.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// The commit that the program was built from, if it was told when it was built.
    pub build_commit: Option<&'static str>,
    /// Version of the program.
    pub build_version: &'static str,
    /// Whether the program was built with optimization.
    pub build_optimized: bool,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// SHA-256 of the ONNX Runtime library.
    pub runtime_sha256: String,
}

impl Program {
    /// This program with a runtime, whose library is read for its hash.
    pub fn new(runtime: &Runtime) -> Result<Self, MeasureError> {
        let library = runtime.library();
        let hash = sha256(library).map_err(|source| MeasureError::Library { path: library.to_owned(), source })?;
        Ok(Self {
            build_commit: option_env!("LFM2_BUILD_COMMIT"),
            build_version: env!("CARGO_PKG_VERSION"),
            build_optimized: !cfg!(debug_assertions),
            runtime_version: runtime.version().to_owned(),
            runtime_sha256: hash,
        })
    }
}

/// Where and on what a cell was measured.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The program and the runtime.
    pub program: &'a Program,
    /// The machine.
    pub machine: &'a Machine,
    /// The model.
    pub subject: &'a Subject,
    /// Bytes per second that as many threads read from memory; nothing if it was not measured.
    pub read_bandwidth: Option<f64>,
    /// When, in UTC.
    pub test_time: &'a str,
}

impl Row {
    /// The row of a cell.
    pub fn new(origin: Origin<'_>, cell: &Cell, measured: &Measured) -> Self {
        let Origin { program, machine, subject, read_bandwidth, test_time } = origin;
        let (test, samples, settings) = (cell.test, &measured.samples, &measured.settings);
        let times = floats(&samples.windows);
        let rates: Vec<f64> = times.iter().map(|time| test.tokens() as f64 * 1e9 / time.max(1.0)).collect();
        let (first_tokens, tokens) = (floats(&samples.first_tokens), floats(&samples.tokens));
        let of_tokens = |percent| statistics::percentile(&tokens, percent).map(whole);
        let avg_ts = statistics::mean(&rates).unwrap_or_default();

        let is_decode = test.prompt == 0 && test.generate > 0;
        let read_bandwidth = read_bandwidth.filter(|_| is_decode);
        let rows = roofline::mean_rows(test.held(), test.generate);
        let bytes_per_token = is_decode.then(|| roofline::step_bytes(&subject.contract, rows));
        let roofline = read_bandwidth.zip(bytes_per_token).map(|(bandwidth, bytes)| bandwidth / bytes.max(1.0));
        let total: u64 = samples.windows.iter().sum();
        let known: u64 = samples.runs.iter().chain(&samples.sampling).sum();
        Self {
            program: program.clone(),
            machine: machine.clone(),
            subject: subject.clone(),
            provider: cell.provider.clone(),
            n_threads: cell.threads,
            spinning: cell.spinning,
            chunk: settings.chunk,
            prefill: settings.prefill.clone(),
            speculate: settings.speculate,
            kv: settings.kv.clone(),
            n_prompt: test.prompt,
            n_gen: test.generate,
            n_depth: test.depth,
            repetitions: cell.repetitions,
            seed: cell.seed,
            test_time: test_time.to_owned(),
            avg_ns: statistics::mean(&times).map_or(0, whole),
            stddev_ns: statistics::deviation(&times).map(whole),
            median_ns: statistics::median(&times).map_or(0, whole),
            avg_ts,
            stddev_ts: statistics::deviation(&rates),
            median_ts: statistics::median(&rates).unwrap_or_default(),
            first_token_avg_ns: statistics::mean(&first_tokens).map(whole),
            first_token_median_ns: statistics::median(&first_tokens).map(whole),
            inter_token_p50_ns: of_tokens(50.0),
            inter_token_p95_ns: of_tokens(95.0),
            inter_token_p99_ns: of_tokens(99.0),
            host_percent: 100.0 * total.saturating_sub(known) as f64 / total.max(1) as f64,
            load_ns: measured.load_ns,
            session_ns: measured.session_ns,
            first_run_ns: measured.first_run_ns,
            peak_memory: measured.peak_bytes,
            peak_run_memory: measured.peak_run_bytes,
            state_bytes: whole(roofline::state_bytes(&subject.contract, test.context() as f64)),
            read_bandwidth,
            bytes_per_token,
            roofline_tokens_per_second: roofline,
            roofline_percent: roofline.map(|limit| 100.0 * avg_ts / limit),
            samples_ns: samples.windows.clone(),
            samples_ts: rates,
            first_token_samples_ns: samples.first_tokens.clone(),
            inter_token_samples_ns: samples.tokens.clone(),
        }
    }
}

fn floats(samples: &[u64]) -> Vec<f64> {
    samples.iter().map(|&sample| sample as f64).collect()
}

/// The nearest whole number.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use crate::measure::tests::{decode, prefill};

    #[test]
    fn a_decode_row_by_hand() {
        let row = decode();
        assert_eq!((row.avg_ns, row.median_ns), (450_000_000, 450_000_000));
        assert_eq!(row.stddev_ns, Some(70_710_678));
        // Four tokens in 0.4 and in 0.5 seconds.
        assert_eq!(row.samples_ts, [10.0, 8.0]);
        assert_eq!((row.avg_ts, row.median_ts), (9.0, 9.0));
        assert!((row.stddev_ts.unwrap() - 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((row.first_token_avg_ns, row.first_token_median_ns), (None, None));
        assert_eq!((row.inter_token_p50_ns, row.inter_token_p99_ns), (Some(112_500_000), Some(125_000_000)));
        // 900 - 860 - 16 of 900 milliseconds.
        assert!((row.host_percent - 100.0 * 24.0 / 900.0).abs() < 1e-12);
        // Ten rows are held, so that the four steps read 11 to 14: 1000 bytes of weights, 32 of columns, 12.5 times 64.
        assert_eq!(row.bytes_per_token, Some(1832.0));
        assert_eq!(row.state_bytes, 32 + 14 * 64);
        assert!((row.roofline_tokens_per_second.unwrap() - 17_920.0 / 1832.0).abs() < 1e-12);
        assert!((row.roofline_percent.unwrap() - 100.0 * 9.0 * 1832.0 / 17_920.0).abs() < 1e-9);
    }

    #[test]
    fn a_prefill_row_has_no_roofline() {
        let row = prefill();
        assert_eq!((row.avg_ts, row.stddev_ts, row.stddev_ns), (512.0, None, None));
        assert_eq!(row.first_token_median_ns, Some(1_010_000_000));
        assert_eq!((row.inter_token_p50_ns, row.bytes_per_token), (None, None));
        assert_eq!((row.read_bandwidth, row.roofline_tokens_per_second, row.roofline_percent), (None, None, None));
        assert!((row.host_percent - 0.1).abs() < 1e-9);
    }
}
