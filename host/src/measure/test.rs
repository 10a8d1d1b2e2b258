//! What is measured: so many tokens of a prompt, so many of an answer, behind so many that are there already.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One test. Its text form is that of llama-bench: `pp512`, `tg64`, `pp512+tg64`, each with ` @ d512` behind a depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Test {
    /// Tokens that are run at once, in chunks: the prompt.
    #[serde(rename = "n_prompt")]
    pub prompt: usize,
    /// Tokens that are run one by one: the answer.
    #[serde(rename = "n_gen")]
    pub generate: usize,
    /// Tokens that the state holds before.
    #[serde(rename = "n_depth")]
    pub depth: usize,
}

impl Test {
    /// Tokens that the context must have room for. An answer without a prompt begins with a token that is not measured.
    pub fn context(self) -> usize {
        let first = usize::from(self.prompt == 0);
        [self.depth, self.prompt, first, self.generate].into_iter().fold(0, usize::saturating_add)
    }

    /// Tokens in the state when the first measured token of the answer is run.
    pub fn held(self) -> usize {
        self.depth + self.prompt.max(1)
    }

    /// Tokens of the longest run in chunks, that before the test among them.
    pub fn longest_run(self) -> usize {
        self.depth.max(self.prompt.max(1))
    }

    /// Tokens that are measured.
    pub fn tokens(self) -> usize {
        self.prompt + self.generate
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prompt, generate) = (self.prompt, self.generate);
        match (prompt, generate) {
            (_, 0) => write!(f, "pp{prompt}")?,
            (0, _) => write!(f, "tg{generate}")?,
            _ => write!(f, "pp{prompt}+tg{generate}")?,
        }
        if self.depth > 0 { write!(f, " @ d{}", self.depth) } else { Ok(()) }
    }
}

impl FromStr for Test {
    type Err = String;

    /// Reads what [`fmt::Display`] writes; spaces do not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (kinds, depth) = plain.split_once("@d").unwrap_or((&plain, "0"));
        let (prompt, generate) = kinds.split_once('+').unwrap_or(match kinds.starts_with("tg") {
            true => ("pp0", kinds),
            false => (kinds, "tg0"),
        });
        let number = |text: &str, kind: &str| text.strip_prefix(kind)?.parse::<usize>().ok();
        let test = number(prompt, "pp").zip(number(generate, "tg")).zip(depth.parse().ok());
        let test = test.map(|((prompt, generate), depth)| Self { prompt, generate, depth });
        test.filter(|test| test.tokens() > 0).ok_or_else(|| {
            format!("{text:?} is no test; tests are pp512, tg64 and pp512+tg64, each with @ d1024 for a depth")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for (prompt, generate, depth) in [(512, 0, 0), (0, 64, 0), (512, 64, 0), (1, 0, 9), (0, 64, 1024), (5, 6, 7)] {
            let test = Test { prompt, generate, depth };
            assert_eq!(test.to_string().parse(), Ok(test));
        }
        assert_eq!(" tg 64@d8".parse(), Ok(Test { prompt: 0, generate: 64, depth: 8 }));
        for text in ["", "pp", "pp0", "tg0", "512", "pp5+pp6", "tg5+pp6", "pp5 @ 6", "pp5 @ d", "pp-5", "xpp5"] {
            assert!(text.parse::<Test>().unwrap_err().contains("pp512"), "{text}");
        }
    }

    #[test]
    fn names_are_those_of_llama_bench() {
        let name = |prompt, generate, depth| Test { prompt, generate, depth }.to_string();
        assert_eq!(name(512, 0, 0), "pp512");
        assert_eq!(name(0, 64, 0), "tg64");
        assert_eq!(name(512, 64, 1024), "pp512+tg64 @ d1024");
    }

    #[test]
    fn the_context_has_room_for_every_token() {
        let context = |prompt, generate, depth| Test { prompt, generate, depth }.context();
        assert_eq!(context(512, 0, 100), 612);
        assert_eq!(context(0, 64, 100), 165);
        assert_eq!(context(512, 64, 100), 676);
        assert_eq!(context(usize::MAX, 1, 1), usize::MAX);
    }
}
