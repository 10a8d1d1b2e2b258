//! `lfm2-host bench` over many cells: providers that fail, plans, parts of them, files that are continued and merged, and the
//! formats of other tools.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Target;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, rollback, with_prefill, with_static};
use lfm2_tests::programs::{Outcome, run};
use serde_json::Value;

/// The chat checkpoint with 4-bit weights, whose state can be cut.
static PACKAGE: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, rollback(contrib(Precision::Q4))));

/// The exact one.
static EXACT: LazyLock<Exported> = LazyLock::new(|| Exported::new(TINY_CHAT, contrib(Precision::Fp32)));

/// The command with these arguments, without remarks on a program that is built for tests.
fn bench(arguments: &[&str]) -> Command {
    let arguments = [&["bench"], arguments, &["--quiet"]].concat();
    lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &arguments)
}

/// A short measurement of the exported package.
fn measure(arguments: &[&str]) -> Outcome {
    let mut command = bench(&["-t", "1", "-r", "1"]);
    command.arg("--model").arg(&PACKAGE.graph).args(arguments);
    run(command)
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What tells the rows of these tests apart.
fn tests(rows: &[Value]) -> Vec<(u64, u64, u64)> {
    rows.iter().map(|row| ["n_prompt", "n_gen", "n_threads"].map(|name| row[name].as_u64().unwrap()).into()).collect()
}

fn file(path: &Path) -> Vec<Value> {
    rows(&fs::read_to_string(path).unwrap())
}

#[test]
fn a_provider_that_cannot_be_used_has_a_row_that_says_so() {
    // Nothing but Android has it.
    let outcome = measure(&["-p", "8", "-n", "0", "--ep", "nnapi,cpu", "-o", "jsonl"]);
    let rows = rows(&outcome.output);
    let of = |name: &str| rows.iter().map(|row| row[name].as_str().unwrap_or("null")).collect::<Vec<_>>();
    assert_eq!((outcome.status, of("provider"), of("status")), (Some(1), vec!["nnapi", "cpu"], vec!["failed", "ok"]));
    let error = rows[0]["error"].as_str().unwrap();
    assert!(error.contains("nnapi") && !error.contains('\n'), "{error}");
    assert_eq!((&rows[0]["avg_ts"], &rows[1]["error"]), (&Value::Null, &Value::Null));
    assert!(rows[1]["provider_device"].as_str().unwrap().starts_with("CPU"), "{}", rows[1]["provider_device"]);
    // All nodes of the other one are where they should be.
    let placement = rows[1]["placement"].as_object().unwrap();
    assert!(placement.keys().eq(["CPUExecutionProvider"]) && placement["CPUExecutionProvider"].as_u64() > Some(10));
    assert!(outcome.errors.contains(error) && outcome.errors.contains("1 of 2 cells"), "{}", outcome.errors);
    let table = measure(&["-p", "8", "-n", "0", "--ep", "nnapi,cpu"]).output;
    assert!(table.contains("| failed |") || table.contains(" failed |"), "{table}");
}

/// The process of a cell that a `bench` of this number has started, when it is there.
#[cfg(target_os = "linux")]
fn worker(parent: u32) -> String {
    let parent_of = |stat: &str| stat.rsplit(')').next()?.split_whitespace().nth(1).map(str::to_owned);
    loop {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            // Before it is its own program, it is a copy of its parent.
            let is_cell = read("cmdline").split(|byte| *byte == 0).any(|argument| argument == b"cell");
            if is_cell && parent_of(&stat) == Some(parent.to_string()) {
                return entry.file_name().into_string().unwrap();
            }
        }
        std::thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn cells_that_crash_or_hang_have_rows_that_say_so() {
    // So many repetitions that no cell ends by itself.
    let mut command =
        bench(&["-p", "0", "-n", "2", "-t", "1,2", "-r", "1000000", "-o", "jsonl", "--cell-timeout", "5"]);
    command.arg("--model").arg(&PACKAGE.graph);
    let child = command.spawn().unwrap();
    let worker = worker(child.id());
    assert!(Command::new("kill").args(["-ABRT", &worker]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (rows, errors) = (rows(&String::from_utf8(output.stdout).unwrap()), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), rows.len()), (Some(1), 2), "{errors}");
    assert_eq!((&rows[0]["status"], &rows[1]["status"]), (&"crashed".into(), &"timeout".into()), "{errors}");
    assert!(rows[0]["error"].as_str().unwrap().contains("SIGABRT"), "{}", rows[0]["error"]);
    assert!(rows[1]["error"].as_str().unwrap().contains("5 seconds"), "{}", rows[1]["error"]);
    assert!(errors.contains("2 of 2 cells"), "{errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn no_cell_is_measured_for_nobody() {
    let mut command = bench(&["-p", "0", "-n", "2", "-t", "1", "-r", "1000000", "-o", "jsonl"]);
    command.arg("--model").arg(&PACKAGE.graph);
    let mut child = command.spawn().unwrap();
    let worker = worker(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    // It ends by itself; this test does not end if it does not.
    let is_there = || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    };
    while is_there() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn being_asked_to_end_leaves_whole_rows_to_go_on_from() {
    // `timeout` asks the program alone, Slurm all processes at once.
    for is_everybody in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("rows.jsonl");
        // So many repetitions that the second cell does not end by itself.
        let arguments =
            ["-p", "1,8", "-n", "0", "-t", "1", "-r", "100000", "-o", "jsonl", "--out", out.to_str().unwrap()];
        let start = |arguments: &[&str]| {
            let mut command = bench(arguments);
            command.arg("--model").arg(&PACKAGE.graph);
            command.spawn().unwrap()
        };
        let child = start(&[&arguments[..], &["--cell-timeout", "4"]].concat());
        let parent = child.id();
        while fs::read_to_string(&out).unwrap_or_default().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let worker = worker(parent);
        let asked = if is_everybody { vec![worker.clone(), parent.to_string()] } else { vec![parent.to_string()] };
        assert!(Command::new("kill").arg("-TERM").args(asked).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!Path::new("/proc").join(&worker).exists(), "the process of the cell is ended too");
        let text = fs::read_to_string(&out).unwrap();
        assert!(text.ends_with("}\n") && tests(&rows(&text)) == [(1, 0, 1)], "{text}");
        let output =
            start(&[&arguments[..], &["--resume", "--cell-timeout", "1"]].concat()).wait_with_output().unwrap();
        assert_eq!((output.status.code(), tests(&file(&out))), (Some(1), vec![(1, 0, 1), (8, 0, 1)]));
        assert!(fs::read_to_string(&out).unwrap().starts_with(&text), "what was there stays");
    }
}

#[test]
fn rows_are_appended_and_measuring_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows.jsonl");
    let path = out.to_str().unwrap();
    assert_eq!(measure(&["-p", "8", "-n", "0", "--out", path]).status, Some(0));
    let first = fs::read_to_string(&out).unwrap();

    let refused = measure(&["-p", "8", "-n", "2", "--out", path]).failure(2);
    assert!(refused.contains("--resume") && refused.contains("rows.jsonl"), "{refused}");

    // The last line was being written when the power went.
    fs::write(&out, [first.as_bytes(), b"{\"device\":\"K\xc3"].concat()).unwrap();
    let mut command =
        lfm2_tests::programs::program(env!("CARGO_BIN_EXE_host-under-test"), &["bench", "-t", "1", "-r", "1"]);
    command.args(["-p", "8", "-n", "2", "--out", path, "--resume", "-o", "jsonl", "--model"]).arg(&PACKAGE.graph);
    let outcome = run(command);
    assert_eq!(outcome.status, Some(0), "{}", outcome.errors);
    assert!(outcome.errors.contains("cut off") && outcome.errors.contains("1 of 2 cells"), "{}", outcome.errors);
    assert_eq!(tests(&rows(&outcome.output)), [(0, 2, 1)]);
    assert!(fs::read_to_string(&out).unwrap().starts_with(&first), "what was there stays");
    assert_eq!(tests(&file(&out)), [(8, 0, 1), (0, 2, 1)]);

    // All is there; with another seed it is another cell.
    assert_eq!(measure(&["-p", "8", "-n", "2", "--out", path, "--resume", "-o", "jsonl"]).answer(), "");
    assert_eq!(measure(&["-p", "8", "-n", "0", "--seed", "1", "--out", path, "--resume"]).status, Some(0));
    assert_eq!(file(&out).len(), 3);

    fs::write(&out, "| table |\n").unwrap();
    let errors = measure(&["-p", "8", "--out", path, "--resume"]).failure(1);
    assert!(errors.contains("rows.jsonl") && errors.contains("line 1"), "{errors}");

    // What `-o json` prints; lines behind it could not be read.
    let array = format!(" [{}]\n", first.trim_end());
    fs::write(&out, &array).unwrap();
    let errors = measure(&["-p", "8", "-n", "2", "--out", path, "--resume"]).failure(2);
    assert!(errors.contains("JSON array") && errors.contains("bench merge"), "{errors}");
    assert_eq!(fs::read_to_string(&out).unwrap(), array);
}

#[test]
fn failed_cells_are_measured_again_only_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows.jsonl");
    let path = out.to_str().unwrap();
    let arguments = ["-p", "8", "-n", "0", "--ep", "nnapi,cpu", "-o", "jsonl", "--out", path];
    assert_eq!(measure(&arguments).status, Some(1));
    // There is nothing left to measure, and still no result.
    let errors = measure(&[&arguments[..], &["--resume"]].concat()).failure(1);
    assert!(errors.contains("1 cells have rows without a result") && errors.contains("--retry-failed"), "{errors}");
    assert_eq!(file(&out).len(), 2);
    let again = measure(&[&arguments[..], &["--resume", "--retry-failed"]].concat());
    assert_eq!((again.status, rows(&again.output).len()), (Some(1), 1));
    assert_eq!(file(&out).len(), 3);
}

#[test]
fn a_plan_is_measured_in_parts_that_merge_into_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    let model = PACKAGE.graph.to_str().unwrap();
    fs::write(
        &plan,
        format!(
            "name = \"small\"\nthreads = [1, 2]\nrepetitions = 1\n\
             models = [{{ name = \"tiny\", path = '{model}' }}]\n\
             tests = [{{ name = \"prompt\", test = \"pp8\" }}, {{ test = \"tg2 @ d4\" }}, {{ test = \"pp4+tg2\" }}]\n"
        ),
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    let parts: Vec<_> = (0..2)
        .map(|part| {
            let out = folder.path().join(format!("part-{part}.jsonl"));
            let shard = format!("{part}/2");
            let arguments = ["--plan", plan, "--shard", &shard, "--out", out.to_str().unwrap(), "--device", "desk"];
            assert_eq!(run(bench(&arguments)).status, Some(0));
            out
        })
        .collect();
    let counts: Vec<_> = parts.iter().map(|part| file(part).len()).collect();
    assert_eq!(counts, [3, 3]);

    let [a, b] = [0, 1].map(|part| parts[part].to_str().unwrap());
    let merged = rows(&run(bench(&["merge", a, b, a])).answer());
    let mut cells: Vec<_> = merged.iter().map(|row| row["cell"].as_str().unwrap()).collect();
    cells.sort_unstable();
    cells.dedup();
    assert_eq!((merged.len(), cells.len()), (6, 6));
    let of = |name: &str| merged.iter().map(|row| row[name].as_str()).collect::<Vec<_>>();
    assert!(of("plan").iter().all(|name| *name == Some("small")) && of("device")[0] == Some("desk"));
    assert!(of("model_name").iter().all(|name| *name == Some("tiny")));
    assert_eq!(of("test_name").iter().filter(|name| **name == Some("prompt")).count(), 2);

    // The whole in one, on a machine of another name.
    let whole = folder.path().join("whole.jsonl");
    let whole = whole.to_str().unwrap();
    assert_eq!(run(bench(&["--plan", plan, "--out", whole, "--device", "other"])).status, Some(0));
    assert_eq!(rows(&run(bench(&["merge", a, b, whole])).answer()).len(), 12, "machines are kept apart");
    let again = folder.path().join("again.jsonl");
    assert_eq!(run(bench(&["--plan", plan, "--out", again.to_str().unwrap(), "--device", "other"])).status, Some(0));
    let errors = run(bench(&["merge", whole, again.to_str().unwrap(), "--duplicates", "refuse"])).failure(1);
    assert!(errors.contains("again.jsonl, row 6") && errors.contains("test_time"), "{errors}");
    assert_eq!(rows(&run(bench(&["merge", whole, again.to_str().unwrap()])).answer()).len(), 6);
}

#[test]
fn wrong_plans_and_parts_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    fs::write(
        &plan,
        "threads = [0]\nproviders = [\"tpu\"]\nmodels = [{ path = \"gone.onnx\" }]\ntests = [{ test = \"pp\" }]\n",
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    let errors =
        run(bench(&["--plan", plan, "--shard", "2/2", "--cell-timeout", "0", "--form-factor", "desk"])).failure(2);
    for text in ["threads", "tpu", "gone.onnx", "\"pp\"", "--shard", "--cell-timeout", "--form-factor", "plan.toml"] {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let twice = ["--ep", "qnn", "--ep-option", "device_id=0", "--ep-option", "device_id=1"];
    let errors = measure(&twice).failure(2);
    assert!(errors.contains("device_id is given several times, as 0 and 1"), "{errors}");
    let options = ["--ep-option", "x=1", "--ep-option", "y", "--ep-lib", "libqnn.so"];
    let errors = measure(&options).failure(2);
    assert!(errors.contains('x') && errors.contains("--ep-option y") && errors.contains("--ep-lib"), "{errors}");
    let errors = run(bench(&["--plan", plan, "-p", "8"])).errors;
    assert!(errors.contains("--plan") && errors.contains("cannot be used with"), "{errors}");
    let errors = run(bench(&["merge", "gone.jsonl", plan])).failure(1);
    assert!(errors.contains("gone.jsonl") && errors.contains("plan.toml"), "{errors}");
}

#[test]
fn static_graphs_have_limits_of_their_own() {
    let exported = Exported::new(TINY_CHAT, with_static(Precision::Fp32, &[Target::Qnn], 8, 48));
    let measure = |arguments: &[&str]| {
        let mut command = bench(&[&["-n", "0", "-t", "1", "-r", "1", "--ep", "qnn,cpu"], arguments].concat());
        command.arg("--model").arg(&exported.graph);
        run(command)
    };
    let errors = measure(&["-p", "64"]).failure(2);
    assert!(errors.contains("48 tokens on qnn") && errors.contains("--static-context"), "{errors}");
    assert_eq!(errors.matches("pp64").count(), 1, "the general graph has room for it: {errors}");
    // Without the plugin the rows say so.
    let found = rows(&measure(&["-p", "8", "--chunk", "4,16", "-o", "jsonl"]).output);
    let chunk = |row: &Value| (row["provider"].as_str().unwrap().to_owned(), row["chunk"].as_u64().unwrap());
    let chunks: Vec<_> = found.iter().map(chunk).collect();
    assert_eq!(chunks, [("qnn", 8), ("cpu", 4), ("cpu", 16)].map(|(name, chunk)| (name.to_owned(), chunk)));
}

#[test]
fn rows_say_how_far_the_model_is_from_the_exact_one() {
    let reference = EXACT.graph.to_str().unwrap();
    let found = measure(&["-p", "8", "-n", "2", "-d", "0,4", "--reference", reference, "-o", "jsonl"]).answer();
    let quantized = rows(&found);
    for row in &quantized {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", row[name]));
        assert_eq!((&row["reference_precision"], row["agreement_tokens"].as_u64()), (&"fp32".into(), Some(252)));
        assert!((0.3..1.0).contains(&number("top1_agreement")) && number("mean_kld") > 1e-4, "{row}");
    }
    let of = |row: usize| &quantized[row]["mean_kld"];
    assert_eq!((of(0), of(1)), (of(2), of(3)), "once for all cells that compute the same");
    assert_ne!(of(0), of(1), "prompts and answers have other kernels");

    let mut command = bench(&["-p", "8", "-n", "2", "-t", "1", "-r", "1", "-o", "jsonl", "--reference", reference]);
    command.arg("--model").arg(reference);
    for row in rows(&run(command).answer()) {
        // Runs of one token and of many add up in another order.
        assert!(row["top1_agreement"].as_f64().unwrap() > 0.99 && row["mean_kld"].as_f64().unwrap() < 1e-6, "{row}");
    }
    let other = Exported::new("resaved", contrib(Precision::Fp32));
    let errors = measure(&["--reference", other.graph.to_str().unwrap()]).failure(2);
    assert!(errors.contains("--reference") && errors.contains("token ids"), "{errors}");
}

/// Takes the companion out of a package, as if it had been exported without.
fn without_companion(package: &Path) {
    let path = package.join("lfm2.manifest.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    manifest["graphs"].as_array_mut().unwrap().retain(|graph| graph["purpose"] == "general");
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn rows_name_every_graph_that_ran_and_cells_differ_by_it() {
    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Q4));
    let folder = tempfile::tempdir().unwrap();
    let measure = |arguments: &[&str], name: &str| {
        let out = folder.path().join(name);
        let mut command = bench(&["-n", "0", "-t", "1", "-r", "1", "-o", "jsonl", "--resume", "--verify"]);
        command.args(arguments).arg("--out").arg(&out).arg("--model").arg(&exported.graph);
        rows(&run(command).answer())
    };
    let found = measure(&["-p", "8,300", "--chunk", "8,512"], "rows.jsonl");
    let manifest = fs::read_to_string(exported.package().join("lfm2.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let listed = |name: &str| {
        let files = manifest["files"].as_array().unwrap();
        files.iter().find(|file| format!("package/{}", file["name"].as_str().unwrap()) == name).unwrap()
    };
    for row in &found {
        let files = row["model_files"].as_array().unwrap();
        let names: Vec<_> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
        // Short prompts and short chunks are not worth the companion, which then is not even loaded.
        let has_companion = (&row["n_prompt"], &row["chunk"]) == (&300.into(), &512.into());
        let graphs = ["package/lfm2.onnx", "package/lfm2.prefill.onnx"];
        let (graphs, prefill) = if has_companion { (&graphs[..], "int8") } else { (&graphs[..1], "q4") };
        assert_eq!(row["prefill"], prefill, "{row}");
        assert_eq!(names[..graphs.len()], *graphs, "{row}");
        assert!(names.contains(&"package/lfm2.onnx_data") && names.len() == graphs.len() + graphs.len(), "{names:?}");
        for file in files {
            let listed = listed(file["name"].as_str().unwrap());
            assert_eq!((&file["sha256"], &file["size"]), (&listed["sha256"], &listed["size"]));
        }
        let of = |role: &str, name: &str| {
            let files = files.iter().filter(|file| file["role"] == role);
            files.map(|file| file[name].as_str().unwrap()).collect::<Vec<_>>().join(",")
        };
        assert_eq!((of("graph", "sha256").as_str(), of("data", "sha256").as_str()), {
            let text = |name: &str| row[name].as_str().unwrap();
            (text("model_sha256"), text("weights_sha256"))
        });
        let size: u64 = files.iter().map(|file| file["size"].as_u64().unwrap()).sum();
        assert_eq!((row["model_size"].as_u64(), row["model_verified"].as_bool()), (Some(size), Some(true)));
    }
    assert!(measure(&["-p", "8,300", "--chunk", "8,512"], "rows.jsonl").is_empty());

    // Every form and every program that reads rows has it.
    let hash = listed("package/lfm2.prefill.onnx")["sha256"].as_str().unwrap();
    for format in ["csv", "json", "sql", "pipette"] {
        let mut command = bench(&["-p", "300", "-n", "0", "-t", "1", "-r", "5", "--device", "x", "-o", format]);
        command.args(["--form-factor", "server", "--model"]).arg(&exported.graph);
        let text = run(command).answer();
        assert!(text.contains(hash), "{format}: {text}");
    }
    let file = folder.path().join("rows.jsonl");
    let (file, page) = (file.to_str().unwrap(), folder.path().join("report.md"));
    assert_eq!(run(bench(&["report", file, "--out", page.to_str().unwrap()])).status, Some(0));
    assert!(fs::read_to_string(&page).unwrap().contains(hash));

    // Without the companion all but one are the same cells.
    without_companion(&exported.package());
    let again = measure(&["-p", "8,300", "--chunk", "8,512"], "rows.jsonl");
    let tests: Vec<_> = again.iter().map(|row| (&row["n_prompt"], &row["chunk"], &row["prefill"])).collect();
    assert_eq!(tests, [(&300.into(), &512.into(), &"q4".into())]);
    let other = folder.path().join("other.jsonl");
    fs::write(&other, again[0].to_string()).unwrap();
    let other = other.to_str().unwrap();
    let merged = run(bench(&["merge", file, other, "--duplicates", "refuse"])).answer();
    assert_eq!(rows(&merged).len(), 5, "{merged}");
    let first = folder.path().join("first.jsonl");
    fs::write(&first, found.iter().find(|row| row["prefill"] == "int8").unwrap().to_string()).unwrap();
    let errors = run(bench(&["diff", first.to_str().unwrap(), other])).failure(2);
    assert!(errors.contains("no cell in common") && errors.contains("prefill=int8"), "{errors}");
}

#[test]
fn verifying_reads_every_graph_that_may_run() {
    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Q4));
    let companion = exported.package().join("lfm2.prefill.onnx_data");
    let mut bytes = fs::read(&companion).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&companion, bytes).unwrap();
    let verify = |arguments: &[&str]| {
        let mut command = bench(&["-p", "8", "-n", "0", "-t", "1", "-r", "1", "--verify"]);
        command.args(arguments).arg("--model").arg(&exported.graph);
        run(command)
    };
    let errors = verify(&[]).failure(2);
    assert!(errors.contains("lfm2.prefill.onnx_data has the SHA-256"), "{errors}");
    assert_eq!(verify(&["--prefill", "same"]).status, Some(0));
}

