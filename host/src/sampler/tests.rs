use ndarray::{Array1, aview1, s};

use super::*;

const LFM2: SamplingSettings =
    SamplingSettings { temperature: 0.3, top_k: 0, top_p: 1.0, min_p: 0.15, repetition_penalty: 1.05, seed: 7 };
const PLAIN: SamplingSettings = SamplingSettings { temperature: 1.0, ..SamplingSettings::GREEDY };

fn sampler(settings: SamplingSettings, vocab_size: usize) -> Sampler {
    Sampler::new(settings, vocab_size).unwrap()
}

/// Logits in no order, between -6 and 6.
fn logits(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + 13) % 4801) as f32 / 400.0 - 6.0).collect()
}

#[test]
fn all_bad_settings_are_named_at_once() {
    let settings =
        SamplingSettings { temperature: -1.0, top_p: 1.5, min_p: f32::NAN, repetition_penalty: 0.0, ..PLAIN };
    let message = Sampler::new(settings, 4).unwrap_err().to_string();
    for part in ["temperature is -1", "top_p is 1.5", "min_p is NaN", "repetition_penalty is 0"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(SamplingSettings { temperature: f32::INFINITY, ..PLAIN }.validate().is_err());
    assert!(Sampler::new(PLAIN, 0).is_err());
    assert_eq!(LFM2.validate(), Ok(()));
}

#[test]
fn unusable_logits_are_errors() {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let mut long = vec![0.0; 100];
    long[40] = nan;
    for settings in [SamplingSettings::GREEDY, PLAIN, LFM2] {
        let cases = [
            (vec![1.0, nan, 2.0], SamplingError::NotANumber),
            (vec![nan; 70], SamplingError::NotANumber),
            (long.clone(), SamplingError::NotANumber),
            (vec![-infinity; 40], SamplingError::NothingLeft),
            (vec![1.0, infinity], SamplingError::Infinite),
        ];
        for (logits, error) in cases {
            let mut sampler = sampler(settings, logits.len());
            assert_eq!(sampler.sample(aview1(&logits)), Err(error));
            assert!(sampler.distribution(aview1(&logits)).is_err());
        }
    }
    assert_eq!(sampler(PLAIN, 3).sample(aview1(&[0.0; 4])), Err(SamplingError::Length { found: 4, vocab_size: 3 }));
    let cold = SamplingSettings { temperature: 1e-39, ..PLAIN };
    assert_eq!(sampler(cold, 2).sample(aview1(&[5.0, 1.0])), Err(SamplingError::Infinite));
}

#[test]
fn greedy_takes_the_lowest_of_equals_after_the_penalty() {
    let mut logits = vec![0.0; 100];
    logits[41] = 2.0;
    logits[90] = 2.0;
    let mut sampler = sampler(SamplingSettings { repetition_penalty: 1.1, ..SamplingSettings::GREEDY }, 100);
    assert_eq!(sampler.sample(aview1(&logits)), Ok(41));
    sampler.observe(41);
    sampler.observe(41);
    sampler.observe(100);
    assert_eq!(sampler.sample(aview1(&logits)), Ok(90));
    sampler.reset();
    assert_eq!(sampler.sample(aview1(&logits)), Ok(41));
}

#[test]
fn seed_decides_the_tokens_and_reset_repeats_them() {
    let logits = logits(500);
    let take = |sampler: &mut Sampler| -> Vec<u32> {
        (0..50)
            .map(|_| {
                let token = sampler.sample(aview1(&logits)).unwrap();
                sampler.observe(token);
                token
            })
            .collect()
    };
    let mut first = sampler(SamplingSettings { temperature: 1.0, ..LFM2 }, 500);
    let tokens = take(&mut first);
    first.reset();
    assert_eq!(take(&mut first), tokens);
    assert_ne!(take(&mut sampler(SamplingSettings { temperature: 1.0, seed: 8, ..LFM2 }, 500)), tokens);
    // A later version has to give the same text for the same seed.
    assert_eq!(tokens[..8], [23, 86, 368, 214, 485, 234, 368, 157]);
}

#[test]
fn views_with_strides_are_read_rightly() {
    let all = Array1::from(logits(64));
    let settings = SamplingSettings::GREEDY;
    let even = all.slice(s![..;2]);
    let copy = even.to_vec();
    assert_eq!(sampler(settings, 32).sample(even), sampler(settings, 32).sample(aview1(&copy)));
}

/// Top-p as transformers writes it: sort ascending, drop what lies in the lowest `1 - top_p`.
fn top_p_by_sorting(probabilities: &[f32], top_p: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
    let mut kept = vec![true; probabilities.len()];
    let mut sum = 0.0;
    for &token in &order[..order.len() - 1] {
        sum += f64::from(probabilities[token]);
        kept[token] = sum > 1.0 - top_p;
    }
    kept
}

#[test]
fn halving_keeps_the_same_tokens_as_sorting() {
    for count in [1, 2, 3, 10, 97, 1000] {
        let logits = logits(count);
        let all = sampler(PLAIN, count).distribution(aview1(&logits)).unwrap();
        for top_p in [0.0, 0.05, 0.333, 0.777, 0.95, 0.9999] {
            let kept = sampler(SamplingSettings { top_p, ..PLAIN }, count).distribution(aview1(&logits)).unwrap();
            let kept: Vec<bool> = kept.iter().map(|&probability| probability > 0.0).collect();
            assert_eq!(kept, top_p_by_sorting(&all, f64::from(top_p)), "{count} tokens, top_p {top_p}");
        }
    }
}

#[test]
fn shortcuts_lose_no_token() {
    // Long enough for the blocks of top-k; the plain definitions of the processors say what is right.
    let logits = logits(4801);
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sorted = logits.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for (top_k, min_p) in [(1, 0.0), (7, 0.0), (70, 0.5), (3000, 0.001), (0, 1.0)] {
        let kept =
            sampler(SamplingSettings { top_k, min_p, ..PLAIN }, logits.len()).distribution(aview1(&logits)).unwrap();
        for (&logit, &probability) in logits.iter().zip(&kept) {
            let right = (top_k == 0 || logit >= sorted[top_k - 1]) && (logit - best).exp() >= min_p;
            assert_eq!(probability > 0.0, right, "logit {logit}, top_k {top_k}, min_p {min_p}");
        }
    }
}

#[test]
fn top_k_beyond_every_vocabulary_is_off() {
    let logits = logits(4801);
    let all = sampler(PLAIN, logits.len()).distribution(aview1(&logits)).unwrap();
    for top_k in [usize::MAX, usize::MAX / 64 + 1, logits.len()] {
        let sampler = sampler(SamplingSettings { top_k, ..PLAIN }, logits.len());
        assert_eq!(sampler.distribution(aview1(&logits)).unwrap(), all, "top_k {top_k}");
    }
}

#[test]
fn everything_equal_is_still_a_distribution() {
    let logits = vec![3.0; 1000];
    let kept = |settings| {
        let kept = sampler(settings, 1000).distribution(aview1(&logits)).unwrap();
        assert!((kept.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        kept.iter().filter(|&&probability| probability > 0.0).count()
    };
    assert_eq!(kept(PLAIN), 1000);
    assert_eq!(kept(SamplingSettings { top_k: 3, ..PLAIN }), 1000, "equals of the last are kept");
    assert_eq!(kept(SamplingSettings { min_p: 1.0, ..PLAIN }), 1000);
    assert_eq!(kept(SamplingSettings { top_p: 0.25, ..PLAIN }), 250);
    assert_eq!(kept(SamplingSettings { top_p: 0.0, ..PLAIN }), 1);
    let best = sampler(SamplingSettings { top_p: 0.0, ..PLAIN }, 1000).sample(aview1(&logits));
    assert_eq!(best, Ok(0), "as if it were greedy");
}
