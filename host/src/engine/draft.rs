//! Drafts: guesses of what comes next, looked up in what was said before (prompt-lookup decoding).
//!
//! Where the last tokens have occurred before, what followed them then is proposed. The decoder runs the proposal together with
//! the last token, and the sampler decides how much of it was right. A word is another token at the beginning of a line or behind
//! a quote than behind a space; for finding it again the space does not count.
//!
//! A longer run costs more time, so that a token is proposed only if that is expected to pay. How likely it is depends on the
//! number of tokens that matched, and on how earlier proposals after as many fared: after `a` accepted and `b` refused tokens
//! the next one is accepted with chance `a / (a + b)`, and each one that is accepted counts for those behind it (the urn of
//! Pólya). So the first refusals after short matches silence them, and text that is being copied is soon copied in long drafts.
//! Where nothing is proposed, it is seen all the same whether the first token would have been right, so that it costs no time to
//! notice that text is being copied or no longer is. Old outcomes count less with every new one.

mod cost;
mod matches;

use std::sync::Arc;

pub use cost::DraftCost;
pub(crate) use cost::RunCosts;
use cost::USUAL;
use matches::{LONGEST_MATCH, Match, look_up};

/// How much better than none a token must be: what is not sure to win is left out.
const MARGIN: f64 = 1.05;

/// What an outcome still counts after another one.
const MEMORY: f64 = 0.9;

/// Proposes tokens for one answer.
#[derive(Debug)]
pub(crate) struct Drafter {
    /// Most tokens in a draft.
    longest: usize,
    /// For each token the one without the space before it, where there is such a token.
    unspaced: Arc<[u32]>,
    /// What was said before, without spaces.
    words: Vec<u32>,
    /// By the number of tokens that matched, less one.
    evidence: [Evidence; LONGEST_MATCH],
    /// What the last draft was made from, or would have been.
    used: Option<Match>,
    /// What is expected where nothing was proposed.
    expected: Option<Expected>,
    /// Place where the text that was copied last goes on.
    source: Option<usize>,
}

/// Outcomes of earlier drafts, older ones counting less.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    accepted: f64,
    refused: f64,
}

/// What is assumed before the first draft: small numbers, because a match is nearly always either right for many tokens or wrong
/// at once, and the first outcome tells.
const PRIOR: Evidence = Evidence { accepted: 0.5, refused: 0.25 };

/// A token that was not proposed.
#[derive(Clone, Copy, Debug)]
struct Expected {
    token: u32,
    /// Where in the history it would be.
    place: usize,
}

impl Drafter {
    /// Drafts of at most `longest` tokens; none if that is 0. `unspaced` is what
    /// [`Tokenizer::unspaced`](crate::text::Tokenizer::unspaced) returns; without it every token is only itself.
    pub(crate) fn new(longest: usize, unspaced: Arc<[u32]>) -> Self {
        let evidence = [PRIOR; LONGEST_MATCH];
        Self { longest, unspaced, words: Vec::new(), evidence, used: None, expected: None, source: None }
    }

    /// Proposes at most `room` tokens to follow `history`, none of them one of `ends`: behind the end nothing is computed. The
    /// history may only grow from call to call. `costs` says what they cost.
    pub(crate) fn draft(&mut self, history: &[u32], room: usize, ends: &[u32], costs: &mut RunCosts) -> Vec<u32> {
        let most = self.longest.min(room);
        if most == 0 {
            return Vec::new();
        }
        self.observe(history);
        self.used = look_up(&self.words, self.source);
        let Some(Match { length, next }) = self.used else { return Vec::new() };
        let count = self.evidence[length - 1].worthwhile_now(most, costs);
        let mut draft = Vec::with_capacity(count);
        for place in next..next + count.max(1) {
            // Text that repeats itself goes on in the draft.
            let token = history.get(place).or_else(|| draft.get(place - history.len()));
            match token {
                Some(&token) if !ends.contains(&token) => draft.push(token),
                _ => break,
            }
        }
        if count == 0 {
            self.expected = draft.pop().map(|token| Expected { token, place: history.len() });
        }
        draft
    }

    /// Learns that of the last draft `accepted` tokens were right, and whether another one was wrong.
    pub(crate) fn learn(&mut self, accepted: usize, refused: bool) {
        // A run gives one token more than were right.
        self.settle(accepted, refused, accepted + 1);
    }

    /// Takes up what was said since the last call, and whether it is what was expected.
    fn observe(&mut self, history: &[u32]) {
        let word = |&token: &u32| self.unspaced.get(token as usize).copied().unwrap_or(token);
        self.words.extend(history[self.words.len()..].iter().map(word));
        if let Some(Expected { token, place }) = self.expected.take()
            && let Some(&said) = history.get(place)
        {
            self.settle(usize::from(said == token), said != token, 1);
        }
    }

    /// Takes the outcome of the match that was used last, behind which `said` tokens were said.
    fn settle(&mut self, accepted: usize, refused: bool, said: usize) {
        let Some(Match { length, next }) = self.used.take() else { return };
        self.evidence[length - 1].learn(accepted, refused);
        self.source = Some(next + said);
    }
}

