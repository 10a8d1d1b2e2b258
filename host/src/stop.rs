//! Stop strings: text after which an answer ends, and which is not part of it.

/// Looks for stop strings in text that arrives in pieces.
///
/// The text ends before the stop string that is complete first; of several that are complete at the same character,
/// before the longest. So what is emitted does not depend on how the text was cut into pieces.
#[derive(Debug, Clone, Default)]
pub struct StopRules {
    strings: Vec<String>,
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
    pub fn new(mut strings: Vec<String>) -> Self {
        strings.retain(|string| !string.is_empty());
        Self { strings, held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. Gives back what can be shown, and keeps what could become a stop string.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return StopOutcome { emit: String::new(), stopped: true };
        }
        self.held.push_str(text);
        if let Some(start) = self.first_stop() {
            self.stopped = true;
            self.held.truncate(start);
            return StopOutcome { emit: std::mem::take(&mut self.held), stopped: true };
        }
        let undecided = self.held.split_off(self.start_of_possible_stop());
        StopOutcome { emit: std::mem::replace(&mut self.held, undecided), stopped: false }
    }

    /// Ends the text: what was held back is shown after all, because no stop string can follow.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where in the held text the stop string begins that is complete first.
    fn first_stop(&self) -> Option<usize> {
        let found = |string: &String| self.held.find(string).map(|start| (start + string.len(), start));
        self.strings.iter().filter_map(found).min().map(|(_, start)| start)
    }

    /// Start of the longest end of the held text that is the beginning of a stop string.
    fn start_of_possible_stop(&self) -> usize {
        let begins_stop = |end: &str| self.strings.iter().any(|string| string.starts_with(end));
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        starts.find(|&start| begins_stop(&self.held[start..])).unwrap_or(self.held.len())
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
