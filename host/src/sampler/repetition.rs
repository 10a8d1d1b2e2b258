//! Repetition penalty: tokens that occurred become less likely.

/// The distinct tokens of a sequence.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    tokens: Vec<u32>,
    contains: Vec<bool>,
}

impl Observed {
    /// None of the tokens of a vocabulary.
    pub(super) fn new(vocab_size: usize) -> Self {
        Self { tokens: Vec::new(), contains: vec![false; vocab_size] }
    }

    /// Number of tokens that there are.
    pub(super) fn vocab_size(&self) -> usize {
        self.contains.len()
    }

    /// Adds a token, unless it is outside of the vocabulary.
    pub(super) fn insert(&mut self, token: u32) {
        if let Some(contains) = self.contains.get_mut(token as usize)
            && !std::mem::replace(contains, true)
        {
            self.tokens.push(token);
        }
    }

    /// Removes all tokens.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.contains.fill(false);
    }

    /// Moves the score of every observed token away from being chosen.
    pub(super) fn penalise(&self, scores: &mut [f32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        for &token in &self.tokens {
            let score = &mut scores[token as usize];
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}
