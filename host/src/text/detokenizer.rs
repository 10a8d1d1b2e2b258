//! Decoding while tokens still arrive.

use super::{SpecialTokens, TextError, Tokenizer};

/// Turns tokens into text as they arrive. Tokens are pieces of bytes, so a character may need several of them: its text
/// comes with the last one. All pieces together are what [`Tokenizer::decode`] makes of all tokens.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    special: SpecialTokens,
    /// The tokens that are decoded together: those that gave the last text, which the next may depend on, for instance for
    /// a space between words, and all after them.
    window: Vec<u32>,
    /// Number of tokens in `window` that gave the last text.
    context: usize,
    /// Number of bytes of the text of `window` that have been given out.
    emitted: usize,
    warned: bool,
}

/// Most tokens that a character which is not complete yet can have, as every token has a byte at least.
const INCOMPLETE: usize = 3;

/// Number of tokens without complete text after which the window is cut, and number that are kept: enough that the
/// characters of the last [`INCOMPLETE`] tokens do not depend on where the cut is.
const LONG: usize = 24;
const KEPT: usize = 12;

impl Detokenizer {
    /// For a new text, with special tokens hidden.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            special: SpecialTokens::Hidden,
            window: Vec::new(),
            context: 0,
            emitted: 0,
            warned: false,
        }
    }

    /// For a new text in which special tokens appear as they are spelled, for programs that look for them.
    pub fn with_special_tokens(tokenizer: &Tokenizer) -> Self {
        Self { special: SpecialTokens::Shown, ..Self::new(tokenizer) }
    }

    /// Takes the next token and returns the text that is complete with it, often a word, possibly nothing.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the tokenizer cannot decode it; [`TextError::Unstable`] if it takes back earlier text.
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        let Some(spelling) = self.tokenizer.id_to_token(token) else {
            if !self.warned {
                tracing::warn!(token, "the model chose a token that its tokenizer does not know; it has no text");
                self.warned = true;
            }
            return Ok(String::new());
        };
        if self.special == SpecialTokens::Hidden && self.tokenizer.is_special(&spelling) {
            return Ok(String::new());
        }
        self.window.push(token);
        let text = self.tokenizer.decode_as(&self.window, self.special)?;
        // The beginning of a character looks like a wrong one until the rest has come.
        let mut complete = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        if self.window.len() - self.context > INCOMPLETE {
            let last = text.len().saturating_sub(INCOMPLETE * char::REPLACEMENT_CHARACTER.len_utf8());
            complete = complete.max(last);
        }
        let new = self.emit(&text, complete)?;
        if complete == text.len() && !new.is_empty() {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.emitted = self.tokenizer.decode_as(&self.window, self.special)?.len();
        } else if self.window.len() - self.context > LONG {
            self.cut(&text[complete..])?;
        }
        Ok(new)
    }

    /// Ends the text and returns the rest of it: U+FFFD for the bytes of a character that was never completed. The
    /// detokenizer is then ready for a new text.
    ///
    /// # Errors
    /// Those of [`Detokenizer::push`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        let text = self.tokenizer.decode_as(&self.window, self.special)?;
        let rest = self.emit(&text, text.len())?;
        self.window.clear();
        self.context = 0;
        self.emitted = 0;
        Ok(rest)
    }

    /// What of `text`, up to `end`, is new.
    fn emit(&mut self, text: &str, end: usize) -> Result<String, TextError> {
        if end <= self.emitted {
            return Ok(String::new());
        }
        let new = text.get(self.emitted..end).ok_or(TextError::Unstable)?.to_string();
        self.emitted = end;
        Ok(new)
    }

    /// Forgets the beginning of a long window, if what is `held` back looks the same without it.
    fn cut(&mut self, held: &str) -> Result<(), TextError> {
        let kept = &self.window[self.window.len().saturating_sub(KEPT)..];
        let text = self.tokenizer.decode_as(kept, self.special)?;
        if let Some(before) = text.strip_suffix(held) {
            self.emitted = before.len();
            self.window = kept.to_vec();
            self.context = 0;
        }
        Ok(())
    }
}
