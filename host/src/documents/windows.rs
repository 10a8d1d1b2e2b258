//! Documents in parts that a run can take.

/// A part of a document that is run by itself, from an empty state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The first token that counts: those before it are only there to be looked back at, and nothing predicts the very first.
    pub counted_from: usize,
}

impl Window {
    /// Number of tokens that count.
    pub fn counted(&self) -> usize {
        self.tokens.len().saturating_sub(self.counted_from)
    }
}

/// Cuts documents into windows of at most `context` tokens.
///
/// `beginning` is what every text begins with (BOS): models that were trained with it see it at the start of every window, so
/// that later windows have it before their own tokens. Every token of a document counts in exactly one window, but for the
/// first one without anything to predict it.
pub fn windows(documents: &[Vec<u32>], context: usize, beginning: &[u32]) -> Vec<Window> {
    let mut windows = Vec::new();
    let step = context.saturating_sub(beginning.len()).max(1);
    for document in documents {
        let (first, rest) = document.split_at(context.min(document.len()));
        let begins = first.starts_with(beginning);
        windows.push(window(first.to_vec(), if begins { beginning.len() } else { 0 }));
        windows.extend(rest.chunks(step).map(|part| window([beginning, part].concat(), beginning.len())));
    }
    windows.retain(|window| window.counted() > 0);
    windows
}

fn window(tokens: Vec<u32>, before: usize) -> Window {
    Window { tokens, counted_from: before.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_counts_once() {
        let document: Vec<u32> = (0..10).collect();
        let cut = |beginning: &[u32]| windows(std::slice::from_ref(&document), 4, beginning);
        let with = cut(&[0]);
        let tokens: Vec<_> = with.iter().map(|window| window.tokens.as_slice()).collect();
        assert_eq!(tokens, [&[0, 1, 2, 3][..], &[0, 4, 5, 6], &[0, 7, 8, 9]]);
        let counted = with.iter().flat_map(|window| &window.tokens[window.counted_from..]);
        assert_eq!(counted.copied().collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
        // Without such a token, the first of each window has nothing before it.
        let without: Vec<_> = cut(&[]).iter().map(Window::counted).collect();
        assert_eq!(without, [3, 3, 1]);
    }

    #[test]
    fn nothing_is_left_of_documents_without_a_prediction() {
        assert_eq!(windows(&[vec![0], vec![], vec![5]], 8, &[0]), []);
        // More to begin with than there is room for.
        let narrow = windows(&[vec![0, 1, 2, 3]], 2, &[0, 1]);
        assert_eq!(narrow.iter().map(Window::counted).sum::<usize>(), 2);
    }
}
