//! Tier "command line": `lfm2-host doctor` against the libraries that are here.

use std::ops::ControlFlow;
use std::process::Command;

use lfm2_export::package::{DialectName, Options, Output, Prefill::Same, export};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Padding, Target};
use lfm2_host::package::{Package, Prefill};
use lfm2_tests::packages::{
    Exported, TINY_CHAT, calibrating, contrib, fixture, options, portable, rollback, with_prefill, with_static,
};
use lfm2_tests::plugins;
use lfm2_tests::programs::{Outcome, program, run};
use serde_json::Value;

fn doctor(arguments: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_host-under-test"), &[&["doctor"], arguments].concat())
}

/// The report of a run that ended with this status.
fn report(arguments: &[&str], status: i32) -> Value {
    let Outcome { status: found, output, errors } = run(doctor(&[arguments, &["--json"]].concat()));
    assert_eq!((found, errors.as_str()), (Some(status), ""), "{output}");
    serde_json::from_str(&output).unwrap()
}

/// What was found out about a provider.
fn facts<'r>(report: &'r Value, provider: &str) -> &'r Value {
    let providers = report["providers"].as_array().unwrap();
    providers.iter().find(|facts| facts["provider"] == provider).unwrap()
}

#[test]
fn all_five_are_asked_and_the_processor_decides() {
    let report = report(&[], 0);
    let names: Vec<_> =
        report["providers"].as_array().unwrap().iter().map(|it| it["provider"].as_str().unwrap()).collect();
    assert_eq!((names.join(" "), &report["works"]), ("cpu cuda coreml nnapi qnn".to_owned(), &true.into()));
    let cpu = facts(&report, "cpu");
    assert_eq!((&cpu["works"], &cpu["problem"], &cpu["package"]), (&true.into(), &Value::Null, &Value::Null));
    assert!(cpu["runtime"]["version"].as_str().unwrap().starts_with("1.") && cpu["devices"][0]["kind"] == "CPU");
    for name in ["cuda", "coreml", "nnapi"] {
        let facts = facts(&report, name);
        // Where one works, it says so; where not, there is something to do about it.
        let problem = facts["problem"].as_str().unwrap_or_default();
        assert_eq!(facts["works"] == true, problem.is_empty(), "{facts}");
        assert!(facts["works"] == true || problem.contains(&format!("--ep {name}")), "{problem}");
    }
}

#[test]
fn people_get_text_that_fits_their_terminals() {
    let Outcome { status, output, errors } = run(doctor(&[]));
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{output}");
    let words_fit = |line: &str| line.chars().count() <= 100 || line.trim().split(' ').count() == 1;
    assert!(output.lines().all(words_fit), "{output}");
    for name in ["runtime", "cpu       works: CPU", "cuda", "coreml", "nnapi", "qnn"] {
        assert!(output.lines().any(|line| line.starts_with(name)), "{name} is missing in {output}");
    }
}

#[test]
fn a_package_runs_on_what_it_was_exported_for() {
    let package = Exported::new(TINY_CHAT, contrib(Precision::Q4));
    let graph = package.graph.to_str().unwrap();
    let report = report(&["--model", graph, "--ep", "cpu"], 0);
    let cpu = facts(&report, "cpu");
    assert_eq!((&cpu["package"]["runs"], &cpu["package"]["problem"]), (&true.into(), &Value::Null));
    let loaded = &cpu["package"]["graphs"][0];
    assert_eq!((&loaded["file"], &loaded["precision"]), (&graph.into(), &"q4".into()));
    assert!(loaded["placement"]["CPUExecutionProvider"].as_u64().unwrap() > 50, "{loaded}");
    assert!(cpu["package"]["load_ms"].as_f64().unwrap() > 0.0, "{cpu}");

    // What no command runs by itself is no package, also where its dialect is known.
    let calibrating = Exported::new(TINY_CHAT, calibrating(DialectName::Contrib));
    let report = self::report(&["--model", calibrating.graph.to_str().unwrap(), "--ep", "cpu"], 1);
    let problem = facts(&report, "cpu")["package"]["problem"].as_str().unwrap();
    assert!(problem.contains("no model to run"), "{problem}");
}

