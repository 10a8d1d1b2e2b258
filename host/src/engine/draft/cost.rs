//! What one more token in a run costs, which decides whether a guess is worth it.
//!
//! It depends on the processor, on the number format and on what else the machine does: between 0.05 and 0.8 of the time of a run
//! of one token. So it is learnt from the times of runs. Both estimates are medians of the last few, which a single hiccup does not
//! move, and a change moves after some runs.

use std::time::Duration;

/// What one more token in a run is taken to cost, as a part of the time of a run of one token. The engine guesses a token only if
/// that is expected to pay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum DraftCost {
    /// Learnt from the times that the decoder tells
    /// ([`Decoder::run_time`](crate::decoder::Decoder::run_time)). What is guessed then depends on the machine, and what is
    /// answered does not, but for rounding.
    #[default]
    Learnt,
    /// Always this, a number of at least 0: the same guesses on every machine.
    Fixed(f64),
}

/// The cost before anything is learnt. Measured with 4-bit weights on two cores that have dot products of bytes: 0.17 for the
/// second token, 0.27 on average for 4, 0.31 for 8.
pub(super) const USUAL: f64 = 0.3;

/// Runs of one token whose median counts.
const SINGLES: usize = 5;

/// Runs of one token that there must be before others are compared with them.
const FEWEST_SINGLES: usize = 2;

/// Runs with guesses whose median counts.
const EXTRAS: usize = 7;

/// Runs with guesses after which there is one without, because a run of one token takes longer the more was said before.
const DRAFTED_RUNS: usize = 32;

/// Drafts that are left out because tokens are dear, before one is made to see whether they still are.
const LEFT_OUT: usize = 64;

/// The cost of tokens, and what it was learnt from. For all answers of one decoder.
#[derive(Clone, Debug)]
pub(crate) struct RunCosts {
    setting: DraftCost,
    /// Seconds of the last runs of one token, the latest last.
    singles: Vec<f64>,
    /// Of each of the last runs with guesses, what one more token has cost there; the latest last.
    extras: Vec<f64>,
    /// Runs with guesses since the last one without.
    drafted_runs: usize,
    /// Drafts that were left out since the last one.
    left_out: usize,
}

impl RunCosts {
    pub(crate) fn new(setting: DraftCost) -> Self {
        Self { setting, singles: Vec::new(), extras: vec![USUAL; EXTRAS], drafted_runs: 0, left_out: 0 }
    }

    /// What one more token costs, as a part of the time of a run of one token.
    pub(super) fn token(&self) -> f64 {
        match self.setting {
            DraftCost::Fixed(cost) => cost,
            DraftCost::Learnt => median(&self.extras).unwrap_or(USUAL),
        }
    }

    /// Whether the next run should have no guesses, so that the others can be compared with it.
    pub(super) fn wants_single(&self) -> bool {
        let is_unknown = self.singles.len() < FEWEST_SINGLES || self.drafted_runs >= DRAFTED_RUNS;
        self.setting == DraftCost::Learnt && is_unknown
    }

    /// Is told that a draft would be made if tokens cost what they usually do. Returns whether it is to be made anyway: what is
    /// never tried is never found to have become cheaper.
    pub(super) fn tries_again(&mut self) -> bool {
        if self.setting != DraftCost::Learnt {
            return false;
        }
        self.left_out += 1;
        self.left_out >= LEFT_OUT
    }

    /// Learns that a run of `tokens` tokens, all but the first of them guesses, took `time`. Decoders that tell no times teach
    /// nothing.
    pub(crate) fn learn(&mut self, tokens: usize, time: Duration) {
        if tokens <= 1 {
            push(&mut self.singles, SINGLES, time.as_secs_f64());
            self.drafted_runs = 0;
            return;
        }
        self.drafted_runs += 1;
        self.left_out = 0;
        if let Some(single) = median(&self.singles).filter(|single| *single > 0.0) {
            let extra = (time.as_secs_f64() / single - 1.0) / (tokens - 1) as f64;
            push(&mut self.extras, EXTRAS, extra.max(0.0));
        }
    }
}

