//! What is recorded of a cell: the result, and everything that it depends on.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{Cell, Failure, MeasureError, Measured, Samples, Status, Subject, roofline, statistics};
use crate::package::sha256;
use crate::platform::{Machine, ThermalZone};

/// A row of results. The fields that llama-bench has too mean what they mean there. Bytes, nanoseconds (`_ns`) and tokens per
/// second (`_ts`); rates are derived from the times. Of a cell that was not measured, what measuring finds out is missing.
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

    /// What its owner calls the machine.
    pub device: Option<String>,
    /// What kind of machine it is, in Pipette's words: phone, tablet, laptop, desktop, server, embedded.
    pub form_factor: Option<String>,
    /// The plan that asked for the row.
    pub plan: Option<String>,
    /// What the plan calls the model.
    pub model_name: Option<String>,
    /// What the plan calls the test.
    pub test_name: Option<String>,
    /// [`Cell::id`].
    pub cell: String,

    /// Execution provider.
    pub provider: String,
    /// Its options that were set by hand, by key.
    pub provider_options: BTreeMap<String, String>,
    /// What it ran on, in words that tell a simulator.
    pub provider_device: Option<String>,
    /// Number of threads.
    pub n_threads: usize,
    /// Whether threads waited actively for more work.
    pub spinning: bool,
    /// Whether weights were packed one after the other.
    pub low_memory: bool,
    /// Tokens of a prompt that were run at once.
    pub chunk: usize,
    /// Number formats that prompts were computed with.
    pub prefill: Option<String>,
    /// Most tokens drafted ahead.
    pub speculate: usize,
    /// Element type of keys and values.
    pub kv: Option<String>,

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

    /// How the cell ended.
    pub status: Status,
    /// Why it was not measured, or not all of it, in one sentence.
    pub error: Option<String>,

    /// Mean of `samples_ns`.
    pub avg_ns: Option<u64>,
    /// Standard deviation of `samples_ns`; none for one sample.
    pub stddev_ns: Option<u64>,
    /// Median of `samples_ns`.
    pub median_ns: Option<u64>,
    /// Mean of `samples_ts`.
    pub avg_ts: Option<f64>,
    /// Standard deviation of `samples_ts`; none for one sample.
    pub stddev_ts: Option<f64>,
    /// Median of `samples_ts`.
    pub median_ts: Option<f64>,

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
    pub host_percent: Option<f64>,
    /// Runs of the model for each token of an answer: less than 1 if guesses were right.
    pub runs_per_token: Option<f64>,

    /// From opening the package to a decoder that is ready, with loading ONNX Runtime.
    pub load_ns: Option<u64>,
    /// Creating the session, or both of a pair, as a part of that. The session for prompts is created by the first of them.
    pub session_ns: Option<u64>,
    /// The first run, of one token.
    pub first_run_ns: Option<u64>,
    /// `session_ns` where it has the compiling for a device in it, which the runtime does not tell apart from the rest; none if that was
    /// done ahead of time, or if the provider does not compile.
    pub session_with_compiling_ns: Option<u64>,
    /// Whether compiled graphs were loaded; none if the provider does not compile.
    pub cache_hit: Option<bool>,
    /// Number of nodes of all graphs that were loaded, by the provider that runs them.
    pub placement: Option<BTreeMap<String, usize>>,

    /// The largest number of bytes resident, with loading.
    pub peak_memory: Option<u64>,
    /// The same without what only loading needs.
    pub peak_run_memory: Option<u64>,
    /// Bytes of devices' memory held at the end. Not to be added to what is resident.
    pub device_memory: Option<u64>,
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

    /// The exact model that this one was compared with, on the CPU.
    pub reference: Option<String>,
    /// Its recipe.
    pub reference_precision: Option<String>,
    /// Number of tokens that were compared.
    pub agreement_tokens: Option<usize>,
    /// Share of the positions at which both find the same token the most probable.
    pub top1_agreement: Option<f64>,
    /// Mean Kullback-Leibler divergence from the exact model, in nats.
    pub mean_kld: Option<f64>,

    /// Temperatures just before the first repetition.
    pub thermal_before: Option<Vec<ThermalZone>>,
    /// Temperatures just after the last one.
    pub thermal_after: Option<Vec<ThermalZone>>,
    /// Hertz of every core just before the first repetition.
    pub frequency_before: Option<Vec<u64>>,
    /// Hertz of every core just after the last one.
    pub frequency_after: Option<Vec<u64>>,

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
    /// Version of ONNX Runtime; none if the cell did not come that far.
    pub runtime_version: Option<String>,
    /// SHA-256 of the ONNX Runtime library.
    pub runtime_sha256: Option<String>,
}

