//! The invariants that compilers and linters cannot express, each a rule over the text of the repository.
//!
//! A rule is a function from files to breaches. Every rule comes with files that breach it, so that a rule which no longer
//! sees anything is found out.

use std::collections::BTreeMap;

use lfm2_graphs::ops;
use lfm2_tests::repository::{
    File, code_of, find, in_lines, is_owner, is_rust, is_under, literals, mentions, repository, under,
};

/// One invariant.
struct Rule {
    /// The invariant in a few words; breaches are reported under it.
    name: &'static str,
    /// Every breach: where, and what is wrong.
    check: fn(&[File]) -> Vec<String>,
    /// Files, as path and text, that breach it one by one.
    breaches: &'static [(&'static str, &'static str)],
}

/// What `graphs` may depend on: nothing that does IO, no runtime, no checkpoint reader, no file format.
const GRAPHS_DEPENDENCIES: &[&str] = &["serde", "serde_json", "thiserror", "expect-test"];

/// Standard modules that reach outside the process.
const IO: &[&str] = &["std::fs", "std::io", "std::net", "std::env", "std::process"];

/// Names of providers and dialects. The blocks of the model know none of them.
const PROVIDERS: &[&str] = &[
    "com.microsoft",
    "contrib",
    "portable",
    "cpu",
    "cuda",
    "tensorrt",
    "webgpu",
    "directml",
    "dml",
    "openvino",
    "coreml",
    "nnapi",
    "qnn",
    "xnnpack",
];

/// What the host may use of `lfm2_graphs`.
const HOST_USES: &[&str] = &["contract", "format"];

/// Parts of port names. The host takes them from the contract.
const PORT_NAMES: &[&str] =
    &["past_conv", "present_conv", "conv_columns", "past_key_values", "present.", "input_ids", "attention_mask"];

/// Formats and their owners: a path of code and the places that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("prost::", &["export/src/proto/", "tests/proto_drift.rs"]),
    ("safetensors::", &["export/src/checkpoint/", "tests/"]),
    ("hf_hub::", &["export/src/hub/"]),
    ("ureq::", &["export/src/hub/"]),
    ("tokenizers::", &["host/src/text/"]),
    ("minijinja::", &["host/src/text/", "host/src/chat/"]),
    (
        "ort::",
        &[
            "host/src/runtime/",
            "host/src/session/",
            "host/src/state/",
            "host/src/decoder/",
            "host/src/provider/",
            "tests/",
            "benches/",
        ],
    ),
];

/// Most lines of a Rust file, tests included.
const LONGEST: usize = 600;

/// Rust files that a program writes.
const GENERATED: &[&str] = &["export/src/proto/onnx.rs"];

/// Crates that other crates ask for in versions that do not go together. A new one needs a look at who brings it in.
const DUPLICATES: &[&str] = &[
    "base64",
    "foldhash",
    "getrandom",
    "hashbrown",
    "itertools",
    "r-efi",
    "rand",
    "rand_core",
    "syn",
    "unicode-width",
    "windows-sys",
];