#[test]
fn guesses_need_fewer_runs_and_a_package_that_takes_them_back() {
    let found =
        measure(&["-p", "0", "-n", "32", "-d", "96", "--speculate", "0,8", "--low-memory", "-o", "jsonl"]).answer();
    let found = rows(&found);
    let number = |row: usize, name: &str| found[row][name].as_f64();
    assert_eq!((number(0, "speculate"), number(1, "speculate")), (Some(0.0), Some(8.0)));
    assert_eq!(number(0, "runs_per_token"), Some(1.0));
    assert!(number(1, "runs_per_token").is_some_and(|runs| 0.0 < runs && runs <= 1.0), "{}", found[1]);
    assert!(found.iter().all(|row| row["low_memory"] == true));
    assert!(number(0, "roofline_percent").is_some() && number(1, "roofline_percent").is_none());

    let mut command = bench(&["-p", "0", "-n", "4", "-t", "1", "-r", "1", "-o", "jsonl", "--speculate", "4"]);
    command.arg("--model").arg(&EXACT.graph);
    let outcome = run(command);
    let failed = rows(&outcome.output);
    assert_eq!((outcome.status, &failed[0]["status"]), (Some(1), &"failed".into()));
    assert!(failed[0]["error"].as_str().unwrap().contains("--rollback"), "{}", failed[0]["error"]);
}