#[test]
fn what_is_not_there_is_named_and_fails() {
    let report = report(&["--model", "no-such.onnx", "--ep", "cpu"], 1);
    let package = &facts(&report, "cpu")["package"];
    assert_eq!((&report["works"], &package["runs"]), (&false.into(), &false.into()));
    assert!(package["problem"].as_str().unwrap().contains("no-such.onnx"), "{package}");

    let report = self::report(&["--ort-lib", "folder/no-such.so"], 1);
    assert!(
        facts(&report, "cpu")["problem"].as_str().unwrap().contains("--ort-lib names folder/no-such.so"),
        "{report}"
    );

    let errors = run(doctor(&["--ep", "tpu", "--ep-option", "x"])).failure(2);
    assert!(errors.contains("tpu") && errors.contains("--ep-option"), "{errors}");
}

#[test]
fn the_simulator_of_an_npu_works_and_says_which_export_it_needs() {
    if !plugins::qnn() {
        return;
    }
    let package = Exported::new(TINY_CHAT, contrib(Precision::Q4));
    let report = report(&["--ep", "qnn", "--model", package.graph.to_str().unwrap()], 1);
    let qnn = facts(&report, "qnn");
    assert_eq!(qnn["works"], true, "{qnn}");
    assert!(qnn["plugin"].as_str().unwrap().contains("onnxruntime_providers_qnn"));
    assert_eq!(qnn["devices"][0]["kind"], "NPU");
    let problem = qnn["package"]["problem"].as_str().unwrap();
    assert!(problem.contains("--for cpu,qnn --precision q4") && problem.contains("lfm2.onnx"), "{problem}");

    // Qualcomm's library prints to standard output, where results belong.
    let probed = run(doctor(&["--probe", "qnn"]));
    assert_eq!((probed.output.lines().count(), probed.errors.as_str()), (1, ""), "{}", probed.output);
    assert_eq!(serde_json::from_str::<Value>(&probed.output).unwrap()["works"], true);

    let wrong = self::report(&["--ep", "qnn", "--ep-option", "backend_path=no-such.so"], 1);
    assert_eq!(facts(&wrong, "qnn")["works"], false, "{wrong}");
}

/// The command in an error, between the marks that it is printed in.
#[cfg(unix)]
fn printed(error: &str) -> &str {
    let (_, command) = error.split_once('`').unwrap();
    command.split_once('`').unwrap().0
}

/// Runs a printed command as a shell does, with the checkpoint in the place of its one placeholder.
#[cfg(unix)]
fn obey(command: &str) {
    let checkpoint = fixture(TINY_CHAT);
    let line = command.replace(
        "lfm2-export MODEL",
        &format!("'{}' '{}'", env!("CARGO_BIN_EXE_export-under-test"), checkpoint.display()),
    );
    assert!(line != command && !line.contains("MODEL") && !line.contains("FILE"), "{command}");
    let mut shell = program("sh", &["-c", &line]);
    shell.current_dir("/");
    let Outcome { status, errors, .. } = run(shell);
    assert_eq!(status, Some(0), "{command}: {errors}");
}