const RULES: &[Rule] = &[
    Rule {
        name: "graphs depends on nothing that reaches outside",
        check: |files| {
            let manifests = under(files, "graphs/Cargo.toml");
            manifests
                .flat_map(|file| {
                    let names = dependencies(&file.text);
                    names
                        .filter(|name| !GRAPHS_DEPENDENCIES.contains(name))
                        .map(|name| format!("{}: {name}", file.path))
                })
                .collect()
        },
        breaches: &[
            ("graphs/Cargo.toml", "[dependencies]\nort.workspace = true\n"),
            ("graphs/Cargo.toml", "[dev-dependencies]\nsafetensors = \"0.8\"\n"),
            ("graphs/Cargo.toml", "[dependencies.ort]\nworkspace = true\n"),
            ("graphs/Cargo.toml", "[target.'cfg(unix)'.dependencies.libc]\nworkspace = true\n"),
        ],
    },
    Rule {
        name: "dependencies point from the programs to graphs",
        check: |files| {
            let forbidden = [("export/Cargo.toml", "lfm2-host"), ("host/Cargo.toml", "lfm2-export")];
            forbidden
                .iter()
                .flat_map(|(path, name)| {
                    let manifests = under(files, path).filter(|file| dependencies(&file.text).any(|it| it == *name));
                    manifests.map(move |_| format!("{path}: {name}"))
                })
                .collect()
        },
        breaches: &[("host/Cargo.toml", "[dependencies]\nlfm2-export.workspace = true\n")],
    },
    Rule {
        name: "graphs does no IO",
        check: |files| find(under(files, "graphs/src/").filter(is_rust), |code| mentions(code, IO)),
        breaches: &[
            ("graphs/src/lib.rs", "use std::fs;"),
            ("graphs/src/ir/text.rs", "fn f() { std::env::var(\"X\"); }"),
        ],
    },
    Rule {
        name: "the blocks of the model name no provider, dialect or vendor operator, not even in comments",
        check: |files| {
            let vendor = ops::ALL.iter().filter(|op| ops::is_vendor(op)).map(|op| op.name.to_lowercase());
            let names: Vec<String> = PROVIDERS.iter().map(|name| (*name).to_owned()).chain(vendor).collect();
            let blocks = under(files, "graphs/src/lfm2/");
            blocks.flat_map(|file| in_lines(file, |line| mentions(&line.to_lowercase(), &names))).collect()
        },
        breaches: &[
            ("graphs/src/lfm2/attention.rs", "// CUDA wants this in one piece."),
            ("graphs/src/lfm2/decoder.rs", "use crate::dialect::Contrib;"),
            ("graphs/src/lfm2/short_conv.rs", "let domain = \"com.microsoft\";"),
            ("graphs/src/lfm2/feed_forward.rs", "// MatMulNBits takes both products at once."),
        ],
    },
    Rule {
        name: "vendor operators are emitted only by lowerings",
        check: |files| {
            let mut names = vendor_constants();
            names.extend(["com.microsoft", "CONTRIB"]);
            let sources = under(files, "graphs/src/").filter(is_rust);
            let others = sources.filter(|file| !is_under(file, &["graphs/src/lower/", "graphs/src/ops.rs"]));
            find(others, |code| mentions(code, &names))
        },
        breaches: &[
            ("graphs/src/ir/algebra.rs", "at.op(&ops::SIMPLIFIED_LAYER_NORMALIZATION, &[x], &[])"),
            ("graphs/src/dialect/contrib.rs", "at.op(&ops::MATMUL_NBITS, &[x], &[])"),
            ("graphs/src/dialect/portable.rs", "let domain = \"com.microsoft\";"),
        ],
    },
    Rule {
        name: "names of weights come from the scope path",
        check: |files| {
            let sources = under(files, "graphs/src/").filter(is_rust);
            find(sources, |code| {
                let typed =
                    literals(code).find(|it| it.ends_with(".weight") || it.ends_with(".bias") || it.contains("model."));
                typed.map(|literal| format!("{literal:?}"))
            })
        },
        breaches: &[
            ("graphs/src/lfm2/decoder.rs", "let name = \"model.layers.0.conv.in_proj.weight\";"),
            ("graphs/src/lower/linear.rs", "let name = format!(\"{}.bias\", path);"),
        ],
    },
    Rule {
        name: "the host uses only the contract and the formats of graphs",
        check: |files| {
            let sources = under(files, "host/").filter(is_rust);
            sources
                .flat_map(|file| {
                    let used = used_modules(&code_of(file), "lfm2_graphs");
                    let wrong = used.into_iter().filter(|module| !HOST_USES.contains(&module.as_str()));
                    wrong.map(|module| format!("{}: lfm2_graphs::{module}", file.path))
                })
                .collect()
        },
        breaches: &[
            ("host/src/state.rs", "use lfm2_graphs::ir::DType;"),
            ("host/src/state.rs", "use lfm2_graphs::{\n    contract::{Contract, Port},\n    lfm2::Config,\n};"),
            ("host/src/state.rs", "fn f(op: &lfm2_graphs::ops::Op) {}"),
        ],
    },
    Rule {
        name: "the host knows no port by name",
        check: |files| {
            let sources = under(files, "host/src/").filter(is_rust);
            find(sources, |code| {
                literals(code)
                    .find_map(|it| PORT_NAMES.iter().find(|name| it.contains(**name)).map(|name| (*name).to_owned()))
            })
        },
        breaches: &[
            ("host/src/state.rs", "let name = format!(\"past_conv.{layer}\");"),
            ("host/src/decoder/mod.rs", "let feeds = [(\"input_ids\", ids)];"),
        ],
    },
    Rule {
        name: "every format has one owner",
        check: |files| {
            let owned = |(needle, owners): &(&'static str, &'static [&str])| {
                let others: Vec<_> = files.iter().filter(|file| is_rust(file) && !is_owner(file, owners)).collect();
                find(others.into_iter(), |code| mentions(code, &[needle]))
            };
            OWNERS.iter().flat_map(owned).collect()
        },
        breaches: &[
            ("export/src/report/inspect.rs", "use prost::Message;"),
            ("host/src/engine/mod.rs", "let session = ort::session::Session::builder();"),
            ("export/src/bind.rs", "use safetensors::SafeTensors;"),
        ],
    },
    Rule {
        name: "no Rust file is too long to read",
        check: |files| {
            let sources = files.iter().filter(|file| is_rust(file) && !GENERATED.contains(&file.path.as_str()));
            let lengths = sources.map(|file| (file, file.text.lines().count()));
            let long = lengths.filter(|(_, lines)| *lines > LONGEST);
            long.map(|(file, lines)| format!("{}: {lines} lines, at most {LONGEST}", file.path)).collect()
        },
        breaches: &[("host/src/lib.rs", TOO_LONG)],
    },
    Rule {
        name: "nothing is left for later, and no debugging output",
        check: |files| {
            let left = [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("X", "XX"),
                concat!("d", "bg!"),
                concat!("console", ".debug"),
            ];
            files.iter().flat_map(|file| in_lines(file, |line| mentions(line, &left))).collect()
        },
        breaches: &[
            ("README.md", concat!("This will be described. TO", "DO")),
            ("host/src/lib.rs", concat!("// FIX", "ME: slow")),
            ("host/src/lib.rs", concat!("let x = d", "bg!(x);")),
        ],
    },
    Rule {
        name: "nothing names a folder of somebody's machine",
        check: |files| files.iter().flat_map(|file| in_lines(file, machine_path)).collect(),
        breaches: &[
            ("README.md", concat!("Run /ho", "me/ada/lfm2-export.")),
            ("tests/reference/models.py", concat!("OUT = '/ro", "ot/models'")),
            ("host/src/lib.rs", concat!("let path = r\"C:\\Us", "ers\\ada\";")),
        ],
    },
    Rule {
        name: "lock files name no registry",
        check: |files| {
            let locks = files
                .iter()
                .filter(|file| file.path.ends_with("package-lock.json") || file.path.ends_with("requirements.txt"));
            locks
                .flat_map(|file| {
                    in_lines(file, |line| mentions(line, &["\"resolved\"", "--index-url", "--extra-index-url"]))
                })
                .collect()
        },
        breaches: &[
            ("tests/interop/package-lock.json", "      \"resolved\": \"https://registry.example/a.tgz\","),
            ("tests/reference/requirements.txt", "--index-url https://index.example/simple"),
        ],
    },
    Rule {
        name: "no crate comes in two versions",
        check: |files| {
            let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
            for name in under(files, "Cargo.lock")
                .flat_map(|file| file.text.lines())
                .filter_map(|line| line.strip_prefix("name = "))
            {
                *versions.entry(name.trim_matches('"')).or_default() += 1;
            }
            let twice = |name: &str| versions.get(name).is_some_and(|count| *count > 1);
            let unknown = versions.keys().filter(|name| twice(name) && !DUPLICATES.contains(name));
            let unknown =
                unknown.map(|name| format!("Cargo.lock: {name}; `cargo tree --duplicates` shows who needs it"));
            let known = DUPLICATES.iter().filter(|name| !versions.is_empty() && !twice(name));
            unknown
                .chain(known.map(|name| format!("Cargo.lock: {name} comes once now: take it off the list")))
                .collect()
        },
        breaches: &[
            (
                "Cargo.lock",
                "[[package]]\nname = \"half\"\nversion = \"2.7.1\"\n\n[[package]]\nname = \"half\"\nversion = \"1.8.3\"\n",
            ),
            ("Cargo.lock", "[[package]]\nname = \"syn\"\nversion = \"3.0.0\"\n"),
        ],
    },
    Rule {
        name: "every test file is registered, and none is taken for a build script",
        check: |files| {
            let manifest = under(files, "tests/Cargo.toml").next();
            let registered = |name: &str| manifest.is_some_and(|it| it.text.contains(&format!("path = \"{name}\"\n")));
            let tests = files.iter().filter_map(|file| file.path.strip_prefix("tests/"));
            let tests = tests.filter(|name| name.ends_with(".rs") && !name.contains('/'));
            tests.filter(|name| !registered(name) || *name == "build.rs").map(|name| format!("tests/{name}")).collect()
        },
        breaches: &[("tests/forgotten.rs", "#[test] fn f() {}")],
    },
    Rule {
        name: "CONTRIBUTING.md lists the modules that exist, and no others",
        check: |files| {
            let Some(page) = under(files, "CONTRIBUTING.md").next() else {
                return vec!["CONTRIBUTING.md was not found".to_owned()];
            };
            let listed = listed_modules(&page.text);
            let missing = listed.iter().filter(|path| !files.iter().any(|file| is_under(file, &[path.as_str()])));
            let missing = missing.map(|path| format!("CONTRIBUTING.md lists {path}, which does not exist"));
            let unlisted = modules(files).into_iter().filter(|path| !listed.contains(path));
            missing.chain(unlisted.map(|path| format!("{path} is not listed under Layout"))).collect()
        },
        breaches: &[
            ("CONTRIBUTING.md", "## Layout\n```text\ngraphs/src/\n  gone.rs    what was here once\n```\n"),
            ("README.md", "There is no such page."),
        ],
    },
];

