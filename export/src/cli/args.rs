//! Arguments as they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lfm2_graphs::contract::Padding;

use crate::package::DialectName;
use crate::recipe::Precision;

const EXAMPLES: &str = "\
Examples:
  lfm2-export --out lfm2.onnx                            LiquidAI/LFM2-1.2B from the hub
  lfm2-export LiquidAI/LFM2-350M --out lfm2/ --precision q4
  lfm2-export ./my-fine-tune --out my.onnx --precision q8
  lfm2-export inspect lfm2.onnx
  lfm2-export diff old.onnx new.onnx

Exit status:
  0 done, 1 failed, 2 the arguments are wrong, 130 after Ctrl-C. `diff`: 0 the same, 1 different, 2 failed.";

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
}

#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// Folder of a checkpoint, or its name on the hub.
    #[arg(default_value = "LiquidAI/LFM2-1.2B")]
    pub(super) model: OsString,
    /// Where the package goes: `x.onnx` puts everything beside that file, `folder/` makes the layout of the hub.
    #[arg(long, value_name = "PATH", required = true)]
    pub(super) out: Option<PathBuf>,
    /// Number formats: fp32, fp16, q8, q4 (4-bit weights) or q4f16 (with float16 activations).
    #[arg(long, default_value = "fp32")]
    pub(super) precision: Precision,
    /// Operators to write the graph with.
    #[arg(long, value_enum, default_value_t)]
    pub(super) dialect: DialectArgument,
    /// Padded batches that the graph must compute exactly. Portable graphs always take left padding.
    #[arg(long, value_enum, default_value_t)]
    pub(super) padding: PaddingArgument,
    /// Longest conversation in tokens; bounds the rotary tables [default: the model's limit]
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_context: Option<usize>,
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

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum DialectArgument {
    /// ONNX Runtime's own kernels: fastest on CPUs.
    #[default]
    Contrib,
    /// Standard operators only: any ONNX runtime; fp32 and fp16.
    Portable,
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