impl Program {
    /// This program, without a runtime.
    pub fn here() -> Self {
        Self {
            build_commit: option_env!("LFM2_BUILD_COMMIT"),
            build_version: env!("CARGO_PKG_VERSION"),
            build_optimized: !cfg!(debug_assertions),
            runtime_version: None,
            runtime_sha256: None,
        }
    }
}

/// SHA-256 of an ONNX Runtime library, in hexadecimal digits.
pub fn library_sha256(library: &Path) -> Result<String, MeasureError> {
    sha256(library).map_err(|source| MeasureError::Library { path: library.to_owned(), source })
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
    /// What its owner calls the machine.
    pub device: Option<&'a str>,
    /// What kind of machine it is.
    pub form_factor: Option<&'a str>,
    /// Bytes per second that as many threads read from memory; nothing if it was not measured.
    pub read_bandwidth: Option<f64>,
    /// When, in UTC.
    pub test_time: &'a str,
}

impl Row {
    /// The row of a cell that was measured.
    pub fn new(origin: Origin<'_>, cell: &Cell, measured: &Measured) -> Self {
        let (test, samples, settings) = (cell.test, &measured.samples, &measured.settings);
        let times = floats(&samples.windows);
        let rates: Vec<f64> = times.iter().map(|time| test.tokens() as f64 * 1e9 / time.max(1.0)).collect();
        let (first_tokens, tokens) = (floats(&samples.first_tokens), floats(&samples.tokens));
        let of_tokens = |percent| statistics::percentile(&tokens, percent).map(whole);
        let avg_ts = statistics::mean(&rates);
        let subject = origin.subject.loaded(&measured.contract, measured.files.clone());
        // The number is that of what was planned, whatever is known only now.
        let number = cell.id(origin.subject);
        let empty = Self { cell: number, ..Self::empty(Origin { subject: &subject, ..origin }, cell) };
        let roofline = empty.roofline_tokens_per_second.zip(avg_ts);
        let (agreement, disagreement) = match &measured.agreement {
            Some(Ok(agreement)) => (Some(agreement.clone()), None),
            Some(Err(problem)) => (None, Some(Failure::new(Status::Ok, problem).reason)),
            None => (None, None),
        };
        Self {
            provider_device: Some(measured.device.clone()),
            chunk: settings.chunk,
            prefill: Some(settings.prefill.clone()),
            speculate: settings.speculate,
            kv: Some(settings.kv.clone()),
            status: Status::Ok,
            error: disagreement,
            avg_ns: statistics::mean(&times).map(whole),
            stddev_ns: statistics::deviation(&times).map(whole),
            median_ns: statistics::median(&times).map(whole),
            avg_ts,
            stddev_ts: statistics::deviation(&rates),
            median_ts: statistics::median(&rates),
            first_token_avg_ns: statistics::mean(&first_tokens).map(whole),
            first_token_median_ns: statistics::median(&first_tokens).map(whole),
            inter_token_p50_ns: of_tokens(50.0),
            inter_token_p95_ns: of_tokens(95.0),
            inter_token_p99_ns: of_tokens(99.0),
            host_percent: Some(host_percent(samples)),
            runs_per_token: (!tokens.is_empty())
                .then(|| samples.answer_runs.iter().sum::<usize>() as f64 / tokens.len() as f64),
            load_ns: Some(measured.load_ns),
            session_ns: Some(measured.session_ns),
            first_run_ns: Some(measured.first_run_ns),
            session_with_compiling_ns: measured.cache_hit.filter(|hit| !hit).map(|_| measured.session_ns),
            cache_hit: measured.cache_hit,
            placement: measured.placement.clone(),
            peak_memory: measured.peak_bytes,
            peak_run_memory: measured.peak_run_bytes,
            device_memory: measured.device_bytes,
            roofline_percent: roofline.map(|(limit, rate)| 100.0 * rate / limit),
            agreement_tokens: agreement.as_ref().map(|it| it.tokens),
            top1_agreement: agreement.as_ref().map(|it| it.top1),
            mean_kld: agreement.as_ref().map(|it| it.mean_kld),
            reference_precision: agreement.as_ref().map(|it| it.precision.clone()),
            reference: agreement.map(|it| it.reference),
            thermal_before: measured.thermal_before.clone(),
            thermal_after: measured.thermal_after.clone(),
            frequency_before: measured.frequency_before.clone(),
            frequency_after: measured.frequency_after.clone(),
            samples_ns: samples.windows.clone(),
            samples_ts: rates,
            first_token_samples_ns: samples.first_tokens.clone(),
            inter_token_samples_ns: samples.tokens.clone(),
            ..empty
        }
    }