/// A file with one line too many.
const TOO_LONG: &str = match std::str::from_utf8(&[b'\n'; LONGEST + 1]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn the_repository_is_tidy() {
    let files = repository();
    let mut report = String::new();
    for rule in RULES {
        let breaches = (rule.check)(&files);
        if !breaches.is_empty() {
            report.push_str(&format!("{}:\n    {}\n", rule.name, breaches.join("\n    ")));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn every_rule_sees_its_breaches() {
    for rule in RULES {
        assert!(!rule.breaches.is_empty(), "{}: no example", rule.name);
        for (path, text) in rule.breaches {
            let file = File { path: (*path).to_owned(), text: (*text).to_owned() };
            assert!(!(rule.check)(&[file]).is_empty(), "{}: {path} passes:\n{text}", rule.name);
        }
    }
}

#[test]
fn the_repository_is_read() {
    let files = repository();
    let pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"];
    for path in pages.into_iter().chain(["Cargo.lock", "graphs/src/lfm2/attention.rs", "tests/Cargo.toml", ".ci/run"]) {
        assert!(files.iter().any(|file| file.path == path && !file.text.is_empty()), "{path} was not found");
    }
}

/// A path into somebody's home folder, or another that exists on one machine only.
fn machine_path(line: &str) -> Option<String> {
    let unix = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("/mn", "t/"),
    ];
    let starts = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}$)".contains(c));
    let unix = unix.iter().find(|path| line.match_indices(**path).any(|(at, _)| starts(at)));
    let windows = concat!(r":\Us", r"ers\");
    unix.copied().or(line.contains(windows).then_some(windows)).map(str::to_owned)
}

/// Names of the crates that a manifest asks for, for whatever purpose.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut listing = false;
    manifest.lines().filter_map(move |line| {
        if let Some(table) = line.trim().strip_prefix('[') {
            listing = table.ends_with("dependencies]");
            // `[dependencies.name]` lists the keys of one crate.
            let one = table.strip_suffix(']').and_then(|table| table.rsplit_once("dependencies."));
            return one.map(|(_, name)| name.trim_matches('"'));
        }
        let name = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty() && !name.starts_with('#'));
        name.filter(|_| listing)
    })
}

