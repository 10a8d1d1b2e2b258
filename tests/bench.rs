//! `lfm2-host bench` as it is used: rows in every format, and comparing them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use lfm2_export::recipe::Precision;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, portable};
use lfm2_tests::programs::{Outcome, run};
use serde_json::Value;

/// The chat checkpoint, exported once for all tests.
static PACKAGE: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, contrib(Precision::Q4)));

/// The command with these arguments, without remarks on a program that is built for tests.
fn bench(arguments: &[&str]) -> Command {
    let arguments = [&["bench"], arguments, &["--quiet"]].concat();
    lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &arguments)
}

/// A short measurement of the exported package.
fn measure(arguments: &[&str]) -> Outcome {
    let mut command = bench(&["-p", "8", "-n", "4", "-t", "1", "-r", "2"]);
    command.arg("--model").arg(&PACKAGE.graph).args(arguments);
    run(command)
}

fn rows(outcome: Outcome) -> Vec<Value> {
    outcome.answer().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_combination_has_a_row_with_all_that_it_depends_on() {
    let mut command =
        bench(&["-p", "8,0", "-n", "4", "-pg", "8,4", "-d", "0-16*2,16", "-t", "1,2", "-r", "2", "-o", "jsonl"]);
    command.arg("--model").arg(&PACKAGE.graph);
    // A range that starts at 0 and is multiplied never ends.
    let errors = run(command).failure(2);
    assert!(errors.contains("-d") && errors.contains("0-16*2"), "{errors}");

    let mut command =
        bench(&["-p", "8,0", "-n", "4", "-pg", "8,4", "-d", "0,16", "-t", "1,2", "-r", "2", "-o", "jsonl"]);
    command.arg("--model").arg(&PACKAGE.graph);
    let rows = rows(run(command));
    let tests: Vec<_> = rows
        .iter()
        .map(|row| ["n_threads", "n_depth", "n_prompt", "n_gen"].map(|name| row[name].as_u64().unwrap()))
        .collect();
    let of = |threads, depth| [[threads, depth, 8, 0], [threads, depth, 0, 4], [threads, depth, 8, 4]];
    assert_eq!(tests, [of(1, 0), of(1, 16), of(2, 0), of(2, 16)].concat());
    for row in &rows {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name} is {}", row[name]));
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", row[name]));
        let list = |name: &str| row[name].as_array().unwrap().len() as u64;
        assert_eq!(text("model_filename"), "package/lfm2.onnx");
        assert_eq!((text("precision"), text("dialect"), text("provider")), ("q4", "contrib", "cpu"));
        assert_eq!((text("model_type"), text("prefill"), text("kv")), ("lfm2 q4", "q4", "float32"));
        assert_eq!((row["spinning"].as_bool(), row["model_verified"].as_bool()), (Some(true), Some(false)));
        for hash in ["runtime_sha256", "model_sha256", "weights_sha256"] {
            assert_eq!(text(hash).len(), 64, "{hash}");
        }
        assert!(text("runtime_version").starts_with("1.") && text("test_time").ends_with('Z'));
        let (prompt, answer) = (row["n_prompt"].as_u64().unwrap(), row["n_gen"].as_u64().unwrap());
        assert_eq!((list("samples_ns"), list("samples_ts")), (2, 2));
        assert_eq!(list("first_token_samples_ns"), if prompt > 0 { 2 } else { 0 });
        assert_eq!(list("inter_token_samples_ns"), 2 * answer);
        assert!(number("avg_ts") > 0.0 && number("weight_bytes") > 0.0 && number("state_bytes") > 0.0);
        assert!(number("session_ns") < number("load_ns") && number("first_run_ns") > 0.0);
        let is_decode = prompt == 0;
        let limit = ["read_bandwidth", "bytes_per_token", "roofline_tokens_per_second", "roofline_percent"];
        limit.iter().for_each(|name| assert_eq!(row[*name].as_f64().is_some_and(|it| it > 0.0), is_decode, "{name}"));
        if cfg!(target_os = "linux") {
            // The process measured nothing but this, so that it needs less than all tests do.
            let (peak, run) = (number("peak_memory"), number("peak_run_memory"));
            assert!(run <= peak && peak < 400.0 * 1024.0 * 1024.0, "{run} {peak}");
        }
    }
}