    /// The row of a cell that was not measured.
    pub fn failed(origin: Origin<'_>, cell: &Cell, failure: &Failure) -> Self {
        Self { status: failure.status, error: Some(failure.reason.clone()), ..Self::empty(origin, cell) }
    }

    /// Whether all that was asked for was measured.
    pub fn is_complete(&self) -> bool {
        self.status == Status::Ok && self.error.is_none()
    }

    /// What is known of a cell before it is measured.
    fn empty(origin: Origin<'_>, cell: &Cell) -> Self {
        let Origin { program, machine, subject, device, form_factor, read_bandwidth, test_time } = origin;
        let test = cell.test;
        // With guesses, a run gives any number of tokens, and memory sets no limit to them.
        let is_decode = test.prompt == 0 && test.generate > 0;
        let is_limited = is_decode && cell.speculate == 0;
        // Devices have memory or paths to it of their own.
        let read_bandwidth = read_bandwidth.filter(|_| is_decode && cell.provider == "cpu");
        let rows = roofline::mean_rows(&subject.contract, test.held(), test.generate);
        let bytes_per_token = is_limited.then(|| roofline::step_bytes(&subject.contract, rows));
        let roofline = read_bandwidth.zip(bytes_per_token).map(|(bandwidth, bytes)| bandwidth / bytes.max(1.0));
        Self {
            program: program.clone(),
            machine: machine.clone(),
            subject: subject.clone(),
            device: device.map(str::to_owned),
            form_factor: form_factor.map(str::to_owned),
            plan: cell.names.plan.clone(),
            model_name: cell.names.model.clone(),
            test_name: cell.names.test.clone(),
            cell: cell.id(subject),
            provider: cell.provider.clone(),
            provider_options: cell.provider_options.clone(),
            provider_device: None,
            n_threads: cell.threads,
            spinning: cell.spinning,
            low_memory: cell.low_memory,
            chunk: cell.chunk,
            prefill: None,
            speculate: cell.speculate,
            kv: None,
            n_prompt: test.prompt,
            n_gen: test.generate,
            n_depth: test.depth,
            repetitions: cell.repetitions,
            seed: cell.seed,
            test_time: test_time.to_owned(),
            status: Status::Failed,
            error: None,
            avg_ns: None,
            stddev_ns: None,
            median_ns: None,
            avg_ts: None,
            stddev_ts: None,
            median_ts: None,
            first_token_avg_ns: None,
            first_token_median_ns: None,
            inter_token_p50_ns: None,
            inter_token_p95_ns: None,
            inter_token_p99_ns: None,
            host_percent: None,
            runs_per_token: None,
            load_ns: None,
            session_ns: None,
            first_run_ns: None,
            session_with_compiling_ns: None,
            cache_hit: None,
            placement: None,
            peak_memory: None,
            peak_run_memory: None,
            device_memory: None,
            state_bytes: whole(roofline::state_bytes(&subject.contract, test.context() as f64)),
            read_bandwidth,
            bytes_per_token,
            roofline_tokens_per_second: roofline,
            roofline_percent: None,
            reference: None,
            reference_precision: None,
            agreement_tokens: None,
            top1_agreement: None,
            mean_kld: None,
            thermal_before: None,
            thermal_after: None,
            frequency_before: None,
            frequency_after: None,
            samples_ns: Vec::new(),
            samples_ts: Vec::new(),
            first_token_samples_ns: Vec::new(),
            inter_token_samples_ns: Vec::new(),
        }
    }
}