/// Whatever the package, the command that is printed for a provider that it has no graphs for adds these, and leaves all else as it is.
#[cfg(unix)]
#[test]
fn printed_commands_work_as_they_are() {
    let folder = tempfile::TempDir::new().unwrap();
    for (path, options) in [
        ("a/lfm2.onnx", contrib(Precision::Q4)),
        ("it's a folder/", with_static(Precision::Q8, &[Target::Qnn], 8, 64)),
        ("b/", Options { max_context: Some(200), ..rollback(with_prefill(Precision::Q4)) }),
        ("c/lfm2.onnx", options(Precision::Fp32, DialectName::Contrib, Padding::Left)),
    ] {
        let out = folder.path().join(path);
        if path.ends_with('/') {
            std::fs::create_dir_all(&out).unwrap();
        }
        let output = Output::new(&out, &options.recipe).unwrap();
        let summary = export(&fixture(TINY_CHAT), &output, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let before = [std::fs::read(&summary.graph).unwrap(), std::fs::read(&summary.data).unwrap()];
        let mut there = options.targets.providers.clone();
        let missing = [Target::Nnapi, Target::Coreml, Target::Cuda, Target::Qnn].into_iter().filter(|target| {
            // Without its plugin, that is what is told.
            !options.targets.providers.contains(target) && (*target != Target::Qnn || plugins::qnn())
        });
        for target in missing {
            let graph = summary.graph.to_str().unwrap();
            let asked = run(program(
                env!("CARGO_BIN_EXE_host-under-test"),
                &["--prompt", "x", "--model", graph, "--ep", target.name()],
            ));
            obey(printed(&asked.failure(1)));
            there.insert(target);
            let package = Package::open(&summary.graph).unwrap();
            for target in &there {
                if target.is_static() {
                    package.pair(*target).unwrap().verify().unwrap();
                } else {
                    package.dynamic(*target).unwrap().verify().unwrap();
                }
            }
            let after = [std::fs::read(&summary.graph).unwrap(), std::fs::read(&summary.data).unwrap()];
            assert!(after == before, "{path}: {target} changed the general graph");
            assert_eq!(package.prefill(Prefill::Auto).unwrap().is_some(), options.prefill != Same, "{path}");
        }
    }
}

/// What flags need is written by the commands that are printed, whichever graph of the package was named.
#[cfg(unix)]
#[test]
fn printed_commands_add_what_flags_need() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Q8, &[Target::Cuda, Target::Qnn], 8, 64));
    let asked = |graph: &str, arguments: &[&str]| {
        let graph = exported.package().join(graph);
        let flags = ["--prompt", "x", "--temperature=0", "--model", graph.to_str().unwrap()];
        run(program(env!("CARGO_BIN_EXE_host-under-test"), &[&flags[..], arguments].concat()))
    };
    for arguments in [["--speculate", "4"], ["--prefill", "int8"]] {
        obey(printed(&asked("lfm2.onnx", &arguments).failure(1)));
        assert_eq!(asked("lfm2.onnx", &arguments).status, Some(0), "{arguments:?}");
    }
    // Those of the graph for GPUs are those of its package.
    let message = asked("lfm2.cuda.onnx", &["--ep", "nnapi"]).failure(1);
    assert!(message.contains("--out") && message.contains("/lfm2.onnx`"), "{message}");
    obey(printed(&message));
    let package = Package::open(&exported.graph).unwrap();
    for target in [Target::Qnn, Target::Nnapi] {
        package.pair(target).unwrap().verify().unwrap();
    }
    package.dynamic(Target::Cuda).unwrap().verify().unwrap();
    package.require_rollback().unwrap();
    assert!(package.prefill(Prefill::Int8).unwrap().is_some());

    // There is no such graph for float16.
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Fp16));
    let error = Package::open(&exported.graph).unwrap().prefill(Prefill::Int8).unwrap_err().to_string();
    assert!(error.contains("float32 activations") && !error.contains('`'), "{error}");
}

/// What there are no other graphs for is said.
#[test]
fn what_a_printed_command_does_not_keep_is_told() {
    let portable = Exported::new(TINY_CHAT, portable(Precision::Fp16));
    let error = Package::open(&portable.graph).unwrap().pair(Target::Nnapi).unwrap_err().to_string();
    for part in ["--precision fp16 --padding left", "--dialect portable excludes"] {
        assert!(error.contains(part), "{error}");
    }
    let mut mine = contrib(Precision::Q8);
    mine.recipe.name = "mine".to_owned();
    let error =
        Package::open(&Exported::new(TINY_CHAT, mine).graph).unwrap().pair(Target::Qnn).unwrap_err().to_string();
    for part in ["--for cpu,qnn --recipe FILE", "FILE is the recipe mine"] {
        assert!(error.contains(part), "{error}");
    }
}
