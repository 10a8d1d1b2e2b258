//! `lfm2-host doctor` as it is typed.

use std::path::PathBuf;

use crate::cli::provider::ProviderArgs;

const EXAMPLES: &str = "\
Examples:
  lfm2-host doctor
      What this machine can run models on, and how to get what is missing.
  lfm2-host doctor --model lfm2.onnx
      Which of these providers run this package, and what to export for the others.
  lfm2-host doctor --model lfm2.onnx --ep qnn --json
      The same about one provider, for programs.

Every provider is asked in a process of its own: one that crashes is a line of the report.

Exit status:
  0 if all of --ep works, or without it cpu; with --model, if it runs the package; 1 if not, 2 if the arguments are wrong.";

/// Says what models can run on here, and how to get what is missing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub(in crate::cli) struct DoctorArgs {
    /// A package that is to run: an .onnx file, or a folder with one
    #[arg(short, long, value_name = "PACKAGE")]
    pub(super) model: Option<PathBuf>,

    /// The providers to ask about; without it, all of them
    #[arg(long, value_name = "PROVIDER,..")]
    pub(super) ep: Option<String>,

    /// An option of a provider, such as soc_model=SM8650; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) ep_option: Vec<String>,

    /// The library of a provider that comes as a plugin, as qnn does; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ep_lib: Option<PathBuf>,

    /// Say yes, too, if a part of the package would run on another provider
    #[arg(long)]
    pub(super) allow_fallback: bool,

    /// The ONNX Runtime library; without it, the usual places are searched
    #[arg(long, value_name = "FILE")]
    pub(super) ort_lib: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,

    /// Ask about one provider in this process: what `doctor` starts for each
    #[arg(long, hide = true, value_name = "PROVIDER")]
    pub(super) probe: Option<String>,
}

impl DoctorArgs {
    /// The arguments about providers.
    pub(super) fn provider_args(&self) -> ProviderArgs {
        let all = || crate::provider::names().join(",");
        ProviderArgs {
            ep: self.ep.clone().unwrap_or_else(all),
            ep_option: self.ep_option.clone(),
            ep_lib: self.ep_lib.clone(),
            strict: false,
            allow_fallback: self.allow_fallback,
            ort_lib: self.ort_lib.clone(),
        }
    }
}