impl Evidence {
    /// How many tokens are to be proposed, at most `most`.
    fn worthwhile_now(&self, most: usize, costs: &mut RunCosts) -> usize {
        if costs.wants_single() {
            return 0;
        }
        let count = self.worthwhile(most, costs.token());
        if count > 0 {
            return count;
        }
        let usually = self.worthwhile(most, USUAL);
        if usually > 0 && costs.tries_again() { usually } else { 0 }
    }

    /// How many tokens pay, at most `most`, if each adds `cost` to the time of a run: as long as one more gives more tokens per
    /// time than the run has without it.
    fn worthwhile(&self, most: usize, cost: f64) -> usize {
        // Nothing pays for it, and of 0 tokens it is no number.
        if cost == f64::INFINITY {
            return 0;
        }
        // The run gives one token in any case.
        let (mut expected, mut chance) = (1.0, 1.0);
        for count in 0..most {
            let accepted = self.accepted + count as f64;
            chance *= accepted / (accepted + self.refused);
            let rate = expected / (1.0 + cost * count as f64);
            if chance < MARGIN * cost * rate {
                return count;
            }
            expected += chance;
        }
        most
    }

    /// Takes an outcome, so that earlier ones count less.
    fn learn(&mut self, accepted: usize, refused: bool) {
        self.accepted = PRIOR.accepted + MEMORY * (self.accepted - PRIOR.accepted) + accepted as f64;
        self.refused = PRIOR.refused + MEMORY * (self.refused - PRIOR.refused) + f64::from(u8::from(refused));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Tokens of the usual cost.
    fn usual() -> RunCosts {
        RunCosts::new(DraftCost::Fixed(USUAL))
    }

    #[test]
    fn what_followed_is_proposed_up_to_the_end_of_the_answer() {
        let draft = |history: &[u32], room| Drafter::new(3, Arc::default()).draft(history, room, &[7], &mut usual());
        let history = [1, 2, 3, 4, 5, 6, 1, 2];
        assert_eq!(draft(&history, 9), [3, 4, 5]);
        assert_eq!(draft(&history, 2), [3, 4]);
        assert_eq!(draft(&history, 0), [] as [u32; 0]);
        assert_eq!(draft(&[1, 2, 3, 7, 4, 1, 2], 9), [3]);
        assert_eq!(draft(&[1, 2, 7, 4, 1, 2], 9), [] as [u32; 0]);
        assert_eq!(draft(&[5, 1, 2, 1, 2], 9), [1, 2, 1], "what repeats itself goes on");
        assert_eq!(Drafter::new(0, Arc::default()).draft(&history, 9, &[], &mut usual()), [] as [u32; 0]);
    }

    #[test]
    fn a_word_is_found_with_and_without_the_space_before_it() {
        // 11 and 12 are 1 and 2 behind a space.
        let unspaced: Arc<[u32]> = (0..13).map(|token| if token > 10 { token - 10 } else { token }).collect();
        let draft = |history: &[u32]| Drafter::new(3, unspaced.clone()).draft(history, 9, &[], &mut usual());
        assert_eq!(draft(&[11, 12, 3, 4, 5, 1]), [12, 3, 4], "as it was written there");
        assert_eq!(draft(&[1, 2, 3, 4, 5, 11]), [2, 3, 4]);
    }

    #[test]
    fn drafts_become_long_when_they_are_right_and_stop_when_they_are_wrong() {
        let history: Vec<u32> = (0..40).chain([0, 1]).collect();
        let mut drafter = Drafter::new(16, Arc::default());
        let first = drafter.draft(&history, 99, &[], &mut usual()).len();
        assert!((1..16).contains(&first), "{first}");
        for _ in 0..4 {
            let count = drafter.draft(&history, 99, &[], &mut usual()).len();
            drafter.learn(count, false);
        }
        assert!(drafter.draft(&history, 99, &[], &mut usual()).len() > 12);

        // 0 and 1 are never followed by what followed them before.
        let mut drafter = Drafter::new(16, Arc::default());
        let (mut history, mut made) = (history, 0);
        for token in 100..300 {
            if !drafter.draft(&history, 99, &[], &mut usual()).is_empty() {
                made += 1;
                drafter.learn(0, true);
            }
            history.extend([token, 0, 1]);
        }
        assert!((1..4).contains(&made), "{made}");
        // Other matches are judged by themselves.
        assert!(!drafter.draft(&[&history[..], &[9, 10, 11]].concat(), 99, &[], &mut usual()).is_empty());
    }

    /// The lengths of all drafts while `text` is said behind its first `start` tokens, and a run costs as `costs` are told: 10 ms,
    /// and for each further token `cost` times that.
    fn lengths(text: &[u32], start: usize, drafter: &mut Drafter, costs: &mut RunCosts, cost: f64) -> Vec<usize> {
        let (mut held, mut lengths) = (start, Vec::new());
        while held + 1 < text.len() {
            let draft = drafter.draft(&text[..held], text.len() - held - 1, &[], costs);
            let accepted = draft.iter().zip(&text[held..]).take_while(|(a, b)| a == b).count();
            costs.learn(1 + draft.len(), Duration::from_secs_f64(0.01 * (1.0 + cost * draft.len() as f64)));
            if !draft.is_empty() {
                drafter.learn(accepted, accepted < draft.len());
            }
            lengths.push(draft.len());
            held += accepted + 1;
        }
        lengths
    }

    /// A text of 100 tokens, and again.
    fn repeated(times: usize) -> Vec<u32> {
        (0..times).flat_map(|_| 0..100).collect()
    }

    #[test]
    fn copying_is_noticed_without_drafts() {
        // Too dear for what is known of a match by its length, but not for what turns out to be copied.
        let mut costs = RunCosts::new(DraftCost::Fixed(0.75));
        let lengths = lengths(&repeated(2), 101, &mut Drafter::new(16, Arc::default()), &mut costs, 0.75);
        assert_eq!(lengths[0], 0, "{lengths:?}");
        assert!(lengths.iter().any(|length| *length >= 4), "{lengths:?}");
    }

    #[test]
    fn an_object_like_the_last_one_is_copied_but_for_its_values() {
        // Keys 1 to 8, each behind a quote (100) and before a colon (101), values, and commas (102); every value occurs once.
        let mut value = 1000;
        let mut object = || {
            let pairs = (1..9).flat_map(|key| {
                value += 2;
                [100, key, 101, value, value + 1, 102]
            });
            pairs.collect::<Vec<u32>>()
        };
        let [first, second, third] = [object(), object(), object()];
        let text = [&first[..], &second, &third].concat();
        let mut drafter = Drafter::new(16, Arc::default());
        lengths(&text[..first.len() + second.len()], first.len(), &mut drafter, &mut usual(), USUAL);
        // By now it is known how far a match can be trusted: the comma behind a value is followed by the quote, the key and the
        // colon that followed the comma behind the same value of the last object, not by those behind the last comma. Three runs
        // for each pair: one for these and half of the value, one for the other half, one for the comma.
        let runs = lengths(&text, text.len() - third.len(), &mut drafter, &mut usual(), USUAL).len();
        assert!(runs <= 3 * 8 + 2, "{runs} runs for {} tokens", third.len());
    }

    #[test]
    fn dear_tokens_silence_drafts_and_cheap_ones_make_them_long() {
        for cost in [1.0, 0.05] {
            let (mut drafter, mut costs) = (Drafter::new(16, Arc::default()), RunCosts::new(DraftCost::Learnt));
            let lengths = lengths(&repeated(20), 100, &mut drafter, &mut costs, cost);
            let late = &lengths[lengths.len() / 2..];
            let made = late.iter().filter(|length| **length > 0).count();
            if cost < 0.5 {
                assert!(made * 10 >= late.len() * 9 && late.contains(&16), "{lengths:?}");
            } else {
                // One is tried now and then.
                assert!((1..=late.len() / 50).contains(&made), "{made} of {}", late.len());
            }
        }
    }

    #[test]
    fn a_change_of_the_cost_is_noticed_in_both_directions() {
        let (mut drafter, mut costs) = (Drafter::new(16, Arc::default()), RunCosts::new(DraftCost::Learnt));
        let text = repeated(40);
        let made = |lengths: &[usize]| lengths.iter().filter(|length| **length > 0).count();
        let mut phase =
            |from: usize, to: usize, cost| lengths(&text[..to * 100], from * 100, &mut drafter, &mut costs, cost);
        let cheap = phase(1, 9, 0.1);
        assert!(made(&cheap) * 2 > cheap.len(), "{cheap:?}");
        let dear = phase(9, 20, 2.0);
        assert!(made(&dear) < 25, "{dear:?}");
        let cheap_again = phase(20, 40, 0.1);
        let late = &cheap_again[cheap_again.len() - 20..];
        assert!(made(late) > 15, "{cheap_again:?}");
    }

    #[test]
    fn a_token_is_proposed_only_if_that_is_expected_to_pay() {
        let count = |accepted, refused, cost| Evidence { accepted, refused }.worthwhile(16, cost);
        assert_eq!(count(0.2, 0.8, 0.3), 0, "a fifth of the drafts would be right");
        assert_eq!(count(1e6, 1e6, 0.3), 1, "half of them: 1.5 tokens for 1.3 times the time, but 1.75 for 1.6 times");
        assert_eq!(count(1e6, 1e6, 0.05), 3, "a third one is right in one of eight cases, and hardly costs anything");
        assert_eq!(count(1.0, 0.0, 0.3), 16);
        assert_eq!(count(1.0, 0.0, 0.97), 0, "what is right gains nothing");
        assert_eq!(count(1.0, 0.0, f64::INFINITY), 0, "nothing is worth that");
    }
}
