//! From a package and a provider to a decoder: which graphs the provider takes, and how they run.

use std::path::Path;

use lfm2_graphs::contract::Target;

use super::{AnyDecoder, Companion, DecoderError, FixedDecoder, OrtDecoder};
use crate::compiled::{self, Compiled, CompiledError};
use crate::package::{Package, PackageError, Pair, Prefill};
use crate::provider::{self, Provider, SessionOptions};
use crate::runtime::Runtime;
use crate::session::{Memory, Session, SessionError};

/// What is to be run, and how.
#[derive(Clone)]
pub struct Opening<'a> {
    /// ONNX Runtime.
    pub runtime: &'static Runtime,
    /// The general graph of the package.
    pub package: &'a Package,
    /// What runs it.
    pub provider: &'static dyn Provider,
    /// How it is loaded and run.
    pub options: SessionOptions,
    /// Most tokens of the sequence, if not all that the graphs take (`--max-context`).
    pub max_context: Option<usize>,
    /// What runs prompts (`--prefill`).
    pub prefill: Prefill,
    /// Folder with graphs that were compiled ahead of time (`--compiled`).
    pub compiled: Option<&'a Path>,
    /// Whether compiled graphs are compared with their SHA-256 first (`--verify`); the package's files are for
    /// [`Package::verify`].
    pub verify: bool,
    /// Whether tokens are to be verified and taken back (`--speculate`).
    pub speculate: bool,
}

impl Opening<'_> {
    /// Loads the graphs that the package has for the provider.
    pub fn decoder(self) -> Result<AnyDecoder, OpenError> {
        let name = self.provider.name();
        let target = Target::named(name).ok_or(OpenError::NoTarget { provider: name })?;
        if self.compiled.is_some() && name != compiled::PROVIDER {
            return Err(OpenError::NotCompiled { provider: name });
        }
        if target.is_static() { self.fixed(target) } else { self.dynamic(target) }
    }

    /// The graphs that [`Opening::decoder`] loads: that for chunks and that for single tokens, or one that takes any number. A companion
    /// is not among them.
    pub fn graphs(&self) -> Result<Vec<Package>, OpenError> {
        graphs(self.package, self.provider)
    }

    fn dynamic(self, target: Target) -> Result<AnyDecoder, OpenError> {
        let Self { runtime, provider, options, .. } = self;
        // What is missing should be known before the loading.
        let prefill = self.package.prefill(self.prefill)?;
        let package = general(self.package, provider, target)?;
        if self.speculate {
            if provider.memory(&options) != Memory::Shared {
                return Err(OpenError::StateElsewhere { provider: provider.name() });
            }
            package.require_rollback()?;
        }
        let session = Session::new(runtime, &package, provider, &options)?;
        let mut decoder = OrtDecoder::new(session, self.max_context)?;
        // The companion's states are those of the processor's graph.
        if let Some(prefill) = prefill.filter(|_| target == Target::Cpu) {
            let load = move || Session::new(runtime, &prefill, provider, &options);
            decoder.set_companion(Companion::new(self.prefill, load));
        }
        Ok(AnyDecoder::Dynamic(decoder))
    }

    fn fixed(self, target: Target) -> Result<AnyDecoder, OpenError> {
        let Self { runtime, package, provider, options, .. } = self;
        let mut problems = Vec::new();
        if self.speculate {
            problems.push("--speculate needs logits of several tokens at once, and has no use there: leave it out");
        }
        if self.prefill == Prefill::Int8 {
            problems.push(
                "--prefill int8 names a graph for the processor: leave it out, the graph for chunks runs prompts",
            );
        }
        if !problems.is_empty() {
            return Err(OpenError::Static { provider: provider.name(), problems });
        }
        let pair = package.pair(target)?;
        let compiled = self.compiled.map(|folder| Compiled::open(folder, &pair, runtime, provider, &options));
        let compiled = compiled.transpose()?;
        if let Some(compiled) = compiled.as_ref().filter(|_| self.verify) {
            compiled.verify()?;
        }
        let load = |package: &Package| -> Result<Session, OpenError> {
            match &compiled {
                Some(compiled) => Ok(compiled.session(runtime, package, provider, &options)?),
                None => Ok(Session::new(runtime, package, provider, &options)?),
            }
        };
        let (chunk, token) = (load(&pair.chunk)?, load(&pair.token)?);
        let folder = pair.token.graph().parent().unwrap_or(pair.token.folder());
        Ok(AnyDecoder::Fixed(FixedDecoder::new(chunk, token, folder, self.max_context)?))
    }
}

/// The graphs of `package` that `provider` runs, as [`Opening::graphs`].
pub fn graphs(package: &Package, provider: &dyn Provider) -> Result<Vec<Package>, OpenError> {
    let name = provider.name();
    let target = Target::named(name).ok_or(OpenError::NoTarget { provider: name })?;
    if target.is_static() {
        let Pair { chunk, token } = package.pair(target)?;
        return Ok(vec![chunk, token]);
    }
    Ok(vec![general(package, provider, target)?])
}

/// The graph for any number of tokens that runs on `target`.
fn general(package: &Package, provider: &dyn Provider, target: Target) -> Result<Package, PackageError> {
    match package.dynamic(target) {
        // Some providers take the general graph of a package, if it is of standard operators alone.
        Err(PackageError::NoTarget { .. }) if provider::check(provider, package.contract()).is_ok() => {
            Ok(package.clone())
        }
        found => found,
    }
}

/// Why the graphs for a provider cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A provider that no graphs are written for.
    #[error("no graphs are written for --ep {provider}")]
    NoTarget {
        /// The provider.
        provider: &'static str,
    },
    /// Settings that static graphs cannot follow.
    #[error("--ep {provider} runs graphs of fixed shapes:\n{}", problems.iter().map(|it| format!("  - {it}")).collect::<Vec<_>>().join("\n"))]
    Static {
        /// The provider.
        provider: &'static str,
        /// One sentence for each setting.
        problems: Vec<&'static str>,
    },
    /// States that only the device reaches.
    #[error(
        "--speculate takes tokens back out of the states, and those of --ep {provider} stay in the memory of its device; leave it out, or use --ep cpu"
    )]
    StateElsewhere {
        /// The provider.
        provider: &'static str,
    },
    /// A provider that nothing is compiled for ahead of time.
    #[error("--compiled is for --ep {}, and this is --ep {provider}", compiled::PROVIDER)]
    NotCompiled {
        /// The provider.
        provider: &'static str,
    },
    /// Compiled graphs that cannot be used.
    #[error(transparent)]
    Compiled(#[from] CompiledError),
    /// The package has no such graphs, or they are not complete.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The provider does not take them.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is no decoder over them.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}
