//! From typed arguments to checked settings. All problems are reported together, each with its flag.

use std::{fmt::Display, num::NonZeroUsize, path::PathBuf, str::FromStr};

use clap::CommandFactory;

use super::{
    Problems,
    args::{Args, GenerationArgs, RuntimeArgs},
    provider::ProviderSettings,
};
use crate::{
    generation::Overrides,
    package::Prefill,
    provider::{Prepack, SessionOptions},
};

/// Every thread needs memory and starts at once, and the runtime takes the low 32 bits of any larger number.
pub(super) const MOST_THREADS: usize = 1024;

/// Each token of a draft needs logits of its own, and more than this many pay nowhere.
pub(super) const LONGEST_DRAFT: usize = 64;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) task: Task,
    pub(super) system: Option<String>,
    pub(super) overrides: Overrides,
    pub(super) load: LoadSettings,
}

/// What is to be run, and where.
#[derive(Clone, Debug)]
pub(super) struct LoadSettings {
    pub(super) model: PathBuf,
    pub(super) provider: ProviderSettings,
    /// Threads, spinning and packing.
    pub(super) session: SessionOptions,
    pub(super) max_context: Option<NonZeroUsize>,
    /// Most tokens in a draft.
    pub(super) speculate: Option<NonZeroUsize>,
    pub(super) prefill: Prefill,
    /// Folder with compiled graphs.
    pub(super) compiled: Option<PathBuf>,
    pub(super) verify: bool,
}

/// Chat or one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// A chat on the terminal.
    Chat,
    /// One answer.
    Answer {
        /// The prompt, or nothing if it comes from standard input.
        prompt: Option<String>,
        /// Without the chat template.
        raw: bool,
        /// As a JSON object.
        json: bool,
    },
}

/// Which of the standard streams are terminals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminals {
    pub(super) input: bool,
    pub(super) output: bool,
}

impl Settings {
    /// Checks everything that can be checked without opening the package.
    pub(super) fn resolve(args: Args, terminals: Terminals) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        no_flags_as_texts(&args, &mut problems);
        let task = task(&args, terminals, &mut problems);
        let overrides = overrides(args.generation, &mut problems);
        let load = LoadSettings::resolve(args.model, args.runtime, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { task, system: args.system, overrides, load })
    }
}

impl LoadSettings {
    /// Checks where and how the package at `model` is to run. What is returned counts only if there is no problem.
    pub(super) fn resolve(model: PathBuf, args: RuntimeArgs, problems: &mut Problems) -> Self {
        let provider = args.provider.resolve(problems);
        let threads = problems.number(
            "--threads",
            args.threads,
            format!("a whole number from 1 to {MOST_THREADS}"),
            |threads: &NonZeroUsize| threads.get() <= MOST_THREADS,
        );
        let max_context = problems.number("--max-context", args.max_context, "a whole number of at least 1", |_| true);
        let speculate = problems.number(
            "--speculate",
            args.speculate,
            format!("a whole number from 1 to {LONGEST_DRAFT}"),
            |tokens: &NonZeroUsize| tokens.get() <= LONGEST_DRAFT,
        );
        let prefill = Prefill::named(&args.prefill);
        if prefill.is_none() {
            problems.add("--prefill", format!("{:?} is not one of auto, int8 and same", args.prefill));
        }
        let prefill = prefill.unwrap_or_default();
        let usual = if args.battery { SessionOptions::battery() } else { SessionOptions::default() };
        let session = SessionOptions {
            threads: threads.map(usize::from).or(usual.threads),
            prepack: if args.low_memory { Prepack::Frugal } else { usual.prepack },
            ..usual
        };
        Self { model, provider, session, max_context, speculate, prefill, compiled: args.compiled, verify: args.verify }
    }
}

