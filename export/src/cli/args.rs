//! Arguments as they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lfm2_graphs::contract::{Padding, Target};

use crate::package::{Caches, CudaActivations, DialectName, Prefill, QnnPrecision};
use crate::recipe::Precision;

const EXAMPLES: &str = "\
Examples:
  lfm2-export --out lfm2.onnx                            LiquidAI/LFM2-1.2B from the hub, in 4 bits
  lfm2-export LiquidAI/LFM2-350M --out lfm2/ --precision q4-mixed
  lfm2-export ./my-fine-tune --out my.onnx --precision q8
  lfm2-export LiquidAI/LFM2-350M --out lfm2.onnx --precision q4 --rollback
  lfm2-export LiquidAI/LFM2-350M --out lfm2.onnx --for cpu,coreml
      Also graphs of fixed shapes for Core ML. Without --for, there are such graphs for Qualcomm's NPUs (qnn).
  lfm2-export LiquidAI/LFM2-350M --out lfm2.onnx --for cpu,cuda --cuda-activations bf16
      Also a graph for NVIDIA's GPUs, in the number format that the model was trained in.
  lfm2-export ./my-fine-tune --for calibrate --out calibrate.onnx
      A graph for `lfm2-host calibrate`, which measures what quantization should spare.
  lfm2-export ./my-fine-tune --precision q8 --qnn-precision w8a16 --calibration calibration.json --out lfm2.onnx
      Graphs of integers for Qualcomm's NPUs, from what `lfm2-host calibrate` wrote.
  lfm2-export --out lfm2.onnx --precision q4 --prefill int8    long prompts faster, for a larger package
  lfm2-export recipes q4 > mine.toml                     a recipe to change
  lfm2-export ./my-fine-tune --out my.onnx --recipe mine.toml
  lfm2-export inspect lfm2.onnx
  lfm2-export diff old.onnx new.onnx
  lfm2-export check lfm2.onnx --ep qnn

Exit status:
  0 done, 1 failed, 2 the arguments are wrong, 130 after Ctrl-C. `diff`: 0 the same, 1 different, 2 failed.
  `check`: 0 one partition each, 1 more, or failed.";

/// Turns LFM2 checkpoints into ONNX packages, with the states of convolutions and attention as inputs and outputs.
#[derive(Debug, Parser)]
#[command(name = "lfm2-export", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) export: ExportArguments,
    /// Says more on stderr; twice says everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(super) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the contract, operators, number formats and memory of a package.
    Inspect(InspectArguments),
    /// Shows what differs in the structure of two packages.
    Diff(DiffArguments),
    /// Says whether a provider takes the graphs of a package as a whole, by its rules.
    Check(CheckArguments),
    /// Lists the recipes that `--precision` names, or prints one as a file to change.
    Recipes(RecipesArguments),
}

