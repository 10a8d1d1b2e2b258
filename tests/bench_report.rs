//! `lfm2-host bench report`: pages of recorded rows.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lfm2_tests::programs::run;

/// The command with these arguments.
fn report(arguments: &[&str]) -> Command {
    let arguments = [&["bench", "report"], arguments].concat();
    lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &arguments)
}

/// A recorded file, which an older version wrote.
fn recorded(name: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/runs/2026-11-25-epyc-2-cores"));
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn recorded_runs_become_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report.html");
    let files = ["prefill", "decode", "compare", "fidelity"].map(|name| recorded(&format!("{name}.jsonl")));
    let [prefill, decode, compare, fidelity] = files.each_ref().map(String::as_str);
    let title = "A <recorded> run";
    let command = report(&[prefill, decode, compare, fidelity, "--title", title, "-o", out.to_str().unwrap()]);
    assert_eq!(run(command).answer(), "");
    let page = fs::read_to_string(&out).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for text in [
        "A &lt;recorded&gt; run",
        "AMD EPYC",
        "Speed by provider",
        "Decoding over depth",
        "Prefill over the length of the prompt",
        "Roofline",
        "Largest memory",
        "Fidelity",
        "q4-plain/lfm2.onnx",
        "Other runtimes",
        "onnxruntime-genai, b32",
        "of other kinds",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
    assert!(page.len() < 200_000, "{} bytes", page.len());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

    let markdown = run(report(&[decode, "--out", "-"])).answer();
    assert!(markdown.starts_with("# Measurements of lfm2-host\n") && markdown.contains("| 2 threads |"), "{markdown}");
}

#[test]
fn what_is_no_measurement_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("table.md"), "| model |\n| --- |\n").unwrap();
    fs::write(path("empty.jsonl"), "").unwrap();
    let errors =
        run(report(&[&path("table.md"), &path("empty.jsonl"), "gone.jsonl", "-o", &path("x.html")])).failure(1);
    for text in ["table.md", "line 1", "empty.jsonl", "gone.jsonl"] {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let errors = run(report(&[&recorded("compare.jsonl"), "-o", &path("x.html")])).failure(1);
    assert!(errors.contains("no rows"), "{errors}");
    assert!(!folder.path().join("x.html").exists());
    let errors = run(report(&[&recorded("decode.jsonl"), "-o", &path("x.pdf")])).failure(2);
    assert!(errors.contains("x.pdf") && errors.contains(".html"), "{errors}");
}

#[test]
fn help_has_examples() {
    let help = |command: &str| {
        lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &["bench", command, "--help"])
    };
    for command in ["report", "merge"] {
        let help = run(help(command)).answer();
        assert!(help.contains("Examples:") && help.contains("Exit status:"), "{help}");
    }
}
