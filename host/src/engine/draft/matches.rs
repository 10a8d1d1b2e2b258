//! Where the last tokens have occurred before.

/// Most last tokens that are looked up. Longer matches are hardly better.
pub(super) const LONGEST_MATCH: usize = 4;

/// An earlier occurrence of the last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// How many of the last tokens occur there.
    pub(super) length: usize,
    /// Place of the token that follows them there.
    pub(super) next: usize,
}

/// The best occurrence of the last tokens of `words`: the longest ones, of these the first one that goes on at `source` or behind
/// it, or else the latest one.
///
/// `source` is where in `words` the text that was copied so far goes on. What is copied with changes (a value of an object, a
/// renamed variable) goes on behind the change, and a few tokens of punctuation occur in too many places to tell where that is.
pub(super) fn look_up(words: &[u32], source: Option<usize>) -> Option<Match> {
    let (last, before) = words.split_last()?;
    let source = source.unwrap_or(usize::MAX);
    let mut best: Option<Match> = None;
    for end in (0..before.len()).rev().filter(|&end| before[end] == *last) {
        let earlier = words[..end].iter().rev().zip(before.iter().rev());
        let length = 1 + earlier.take(LONGEST_MATCH - 1).take_while(|(a, b)| a == b).count();
        let next = end + 1;
        if best.is_none_or(|best| length > best.length || (length == best.length && next >= source)) {
            best = Some(Match { length, next });
        }
        if length == LONGEST_MATCH && next <= source {
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
            assert_eq!(look_up(history, None), Some(Match { length, next }), "{history:?}");
        }
        for history in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(look_up(history, None), None, "{history:?}");
        }
    }

    #[test]
    fn what_was_copied_goes_on_where_it_was_left() {
        // 1 2 occurs three times.
        let history = [1, 2, 3, 1, 2, 4, 1, 2, 5, 9, 1, 2];
        for (source, next) in [(None, 8), (Some(0), 2), (Some(2), 2), (Some(3), 5), (Some(6), 8), (Some(9), 8)] {
            assert_eq!(look_up(&history, source), Some(Match { length: 2, next }), "{source:?}");
        }
        // A longer match is better than a near one.
        assert_eq!(look_up(&[7, 1, 2, 0, 1, 3, 7, 1], Some(4)), Some(Match { length: 2, next: 2 }));
        let long = [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4];
        for (source, next) in [(None, 9), (Some(4), 4), (Some(5), 9), (Some(10), 9)] {
            assert_eq!(look_up(&long, source), Some(Match { length: 4, next }), "{source:?}");
        }
    }
}
