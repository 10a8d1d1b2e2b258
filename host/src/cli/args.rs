//! The command line as it is typed. Numbers stay text here, so that [`settings`](super::settings) can report all problems
//! at once.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{
    bench::BenchArgs, calibrate::CalibrateArgs, compile::CompileArgs, doctor::DoctorArgs, eval::EvalArgs,
    provider::ProviderArgs,
};

const EXAMPLES: &str = "\
Examples:
  lfm2-host --model lfm2.onnx
      Chat on the terminal. /help lists the commands there; Ctrl-C stops an answer, Ctrl-D leaves.
  lfm2-host --model lfm2.onnx --prompt \"What is C. elegans?\"
      One answer on standard output.
  cat letter.txt | lfm2-host --system \"Summarise in one sentence.\"
      The prompt from standard input, the package in the current folder.
  lfm2-host --raw --prompt \"Once upon a time\" --max-new-tokens 50 --temperature 0.8 --seed 7
      Continue a text, without the chat format.
  lfm2-host --speculate 8 < document-with-question.txt
      Guess from the text what comes next: less runs of the model for the same answer.
  lfm2-host --prompt \"Name the capital of Japan.\" --json | jq .timings
      Text, token ids, finish reason and timings as JSON.
  lfm2-host bench --model lfm2.onnx -p 512 -n 64 -d 0,512
      Speed of prefill and decoding, memory and latencies; `lfm2-host bench --help` says more.
  lfm2-host compile --ep qnn --model lfm2.onnx --soc SM8750 --out compiled
      Compile for a Snapdragon ahead of time; `lfm2-host compile --help` says more.
  lfm2-host eval --model q4.onnx --reference fp32.onnx --text dialogues.jsonl
      How far a quantized model is from the exact one; `lfm2-host eval --help` has more.
  lfm2-host doctor --model lfm2.onnx
      What this machine can run the package on, and how to get what is missing.

Exit status:
  0 if all went well, 1 if something failed, 2 if the arguments are wrong, 130 after Ctrl-C or SIGTERM.
Only answers go to standard output, everything else to standard error. RUST_LOG selects what is logged there.";

/// Runs LFM2 packages through ONNX Runtime: a chat on the terminal, or one answer.
#[derive(Clone, Debug, Parser)]
#[command(name = "lfm2-host", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// The package: an .onnx file, or a folder with one
    #[arg(short, long, value_name = "PACKAGE", default_value = ".")]
    pub(super) model: PathBuf,

    /// Answer this and leave; without it, the prompt comes from standard input if that is no terminal
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) prompt: Option<String>,

    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    pub(super) raw: bool,

    /// System message of the chat
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) system: Option<String>,

    /// Print one JSON object: text, token ids, finish reason, timings, seed, model, precision, provider
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) generation: GenerationArgs,

    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,

    /// Log more to standard error; twice for even more
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet", global = true)]
    pub(super) verbose: u8,

    /// Log errors only
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

/// Everything but chats and answers.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    Bench(Box<BenchArgs>),
    Eval(EvalArgs),
    Calibrate(CalibrateArgs),
    Compile(CompileArgs),
    Doctor(DoctorArgs),
}

/// How tokens are chosen, and when to end.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Generation (defaults: those of the package)")]
pub(super) struct GenerationArgs {
    /// Largest number of tokens in an answer; without it, until the model ends or the context is full
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) max_new_tokens: Option<String>,

    /// Randomness; 0 always takes the best token
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(super) temperature: Option<String>,

    /// Choose among the K best tokens; 0 for all
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub(super) top_k: Option<String>,

    /// Choose among the best tokens that together have this probability
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    pub(super) top_p: Option<String>,

    /// Choose among tokens with at least this part of the best token's probability
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    pub(super) min_p: Option<String>,

    /// Make tokens less likely that were there before; 1 for no difference
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    pub(super) repetition_penalty: Option<String>,

    /// Seed of the random numbers: the same seed gives the same text again
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) seed: Option<String>,

    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) stop: Vec<String>,
}

/// Where and how the model runs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct RuntimeArgs {
    #[command(flatten)]
    pub(super) provider: ProviderArgs,

    /// Number of threads; by default as many as there are physical cores
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) threads: Option<String>,

    /// Save energy: half of the threads unless --threads is given, and none waits actively; slower
    #[arg(long)]
    pub(super) battery: bool,

    /// Load with less memory at once; slower to load, and as fast afterwards
    #[arg(long)]
    pub(super) low_memory: bool,

    /// Tokens that prompt and answer may have together, at most what the package allows
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) max_context: Option<String>,

    /// Guess up to N tokens for each run from earlier text and verify them at once: faster where text repeats itself; needs
    /// a package of `lfm2-export --rollback`
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) speculate: Option<String>,

    /// What runs long prompts: auto takes the package's graph for prompts if it has one that is as exact as the other, int8
    /// insists on it, same does without
    #[arg(long, value_name = "GRAPH", default_value = "auto")]
    pub(super) prefill: String,

    /// What `lfm2-host compile` made of the package's graphs for --ep qnn: the folder of a chip, or the one above it
    #[arg(long, value_name = "DIR")]
    pub(super) compiled: Option<PathBuf>,

    /// Compare all files of the package with the hashes in its manifest first
    #[arg(long)]
    pub(super) verify: bool,
}
