//! Fixtures exported into temporary folders, and opened.

use std::borrow::Borrow;
use std::fs;
use std::path::{Path, PathBuf};

use lfm2_export::package::{Caches, DialectName, Options, Output, Prefill, Targets, export};
use lfm2_export::proto::decode;
use lfm2_export::recipe::{Precision, Recipe};
use lfm2_graphs::contract::{Padding, Purpose, Target};
use lfm2_host::decoder::{Companion, FixedDecoder, OrtDecoder};
use lfm2_host::package::{Package, Prefill as Wanted};
use lfm2_host::provider::{self, Provider, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::Session;
use tempfile::TempDir;

/// Checkpoints under `tests/fixtures/tiny-random`.
pub const TINY_RANDOM: [&str; 14] = [
    "all-attention",
    "all-conv",
    "bias",
    "bias-width-4",
    "both-widths",
    "eight-heads",
    "head-dim-24",
    "original",
    "resaved",
    "sharded",
    "untied",
    "width-2",
    "width-4",
    "width-5",
];

/// The checkpoint that has been trained.
pub const TINY_CHAT: &str = "tiny-chat";

/// One thread, so that results do not depend on how many there are.
const THREAD: SessionOptions = SessionOptions::with_threads(Some(1));

/// Why the fused kernels cannot compute a fixture, if so: then only the portable dialect is tested with it.
pub fn needs_portable(fixture: &str) -> bool {
    // ONNX Runtime's fused attention rotates heads in steps of 16 elements.
    fixture == "head-dim-24"
}

/// Folder of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    if name == TINY_CHAT { fixtures.join(name) } else { fixtures.join("tiny-random").join(name) }
}

/// A package in a folder of its own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Exported {
    folder: TempDir,
    /// The ONNX file.
    pub graph: PathBuf,
}

impl Exported {
    /// Exports a fixture.
    pub fn new(name: &str, options: impl Borrow<Options>) -> Self {
        Self::of(&fixture(name), options)
    }

    /// Exports a checkpoint.
    pub fn of(checkpoint: &Path, options: impl Borrow<Options>) -> Self {
        let options = options.borrow();
        let folder = TempDir::new().unwrap();
        let source = folder.path().join("checkpoint");
        complete(checkpoint, &source);
        let output = Output::new(&folder.path().join("package/lfm2.onnx"), &options.recipe).unwrap();
        let summary = export(&source, &output, options, &mut |_, _| std::ops::ControlFlow::Continue(()));
        let summary = summary.unwrap_or_else(|error| panic!("{} {options:?}: {error}", checkpoint.display()));
        Self { folder, graph: summary.graph }
    }

    /// The folder of graph, weights and sidecars.
    pub fn package(&self) -> PathBuf {
        self.folder.path().join("package")
    }

    /// Lets all products with packed weights compute in float32, where the kernels otherwise round the activations to 8 bits: what
    /// is left of a difference then is none of rounding.
    pub fn with_exact_products(self) -> Self {
        // An attribute of ONNX: its name, and then the tag and the value of its number. No length changes.
        let [fast, exact] = [4, 0].map(|level| [b"accuracy_level", &[0x18, level][..]].concat());
        let mut graph = fs::read(&self.graph).unwrap();
        let mut products = 0;
        for start in 0..=graph.len() - fast.len() {
            if graph[start..].starts_with(&fast) {
                graph[start..start + fast.len()].copy_from_slice(&exact);
                products += 1;
            }
        }
        let nodes = decode(&graph).unwrap().nodes;
        let levels: Vec<_> = nodes.iter().filter_map(|node| node.attributes.get("accuracy_level")).collect();
        assert!(products > 0 && levels.len() == products && levels.iter().all(|level| *level == "0"), "{levels:?}");
        fs::write(&self.graph, graph).unwrap();
        self
    }

    /// A decoder on the CPU.
    pub fn decoder(&self) -> OrtDecoder {
        OrtDecoder::new(self.session(), None).unwrap()
    }

