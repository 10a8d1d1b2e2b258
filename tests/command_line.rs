//! `lfm2-host` as it is used: arguments and standard input in; standard output, standard error and exit status out.

use std::fs;
use std::io::Read;
#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use lfm2_export::recipe::Precision;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, rollback, with_prefill};
use lfm2_tests::programs::{run, run_with};
use serde_json::Value;

const QUESTION: &str = "What is C. elegans?";
const ANSWER: &str = "C. elegans is a tiny transparent worm that lives in soil.";

/// The chat checkpoint, exported once for all tests.
static PACKAGE: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, contrib(Precision::Fp32)));

/// The program with these arguments and no input.
fn program(arguments: &[&str]) -> Command {
    lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), arguments)
}

/// The program on the exported package.
fn host(arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    command.arg("--model").arg(&PACKAGE.graph);
    command
}

#[test]
fn help_names_every_flag_and_shows_examples() {
    let help = run(program(&["--help"])).answer();
    let flags = [
        "--model",
        "--prompt",
        "--raw",
        "--system",
        "--json",
        "--max-new-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repetition-penalty",
        "--seed",
        "--stop",
        "--ep",
        "--threads",
        "--battery",
        "--low-memory",
        "--max-context",
        "--speculate",
        "--prefill",
        "--ort-lib",
        "--verify",
        "--verbose",
        "--quiet",
        "Examples:",
        "Exit status:",
        "130",
    ];
    for text in flags {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
    assert_eq!(run(program(&["--version"])).answer(), format!("lfm2-host {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_prompt_comes_from_the_flag_or_from_standard_input() {
    let expected = format!("{ANSWER}\n");
    assert_eq!(run(host(&["--prompt", QUESTION])).answer(), expected);
    assert_eq!(run_with(host(&[]), &format!("{QUESTION}\n")).answer(), expected);
    // The flag wins, and standard input is left alone.
    assert_eq!(run_with(host(&["-p", QUESTION]), "Name the capital of Japan.").answer(), expected);
    let empty = run(host(&[])).failure(2);
    assert!(empty.contains("standard input is empty"), "{empty}");
}

#[test]
fn the_package_may_be_a_file_a_folder_or_the_current_folder() {
    let expected = format!("{ANSWER}\n");
    let mut folder = program(&["-p", QUESTION]);
    folder.arg("--model").arg(PACKAGE.package());
    assert_eq!(run(folder).answer(), expected);
    let mut current = program(&["-p", QUESTION]);
    // The library is found from the folder that the tests run in, unless the environment names it.
    current.current_dir(PACKAGE.package()).env("ORT_DYLIB_PATH", library());
    assert_eq!(run(current).answer(), expected);
}

#[test]
fn json_tells_everything_about_the_answer() {
    let arguments = ["--prompt", QUESTION, "--json", "--seed", "5", "--temperature", "0"];
    let json = run(host(&arguments)).json();
    assert_eq!((&json["text"], &json["finish_reason"], &json["seed"]), (&ANSWER.into(), &"stop".into(), &5.into()));
    assert_eq!((&json["precision"], &json["provider"]), (&"fp32".into(), &"cpu".into()));
    assert_eq!(Path::new(json["model"].as_str().unwrap()).file_name(), PACKAGE.graph.file_name());
    let tokens = json["tokens"].as_array().unwrap();
    assert_eq!(tokens.last().unwrap(), 7, "the end token is one of the tokens");
    let timings = json["timings"].as_object().unwrap();
    assert_eq!(timings["decode_tokens"], tokens.len() - 1);
    assert_eq!(timings["prefill_tokens"], json["prompt_tokens"]);
    for name in ["load_ms", "prefill_ms", "first_token_ms", "decode_ms", "run_ms", "decode_tokens_per_second"] {
        assert!(timings[name].as_f64().unwrap() > 0.0, "{name}");
    }
    let parts = ["run_ms", "sampling_ms", "output_ms", "host_ms"].map(|name| timings[name].as_f64().unwrap());
    assert!((parts.iter().sum::<f64>() - timings["decode_ms"].as_f64().unwrap()).abs() < 1e-6);
}

#[test]
fn raw_text_is_continued_and_a_system_message_is_part_of_the_prompt() {
    let raw = run(host(&["--raw", "-p", "The capital of France is", "--temperature=0", "--max-new-tokens=2"])).answer();
    assert_eq!(raw, " Paris\n");
    let tokens = |arguments: &[&str]| {
        run(host(&[&["--json", "-p", QUESTION], arguments].concat())).json()["prompt_tokens"].as_u64().unwrap()
    };
    let (raw, plain, system) = (tokens(&["--raw"]), tokens(&[]), tokens(&["--system", "Be brief."]));
    assert!(raw < plain && plain < system, "{raw} {plain} {system}");
}

#[test]
fn an_answer_ends_where_it_is_told_to() {
    let ended = |arguments: &[&str]| {
        let json = run(host(&[&["--json", "-p", QUESTION], arguments].concat())).json();
        (json["text"].as_str().unwrap().to_owned(), json["finish_reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        ended(&["--stop", "zebra", "--stop", "transparent worm"]),
        ("C. elegans is a tiny ".into(), "stop".into())
    );
    let (text, reason) = ended(&["--max-new-tokens", "3"]);
    assert!(ANSWER.starts_with(&text) && text.len() < ANSWER.len(), "{text}");
    assert_eq!(reason, "length");
}

#[test]
fn a_full_context_is_told_and_a_prompt_that_is_too_long_fails() {
    let cut = run(host(&["-p", QUESTION, "--max-context", "18"]));
    assert_eq!(cut.status, Some(0), "{}", cut.errors);
    assert!(
        ANSWER.starts_with(cut.output.trim_end()) && cut.errors.contains("context of 18 tokens is full"),
        "{}",
        cut.errors
    );
    let error = run(host(&["-p", QUESTION, "--max-context", "5"])).failure(1);
    assert!(error.contains("tokens, but the context holds 5"), "{error}");
    let error = run(host(&["-p", QUESTION, "--max-context", "1000000"])).failure(1);
    assert!(error.contains("--max-context 1000000"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let story = |seed: &str| {
        let arguments = ["--raw", "-p", "The", "--temperature=2", "--min-p=0", "--max-new-tokens=24", "--seed", seed];
        run(host(&arguments)).answer()
    };
    assert_eq!(story("1"), story("1"));
    assert_ne!(story("1"), story("2"));
    // Without a seed, the one that was chosen is told, and gives the text again.
    let first = run(host(&["--json", "-p", "Hello", "--temperature=2", "--max-new-tokens=9"])).json();
    let again = run(host(&[
        "--json",
        "-p",
        "Hello",
        "--temperature=2",
        "--max-new-tokens=9",
        "--seed",
        &first["seed"].to_string(),
    ]));
    assert_eq!(again.json()["tokens"], first["tokens"]);
}

#[test]
fn saving_energy_and_memory_changes_no_answer() {
    assert_eq!(run(host(&["-p", QUESTION, "--battery", "--low-memory"])).answer().trim(), ANSWER);
}

#[test]
fn wrong_arguments_are_all_named_at_once() {
    let errors = run(host(&["-p", "x", "--temperature=-1", "--top-p=2", "--threads=none", "--ep=abacus"])).failure(2);
    for text in ["4 arguments are wrong", "--temperature", "--top-p", "--threads", "abacus", "--help"] {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let errors = run(host(&["--temprature", "1"])).failure(2);
    assert!(errors.contains("--temprature") && errors.contains("--temperature"), "{errors}");
    let mut filter = host(&["-p", "x"]);
    filter.env("RUST_LOG", "a=b=c");
    let errors = run(filter).failure(2);
    assert!(errors.contains("RUST_LOG"), "{errors}");
}

#[test]
fn providers_are_told_apart() {
    let errors = run(host(&["-p", "x", "--ep", "abacus"])).failure(2);
    assert!(errors.contains("abacus") && errors.contains("cpu, cuda, coreml, nnapi, qnn"), "{errors}");
    let errors = run(host(&["-p", "x", "--ep", "qnn", "--ep-option", "soc_modle=69"])).failure(2);
    assert!(errors.contains("did you mean soc_model?"), "{errors}");
    for provider in ["cuda", "coreml", "nnapi", "qnn"] {
        let errors = run(host(&["-p", "x", "--ep", provider])).failure(1);
        assert!(errors.contains(&format!("--for cpu,{provider}")), "{errors}");
    }
}

#[test]
fn the_first_provider_that_works_answers_and_says_so() {
    let outcome = run(host(&["-p", QUESTION, "--json", "--ep", "coreml,cpu"]));
    assert_eq!(outcome.status, Some(0), "{}", outcome.errors);
    let json: Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!(json["provider"], "cpu");
    assert!(json["placement"]["CPUExecutionProvider"].as_u64().unwrap() > 50, "{}", json["placement"]);
    for part in ["--ep coreml does not work here, trying cpu", "--ep cpu is what runs the model"] {
        assert!(outcome.errors.contains(part), "{part} is missing in {}", outcome.errors);
    }
    let errors = run(host(&["-p", "x", "--ep", "nnapi,coreml"])).errors;
    assert!(errors.contains("none of the providers works here") && errors.contains("- coreml: "), "{errors}");
}

#[test]
fn a_missing_library_is_told_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    // Far from the repository, and with no folder of the user to look into.
    let copy = folder.path().join("host").with_extension(std::env::consts::EXE_EXTENSION);
    fs::copy(env!("CARGO_BIN_EXE_host-under-test"), &copy).unwrap();
    let mut alone = Command::new(copy);
    alone.args(["-p", "x", "--model"]).arg(&PACKAGE.graph).current_dir(&folder).env_clear().stdin(Stdio::null());
    for name in ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"] {
        alone.env(name, folder.path());
    }
    // Without it, Windows cannot start programs.
    alone.envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)));
    let errors = run(alone).failure(1);
    for text in ["ONNX Runtime library", "--ort-lib", "ORT_DYLIB_PATH", "next to the program", "cache", "make runtime"]
    {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let errors = run(host(&["-p", "x", "--ort-lib", "nowhere.so"])).failure(1);
    assert!(errors.contains("nowhere.so"), "{errors}");
}

#[test]
fn packages_that_cannot_be_used_are_told() {
    let at = |path: &Path, arguments: &[&str]| {
        let mut command = program(&[&["-p", QUESTION], arguments].concat());
        command.arg("--model").arg(path);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let errors = run(at(&folder.path().join("gone.onnx"), &[])).failure(1);
    assert!(errors.contains("gone.onnx"), "{errors}");
    let errors = run(at(folder.path(), &[])).failure(1);
    assert!(errors.contains("holds no ONNX file") && errors.contains("lfm2-export"), "{errors}");
    fs::write(folder.path().join("text.onnx"), "not a graph").unwrap();
    let errors = run(at(&folder.path().join("text.onnx"), &[])).failure(1);
    assert!(errors.contains("text.onnx"), "{errors}");

    // A package of its own, so that it can be damaged.
    let package = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    assert_eq!(run(at(&package.graph, &["--verify"])).answer(), format!("{ANSWER}\n"));
    let data = fs::read_dir(package.package()).unwrap().map(|entry| entry.unwrap().path());
    let data = data.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&data).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let errors = run(at(&package.graph, &["--verify"])).failure(1);
    assert!(errors.contains(data.file_name().unwrap().to_str().unwrap()), "{errors}");
    fs::write(&data, &bytes[..last]).unwrap();
    let errors = run(at(&package.graph, &[])).failure(1);
    assert!(errors.contains(data.file_name().unwrap().to_str().unwrap()), "{errors}");
}

#[test]
fn guessing_saves_runs_and_says_which_package_it_needs() {
    let errors = run(host(&["-p", QUESTION, "--speculate", "4"])).failure(1);
    assert!(
        errors.contains("--speculate")
            && errors.contains("lfm2-export MODEL --for cpu")
            && errors.contains("--rollback"),
        "{errors}"
    );

    let package = Exported::new(TINY_CHAT, rollback(contrib(Precision::Fp32)));
    let ask = |arguments: &[&str]| {
        let question = "Repeat: river stone cloud bread light house green paper";
        let mut command = program(&[&["--temperature=0", "--json", "-p", question], arguments].concat());
        command.arg("--model").arg(&package.graph);
        run(command).json()
    };
    let (plain, guessed) = (ask(&[]), ask(&["--speculate=16"]));
    assert_eq!((&plain["text"], &plain["tokens"]), (&guessed["text"], &guessed["tokens"]));
    let timings = |json: &Value, name: &str| json["timings"][name].as_u64().unwrap();
    assert_eq!(timings(&plain, "decode_runs"), timings(&plain, "decode_tokens"));
    assert_eq!(timings(&plain, "drafted_tokens"), 0);
    assert!(timings(&guessed, "decode_runs") < timings(&guessed, "decode_tokens"), "{guessed}");
    let given = timings(&guessed, "decode_runs") + timings(&guessed, "accepted_tokens");
    assert_eq!(given, timings(&guessed, "decode_tokens"));
    assert!(timings(&guessed, "accepted_tokens") <= timings(&guessed, "drafted_tokens"));
}

#[test]
fn prompts_go_through_the_graph_that_is_asked_for() {
    // A package without a companion, first.
    assert_eq!(run(host(&["-p", QUESTION, "--prefill", "same"])).answer(), format!("{ANSWER}\n"));
    let errors = run(host(&["-p", QUESTION, "--prefill", "int8"])).failure(1);
    assert!(errors.contains("has no graph for prompts") && errors.contains("lfm2-export MODEL --for cpu"), "{errors}");

    let package = Exported::new(TINY_CHAT, with_prefill(Precision::Q4));
    let ask = |arguments: &[&str]| {
        let mut command = program(&[&["-p", QUESTION, "-v"], arguments].concat());
        command.arg("--model").arg(&package.graph);
        run(command)
    };
    // A short prompt is not worth the loading.
    let loaded = "the graph for prompts is loaded";
    for (arguments, expected) in
        [(&[][..], false), (&["--prefill", "auto"], false), (&["--prefill", "int8", "--verify"], true)]
    {
        let outcome = ask(arguments);
        assert_eq!(outcome.errors.contains(loaded), expected, "{arguments:?}: {}", outcome.errors);
        assert_eq!((outcome.status, outcome.output), (Some(0), format!("{ANSWER}\n")), "{arguments:?}");
    }
    let long = [QUESTION; 60].join(" ");
    let mut command = program(&["-p", &long, "-v", "--max-new-tokens", "1", "--model"]);
    command.arg(&package.graph);
    let outcome = run(command);
    assert!(outcome.errors.contains(loaded), "{}", outcome.errors);

    fs::remove_file(package.package().join("lfm2.prefill.onnx")).unwrap();
    let mut command = program(&["-p", QUESTION, "--model"]);
    command.arg(&package.graph);
    let errors = run(command).failure(1);
    assert!(errors.contains("lfm2.prefill.onnx is missing") && errors.contains("--prefill same"), "{errors}");
    assert_eq!(ask(&["--prefill", "same"]).output, format!("{ANSWER}\n"));
}

#[test]
fn diagnostics_go_to_standard_error() {
    let verbose = run(host(&["-p", QUESTION, "-v"]));
    assert_eq!((verbose.status, verbose.output), (Some(0), format!("{ANSWER}\n")));
    for text in ["prefill:", "decode:", "tokens/s", "ONNX Runtime"] {
        assert!(verbose.errors.contains(text), "{text} is missing in:\n{}", verbose.errors);
    }
    assert_eq!(run(host(&["-p", QUESTION, "--quiet"])).answer(), format!("{ANSWER}\n"));
}

/// Arguments of an answer that does not end before the context of thousands of tokens is full: what is most likely goes round in
/// circles, without chance.
const ENDLESS: [&str; 5] = ["--raw", "-p", "<|startoftext|>", "--temperature=0", "--repetition-penalty=1"];

#[test]
fn nobody_reading_is_no_failure() {
    let mut child = host(&ENDLESS).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 4]).unwrap();
    drop(output);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}

/// Sends the signal when the program has logged `text`.
#[cfg(unix)]
fn signal_at(child: &mut std::process::Child, text: &str, signal: &str) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the program ended too early");
    }
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
}

