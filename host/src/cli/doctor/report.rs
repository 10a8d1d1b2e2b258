//! What was found out, as text for people.

use std::fmt::{self, Write};

use serde::Serialize;

use super::facts::{Facts, GraphFacts, PackageFacts, RuntimeFacts};

/// Width of the text.
const WIDTH: usize = 100;

/// Columns in front of what is said about a provider.
const INDENT: usize = 10;

/// Everything that was found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// Version of this program.
    pub(super) version: &'static str,
    /// Whether what was asked for works.
    pub(super) works: bool,
    /// The package, if there is one.
    pub(super) model: Option<String>,
    /// One entry for every provider that was asked.
    pub(super) providers: Vec<Facts>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most providers share a library, which is said once.
        let mut libraries: Vec<(&RuntimeFacts, Vec<&str>)> = Vec::new();
        for facts in &self.providers {
            let Some(runtime) = &facts.runtime else { continue };
            match libraries.iter_mut().find(|(known, _)| *known == runtime) {
                Some((_, providers)) => providers.push(&facts.provider),
                None => libraries.push((runtime, vec![&facts.provider])),
            }
        }
        for (RuntimeFacts { library, version, built_in }, providers) in &libraries {
            let names: Vec<_> = built_in.iter().map(|name| name.trim_end_matches("ExecutionProvider")).collect();
            let who = if libraries.len() > 1 { format!(", for {}", providers.join(", ")) } else { String::new() };
            f.write_str(&paragraph(
                "runtime",
                &format!("ONNX Runtime {version}{who}, built with {}", names.join(", ")),
            ))?;
            f.write_str(&paragraph("", library))?;
        }
        if libraries.is_empty() {
            f.write_str(&paragraph("runtime", "none that can be used"))?;
        }
        if let Some(model) = &self.model {
            f.write_str(&paragraph("package", model))?;
        }
        let mut told: Vec<&str> = Vec::new();
        for facts in &self.providers {
            f.write_char('\n')?;
            f.write_str(&paragraph(&facts.provider, &verdict(facts)))?;
            if let Some(plugin) = &facts.plugin {
                f.write_str(&paragraph("", &format!("plugin {plugin}")))?;
            }
            if let Some(problem) = &facts.problem {
                // Without a runtime, every provider has the same long problem.
                let is_new = !told.contains(&problem.as_str());
                told.push(problem);
                f.write_str(&paragraph("", if is_new { problem } else { "as above" }))?;
            }
            if let Some(warning) = &facts.warning {
                f.write_str(&paragraph("", warning))?;
            }
            if let Some(package) = &facts.package {
                f.write_str(&on_package(package))?;
            }
        }
        Ok(())
    }
}

fn verdict(facts: &Facts) -> String {
    if !facts.works {
        return "does not work here".to_owned();
    }
    let devices: Vec<_> = facts.devices.iter().map(ToString::to_string).collect();
    format!("works: {}", devices.join(", "))
}

fn on_package(package: &PackageFacts) -> String {
    let mut text = String::new();
    let time = package.load_ms.map_or(String::new(), |time| format!(", loaded in {:.1} s", time / 1e3));
    for (index, GraphFacts { file, precision, placement }) in package.graphs.iter().enumerate() {
        let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
        let nodes: Vec<_> = placement.iter().map(|(provider, count)| format!("{count} nodes on {provider}")).collect();
        // It is that of all of them together.
        let time = if index + 1 == package.graphs.len() { &*time } else { "" };
        text += &paragraph("", &format!("runs {name} ({precision}): {}{time}", nodes.join(", ")));
    }
    if let Some(problem) = &package.problem {
        text += &paragraph("", &format!("does not run the package: {problem}"));
    }
    text
}