    /// A decoder on the CPU whose runs of at least `from` tokens go through the companion, which must be there.
    pub fn decoder_with_companion(&self, from: usize) -> OrtDecoder {
        let mut decoder = self.decoder();
        let package = Package::open(&self.graph).unwrap().prefill(Wanted::Int8).unwrap().expect("there is a companion");
        let load =
            move || Session::new(Runtime::load(None).unwrap(), &package, provider::named("cpu").unwrap(), &THREAD);
        decoder.set_companion(Companion::when_needed(load).always_from(from));
        decoder
    }

    /// A decoder on the CPU whose runs of at least `from` tokens go through a second session of the same graph: what the two hand to
    /// each other is then all that can differ.
    pub fn decoder_with_twin(&self, from: usize) -> OrtDecoder {
        let mut decoder = self.decoder();
        let package = Package::open(&self.graph).unwrap();
        let load =
            move || Session::new(Runtime::load(None).unwrap(), &package, provider::named("cpu").unwrap(), &THREAD);
        decoder.set_companion(Companion::when_needed(load).always_from(from));
        decoder
    }

    /// A decoder over the package's static graphs for `target` on `provider`, which may be another one than they are for.
    pub fn static_decoder(
        &self,
        target: Target,
        provider: &'static dyn Provider,
        options: &SessionOptions,
    ) -> FixedDecoder {
        let runtime = Runtime::load(None).unwrap();
        let pair = Package::open(&self.graph).unwrap().pair(target).unwrap_or_else(|error| panic!("{error}"));
        let load =
            |package| Session::new(runtime, package, provider, options).unwrap_or_else(|error| panic!("{error}"));
        FixedDecoder::new(load(&pair.chunk), load(&pair.token), &self.package(), None).unwrap()
    }

    /// A session on the CPU.
    pub fn session(&self) -> Session {
        let runtime = Runtime::load(None).unwrap();
        let package = Package::open(&self.graph).unwrap();
        Session::new(runtime, &package, provider::named("cpu").unwrap(), &THREAD).unwrap()
    }
}

/// Options of an export with the model's own context length.
pub fn options(precision: Precision, dialect: DialectName, padding: Padding) -> Options {
    with_recipe(precision.recipe().unwrap(), dialect, padding)
}

/// Options of an export with a recipe of its own.
pub fn with_recipe(recipe: Recipe, dialect: DialectName, padding: Padding) -> Options {
    Options {
        recipe,
        dialect,
        padding,
        max_context: None,
        rollback: false,
        purpose: Purpose::General,
        prefill: Prefill::Same,
        caches: Caches::Activations,
        targets: Targets::cpu(),
        calibration: None,
        threads: None,
    }
}

/// The contrib dialect without padding.
pub fn contrib(precision: Precision) -> Options {
    options(precision, DialectName::Contrib, Padding::None)
}

/// The contrib dialect with a companion for prompts.
pub fn with_prefill(precision: Precision) -> Options {
    Options { prefill: Prefill::Int8, ..contrib(precision) }
}

/// The contrib dialect with static graphs for `targets` beside it: chunks of `chunk` tokens, and `context` tokens at most.
pub fn with_static(precision: Precision, targets: &[Target], chunk: usize, context: usize) -> Options {
    let (chunk, static_context) = (Some(chunk), Some(context));
    let targets = Targets { chunk, static_context, ..Targets::asked(targets.iter().copied()) };
    Options { targets, ..contrib(precision) }
}

/// The portable dialect.
pub fn portable(precision: Precision) -> Options {
    options(precision, DialectName::Portable, Padding::None)
}

/// The same, with states that can be cut.
pub fn rollback(options: Options) -> Options {
    Options { rollback: true, ..options }
}

/// A graph for calibration.
pub fn calibrating(dialect: DialectName) -> Options {
    Options { purpose: Purpose::Calibrate, ..options(Precision::Fp32, dialect, Padding::None) }
}

/// Copies a checkpoint, with a tokenizer if it has none: the random checkpoints have none, and nothing depends on what their
/// tokens mean.
pub fn complete(from: &Path, to: &Path) {
    copy(from, to);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        if !to.join(file).exists() {
            fs::copy(fixture(TINY_CHAT).join(file), to.join(file)).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