#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// Folder of a checkpoint, or its name on the hub.
    #[arg(default_value = "LiquidAI/LFM2-1.2B")]
    pub(super) model: OsString,
    /// Where the package goes: `x.onnx` puts everything beside that file, `folder/` makes the layout of the hub.
    #[arg(long, value_name = "PATH", required = true)]
    pub(super) out: Option<PathBuf>,
    /// What the package is for: providers, separated by commas, of which each gets graphs of its own beside the general graph: the
    /// list replaces what an earlier export wrote there, so that it names everything that is to stay; or calibrate alone, a graph
    /// that takes statistics for quantization, in fp32 [default: cpu,qnn]
    #[arg(long = "for", value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(super) purpose: Vec<PurposeArgument>,
    /// Tokens of a prompt that NPUs take at once [default: 128, with --for calibrate 32, or the context if that is shorter]
    #[arg(long, value_name = "TOKENS")]
    pub(super) chunk: Option<usize>,
    /// Numbers of the graphs for Qualcomm's NPUs: fp16 computes in float16 with the weights of the general graph; w8a16 and w4a16 compute
    /// with 16-bit integers, on weights of 8 or 4 bits in a file of their own, and need --calibration [default: fp16]
    #[arg(long, value_enum, value_name = "NUMBERS")]
    pub(super) qnn_precision: Option<QnnArgument>,
    /// Writes graphs also if the provider would not take them as a whole, and says what it would leave out.
    #[arg(long)]
    pub(super) force: bool,
    /// Element type of activations and states in the graph for NVIDIA's GPUs [default: fp16]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(super) cuda_activations: Option<CudaArgument>,
    /// Longest conversation on NPUs, whose graphs have fixed sizes [default: 1024, with --for calibrate 512, or the model's limit if that is less]
    #[arg(long, value_name = "TOKENS")]
    pub(super) static_context: Option<usize>,
    /// Number formats: q4, q4-mixed, q4f16, q8, fp16 or fp32; `lfm2-export recipes` says what each is.
    #[arg(long, default_value_t, default_value_if("purpose", "calibrate", "fp32"))]
    pub(super) precision: Precision,
    /// Number formats from a file; `lfm2-export recipes q4` prints one to begin with.
    #[arg(long, value_name = "FILE", conflicts_with = "precision")]
    pub(super) recipe: Option<PathBuf>,
    /// What `lfm2-host calibrate` found out about the activations: numbers that are searched for then fit better. --qnn-precision
    /// w8a16 and w4a16 and --kv int8 need it.
    #[arg(long, value_name = "FILE")]
    pub(super) calibration: Option<PathBuf>,
    /// Operators to write the graph with.
    #[arg(long, value_enum, default_value_t)]
    pub(super) dialect: DialectArgument,
    /// Padded batches that the graph must compute exactly. Portable graphs always take left padding.
    #[arg(long, value_enum, default_value_t)]
    pub(super) padding: PaddingArgument,
    /// Longest conversation in tokens; bounds the rotary tables [default: the model's limit]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_context: Option<usize>,
    /// Lets the host take tokens back, which `lfm2-host --speculate` needs: every short convolution gets the output
    /// conv_columns.N. Runtimes that fetch all outputs, such as Transformers.js, become slower with it.
    #[arg(long)]
    pub(super) rollback: bool,
    /// Adds a second graph that runs prompts with 8-bit products, faster than the first one does; decoding stays as it is.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) prefill: Option<Int8Argument>,
    /// Keeps keys and values of earlier tokens as int8, in a quarter of the memory; needs --calibration.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) kv: Option<Int8Argument>,
    /// Branch, tag or commit on the hub [default: main]
    #[arg(long)]
    pub(super) revision: Option<String>,
    /// Where downloads are kept [default: the hub's own cache folder; env: HF_HUB_CACHE, HF_HOME]
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Takes only what is downloaded already [env: HF_HUB_OFFLINE]
    #[arg(long)]
    pub(super) offline: bool,
    /// Access token of the hub [default: the one of `hf auth login`; env: HF_TOKEN]
    #[arg(long, value_parser = token)]
    pub(super) token: Option<String>,
    /// Prints what was written as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl ExportArguments {
    /// The flags that were given and mean something for models on the hub only.
    pub(super) fn hub_flags(&self) -> Vec<&'static str> {
        let given = [
            ("--revision", self.revision.is_some()),
            ("--cache-dir", self.cache_dir.is_some()),
            ("--offline", self.offline),
            ("--token", self.token.is_some()),
        ];
        given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag)).collect()
    }
}

/// A token without what was copied along with it.
fn token(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("the token is empty; leave the flag out to use the one of `hf auth login`"),
        token => Ok(token.to_owned()),
    }
}