/// A text that is a flag by itself was hardly meant: the text before that flag is missing.
fn no_flags_as_texts(args: &Args, problems: &mut Problems) {
    let mut command = Args::command();
    command.build();
    let flags: Vec<String> = command
        .get_arguments()
        .flat_map(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            long.into_iter().chain(argument.get_short().map(|short| format!("-{short}")))
        })
        .collect();
    let texts = [("--prompt", &args.prompt), ("--system", &args.system)];
    let texts = texts.into_iter().filter_map(|(flag, text)| Some((flag, text.as_ref()?)));
    for (flag, text) in texts.chain(args.generation.stop.iter().map(|text| ("--stop", text))) {
        if flags.contains(text) {
            problems.add(flag, format!("has no text: {text} behind it is a flag"));
        }
    }
}

fn task(args: &Args, terminals: Terminals, problems: &mut Problems) -> Task {
    let interactive = args.prompt.is_none() && terminals.input;
    if args.raw && args.system.is_some() {
        problems.add("--system", "needs the chat template, which --raw switches off");
    }
    if args.prompt.as_deref() == Some("") {
        problems.add("--prompt", "is empty");
    }
    if !interactive {
        return Task::Answer { prompt: args.prompt.clone(), raw: args.raw, json: args.json };
    }
    let one_answer = "is for one answer: give --prompt, or the prompt on standard input";
    if args.json {
        problems.add("--json", one_answer);
    }
    if args.raw {
        problems.add("--raw", one_answer);
    }
    if !terminals.output && !args.json && !args.raw {
        problems.add("--prompt", "is missing: a chat needs a terminal for its output too");
    }
    Task::Chat
}

fn overrides(args: GenerationArgs, problems: &mut Problems) -> Overrides {
    let (from_zero, share) = ("a number of at least 0", "a number from 0 to 1");
    for stop in args.stop.iter().filter(|stop| stop.is_empty()) {
        problems.add("--stop", format!("{stop:?} is empty, and would stop every answer at once"));
    }
    Overrides {
        max_new_tokens: problems
            .number("--max-new-tokens", args.max_new_tokens, "a whole number of at least 1", |_: &NonZeroUsize| true)
            .map(NonZeroUsize::get),
        temperature: problems
            .number("--temperature", args.temperature, from_zero, |value: &f32| value.is_finite() && *value >= 0.0),
        top_k: problems.number("--top-k", args.top_k, "a whole number of at least 0", |_| true),
        top_p: problems.number("--top-p", args.top_p, share, |value: &f32| (0.0..=1.0).contains(value)),
        min_p: problems.number("--min-p", args.min_p, share, |value: &f32| (0.0..=1.0).contains(value)),
        repetition_penalty: problems.number(
            "--repetition-penalty",
            args.repetition_penalty,
            "a number above 0",
            |value: &f32| value.is_finite() && *value > 0.0,
        ),
        seed: problems.number("--seed", args.seed, "a whole number from 0 to 18446744073709551615", |_| true),
        stop: args.stop,
    }
}