#[test]
fn every_format_can_be_read() {
    let table = measure(&[]).answer();
    let lines: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
    let columns = |line: &&str| line.matches('|').count();
    assert!(lines.len() == 4 && lines.iter().all(|line| columns(line) == columns(&lines[0])), "{table}");
    assert!(table.contains("pp8") && table.contains("tg4") && table.contains("ONNX Runtime"), "{table}");

    let array: Vec<Value> = serde_json::from_str(&measure(&["-o", "json"]).answer()).unwrap();
    assert_eq!(array.len(), 2);

    let csv = measure(&["-o", "csv", "--chunk", "4,8"]).answer();
    let mut lines = csv.lines();
    let columns = lines.next().unwrap().split(',').count();
    // Quotation marks within a field are doubled, so that commas between fields are those behind an even number of them.
    let values =
        lines.map(|line| line.split('"').step_by(2).map(|outside| outside.matches(',').count()).sum::<usize>() + 1);
    let values: Vec<_> = values.collect();
    assert_eq!(values, [columns; 4], "{csv}");

    // Rows on one stream, a table on the other.
    let both = measure(&["-o", "jsonl", "-oe", "md"]);
    assert_eq!((both.status, both.output.lines().count()), (Some(0), 2));
    assert!(both.errors.starts_with("| model"), "{}", both.errors);
}

#[test]
fn statements_fill_a_table() {
    let sql = measure(&["-o", "sql"]).answer();
    let script = "import sqlite3, sys\n\
        base = sqlite3.connect(':memory:')\n\
        text = sys.stdin.read()\n\
        base.executescript(text)\n\
        base.executescript(text)\n\
        print(base.execute('select count(*), sum(n_prompt), min(typeof(avg_ts)) from lfm2_bench').fetchone())\n";
    let python = Command::new("python3").args(["-c", "import sqlite3"]).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        println!("skipped: there is no python3 with sqlite3");
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(lfm2_tests::programs::run_with(command, &sql).answer().trim(), "(4, 16, 'real')");
}

#[test]
fn all_dialects_are_measured() {
    let package = Exported::new("resaved", portable(Precision::Fp16));
    let mut command = bench(&["-p", "5", "-n", "3", "-d", "4", "-t", "1", "-r", "1", "-o", "jsonl", "--verify"]);
    command.arg("--model").arg(&PACKAGE.graph).arg("--model").arg(package.package());
    let rows = rows(run(command));
    let dialects: Vec<_> = rows.iter().map(|row| row["dialect"].as_str().unwrap()).collect();
    assert_eq!(dialects, ["contrib", "contrib", "portable", "portable"]);
    assert_eq!((&rows[2]["kv"], &rows[2]["model_verified"]), (&"float16".into(), &true.into()));
    assert_eq!(rows[2]["stddev_ts"], Value::Null);
}