/// `text` behind `label`, within the width; lines of the text stay lines.
fn paragraph(label: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = format!("{label:<INDENT$}");
    let mut is_empty = true;
    for part in text.lines() {
        // Points of a list are set in.
        let spaces = part.len() - part.trim_start().len();
        let hanging = if part[spaces..].starts_with("- ") { spaces + 2 } else { spaces };
        if !is_empty {
            lines += line.trim_end();
            lines.push('\n');
            line = " ".repeat(INDENT);
            is_empty = true;
        }
        line += &part[..hanging];
        for word in part[hanging..].split(' ') {
            let length = line.chars().count() + word.chars().count() + usize::from(!is_empty);
            if length > WIDTH && !is_empty {
                lines += line.trim_end();
                lines.push('\n');
                line = " ".repeat(INDENT + hanging);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += word;
            is_empty = false;
        }
    }
    lines += line.trim_end();
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Device;
    use expect_test::expect;

    fn runtime(library: &str) -> Option<RuntimeFacts> {
        let built_in = ["CPUExecutionProvider", "AzureExecutionProvider"].map(str::to_owned).to_vec();
        Some(RuntimeFacts { library: library.to_owned(), version: "1.32.0".to_owned(), built_in })
    }

    fn device(kind: &str, simulated: bool) -> Vec<Device> {
        vec![Device { kind: kind.to_owned(), vendor: "ACME".to_owned(), simulated }]
    }

    fn graph(file: &str, provider: &str) -> GraphFacts {
        let placement = [(provider.to_owned(), 412)].into();
        GraphFacts { file: file.to_owned(), precision: "q4".to_owned(), placement }
    }

    fn report() -> Report {
        let cpu = PackageFacts {
            graphs: vec![graph("folder/x.onnx", "CPUExecutionProvider")],
            load_ms: Some(1234.0),
            runs: true,
            problem: None,
        };
        let qnn = PackageFacts {
            problem: Some("the package has no graph for it; export the model again with `lfm2-export CHECKPOINT --for cpu,qnn --out x.onnx`".to_owned()),
            ..PackageFacts::default()
        };
        Report {
            version: "0.1.0",
            works: true,
            model: Some("folder/x.onnx".to_owned()),
            providers: vec![
                Facts {
                    runtime: runtime("a/libonnxruntime.so"),
                    devices: device("CPU", false),
                    works: true,
                    package: Some(cpu),
                    ..Facts::of("cpu")
                },
                Facts {
                    runtime: runtime("a/libonnxruntime.so"),
                    problem: Some("--ep cuda is not in a/libonnxruntime.so (ONNX Runtime 1.32.0); run `make runtime-cuda` in the repository, which fetches a build with it, or name one with --ort-lib".to_owned()),
                    ..Facts::of("cuda")
                },
                Facts {
                    runtime: runtime("a/libonnxruntime.so"),
                    plugin: Some("b/libonnxruntime_providers_qnn.so".to_owned()),
                    devices: device("NPU", true),
                    works: true,
                    package: Some(qnn),
                    ..Facts::of("qnn")
                },
            ],
        }
    }

    #[test]
    fn people_read_what_works_and_what_to_do() {
        let text = report().to_string();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        expect![[r#"
            runtime   ONNX Runtime 1.32.0, built with CPU, Azure
                      a/libonnxruntime.so
            package   folder/x.onnx

            cpu       works: CPU (ACME)
                      runs x.onnx (q4): 412 nodes on CPUExecutionProvider, loaded in 1.2 s

            cuda      does not work here
                      --ep cuda is not in a/libonnxruntime.so (ONNX Runtime 1.32.0); run `make runtime-cuda` in
                      the repository, which fetches a build with it, or name one with --ort-lib

            qnn       works: NPU, simulated on the CPU
                      plugin b/libonnxruntime_providers_qnn.so
                      does not run the package: the package has no graph for it; export the model again with
                      `lfm2-export CHECKPOINT --for cpu,qnn --out x.onnx`
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn lists_stay_lists_and_long_words_stay_whole() {
        let word = "x".repeat(120);
        let text = paragraph("runtime", &format!("was not found. Looked for it\n  - here: {word}\n  - there\nDo it."));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "runtime   was not found. Looked for it");
        assert!(
            text.contains(&word) && lines.contains(&"            - there") && lines.contains(&"          Do it."),
            "{text}"
        );
    }

    #[test]
    fn the_same_problem_is_told_once() {
        let broken = |name: &str| Facts { problem: Some("there is no runtime".to_owned()), ..Facts::of(name) };
        let report = Report { model: None, works: false, providers: vec![broken("cpu"), broken("qnn")], ..report() };
        let text = report.to_string();
        assert_eq!(text.matches("there is no runtime").count(), 1, "{text}");
        assert!(text.contains("none that can be used") && text.contains("as above"), "{text}");
    }

    #[test]
    fn a_provider_is_well_if_it_runs_the_package() {
        let wells: Vec<_> = report().providers.iter().map(Facts::is_well).collect();
        assert_eq!(wells, [true, false, false]);
    }
}