/// Part of the time that went neither into the runtime nor into choosing tokens.
fn host_percent(samples: &Samples) -> f64 {
    let total: u64 = samples.windows.iter().sum();
    let known: u64 = samples.runs.iter().chain(&samples.sampling).sum();
    100.0 * total.saturating_sub(known) as f64 / total.max(1) as f64
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
    use super::Row;
    use crate::measure::tests::{cell, decode, measured, origin, prefill};
    use crate::measure::{Failure, Measured, Status};
    use crate::package::{FileRole, UsedFile};

    #[test]
    fn a_decode_row_by_hand() {
        let row = decode();
        assert_eq!((row.avg_ns, row.median_ns), (Some(450_000_000), Some(450_000_000)));
        assert_eq!(row.stddev_ns, Some(70_710_678));
        // Four tokens in 0.4 and in 0.5 seconds.
        assert_eq!(row.samples_ts, [10.0, 8.0]);
        assert_eq!((row.avg_ts, row.median_ts), (Some(9.0), Some(9.0)));
        assert!((row.stddev_ts.unwrap() - 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((row.first_token_avg_ns, row.first_token_median_ns), (None, None));
        assert_eq!((row.inter_token_p50_ns, row.inter_token_p99_ns), (Some(112_500_000), Some(125_000_000)));
        // 900 - 860 - 16 of 900 milliseconds.
        assert!((row.host_percent.unwrap() - 100.0 * 24.0 / 900.0).abs() < 1e-12);
        // Ten rows are held, so that the four steps read 11 to 14: 1000 bytes of weights, 32 of columns, 12.5 times 64.
        assert_eq!(row.bytes_per_token, Some(1832.0));
        assert_eq!(row.state_bytes, 32 + 14 * 64);
        assert!((row.roofline_tokens_per_second.unwrap() - 17_920.0 / 1832.0).abs() < 1e-12);
        assert!((row.roofline_percent.unwrap() - 100.0 * 9.0 * 1832.0 / 17_920.0).abs() < 1e-9);
    }

    #[test]
    fn a_prefill_row_has_no_roofline() {
        let row = prefill();
        assert_eq!((row.avg_ts, row.stddev_ts, row.stddev_ns), (Some(512.0), None, None));
        assert_eq!(row.first_token_median_ns, Some(1_010_000_000));
        assert_eq!((row.inter_token_p50_ns, row.bytes_per_token), (None, None));
        assert_eq!((row.read_bandwidth, row.roofline_tokens_per_second, row.roofline_percent), (None, None, None));
        assert!((row.host_percent.unwrap() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_cell_that_was_not_measured_has_a_row_that_says_so() {
        let failure = Failure::new(Status::Crashed, "its process was ended by SIGSEGV (signal 11)");
        let row = origin(|origin| Row::failed(origin, &cell(), &failure));
        assert!(!row.is_complete());
        let value = serde_json::to_value(&row).unwrap();
        assert_eq!((&value["status"], &value["error"]), (&"crashed".into(), &failure.reason.into()));
        for name in ["avg_ts", "samples_ns", "prefill", "load_ns", "roofline_percent"] {
            assert!(value[name].is_null() || value[name].as_array().is_some_and(Vec::is_empty), "{name}");
        }
        assert_eq!(value["n_gen"], decode().n_gen);
        // Both kinds of rows have the same fields.
        let whole = serde_json::to_value(decode()).unwrap();
        let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&value), names(&whole));
    }

    #[test]
    fn a_row_names_all_that_was_loaded() {
        let mut measured = measured();
        let files = measured.files.as_mut().unwrap();
        let companion = |name: &str, role, size, sha256: &str| UsedFile {
            name: format!("it's/{name}"),
            role,
            size,
            sha256: sha256.to_owned(),
        };
        files.insert(1, companion("lfm2.prefill.onnx", FileRole::Graph, 1 << 19, "dd"));
        files.push(companion("lfm2.prefill.onnx_data", FileRole::Data, 1 << 20, "ee"));
        // The graph that ran single tokens is another one than the general one.
        measured.contract.weight_bytes = 500;
        measured.contract.dialect = "qnn".to_owned();
        let row = origin(|origin| Row::new(origin, &cell(), &measured));
        let subject = &row.subject;
        assert_eq!(
            (subject.model_sha256.as_deref(), subject.weights_sha256.as_deref()),
            (Some("bb,dd"), Some("cc,ee"))
        );
        assert_eq!((subject.model_size, &subject.model_files), (Some((9 << 20) / 2), &measured.files));
        assert_eq!((subject.dialect.as_str(), subject.weight_bytes, row.bytes_per_token), ("qnn", 500, Some(1332.0)));
        assert_eq!((&row.cell, &subject.model_filename), (&decode().cell, &decode().subject.model_filename));
        measured.files = None;
        let row = origin(|origin| Row::new(origin, &cell(), &measured));
        assert_eq!((row.subject.model_size, row.subject.model_sha256), (None, None), "no manifest lists some of them");
    }

    #[test]
    fn compiling_is_told_only_where_it_was_done() {
        let row = |cache_hit| {
            let row = origin(|origin| Row::new(origin, &cell(), &Measured { cache_hit, ..measured() }));
            (row.session_ns, row.session_with_compiling_ns, row.cache_hit)
        };
        let session = Some(200_000_000);
        assert_eq!(row(None), (session, None, None));
        assert_eq!(row(Some(true)), (session, None, Some(true)));
        assert_eq!(row(Some(false)), (session, session, Some(false)));
    }

    #[test]
    fn guesses_are_told_and_have_no_roofline() {
        let mut cell = cell();
        cell.speculate = 4;
        let mut measured = measured();
        measured.samples.answer_runs = vec![2, 2];
        let row = origin(|origin| Row::new(origin, &cell, &measured));
        assert_eq!(row.runs_per_token, Some(0.5));
        assert_eq!((row.bytes_per_token, row.roofline_percent), (None, None));
        assert_eq!(decode().runs_per_token, Some(1.0));
    }

    #[test]
    fn only_the_processor_has_a_roofline() {
        let cell = crate::measure::Cell { provider: "cuda".to_owned(), ..cell() };
        let row = origin(|origin| Row::new(origin, &cell, &measured()));
        assert_eq!((row.read_bandwidth, row.roofline_tokens_per_second), (None, None));
        assert_eq!(row.bytes_per_token, Some(1832.0));
    }

    #[test]
    fn a_failed_comparison_keeps_the_times() {
        let mut measured = measured();
        measured.agreement = Some(Err("no such package".to_owned()));
        let row = origin(|origin| Row::new(origin, &cell(), &measured));
        assert_eq!((row.status, row.avg_ts, row.mean_kld), (Status::Ok, Some(9.0), None));
        assert!(!row.is_complete() && row.error.unwrap().contains("no such package"));
    }
}
