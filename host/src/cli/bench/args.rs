//! `lfm2-host bench` as it is typed, in llama-bench's vocabulary. Numbers stay text here, so that all problems are reported at
//! once.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{merge::MergeArgs, report::ReportArgs};

const EXAMPLES: &str = "\
Examples:
  lfm2-host bench --model lfm2.onnx
      Prefill of 512 tokens and decoding of 128.
  lfm2-host bench --model q4/lfm2.onnx,q8/lfm2.onnx -p 128,512 -n 64 -d 0,512 -t 1,2
      Every combination of models, tests, depths and numbers of threads.
  lfm2-host bench --model lfm2.onnx -p 128-8192*2 -n 0 -o jsonl -oe md > prefill.jsonl
      Ranges, for lengths 128, 256, ... 8192; rows for machines in a file, a table on the terminal.
  lfm2-host bench --model lfm2.onnx --ep cpu,qnn --reference fp32/lfm2.onnx --out rows.jsonl
      Two providers, and how far each is from exact; a provider that crashes or hangs gets a row that says so.
  lfm2-host bench --plan phones.toml --out rows.jsonl --resume --shard 0/4
      The first of four parts of a plan, without what the file has already.
  lfm2-host bench merge rows-*.jsonl > rows.jsonl
  lfm2-host bench report rows.jsonl --out report.html
      One page with tables and figures of what was measured on several machines.
  lfm2-host bench diff before.jsonl after.jsonl
      What became faster or slower, and whether that is more than chance.

Lists: `1,2,4`, `a-b` for every number from a to b, `a-b+s` in steps of s, `a-b*f` multiplied by f.
Every row runs in a process of its own: loading times and memory are its own. Rows go to standard output, all else to standard
error. benches/README.md in the repository says what is measured and what each field means.

Exit status:
  0 if all was measured, 1 if something failed (the rows say what), 2 if the arguments are wrong, 130 after Ctrl-C or SIGTERM.";

/// Measures prefill and decoding, and compares measurements.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES, max_term_width = 100)]
pub(in crate::cli) struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: Option<BenchCommand>,

    /// The packages: .onnx files, or folders with one
    #[arg(short, long, value_name = "PACKAGE,..", value_delimiter = ',', default_value = ".")]
    pub(super) model: Vec<PathBuf>,

    /// Lengths of prompts to prefill; 0 for none
    #[arg(short = 'p', long, value_name = "LIST", allow_hyphen_values = true, default_value = "512")]
    pub(super) n_prompt: Vec<String>,

    /// Numbers of tokens to decode; 0 for none
    #[arg(short = 'n', long, value_name = "LIST", allow_hyphen_values = true, default_value = "128")]
    pub(super) n_gen: Vec<String>,

    /// Prefill of P tokens and decoding of N in one measurement; also -pg. May be given several times
    #[arg(long, value_name = "P,N", allow_hyphen_values = true)]
    pub(super) pg: Vec<String>,

    /// Numbers of tokens that the state holds before each test
    #[arg(short = 'd', long, value_name = "LIST", allow_hyphen_values = true, default_value = "0")]
    pub(super) n_depth: Vec<String>,

    /// Numbers of threads; by default as many as there are physical cores
    #[arg(short, long, value_name = "LIST", allow_hyphen_values = true)]
    pub(super) threads: Vec<String>,

    /// How often each test is measured, after once for warming up
    #[arg(short, long, value_name = "N", allow_hyphen_values = true, default_value = "5")]
    pub(super) repetitions: String,

    /// Tokens of a prompt that are run at once
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, default_value = "512")]
    pub(super) chunk: Vec<String>,

    /// What runs prompts: auto takes the package's graph for prompts if it has one, int8 insists on it, same does without
    #[arg(long, value_name = "GRAPH", default_value = "auto")]
    pub(super) prefill: String,

    /// Whether threads wait actively for more work: 1, 0, or both as 1,0
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, default_value = "1")]
    pub(super) spinning: Vec<String>,

    /// Guess up to N tokens for each run; the texts then repeat themselves. Needs a package of `lfm2-export --rollback`
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, default_value = "0")]
    pub(super) speculate: Vec<String>,

    /// Load with less memory at once
    #[arg(long)]
    pub(super) low_memory: bool,

    /// Take the graphs that `lfm2-host compile` wrote into DIR, for --ep qnn
    #[arg(long, value_name = "DIR")]
    pub(super) compiled: Option<PathBuf>,

    /// Seed of the tokens that prompts are made of
    #[arg(long, value_name = "N", allow_hyphen_values = true, default_value = "0")]
    pub(super) seed: String,

    /// Format on standard output: md, csv, json, jsonl, sql, llama-bench or pipette
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub(super) output: String,

    /// The same rows in another format on standard error; also -oe
    #[arg(long, value_name = "FORMAT")]
    pub(super) output_err: Option<String>,

    /// Append the rows to FILE too, as JSON lines, each as soon as it is measured
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,

    /// Leave out the cells that the file of --out has rows of
    #[arg(long, requires = "out")]
    pub(super) resume: bool,

    /// With --resume, measure the cells again whose rows have no result
    #[arg(long, requires = "resume")]
    pub(super) retry_failed: bool,

    /// Measure the matrix in FILE instead of the one that flags describe; benches/plans/ in the repository has examples
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "n_prompt", "n_gen", "pg", "n_depth", "threads", "repetitions",
        "chunk", "prefill", "spinning", "speculate", "low_memory", "seed", "ep", "reference"])]
    pub(super) plan: Option<PathBuf>,

    /// Measure only part I of N parts of the cells, counted from 0
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub(super) shard: String,

    /// End a cell that takes longer, and go on with the next one
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true, default_value = "3600")]
    pub(super) cell_timeout: String,

    /// Execution providers: cpu, cuda, coreml, nnapi, qnn
    #[arg(long, value_name = "PROVIDER,..", value_delimiter = ',', default_value = crate::provider::DEFAULT)]
    pub(super) ep: Vec<String>,

    /// An option of the providers that know it, such as htp_performance_mode=balanced; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) ep_option: Vec<String>,

    /// The library of a provider that comes as a plugin, as qnn does; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ep_lib: Option<PathBuf>,

    /// Fail if a part of a model would run on another provider, as is usual for cpu, coreml, nnapi and qnn
    #[arg(long, conflicts_with = "allow_fallback")]
    pub(super) strict: bool,

    /// Let other providers run what one does not take; the rows say how many nodes
    #[arg(long)]
    pub(super) allow_fallback: bool,

    /// Compare each model with this exact one on the CPU: how often both find the same token best, and their divergence
    #[arg(long, value_name = "PACKAGE")]
    pub(super) reference: Option<PathBuf>,

    /// Name of this machine for the rows
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,

    /// Kind of this machine for the rows: phone, tablet, laptop, desktop, server or embedded
    #[arg(long, value_name = "KIND")]
    pub(super) form_factor: Option<String>,

    /// The ONNX Runtime library; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ort_lib: Option<PathBuf>,

    /// Compare all files of the packages with the hashes in their manifests first, and say so in the rows
    #[arg(long)]
    pub(super) verify: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Says what became faster or slower from one file of rows to another.
    Diff(DiffArgs),
    /// Puts files of rows together, and prints them as JSON lines.
    Merge(MergeArgs),
    /// Makes a page of files of rows, with tables and figures.
    Report(ReportArgs),
    /// Measures one cell, given as JSON, and reports as JSON lines: what `bench` runs for every row.
    #[command(hide = true)]
    Cell {
        /// The cell.
        cell: String,
    },
}