/// Adds a value, and drops the oldest one if there are more than `most`.
fn push(values: &mut Vec<f64>, most: usize, value: f64) {
    if values.len() == most {
        values.remove(0);
    }
    values.push(value);
}

/// The median, of an even number the lower one of two, because what disturbs a run makes it longer.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of so many tokens, of which each further one costs `cost` of the first one's 10 ms.
    fn teach(costs: &mut RunCosts, cost: f64, runs: impl IntoIterator<Item = usize>) {
        for tokens in runs {
            costs.learn(tokens, Duration::from_secs_f64(0.01 * (1.0 + cost * (tokens - 1) as f64)));
        }
    }

    fn assert_near(found: f64, expected: f64) {
        // Durations are whole nanoseconds.
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
    }

    #[test]
    fn the_cost_is_that_of_most_of_the_last_runs() {
        let mut costs = RunCosts::new(DraftCost::Learnt);
        assert_near(costs.token(), USUAL);
        teach(&mut costs, 0.7, [1, 1, 2, 9, 5]);
        assert_near(costs.token(), USUAL);
        teach(&mut costs, 0.7, [3]);
        assert_near(costs.token(), 0.7);
        // The machine gets other work, or loses it.
        teach(&mut costs, 0.1, [4, 4, 4]);
        assert_near(costs.token(), 0.7);
        teach(&mut costs, 0.1, [4]);
        assert_near(costs.token(), 0.1);
    }

    #[test]
    fn a_hiccup_does_not_matter() {
        let mut costs = RunCosts::new(DraftCost::Learnt);
        teach(&mut costs, 0.5, [1, 1, 1].into_iter().chain([4; 20]));
        costs.learn(4, Duration::from_secs(9));
        costs.learn(1, Duration::from_secs(9));
        costs.learn(1, Duration::from_nanos(1));
        teach(&mut costs, 0.5, [4]);
        assert_near(costs.token(), 0.5);
        // Nor does one in the very first runs.
        let mut costs = RunCosts::new(DraftCost::Learnt);
        costs.learn(1, Duration::from_secs(9));
        teach(&mut costs, 0.5, [1].into_iter().chain([4; 4]));
        assert_near(costs.token(), 0.5);
    }

    #[test]
    fn runs_of_one_token_are_asked_for_while_they_are_unknown_or_old() {
        let mut costs = RunCosts::new(DraftCost::Learnt);
        teach(&mut costs, 0.5, [1]);
        assert!(costs.wants_single());
        teach(&mut costs, 0.5, [1]);
        assert!(!costs.wants_single());
        teach(&mut costs, 0.5, [9; DRAFTED_RUNS]);
        assert!(costs.wants_single());
        teach(&mut costs, 0.5, [1]);
        assert!(!costs.wants_single());
        assert!(!RunCosts::new(DraftCost::Fixed(0.5)).wants_single());
    }

    #[test]
    fn what_was_dear_is_tried_again_now_and_then() {
        let mut costs = RunCosts::new(DraftCost::Learnt);
        let tried = |costs: &mut RunCosts| (1..=1000).find(|_| costs.tries_again());
        assert_eq!(tried(&mut costs), Some(LEFT_OUT));
        teach(&mut costs, 0.5, [1, 1, 2]);
        assert_eq!(tried(&mut costs), Some(LEFT_OUT));
        assert_eq!(tried(&mut RunCosts::new(DraftCost::Fixed(2.0))), None);
    }

    #[test]
    fn nothing_is_learnt_where_the_cost_is_fixed_or_no_time_is_told() {
        let mut costs = RunCosts::new(DraftCost::Fixed(0.4));
        teach(&mut costs, 0.9, [1, 1, 5, 5, 5, 5, 5, 5, 5]);
        assert_near(costs.token(), 0.4);
        let mut costs = RunCosts::new(DraftCost::Learnt);
        (0..9).for_each(|run| costs.learn(1 + run % 3, Duration::ZERO));
        assert_near(costs.token(), USUAL);
        assert!(!costs.wants_single());
    }
}
