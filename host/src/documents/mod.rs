//! Texts to measure with: documents out of files, as tokens.

mod entry;
#[cfg(test)]
mod tests;
mod windows;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

pub use windows::{Window, windows};

use crate::chat::ChatTemplate;
use crate::text::{TextError, Tokenizer};
use entry::Entry;

/// Most bytes of one document.
const LONGEST_DOCUMENT: u64 = 256 << 20;

/// Most wrong lines that an error shows.
const MOST_PROBLEMS: usize = 10;

/// The documents in `file`, each as its tokens.
///
/// A file that ends in `.jsonl` has a document on every line that is not blank: `{"messages": [...], "tools": [...]}`, which
/// the chat template renders, or `{"text": "..."}`. Other keys are not looked at. Any other file is one document, as it is.
/// Special tokens that are spelled out are taken as such, and every document begins as the tokenizer lets texts begin.
///
/// Reading ends after `limit` tokens; the last document is then cut.
///
/// # Errors
/// All lines that are no documents, up to where reading ends, by number; that the file cannot be read, or holds no token.
pub fn read(
    file: &Path,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    limit: Option<usize>,
) -> Result<Vec<Vec<u32>>, DocumentError> {
    let unreadable = |source| DocumentError::Read { file: file.to_owned(), source };
    let mut reader = BufReader::new(File::open(file).map_err(unreadable)?);
    let mut gathered = Gathered { documents: Vec::new(), room: limit.unwrap_or(usize::MAX) };
    if is_lines(file) {
        let mut problems = Problems::default();
        let (mut number, mut bytes) = (0, Vec::new());
        while gathered.room > 0 && next_line(&mut reader, &mut bytes).map_err(unreadable)? {
            number += 1;
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match Entry::parse(&bytes).and_then(|entry| entry.tokens(tokenizer, template)) {
                Ok(tokens) => gathered.add(tokens),
                Err(problem) => problems.add(|| format!("line {number}: {problem}")),
            }
        }
        if problems.count > 0 {
            let Problems { first: problems, count } = problems;
            return Err(DocumentError::Lines { file: file.to_owned(), problems, count });
        }
    } else {
        let mut text = String::new();
        let length = reader.take(LONGEST_DOCUMENT + 1).read_to_string(&mut text).map_err(unreadable)?;
        if length as u64 > LONGEST_DOCUMENT {
            return Err(unreadable(too_long()));
        }
        gathered.add(tokenizer.encode_prompt(&text)?);
    }
    if gathered.documents.is_empty() {
        return Err(DocumentError::Empty { file: file.to_owned() });
    }
    Ok(gathered.documents)
}

/// What is wrong with a file. Of one in another format that is every line, so that only the first are kept.
#[derive(Default)]
struct Problems {
    first: Vec<String>,
    count: usize,
}

impl Problems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < MOST_PROBLEMS {
            self.first.push(problem());
        }
    }
}

/// What was read so far.
struct Gathered {
    documents: Vec<Vec<u32>>,
    /// Tokens that are still wanted.
    room: usize,
}

impl Gathered {
    fn add(&mut self, mut tokens: Vec<u32>) {
        tokens.truncate(self.room);
        self.room -= tokens.len();
        if !tokens.is_empty() {
            self.documents.push(tokens);
        }
    }
}

fn is_lines(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}

/// Reads the next line into `bytes`. Whether there is one.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    let length = reader.take(LONGEST_DOCUMENT + 1).read_until(b'\n', bytes)?;
    if length as u64 > LONGEST_DOCUMENT { Err(too_long()) } else { Ok(length > 0) }
}

fn too_long() -> io::Error {
    io::Error::other(format!("a document has at most {} MiB; split it", LONGEST_DOCUMENT >> 20))
}

/// Why there are no documents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Lines that are no documents.
    #[error("{} has lines that are no documents:{}", file.display(), listed(problems, *count))]
    Lines {
        /// The file.
        file: PathBuf,
        /// One sentence for each of the first, beginning with its number.
        problems: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// Nothing to measure with.
    #[error("{} holds no text", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// The tokenizer refuses.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// The first problems, each on a line of its own, and how many more there are.
fn listed(problems: &[String], count: usize) -> String {
    let mut text: String = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
    if let Some(more) = count.checked_sub(problems.len()).filter(|more| *more > 0) {
        text += &format!("\n  - and {more} more");
    }
    text
}