const DIFF_EXAMPLES: &str = "\
Examples:
  lfm2-host bench diff before.jsonl after.jsonl
  lfm2-host bench diff q4.json q8.json --ignore model_filename,precision
  lfm2-host bench diff monday.jsonl friday.jsonl --threshold 5

Rows are matched by model_filename, precision, dialect, provider, provider_options, n_threads, spinning, low_memory, chunk, prefill,
speculate, kv, n_prompt, n_gen and n_depth. The interval of the ratio of speeds is that of Hodges and Lehmann, which leaves out 1 just if the Mann-Whitney
test finds a difference at the level of 5 %; it needs four repetitions on each side.

Exit status:
  0 without significant changes, 1 with some, 2 if something failed or the arguments are wrong.";

#[derive(Args, Clone, Debug)]
#[command(after_help = DIFF_EXAMPLES, max_term_width = 100)]
pub(super) struct DiffArgs {
    /// Rows in the format json or jsonl
    pub(super) a: PathBuf,

    /// Rows to compare them with
    pub(super) b: PathBuf,

    /// Settings in which compared rows may differ
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    pub(super) ignore: Vec<String>,

    /// Differences of less than so many percent do not count
    #[arg(long, value_name = "PERCENT", default_value = "1", allow_hyphen_values = true)]
    pub(super) threshold: String,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Puts llama-bench's `-pg` and `-oe` into a form that the parser knows: it takes one letter behind one hyphen. Nothing is lost
/// by that, because neither `g` is a number nor `e` a format.
pub(in crate::cli) fn spelled_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut is_bench = false;
    let spell_out = |argument: OsString| {
        is_bench |= argument == "bench";
        match argument.to_str() {
            Some("-pg") if is_bench => "--pg".into(),
            Some("-oe") if is_bench => "--output-err".into(),
            _ => argument,
        }
    };
    arguments.into_iter().map(spell_out).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_letters_behind_a_hyphen() {
        let spelled = |arguments: &[&str]| {
            let arguments = spelled_out(arguments.iter().map(OsString::from));
            arguments.into_iter().map(|it| it.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(spelled(&["x", "bench", "-pg", "5,6", "-oe", "md"]), "x bench --pg 5,6 --output-err md");
        assert_eq!(spelled(&["x", "-pg"]), "x -pg");
    }
}