#[test]
fn wrong_arguments_are_told_together() {
    let mut command =
        bench(&["-p", "x", "-n", "5-1", "-d", "-1", "-t", "0", "-r", "0", "--chunk", "0", "--spinning", "2"]);
    command.args(["-pg", "5", "-o", "xml", "-oe", "yaml", "--seed", "s", "--ep", "tpu"]);
    command.args(["--model", "gone.onnx,lost.onnx"]);
    let errors = run(command).failure(2);
    let flags = ["-p ", "-n ", "-d ", "-t ", "-r ", "--chunk ", "--spinning ", "-pg ", "-o ", "-oe ", "--seed ", "tpu"];
    for text in flags.iter().chain(&["xml", "yaml", "gone.onnx", "lost.onnx"]) {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let errors = measure(&["-d", "4096", "-pg", "99999,1"]).failure(2);
    for text in ["pp8 @ d4096", "tg4 @ d4096", "pp99999+tg1", "--max-context"] {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let mut command = bench(&["-p", "0", "-n", "0"]);
    command.arg("--model").arg(&PACKAGE.graph);
    let errors = run(command).failure(2);
    assert!(errors.contains("nothing to measure"), "{errors}");
}

#[test]
fn a_cell_that_fails_is_named_and_what_was_measured_stays() {
    // A graph that has no position tables for its context: a test at its end fails, one at its beginning does not.
    let package = Exported::new("resaved", contrib(Precision::Fp32));
    fs::remove_file(package.package().join("lfm2.manifest.json")).unwrap();
    let mut bytes = fs::read(&package.graph).unwrap();
    let (from, to) = (&br#""context_length":512"#[..], &br#""context_length":999"#[..]);
    let position = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[position..position + to.len()].copy_from_slice(to);
    fs::write(&package.graph, bytes).unwrap();

    let mut command = bench(&["-p", "8,800", "-n", "0", "-t", "1", "-r", "1", "-o", "json"]);
    command.arg("--model").arg(&package.graph);
    let outcome = run(command);
    let rows: Vec<Value> = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!((outcome.status, rows.len(), &rows[0]["model_sha256"]), (Some(1), 2, &Value::Null));
    assert_eq!((&rows[0]["status"], &rows[1]["status"]), (&"ok".into(), &"failed".into()));
    assert!(rows[1]["error"].as_str().unwrap().contains("running the model failed"), "{}", rows[1]["error"]);
    assert!(
        outcome.errors.contains("pp800") && outcome.errors.contains("running the model failed"),
        "{}",
        outcome.errors
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_whole_output() {
    let mut command = bench(&["-p", "0", "-n", "2,4000", "-t", "1", "-r", "1000", "-o", "json", "-v"]);
    command.arg("--model").arg(&PACKAGE.graph);
    // Quiet and verbose exclude each other.
    let errors = run(command).errors;
    assert!(errors.contains("--quiet") && errors.contains("--verbose"), "{errors}");

    let mut command = bench(&["-p", "2,4000", "-n", "0", "-t", "1", "-r", "1000", "-o", "json"]);
    command.arg("--model").arg(&PACKAGE.graph);
    let mut child = command.spawn().unwrap();
    // Once the first row is there, the second is being measured.
    let mut output = child.stdout.take().unwrap();
    let mut start = vec![0; 4096];
    std::io::Read::read_exact(&mut output, &mut start).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    std::io::Read::read_to_end(&mut output, &mut start).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let rows: Vec<Value> = serde_json::from_slice(&start).unwrap();
    assert_eq!(rows.len(), 1);
}

/// A file of rows with these medians in nanoseconds, each of five samples around it.
fn file(folder: &Path, name: &str, rows: &[(usize, u64)]) -> String {
    let row = |&(prompt, median): &(usize, u64)| {
        let samples: Vec<u64> = (0..5).map(|index| median - 2 + index).collect();
        format!(
            r#"{{"model_filename":"m","runtime_version":"{name}","n_prompt":{prompt},"n_gen":0,"n_depth":0,"samples_ns":{samples:?}}}"#
        )
    };
    let path = folder.join(name);
    fs::write(&path, rows.iter().map(row).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn comparing_tells_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let a = file(folder.path(), "a", &[(1, 1_000_000), (2, 1_000_000), (3, 1_000_000)]);
    let b = file(folder.path(), "b", &[(1, 500_000), (2, 1_000_000), (4, 1_000_000)]);
    let found = run(bench(&["diff", &a, &b]));
    assert_eq!((found.status, found.errors.as_str()), (Some(1), ""));
    let lines: Vec<_> = found.output.lines().collect();
    let line = |start: &str| *lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(line("pp1 ").contains("2.000") && line("pp1 ").ends_with("faster"), "{lines:#?}");
    assert!(line("pp2 ").ends_with("same"), "{lines:#?}");
    assert!(line("only in A").contains("n_prompt=3") && line("only in B").contains("n_prompt=4"), "{lines:#?}");
    assert!(line("runtime_version").ends_with("a -> b"), "{lines:#?}");

    let json = run(bench(&["diff", &b, &a, "--json"]));
    assert_eq!(json.status, Some(1));
    let json: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!((&json["cells"][0]["verdict"], &json["cells"][0]["ratio"]), (&"slower".into(), &0.5.into()));
    assert_eq!(run(bench(&["diff", &a, &a])).status, Some(0));
    assert_eq!(run(bench(&["diff", &a, &b, "--threshold", "200"])).status, Some(0));
}

#[test]
fn comparing_what_cannot_be_compared_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (file(folder.path(), "a", &[(1, 1000)]), file(folder.path(), "b", &[(2, 1000)]));
    let errors = run(bench(&["diff", &a, &b])).failure(2);
    assert!(errors.contains("no cell in common") && errors.contains("n_prompt=1"), "{errors}");
    let table = folder.path().join("table");
    fs::write(&table, "| model |\n").unwrap();
    let errors = run(bench(&["diff", table.to_str().unwrap(), "gone.jsonl"])).failure(2);
    assert!(errors.contains("line 1") && errors.contains("gone.jsonl"), "{errors}");
    let errors = run(bench(&["diff", &a, &b, "--ignore", "weather", "--threshold", "-1"])).failure(2);
    assert!(errors.contains("weather") && errors.contains("n_threads") && errors.contains("--threshold"), "{errors}");
}

#[test]
fn help_names_every_flag_and_shows_examples() {
    let help = run(bench(&["--help"])).answer();
    for text in [
        "-p,",
        "-n,",
        "-d,",
        "-t,",
        "-r,",
        "-o,",
        "-oe",
        "-pg",
        "--chunk",
        "--ort-lib",
        "--verify",
        "--plan",
        "--resume",
        "--shard",
        "--cell-timeout",
        "--reference",
        "--speculate",
        "merge",
        "report",
        "Examples:",
        "130",
        "diff",
    ] {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
    assert!(!help.contains("  cell"), "{help}");
    let help = run(bench(&["diff", "--help"])).answer();
    for text in ["--ignore", "--threshold", "--json", "Examples:", "Exit status:"] {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
}