impl Problems {
    /// The number in `text`, if there is one and it is allowed.
    pub(super) fn number<T: FromStr>(
        &mut self,
        flag: &'static str,
        text: Option<String>,
        expected: impl Display,
        allowed: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let text = text?;
        let number = text.trim().parse().ok().filter(allowed);
        if number.is_none() {
            self.add(flag, format!("{text:?} is not {expected}"));
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const TERMINAL: Terminals = Terminals { input: true, output: true };
    const PIPES: Terminals = Terminals { input: false, output: false };

    fn resolve(arguments: &[&str], terminals: Terminals) -> Result<Settings, String> {
        let args = Args::try_parse_from([&["lfm2-host"], arguments].concat()).map_err(|error| error.to_string())?;
        Settings::resolve(args, terminals).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_task_follows_from_the_prompt_and_the_terminals() {
        let task = |arguments: &[&str], terminals| resolve(arguments, terminals).unwrap().task;
        let answer = |prompt: Option<&str>| Task::Answer { prompt: prompt.map(str::to_owned), raw: false, json: false };
        assert_eq!(task(&[], TERMINAL), Task::Chat);
        assert_eq!(task(&[], PIPES), answer(None));
        assert_eq!(task(&["--prompt", "-5 + 3"], TERMINAL), answer(Some("-5 + 3")));
        assert_eq!(task(&["-p", "x"], PIPES), answer(Some("x")));
        assert!(resolve(&[], Terminals { input: true, output: false }).unwrap_err().contains("--prompt is missing"));
    }

    #[test]
    fn values_arrive() {
        let arguments = [
            "--temperature=0.5",
            "--top-k=7",
            "--top-p=0.9",
            "--min-p=0.1",
            "--repetition-penalty=1.2",
            "--seed=42",
            "--max-new-tokens=9",
            "--stop=a",
            "--stop",
            "- b",
            "--threads=3",
            "--max-context=64",
            "--speculate=8",
            "--prefill=same",
            "--ep=cpu",
            "--verify",
        ];
        let settings = resolve(&arguments, PIPES).unwrap();
        let Overrides { temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens, stop } =
            settings.overrides;
        assert_eq!((temperature, top_k, top_p, min_p), (Some(0.5), Some(7), Some(0.9), Some(0.1)));
        assert_eq!((repetition_penalty, seed, max_new_tokens), (Some(1.2), Some(42), Some(9)));
        assert_eq!(stop, ["a", "- b"]);
        let SessionOptions { threads, spinning, prepack, .. } = settings.load.session;
        assert_eq!((threads, spinning, prepack), (Some(3), true, Prepack::Parallel));
        assert_eq!(settings.load.max_context.map(NonZeroUsize::get), Some(64));
        assert_eq!(settings.load.speculate.map(NonZeroUsize::get), Some(8));
        assert!(settings.load.verify);
        assert_eq!(settings.load.prefill, Prefill::Same);
        assert_eq!(resolve(&["-p", "x"], PIPES).unwrap().load.prefill, Prefill::Auto);
    }

    #[test]
    fn flags_are_no_texts() {
        for flag in ["--prompt", "--system", "--stop"] {
            for text in ["--json", "-q", "--help", "--seed"] {
                let message =
                    resolve(&["-p", "x", flag, text][usize::from(flag == "--prompt") * 2..], PIPES).unwrap_err();
                assert!(message.contains(flag) && message.contains(text), "{message}");
            }
            for text in ["-5 + 3", "--json is a flag", "--", "-", "- x", "--jsonl"] {
                resolve(&["-p", "x", flag, text][usize::from(flag == "--prompt") * 2..], PIPES).unwrap();
            }
        }
    }

    #[test]
    fn energy_and_memory_can_be_saved() {
        let session = |arguments: &[&str]| resolve(&[&["-p", "x"], arguments].concat(), PIPES).unwrap().load.session;
        let battery = session(&["--battery"]);
        assert_eq!((battery.threads, battery.spinning), (SessionOptions::battery().threads, false));
        assert_eq!(session(&["--battery", "--threads=3"]).threads, Some(3));
        assert_eq!(session(&["--low-memory"]).prepack, Prepack::Frugal);
        assert_eq!(session(&["--low-memory"]).threads, None);
    }

    #[test]
    fn threads_have_a_bound() {
        for threads in ["1025", "20000", "4294967298"] {
            let message = resolve(&["-p", "x", "--threads", threads], PIPES).unwrap_err();
            assert!(message.contains("--threads") && message.contains("1024"), "{message}");
        }
        resolve(&["-p", "x", "--threads", "1024"], PIPES).unwrap();
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_flags() {
        let arguments = [
            "--temperature=-1",
            "--top-k=-2",
            "--top-p=1.5",
            "--min-p=nan",
            "--repetition-penalty=0",
            "--seed=-1",
            "--max-new-tokens=0",
            "--stop=",
            "--threads=0",
            "--max-context=many",
            "--speculate=65",
            "--ep=tpu",
            "--ep-option=x",
            "--prefill=int4",
            "--prompt=",
            "--raw",
            "--system=x",
        ];
        let text = resolve(&arguments, PIPES).unwrap_err();
        for argument in arguments.iter().filter(|&&argument| argument != "--raw") {
            let flag = argument.split('=').next().unwrap();
            assert!(text.contains(flag), "{flag} is missing in:\n{text}");
        }
        assert!(text.contains("--temperature \"-1\" is not a number of at least 0"), "{text}");
        let text = resolve(&["--json", "--raw"], TERMINAL).unwrap_err();
        assert!(text.contains("--json") && text.contains("--raw"), "{text}");
    }
}