#[test]
fn sensors_are_lists_or_nothing() {
    for row in rows(&measure(&["-p", "8", "-n", "0", "-o", "jsonl"]).answer()) {
        for name in ["thermal_before", "thermal_after", "frequency_before", "frequency_after"] {
            assert!(row[name].is_null() || row[name].as_array().is_some_and(|list| !list.is_empty()), "{name}");
        }
        for zone in row["thermal_after"].as_array().into_iter().flatten() {
            assert!(zone["type"].is_string() && zone["celsius"].is_f64(), "{zone}");
        }
    }
}

/// The fields of a row of llama-bench's, with the types that it gives them.
const LLAMA_BENCH: &str = "build_commit string, build_number number, cpu_info string, gpu_info string, backends string, \
    model_filename string, model_type string, model_size number, model_n_params number, n_batch number, n_ubatch number, \
    n_threads number, cpu_mask string, cpu_strict bool, poll number, type_k string, type_v string, n_gpu_layers number, \
    n_cpu_moe number, split_mode string, main_gpu number, no_kv_offload bool, flash_attn number, devices string, \
    tensor_split string, tensor_buft_overrides string, load_mode string, embeddings bool, no_op_offload number, no_host bool, \
    fit_target number, fit_min_ctx number, n_prompt number, n_gen number, n_depth number, test_time string, avg_ns number, \
    stddev_ns number, avg_ts number, stddev_ts number, samples_ns list, samples_ts list";

