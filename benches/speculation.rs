//! What guessing ahead gains and loses in time, on texts that are copied, changed, alike and new.
//!
//! Takes a package of `lfm2-export --rollback` from `LFM2_PACKAGE`, the number of threads from `LFM2_THREADS`, and how often
//! everything is measured from `LFM2_ROUNDS` (1 unless set):
//!
//! ```console
//! $ LFM2_PACKAGE=lfm2.onnx LFM2_THREADS=2 cargo bench -p lfm2-benches --bench speculation
//! ```
//!
//! The model runs and takes its time, but the texts are given: weights need not be trained. Every answer is made without guesses,
//! with guesses whose cost is learnt anew, and with guesses that are taken to cost what they do on processors with dot products of
//! bytes. Tokens are words, spaces before them included, and single characters of everything else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use lfm2_host::cancel::Cancel;
use lfm2_host::decoder::{Decoder, DecoderError, OrtDecoder};
use lfm2_host::engine::{DraftCost, Engine, Timings};
use lfm2_host::generation::{Generation, GenerationDefaults, Overrides};
use lfm2_host::package::Package;
use lfm2_host::provider::{self, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::Session;
use lfm2_host::text::Tokenizer;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1};

/// Most tokens of a draft.
const LONGEST: usize = 8;

/// Tokens of every prompt and of every answer, at most.
const PROMPT: usize = 240;
const ANSWER: usize = 160;

/// What is compared, without guesses first.
const SETTINGS: [(&str, Option<DraftCost>); 3] =
    [("none", None), ("learnt", Some(DraftCost::Learnt)), ("0.3", Some(DraftCost::Fixed(0.3)))];

/// Texts that do not change.
const PROSE: &str = include_str!("../LICENSE-APACHE");
const CODE: &str = include_str!("../export/proto/onnx-ml.proto");

#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a bench prints what it measures, and why it is left out"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = env::var_os("LFM2_PACKAGE") else {
        eprintln!("speculation: skipped, because LFM2_PACKAGE names no package of `lfm2-export --rollback`");
        return Ok(());
    };
    let package = Package::open(Path::new(&path))?;
    let options = SessionOptions { threads: number("LFM2_THREADS")?, ..SessionOptions::default() };
    let session = Session::new(Runtime::load(None)?, &package, provider::named("cpu")?, &options)?;
    let script = Script::default();
    let decoder = Scripted::new(OrtDecoder::new(session, None)?, script.clone());
    if !decoder.can_rollback() {
        eprintln!("speculation: skipped, because {} was exported without --rollback", path.display());
        return Ok(());
    }
    let defaults = GenerationDefaults::load(package.folder())?;
    let mut engine = Engine::new(decoder, Tokenizer::load(package.folder())?, None);
    println!("| text | cost of a guess | runs per 100 tokens | guesses | right | tokens/s | times as fast |");
    println!("|---|---|---|---|---|---|---|");
    for _ in 0..number("LFM2_ROUNDS")?.unwrap_or(1) {
        for (name, prompt, answer) in texts() {
            let (prompt, text) = words(&prompt, &answer);
            let mut plain = Duration::ZERO;
            for (cost_name, cost) in SETTINGS {
                let timings = answer_once(&mut engine, &script, &defaults, cost, &prompt, &text)?;
                let Timings { decode, decode_tokens, decode_runs, drafted_tokens, accepted_tokens, .. } = timings;
                if cost.is_none() {
                    plain = decode;
                }
                let (tokens, times) = (decode_tokens as f64, plain.as_secs_f64() / decode.as_secs_f64());
                println!(
                    "| {name} | {cost_name} | {:.0} | {drafted_tokens} | {accepted_tokens} | {:.1} | {times:.2} |",
                    100.0 * decode_runs as f64 / tokens,
                    tokens / decode.as_secs_f64(),
                );
            }
        }
    }
    Ok(())
}

fn number(name: &str) -> Result<Option<usize>, Box<dyn Error>> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    Ok(Some(number.ok_or_else(|| format!("{name} is {}, not a whole number", text.display()))?))
}

/// Lets the engine answer `prompt` with what follows it in `text`.
fn answer_once(
    engine: &mut Engine<Scripted>,
    script: &Script,
    defaults: &GenerationDefaults,
    cost: Option<DraftCost>,
    prompt: &[u32],
    text: &[u32],
) -> Result<Timings, Box<dyn Error>> {
    let overrides = Overrides {
        temperature: Some(0.0),
        repetition_penalty: Some(1.0),
        max_new_tokens: Some(text.len() - prompt.len()),
        ..Overrides::default()
    };
    // No word is an end.
    let generation = Generation { eos: Vec::new(), ..defaults.resolve(&overrides)? };
    engine.reset();
    engine.speculate(if cost.is_some() { LONGEST } else { 0 })?;
    engine.set_draft_cost(cost.unwrap_or_default())?;
    *script.borrow_mut() = text.to_vec();
    Ok(engine.generate(prompt, &generation, &Cancel::new(), &mut |_| {})?.timings)
}

