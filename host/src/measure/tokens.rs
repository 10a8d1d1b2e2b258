//! The texts to measure with: tokens that mean nothing, the same for the same seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// Tokens after which a repeating text begins anew: more than a draft has, and few enough that short texts repeat too.
const PERIOD: usize = 24;

/// `count` random tokens of a vocabulary; those of a smaller count are their beginning.
pub(super) fn random(count: usize, vocab_size: usize, seed: u64) -> Vec<u32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    // The upper half of a product of 64 bits each is below the vocabulary's size.
    let mut token = || ((u128::from(random.next_u64()) * vocab_size as u128) >> 64) as u32;
    (0..count).map(|_| token()).collect()
}

/// `count` tokens that repeat themselves: the same few random ones again and again. Guesses are looked up in earlier text, and
/// find nothing in random one.
pub(super) fn repeating(count: usize, vocab_size: usize, seed: u64) -> Vec<u32> {
    random(PERIOD.min(count), vocab_size, seed).into_iter().cycle().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_the_vocabulary_and_the_same_again() {
        let many = random(10_000, 96, 3);
        assert!(many.iter().all(|&token| token < 96));
        assert!((0..96).all(|token| many.contains(&token)));
        assert_eq!(random(10, 96, 3), many[..10]);
        assert_ne!(random(10, 96, 4), many[..10]);
    }

    #[test]
    fn repeating_text_repeats() {
        let text = repeating(3 * PERIOD + 5, 1000, 1);
        assert_eq!(text.len(), 3 * PERIOD + 5);
        assert!(text.iter().zip(&text[PERIOD..]).all(|(a, b)| a == b));
        assert_eq!(repeating(5, 1000, 1), random(5, 1000, 1));
        assert_eq!(repeating(0, 1000, 1), [] as [u32; 0]);
    }
}
