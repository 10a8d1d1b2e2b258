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
//! Old outcomes count less with every new one and with every draft that was not made, so that a change is noticed.

use std::sync::Arc;

/// Most last tokens that are looked up. Longer matches are hardly better.
const LONGEST_MATCH: usize = 4;

/// Time that one more token adds to a run, as a part of the time for one token. Measured with 4-bit weights on two cores
/// that have dot products of bytes: 0.17 for the second token, 0.27 on average for 4, 0.31 for 8. Without those it is 0.5 at 4 bits and 0.75 at
/// 8 bits (`benches/experiments.md`), so that there drafts are proposed that do not pay.
const COST: f64 = 0.3;

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
    /// Which of them the last draft was made by.
    used: usize,
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

impl Drafter {
    /// Drafts of at most `longest` tokens; none if that is 0. `unspaced` is what
    /// [`Tokenizer::unspaced`](crate::text::Tokenizer::unspaced) returns; without it every token is only itself.
    pub(crate) fn new(longest: usize, unspaced: Arc<[u32]>) -> Self {
        Self { longest, unspaced, words: Vec::new(), evidence: [PRIOR; LONGEST_MATCH], used: 0 }
    }

    /// Proposes at most `room` tokens to follow `history`, none of them one of `ends`: behind the end nothing is computed. The
    /// history may only grow from call to call.
    pub(crate) fn draft(&mut self, history: &[u32], room: usize, ends: &[u32]) -> Vec<u32> {
        let most = self.longest.min(room);
        if most == 0 {
            return Vec::new();
        }
        let word = |&token: &u32| self.unspaced.get(token as usize).copied().unwrap_or(token);
        self.words.extend(history[self.words.len()..].iter().map(word));
        let Some(Match { length, next }) = look_up(&self.words) else { return Vec::new() };
        self.used = length - 1;
        let evidence = &mut self.evidence[self.used];
        let count = evidence.worthwhile(most);
        if count == 0 {
            evidence.fade();
        }
        let mut draft = Vec::with_capacity(count);
        for place in next..next + count {
            // Text that repeats itself goes on in the draft.
            let token = history.get(place).or_else(|| draft.get(place - history.len()));
            match token {
                Some(&token) if !ends.contains(&token) => draft.push(token),
                _ => break,
            }
        }
        draft
    }

    /// Learns that of the last draft `accepted` tokens were right, and whether another one was wrong.
    pub(crate) fn learn(&mut self, accepted: usize, refused: bool) {
        let evidence = &mut self.evidence[self.used];
        evidence.fade();
        evidence.accepted += accepted as f64;
        evidence.refused += f64::from(u8::from(refused));
    }
}

impl Evidence {
    /// How many tokens pay, at most `most`: as long as one more gives more tokens per time than the run has without it.
    fn worthwhile(&self, most: usize) -> usize {
        // The run gives one token in any case.
        let (mut expected, mut chance) = (1.0, 1.0);
        for count in 0..most {
            let accepted = self.accepted + count as f64;
            chance *= accepted / (accepted + self.refused);
            let rate = expected / (1.0 + COST * count as f64);
            if chance < MARGIN * COST * rate {
                return count;
            }
            expected += chance;
        }
        most
    }

    /// Lets what was learnt count less.
    fn fade(&mut self) {
        self.accepted = PRIOR.accepted + MEMORY * (self.accepted - PRIOR.accepted);
        self.refused = PRIOR.refused + MEMORY * (self.refused - PRIOR.refused);
    }
}

/// An earlier occurrence of the last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    /// How many of the last tokens occur there.
    length: usize,
    /// Place of the token that follows them there.
    next: usize,
}