#[derive(Args, Debug)]
pub(super) struct InspectArguments {
    /// An ONNX file, or the folder of a package.
    pub(super) package: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DiffArguments {
    /// An ONNX file, or the folder of a package with one graph.
    pub(super) a: PathBuf,
    /// What to compare it with.
    pub(super) b: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    /// An ONNX file, or the folder of a package.
    pub(super) package: PathBuf,
    /// The provider whose rules the graphs are to keep.
    #[arg(long, value_enum, value_name = "PROVIDER")]
    pub(super) ep: ProviderArgument,
    /// Prints JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The providers with rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProviderArgument {
    /// Apple's Core ML.
    Coreml,
    /// Android's NNAPI.
    Nnapi,
    /// Qualcomm's NPUs.
    Qnn,
}

impl From<ProviderArgument> for Target {
    fn from(argument: ProviderArgument) -> Self {
        match argument {
            ProviderArgument::Coreml => Self::Coreml,
            ProviderArgument::Nnapi => Self::Nnapi,
            ProviderArgument::Qnn => Self::Qnn,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PurposeArgument {
    /// The processor: the general graph, which is always written.
    Cpu,
    /// Qualcomm's NPUs: fixed shapes, the weights of the general graph.
    Qnn,
    /// Apple's Core ML: fixed shapes, weights and activations in float16.
    Coreml,
    /// Android's NNAPI: fixed shapes, weights and activations in float32. Both graphs carry their weights in themselves, because the
    /// provider reads no file beside them, so that these are there twice, and models with more than 2 GiB of them are refused.
    Nnapi,
    /// NVIDIA's GPUs: the weights of the general graph in blocks, all else in float16, or in bfloat16 with --cuda-activations.
    Cuda,
    /// For `lfm2-host calibrate`, which writes what `--calibration` reads.
    Calibrate,
}

impl PurposeArgument {
    /// The provider, if it is one.
    pub(super) fn target(self) -> Option<Target> {
        match self {
            Self::Cpu => Some(Target::Cpu),
            Self::Qnn => Some(Target::Qnn),
            Self::Coreml => Some(Target::Coreml),
            Self::Nnapi => Some(Target::Nnapi),
            Self::Cuda => Some(Target::Cuda),
            Self::Calibrate => None,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct RecipesArguments {
    /// The recipe to print.
    #[arg(conflicts_with = "json")]
    pub(super) name: Option<Precision>,
    /// Prints the list as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum DialectArgument {
    /// ONNX Runtime's own kernels: fastest on CPUs.
    #[default]
    Contrib,
    /// Standard operators only: any ONNX runtime; fp32 and fp16.
    Portable,
}

/// Numbers of graphs for Qualcomm's NPUs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum QnnArgument {
    /// Activations in float16, weights as the general graph has them.
    Fp16,
    /// 8-bit weights, 16-bit activations.
    W8a16,
    /// 4-bit weights but for the head, 16-bit activations.
    W4a16,
}

impl From<QnnArgument> for QnnPrecision {
    fn from(argument: QnnArgument) -> Self {
        match argument {
            QnnArgument::Fp16 => Self::Fp16,
            QnnArgument::W8a16 => Self::W8a16,
            QnnArgument::W4a16 => Self::W4a16,
        }
    }
}

/// The one number format that there is besides the usual one.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Int8Argument {
    /// 8-bit integers.
    Int8,
}

/// What NVIDIA's GPUs compute with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum CudaArgument {
    /// float16: more exact.
    Fp16,
    /// bfloat16: nothing overflows, plain weights of checkpoints in bfloat16 are kept as they are, and everything else is rounded to 8 bits,
    /// scales of packed weights and rotary tables too. Needs ONNX Runtime 1.31 and a GPU of compute capability 8.0 (Ampere). Never executed:
    /// its kernels were only looked up.
    Bf16,
}

impl From<CudaArgument> for CudaActivations {
    fn from(argument: CudaArgument) -> Self {
        match argument {
            CudaArgument::Fp16 => Self::Float16,
            CudaArgument::Bf16 => Self::Bfloat16,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum PaddingArgument {
    /// Prompts of one batch have the same length.
    #[default]
    None,
    /// Prompts of different lengths, padded on the left.
    Left,
}

impl From<DialectArgument> for DialectName {
    fn from(argument: DialectArgument) -> Self {
        match argument {
            DialectArgument::Contrib => Self::Contrib,
            DialectArgument::Portable => Self::Portable,
        }
    }
}

impl From<Int8Argument> for Prefill {
    fn from(Int8Argument::Int8: Int8Argument) -> Self {
        Self::Int8
    }
}

impl From<Int8Argument> for Caches {
    fn from(Int8Argument::Int8: Int8Argument) -> Self {
        Self::Int8
    }
}

impl From<PaddingArgument> for Padding {
    fn from(argument: PaddingArgument) -> Self {
        match argument {
            PaddingArgument::None => Self::None,
            PaddingArgument::Left => Self::Left,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_token_is_trimmed_and_not_empty() {
        let parse = |token| Arguments::try_parse_from(["lfm2-export", "--out", "x.onnx", "--token", token]);
        assert_eq!(parse("tok\n").unwrap().export.token.as_deref(), Some("tok"));
        for nothing in ["", " \n"] {
            parse(nothing).unwrap_err();
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_checkpoint_may_have_any_name() {
        let name: OsString = std::os::unix::ffi::OsStringExt::from_vec(b"caf\xe9".to_vec());
        let arguments = ["lfm2-export".into(), "--out".into(), "x.onnx".into(), name.clone()];
        assert_eq!(Arguments::try_parse_from(arguments).unwrap().export.model, name);
    }

    #[test]
    fn the_output_is_required_for_exports_only() {
        Arguments::try_parse_from(["lfm2-export"]).unwrap_err();
        Arguments::try_parse_from(["lfm2-export", "--out", "x.onnx"]).unwrap();
        Arguments::try_parse_from(["lfm2-export", "inspect", "x.onnx", "--json"]).unwrap();
        Arguments::try_parse_from(["lfm2-export", "--out", "x.onnx", "--precision", "q5"]).unwrap_err();
    }
}
