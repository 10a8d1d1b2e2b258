//! What it costs to run several tokens at once, against one: whether drafts pay.
//!
//! Takes a package of `lfm2-export --rollback` from `LFM2_PACKAGE`, the number of threads from `LFM2_THREADS`, and the number of
//! tokens before the run from `LFM2_DEPTH` (512 unless set):
//!
//! ```console
//! $ LFM2_PACKAGE=lfm2.onnx LFM2_THREADS=2 cargo bench -p lfm2-benches --bench verification
//! ```
//!
//! Each measured step verifies S tokens and takes them back, so that all are at the same depth. "step" is an ordinary step of one
//! token: as much longer as "1" takes is what the columns and the cut cost.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use lfm2_host::decoder::{Decoder, OrtDecoder};
use lfm2_host::package::Package;
use lfm2_host::provider::{self, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::Session;

/// Numbers of tokens that are run at once.
const TOKENS: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

#[expect(clippy::print_stderr, reason = "a bench that is left out says why")]
fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = env::var_os("LFM2_PACKAGE") else {
        eprintln!("verification: skipped, because LFM2_PACKAGE names no package of `lfm2-export --rollback`");
        return Ok(());
    };
    let mut decoder = open(Path::new(&path))?;
    if !decoder.can_rollback() {
        eprintln!("verification: skipped, because {} was exported without --rollback", path.display());
        return Ok(());
    }
    let depth = number("LFM2_DEPTH")?.unwrap_or(512);
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    measure(&mut criterion, &mut decoder, depth)?;
    criterion.final_summary();
    Ok(())
}

fn open(path: &Path) -> Result<OrtDecoder, Box<dyn Error>> {
    let package = Package::open(path)?;
    let options = SessionOptions { threads: number("LFM2_THREADS")?, ..SessionOptions::default() };
    let session = Session::new(Runtime::load(None)?, &package, provider::named("cpu")?, &options)?;
    Ok(OrtDecoder::new(session, None)?)
}

fn number(name: &str) -> Result<Option<usize>, Box<dyn Error>> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    Ok(Some(number.ok_or_else(|| format!("{name} is {}, not a whole number", text.display()))?))
}

fn measure(criterion: &mut Criterion, decoder: &mut OrtDecoder, depth: usize) -> Result<(), Box<dyn Error>> {
    let vocab_size = u32::try_from(decoder.vocab_size())?;
    let tokens: Vec<u32> = (0..u32::try_from(depth)? + 16).map(|index| index * 7919 % vocab_size).collect();
    let (before, run) = tokens.split_at(depth);
    let start = |decoder: &mut OrtDecoder| {
        decoder.reset();
        if before.is_empty() { Ok(()) } else { decoder.step(before).map(drop) }
    };
    let mut group = criterion.benchmark_group(format!("{depth} tokens before"));
    for count in TOKENS {
        start(decoder)?;
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("verify", count), |bencher| {
            bencher.iter(|| {
                decoder.verify(&run[..count]).map(drop)?;
                decoder.truncate(depth)
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("step", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut time = Duration::ZERO;
            for iteration in 0..iterations {
                // The depth grows by a token with each, which is little as long as it is not for ever.
                if iteration % 64 == 0 && start(decoder).is_err() {
                    break;
                }
                let begin = Instant::now();
                let is_done = black_box(decoder.step(&run[..1]).map(drop)).is_ok();
                time += begin.elapsed();
                if !is_done {
                    break;
                }
            }
            time
        });
    });
    group.finish();
    Ok(())
}
