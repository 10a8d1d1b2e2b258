//! Stop strings: text after which an answer ends, and which is not part of it.

/// Looks for stop strings in text that arrives in pieces.
///
/// The text ends before the stop string that is complete first; of several that are complete at the same character,
/// before the longest. So what is emitted does not depend on how the text was cut into pieces.
#[derive(Debug, Clone, Default)]
pub struct StopRules {
    strings: Vec<Matcher>,
    /// The end of the text so far, if a stop string may begin there.
    held: String,
    stopped: bool,
}

/// What follows from one piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certainly not part of a stop string; may be empty.
    pub emit: String,
    /// Whether a stop string was found, in this piece or an earlier one: nothing more will be emitted.
    pub stopped: bool,
}

impl StopRules {
    /// Rules that end the text before any of `strings`. Empty strings are left out: they would be found everywhere.
    pub fn new(strings: Vec<String>) -> Self {
        let strings = strings.into_iter().filter(|string| !string.is_empty()).map(Matcher::new).collect();
        Self { strings, held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. Gives back what can be shown, and keeps what could become a stop string.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return StopOutcome { emit: String::new(), stopped: true };
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            let complete = self.strings.iter_mut().filter_map(|string| string.push(byte)).max();
            if let Some(length) = complete {
                self.stopped = true;
                self.held.truncate(before + index + 1 - length);
                return StopOutcome { emit: std::mem::take(&mut self.held), stopped: true };
            }
        }
        let undecided = self.strings.iter().map(|string| string.matched).max().unwrap_or(0);
        let decided = self.held.len() - undecided;
        StopOutcome { emit: self.held.drain(..decided).collect(), stopped: false }
    }

    /// Ends the text: what was held back is shown after all, because no stop string can follow.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// One stop string, and how much of it the text ends with: every byte of text is looked at once (Knuth, Morris, Pratt).
#[derive(Debug, Clone)]
struct Matcher {
    string: Vec<u8>,
    /// For every beginning of the string, by its length less one: the longest shorter one that it ends with.
    shorter: Vec<usize>,
    /// Length of the longest beginning of the string that the text ends with.
    matched: usize,
}

impl Matcher {
    /// `string` is not empty.
    fn new(string: String) -> Self {
        let string = string.into_bytes();
        let mut shorter = vec![0; string.len()];
        let mut matched = 0;
        for index in 1..string.len() {
            while matched > 0 && string[index] != string[matched] {
                matched = shorter[matched - 1];
            }
            matched += usize::from(string[index] == string[matched]);
            shorter[index] = matched;
        }
        Self { string, shorter, matched: 0 }
    }

    /// Takes the next byte of text; the length of the string if it is complete with it. Nothing may follow then.
    fn push(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.string[self.matched] != byte {
            self.matched = self.shorter[self.matched - 1];
        }
        self.matched += usize::from(self.string[self.matched] == byte);
        (self.matched == self.string.len()).then_some(self.matched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(strings: &[&str]) -> StopRules {
        StopRules::new(strings.iter().map(ToString::to_string).collect())
    }

    fn run(mut rules: StopRules, pieces: &[&str]) -> (String, bool) {
        let mut emitted = String::new();
        let mut stopped = false;
        for piece in pieces {
            let outcome = rules.push(piece);
            assert!(!stopped || outcome == StopOutcome { emit: String::new(), stopped: true });
            emitted += &outcome.emit;
            stopped = outcome.stopped;
        }
        (emitted + &rules.finish(), stopped)
    }

    #[test]
    fn text_ends_before_the_stop_string_that_is_complete_first() {
        let cases: [(&[&str], &[&str], &str, bool); 9] = [
            (&["\n\n"], &["a\n", "b\n", "\nc"], "a\nb", true),
            (&["END"], &["the EN", "d"], "the ENd", false),
            (&["END"], &["the E", "N", "D."], "the ", true),
            (&["END"], &["the EN"], "the EN", false),
            (&["abcd", "bc"], &["abcd"], "a", true),
            (&["abc", "bc"], &["ab", "c"], "", true),
            (&["aab"], &["aa", "ab"], "a", true),
            (&["。"], &["こんにちは", "。", "x"], "こんにちは", true),
            (&[""], &["anything"], "anything", false),
        ];
        for (strings, pieces, text, stopped) in cases {
            assert_eq!(run(rules(strings), pieces), (text.to_string(), stopped), "{strings:?} {pieces:?}");
        }
    }

    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut rules = rules(&["<|end|>"]);
        assert_eq!(rules.push("1 < 2 <").emit, "1 < 2 ");
        assert_eq!(rules.push("|en").emit, "");
        assert_eq!(rules.push("ter").emit, "<|enter");
    }

    #[test]
    fn long_stop_strings_take_no_long_time() {
        let start = std::time::Instant::now();
        let mut rules = StopRules::new(vec!["a".repeat(20_000) + "b"]);
        let emitted: usize = (0..40_000).map(|_| rules.push("a").emit.len()).sum();
        assert_eq!(emitted, 20_000);
        assert!(rules.push("b").stopped && start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }

    /// The definition, without regard to pieces.
    fn cut(text: &str, strings: &[String]) -> (String, bool) {
        let stops = strings.iter().filter(|string| !string.is_empty());
        let ends = |string: &String| text.match_indices(string.as_str()).map(|(at, _)| (at + string.len(), at)).next();
        match stops.filter_map(ends).min() {
            Some((_, start)) => (text[..start].to_string(), true),
            None => (text.to_string(), false),
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            pieces in prop::collection::vec("[abé😀]{0,4}", 0..12),
            strings in prop::collection::vec("[abé😀]{0,4}", 0..4),
        ) {
            let whole = pieces.concat();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(StopRules::new(strings.clone()), &pieces), cut(&whole, &strings));
        }
    }
}