/// The constants that stand for vendor operators in `ops.rs`.
fn vendor_constants() -> Vec<&'static str> {
    let vendor = ops::ALL.iter().filter(|op| ops::is_vendor(op));
    let line_of = |name: &str| {
        let quoted = format!("\"{name}\"");
        include_str!("../graphs/src/ops.rs").lines().find(|line| line.contains(&quoted)).unwrap()
    };
    vendor.map(|op| line_of(op.name).split_whitespace().next().unwrap()).collect()
}

/// The modules of `krate` that the code names: `krate::a` and `krate::{a::B, c}`.
fn used_modules(code: &str, krate: &str) -> Vec<String> {
    let path = format!("{krate}::");
    code.match_indices(&path)
        .flat_map(|(at, _)| {
            let rest = &code[at + path.len()..];
            match rest.strip_prefix('{') {
                Some(list) => top_level_names(list),
                None => vec![leading_name(rest)],
            }
        })
        .collect()
}

/// The first names of the items of a `use` list, up to the brace that closes it.
fn top_level_names(list: &str) -> Vec<String> {
    let mut names = vec![leading_name(list)];
    let mut depth = 0;
    for (at, sign) in list.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(leading_name(&list[at + 1..])),
            _ => {}
        }
    }
    // Behind the last comma there may be nothing.
    names.retain(|name| !name.is_empty());
    names
}