#[test]
fn rows_of_llama_bench_have_its_fields_in_its_order() {
    let outcome = measure(&["-p", "8", "-n", "2", "-d", "4", "-o", "llama-bench"]);
    let kind = |value: &Value| match value {
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Array(_) => "list",
        other => panic!("{other}"),
    };
    for row in rows(&outcome.answer()) {
        let fields = row.as_object().unwrap().iter().map(|(name, value)| format!("{name} {}", kind(value)));
        assert_eq!(fields.collect::<Vec<_>>().join(", "), LLAMA_BENCH);
    }
}

#[test]
fn pipette_gets_milliseconds_and_what_it_needs_of_the_device() {
    let errors = measure(&["-p", "8", "-n", "2", "-d", "0,4", "-o", "pipette"]).failure(2);
    for text in ["--device", "--form-factor", "-r ", "pp8 @ d4"] {
        assert!(errors.contains(text), "{text} is missing in:\n{errors}");
    }
    let mut command =
        bench(&["-p", "0,8", "-n", "0", "-pg", "8,3", "-t", "1", "-r", "5", "-o", "pipette", "-oe", "jsonl"]);
    command.args(["--device", "Test board", "--form-factor", "embedded", "--model"]).arg(&PACKAGE.graph);
    let outcome = run(command);
    let (submissions, measured) = (rows(&outcome.output), rows(&outcome.errors));
    let ids: Vec<_> = submissions.iter().map(|body| body["benchmark_id"].as_str().unwrap()).collect();
    assert_eq!(
        (outcome.status, ids),
        (Some(0), vec!["prefill_throughput_8", "max_memory_usage_8", "end_to_end_latency_8_4"])
    );
    let is = |value: &Value, nanoseconds: &Value| {
        (value.as_f64().unwrap() - nanoseconds.as_f64().unwrap() / 1e6).abs() < 1e-6
    };
    // Pipette's time of a prompt ends with the first token.
    assert!(is(&submissions[0]["prefill_time_ms"], &measured[0]["first_token_avg_ns"]), "{}", submissions[0]);
    assert!(is(&submissions[2]["total_time_ms"], &measured[1]["avg_ns"]), "{}", submissions[2]);
    assert!(submissions[2]["total_time_ms_stddev"].is_f64());
    assert_eq!(submissions[1]["max_host_bytes"], measured[0]["peak_memory"]);
    for body in &submissions {
        for name in
            ["device_name", "device_os_name", "device_os_version", "device_chip_model", "model_name", "runtime_version"]
        {
            assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{name} is {}", body[name]);
        }
        assert_eq!(body["device_form_factor"], "embedded");
        assert!(body["device_ram_bytes"].is_u64() || !cfg!(target_os = "linux"));
        // JSON inside of text.
        for name in ["model_descriptor", "runtime_descriptor", "runtime_flags", "benchmark_flags"] {
            serde_json::from_str::<Value>(body[name].as_str().unwrap()).unwrap();
        }
    }
    let mut command = bench(&["-p", "0", "-n", "3", "-d", "7", "-t", "1", "-r", "5", "-o", "pipette"]);
    command.args(["--device", "Test board", "--form-factor", "embedded", "--model"]).arg(&PACKAGE.graph);
    assert_eq!(rows(&run(command).answer())[0]["benchmark_id"], "decode_throughput_8_3");
}
