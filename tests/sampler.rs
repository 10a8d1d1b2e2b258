//! The host's sampler draws from the distributions of transformers.

use lfm2_host::sampler::{Sampler, SamplingSettings};
use lfm2_tests::reference_data;
use ndarray::aview1;
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-6;
const DRAWS: usize = 20_000;

/// One vector of logits with one setting.
struct Case {
    name: String,
    settings: SamplingSettings,
    logits: Vec<f32>,
    observed: Vec<u32>,
    distribution: Vec<f32>,
}

impl Case {
    fn sampler(&self) -> Sampler {
        let mut sampler = Sampler::new(self.settings, self.logits.len()).unwrap();
        self.observed.iter().for_each(|&token| sampler.observe(token));
        sampler
    }
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(reference_data().join("sampler.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let settings: Vec<serde_json::Value> =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["settings"]).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let tokens = |name: &str| -> Vec<u32> {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()).try_into().unwrap()).collect()
    };
    let mut cases = Vec::new();
    let names = tensors.names();
    for vector in names.iter().filter_map(|name| name.strip_suffix(".logits")) {
        for (index, settings) in settings.iter().enumerate() {
            let value = |key: &str| settings[key].as_f64().unwrap() as f32;
            cases.push(Case {
                name: format!("{vector} with {settings}"),
                settings: SamplingSettings {
                    temperature: value("temperature"),
                    top_k: settings["top_k"].as_u64().unwrap() as usize,
                    top_p: value("top_p"),
                    min_p: value("min_p"),
                    repetition_penalty: value("repetition_penalty"),
                    seed: 5,
                },
                logits: floats(&format!("{vector}.logits")),
                observed: tokens(&format!("{vector}.observed")),
                distribution: floats(&format!("{vector}.{index}.distribution")),
            });
        }
    }
    assert!(cases.len() >= 100, "the reference file holds {} cases only", cases.len());
    cases
}

#[test]
fn distributions_are_those_of_transformers() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut found = case.sampler().distribution(aview1(&case.logits)).unwrap();
        let mut expected = case.distribution.clone();
        assert_eq!(found.len(), expected.len());
        if case.name.starts_with("equal") && case.settings.top_p < 1.0 {
            // Which of several equal tokens top-p keeps depends in transformers on a sort that is not stable. How many
            // it keeps does not.
            found.sort_by(f32::total_cmp);
            expected.sort_by(f32::total_cmp);
        }
        let difference = |(found, expected): (&f32, &f32)| (found - expected).abs();
        let differences: Vec<f32> = found.iter().zip(&expected).map(difference).collect();
        if !differences.iter().all(|&difference| difference <= TOLERANCE) {
            let largest = differences.into_iter().max_by(f32::total_cmp);
            wrong.push(format!("{}: differs by {largest:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn drawn_tokens_follow_the_distribution() {
    let mut wrong = Vec::new();
    for case in cases() {
        let mut sampler = case.sampler();
        let mut counts = vec![0_usize; case.logits.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(aview1(&case.logits)).unwrap() as usize] += 1;
        }
        let distribution = case.sampler().distribution(aview1(&case.logits)).unwrap();
        if let Err(message) = check_counts(&counts, &distribution) {
            wrong.push(format!("{}: {message}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Pearson's chi-squared test, with the rare tokens counted together. The seed is fixed, so a pass is a pass always.
fn check_counts(counts: &[usize], distribution: &[f32]) -> Result<(), String> {
    let (mut statistic, mut freedom) = (0.0, -1.0_f64);
    let mut rare = (0.0, 0.0);
    for (&count, &probability) in counts.iter().zip(distribution) {
        let (count, expected) = (count as f64, f64::from(probability) * DRAWS as f64);
        if probability == 0.0 && count > 0.0 {
            return Err(format!("{count} draws of an impossible token"));
        } else if expected >= 5.0 {
            statistic += (count - expected).powi(2) / expected;
            freedom += 1.0;
        } else {
            rare = (rare.0 + count, rare.1 + expected);
        }
    }
    if rare.1 >= 5.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        freedom += 1.0;
    }
    // Mean and standard deviation of the chi-squared distribution.
    let limit = freedom + 4.5 * f64::sqrt(2.0 * freedom.max(1.0));
    if statistic <= limit { Ok(()) } else { Err(format!("chi squared is {statistic}, limit {limit}")) }
}