fn leading_name(code: &str) -> String {
    code.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The modules in the text block under "## Layout": lines that are not indented name a folder, indented ones what is in it.
fn listed_modules(page: &str) -> Vec<String> {
    let layout = page.split("## Layout").nth(1).unwrap_or_default();
    let block = layout.split("```").nth(1).unwrap_or_default();
    let mut folder = "";
    let mut listed = Vec::new();
    for line in block.lines().skip(1) {
        let Some(name) = line.split_whitespace().next() else { continue };
        if line.starts_with(' ') {
            listed.push(format!("{folder}{name}"));
        } else {
            folder = name;
        }
    }
    listed
}

/// What lies directly in the source folders of the crates, but for their roots and manifests.
fn modules(files: &[File]) -> Vec<String> {
    let folders = ["graphs/src/", "export/src/", "host/src/", "tests/", "benches/"];
    let roots = ["lib.rs", "main.rs", "Cargo.toml"];
    let mut modules: Vec<String> = folders
        .iter()
        .flat_map(|folder| {
            let names = files.iter().filter_map(|file| file.path.strip_prefix(folder)).map(|name| {
                let child = name.split_inclusive('/').next().unwrap_or_default();
                format!("{folder}{child}")
            });
            names.filter(|path| !roots.contains(&path.rsplit('/').next().unwrap_or_default())).collect::<Vec<_>>()
        })
        .collect();
    modules.dedup();
    modules
}