#[cfg(unix)]
#[test]
fn being_asked_to_end_ends_long_work_with_the_status_of_an_interrupt() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    fs::write(&text, "worms live in soil and eat bacteria. ".repeat(4000)).unwrap();
    let mut command = lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &["eval", "-v", "--decode"]);
    // The files are verified when signals are handled, and the text is read after that.
    command.args(["--threads", "1", "--verify", "--model"]).arg(&PACKAGE.graph).arg("--text").arg(&text);
    let mut child = command.spawn().unwrap();
    signal_at(&mut child, "as the manifest says", "-TERM");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(130), 0));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_answer_with_its_status() {
    for (json, signal) in [(false, "-INT"), (true, "-INT"), (true, "-TERM")] {
        let mut command = host(&ENDLESS);
        command.arg("-v").args(json.then_some("--json"));
        let mut child = command.spawn().unwrap();
        // From then on signals are handled, as the log tells.
        signal_at(&mut child, "ready", signal);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{signal}");
        if json {
            let json: Value = serde_json::from_slice(&ended.stdout).unwrap();
            assert_eq!(json["finish_reason"], "cancelled");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_package() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = program(&["-p", "x", "--model"]);
    command.arg(&pipe);
    let errors = run(command).failure(1);
    assert!(errors.contains("neither a file nor a folder"), "{errors}");
}

/// Where the runtime library is, which the tests themselves have to find too.
fn library() -> &'static Path {
    lfm2_host::runtime::Runtime::load(None).unwrap().library()
}
