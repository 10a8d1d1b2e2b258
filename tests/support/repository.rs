//! The repository as text, for rules about it.

use std::fs;
use std::path::Path;

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the top of the repository, with `/` between parts.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Every text file of the repository that is not ignored.
pub fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let known = ["graphs", "export", "host", "tests", "benches", ".ci", "docs"].contains(&name.as_str());
        if known || (entry.file_type().unwrap().is_file() && name != ".git") {
            read(&entry.path(), name, &mut files);
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read(path: &Path, name: String, files: &mut Vec<File>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let child = entry.file_name().into_string().unwrap();
            if !["node_modules", "__pycache__", "target"].contains(&child.as_str()) {
                read(&entry.path(), format!("{name}/{child}"), files);
            }
        }
    } else if let Ok(text) = String::from_utf8(fs::read(path).unwrap()) {
        // The examples in this file are breaches.
        let text = if name == "tests/tidy.rs" { String::new() } else { text.replace("\r\n", "\n") };
        files.push(File { path: name, text });
    }
}

/// The files that are, or lie in, one place.
pub fn under<'f>(files: &'f [File], place: &'f str) -> impl Iterator<Item = &'f File> {
    files.iter().filter(move |file| is_under(file, &[place]))
}

/// Whether the file is one of the places, or lies in one.
pub fn is_under(file: &File, places: &[&str]) -> bool {
    places.iter().any(|place| file.path == *place || (place.ends_with('/') && file.path.starts_with(place)))
}

/// Like [`is_under`], where a module `x/` may also be the file `x.rs`.
pub fn is_owner(file: &File, places: &[&str]) -> bool {
    is_under(file, places) || places.iter().any(|place| file.path == format!("{}.rs", place.trim_end_matches('/')))
}

/// Whether the file is Rust.
pub fn is_rust(file: &&File) -> bool {
    file.path.ends_with(".rs")
}

/// Breaches in the lines of one file: `see` says what is wrong with a line.
pub fn in_lines(file: &File, see: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let seen = file.text.lines().enumerate().filter_map(|(i, line)| Some((i, see(line)?)));
    seen.map(|(i, what)| format!("{}:{}: {what}", file.path, i + 1)).collect()
}

/// Breaches in the code of the files: comments are left out, and so are unit tests, which stand last in a file or alone in one.
pub fn find<'f>(files: impl Iterator<Item = &'f File>, see: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let files = files.filter(|file| !file.path.ends_with("/tests.rs"));
    files.flat_map(|file| in_lines(&File { path: file.path.clone(), text: code_of(file) }, &see)).collect()
}

/// The text of a Rust file without comments and unit tests, line for line.
pub fn code_of(file: &File) -> String {
    let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first of the names that the line has as a word: no letter or digit before it, nor behind it unless it ends in a sign.
pub fn mentions(line: &str, names: &[impl AsRef<str>]) -> Option<String> {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let found = names.iter().map(AsRef::as_ref).find(|name| {
        line.match_indices(*name).any(|(at, _)| {
            let ends_open = !is_word(name.chars().next_back()) || !is_word(line[at + name.len()..].chars().next());
            let starts_open = !is_word(name.chars().next()) || !is_word(line[..at].chars().next_back());
            starts_open && ends_open
        })
    });
    found.map(str::to_owned)
}

/// The string literals of a line of code.
pub fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
}