/// The latest of the longest matches.
fn look_up(history: &[u32]) -> Option<Match> {
    let (last, before) = history.split_last()?;
    let mut best: Option<Match> = None;
    for end in (0..before.len()).rev().filter(|&end| before[end] == *last) {
        let earlier = history[..end].iter().rev().zip(before.iter().rev());
        let length = 1 + earlier.take(LONGEST_MATCH - 1).take_while(|(a, b)| a == b).count();
        if best.is_none_or(|best| length > best.length) {
            best = Some(Match { length, next: end + 1 });
        }
        if length == LONGEST_MATCH {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_the_longest_matches_is_taken() {
        for (history, length, next) in [
            (&[1, 2, 3, 1, 9, 2, 3][..], 2, 3),
            (&[5, 1, 6, 1, 7, 1], 1, 4),
            // Longer than the limit does not count: the later one is taken.
            (&[0, 1, 2, 3, 4, 8, 9, 1, 2, 3, 4, 7, 0, 1, 2, 3, 4], 4, 11),
            (&[1, 1, 1], 2, 2),
        ] {
            assert_eq!(look_up(history), Some(Match { length, next }), "{history:?}");
        }
        for history in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(look_up(history), None, "{history:?}");
        }
    }

    #[test]
    fn what_followed_is_proposed_up_to_the_end_of_the_answer() {
        let draft = |history: &[u32], room| Drafter::new(3, Arc::default()).draft(history, room, &[7]);
        let history = [1, 2, 3, 4, 5, 6, 1, 2];
        assert_eq!(draft(&history, 9), [3, 4, 5]);
        assert_eq!(draft(&history, 2), [3, 4]);
        assert_eq!(draft(&history, 0), [] as [u32; 0]);
        assert_eq!(draft(&[1, 2, 3, 7, 4, 1, 2], 9), [3]);
        assert_eq!(draft(&[1, 2, 7, 4, 1, 2], 9), [] as [u32; 0]);
        assert_eq!(draft(&[5, 1, 2, 1, 2], 9), [1, 2, 1], "what repeats itself goes on");
        assert_eq!(Drafter::new(0, Arc::default()).draft(&history, 9, &[]), [] as [u32; 0]);
    }

    #[test]
    fn a_word_is_found_with_and_without_the_space_before_it() {
        // 11 and 12 are 1 and 2 behind a space.
        let unspaced: Arc<[u32]> = (0..13).map(|token| if token > 10 { token - 10 } else { token }).collect();
        let draft = |history: &[u32]| Drafter::new(3, unspaced.clone()).draft(history, 9, &[]);
        assert_eq!(draft(&[11, 12, 3, 4, 5, 1]), [12, 3, 4], "as it was written there");
        assert_eq!(draft(&[1, 2, 3, 4, 5, 11]), [2, 3, 4]);
    }

    #[test]
    fn drafts_become_long_when_they_are_right_and_stop_when_they_are_wrong() {
        let history: Vec<u32> = (0..40).chain([0]).collect();
        let mut drafter = Drafter::new(16, Arc::default());
        let first = drafter.draft(&history, 99, &[]).len();
        assert!((2..16).contains(&first), "{first}");
        for _ in 0..4 {
            let count = drafter.draft(&history, 99, &[]).len();
            drafter.learn(count, false);
        }
        assert!(drafter.draft(&history, 99, &[]).len() > 12);

        let mut drafter = Drafter::new(16, Arc::default());
        let mut made = 0;
        for _ in 0..200 {
            if !drafter.draft(&history, 99, &[]).is_empty() {
                made += 1;
                drafter.learn(0, true);
            }
        }
        // Now and then one is tried, because the text may have changed.
        assert!((3..30).contains(&made), "{made}");
        // Other matches are judged by themselves.
        let longer = [&history[..], &[1]].concat();
        assert!(!drafter.draft(&longer, 99, &[]).is_empty());
    }

    #[test]
    fn a_token_is_proposed_only_if_that_is_expected_to_pay() {
        let count = |accepted, refused| Evidence { accepted, refused }.worthwhile(16);
        assert_eq!(count(0.2, 0.8), 0, "a fifth of the drafts would be right, and a token costs {COST}");
        assert_eq!(count(1e6, 1e6), 1, "half of them: 1.5 tokens for 1.3 times the time, but 1.75 for 1.6 times");
        assert_eq!(count(1.0, 0.0), 16);
    }
}