/// What a decoder says: all tokens from the first one of the prompt.
type Script = Rc<RefCell<Vec<u32>>>;

/// A decoder that takes the time of a model, and says what is written.
struct Scripted {
    model: OrtDecoder,
    script: Script,
    logits: Array1<f32>,
    rows: Array2<f32>,
}

impl Scripted {
    fn new(model: OrtDecoder, script: Script) -> Self {
        let logits = Array1::zeros(model.vocab_size());
        Self { model, script, logits, rows: Array2::zeros((0, 0)) }
    }
}

/// Makes `row` say what follows the first `held` tokens of the script.
fn say(script: &Script, held: usize, mut row: ArrayViewMut1<'_, f32>) {
    row.fill(0.0);
    let next = script.borrow().get(held).copied().unwrap_or(0);
    if let Some(logit) = row.get_mut(next as usize) {
        *logit = 9.0;
    }
}

impl Decoder for Scripted {
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
        self.model.step(tokens)?;
        say(&self.script, self.model.len(), self.logits.view_mut());
        Ok(self.logits.view())
    }

    fn can_rollback(&self) -> bool {
        self.model.can_rollback()
    }

    fn verify(&mut self, tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
        let held = self.model.len();
        self.model.verify(tokens)?;
        self.rows = Array2::zeros((tokens.len(), self.logits.len()));
        for (row, logits) in self.rows.outer_iter_mut().enumerate() {
            say(&self.script, held + row + 1, logits);
        }
        Ok(self.rows.view())
    }

    fn truncate(&mut self, len: usize) -> Result<(), DecoderError> {
        self.model.truncate(len)
    }

    fn reset(&mut self) {
        self.model.reset();
    }

    fn len(&self) -> usize {
        self.model.len()
    }

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn run_time(&self) -> Duration {
        self.model.run_time()
    }
}

/// Names, prompts and answers.
fn texts() -> [(&'static str, String, String); 5] {
    let [prose, code] = [&PROSE[2000..], &CODE[6000..]].map(str::to_owned);
    let edited = code.replace("optional", "required").replace("Proto", "Message");
    let keys = "name, city, age, mail";
    [
        ("copied", prose.clone(), prose.clone()),
        ("copied code, two words replaced", code.clone(), edited),
        (
            "objects as JSON",
            format!("Make up some people as a list of objects in JSON with the keys {keys}.\n"),
            objects(),
        ),
        ("prose goes on", prose.clone(), following(&prose)),
        ("code goes on", code.clone(), following(&code)),
    ]
}

/// What stands behind the part of `text` that is a prompt.
fn following(text: &str) -> String {
    split(text).skip(PROMPT).collect()
}

/// Objects with the same keys and other values.
fn objects() -> String {
    let names = ["Ada", "Linus", "Grace", "Ken", "Radia", "Tim", "Barbara", "Donald", "Margaret", "Dennis"];
    let cities = ["Paris", "Oslo", "Cairo", "Lima", "Rome", "Tokyo", "Quito", "Athens", "Madrid", "Warsaw"];
    let people = names.iter().zip(cities).enumerate().map(|(index, (name, city))| {
        let (age, mail) = (20 + index * 37 % 61, index * 7919 % 997);
        format!(r#"{{"name": "{name}", "city": "{city}", "age": {age}, "mail": "{name}{mail}@{city}.org"}}"#)
    });
    format!("[{}]", people.collect::<Vec<_>>().join(", "))
}

/// The tokens of the prompt, and those of prompt and answer: the n-th new word has the number n.
fn words(prompt: &str, answer: &str) -> (Vec<u32>, Vec<u32>) {
    let mut known: HashMap<String, u32> = HashMap::new();
    let mut number = |word: String| {
        // Special tokens are the first ones of a vocabulary.
        let next = 1000 + u32::try_from(known.len()).unwrap_or(0);
        *known.entry(word).or_insert(next)
    };
    let prompt: Vec<u32> = split(prompt).take(PROMPT).map(&mut number).collect();
    let all = prompt.iter().copied().chain(split(answer).take(ANSWER).map(number)).collect();
    (prompt, all)
}

/// Words with the spaces before them, and other characters one by one.
fn split(text: &str) -> impl Iterator<Item = String> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let letters = rest[spaces..].find(|it: char| !it.is_alphanumeric()).unwrap_or(rest.len() - spaces);
        let other = rest[spaces..].chars().next().map_or(0, char::len_utf8);
        let (word, behind) = rest.split_at(spaces + if letters > 0 { letters } else { other });
        rest = behind;
        (!word.is_empty()).then(|| word.to_owned())
    })
}
