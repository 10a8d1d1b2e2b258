//! The exponential function in a form that compilers turn into vector instructions.

/// Below this, results would be smaller than float32's normal numbers.
const SMALLEST: f32 = -87.0;

/// Added to a float32 of moderate size, it moves the integer part into the last bits: 1.5 * 2^23.
const SHIFT: f32 = 12_582_912.0;

/// ln 2 in two parts, of which the first has few bits, so that its multiples are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// exp(x) for x up to 0, with a relative error of 1e-7. What is below -87 counts as -87: nothing beside exp(0) in a sum.
///
/// x is n * ln 2 + r with a whole n and r within half of ln 2. exp(r) is the polynomial of the Cephes library's `expf`
/// (S. Moshier, "Methods and Programs for Mathematical Functions", 1989), and 2^n is made from its bits.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // Written so that what is not a number stays that.
    let x = if x < SMALLEST { SMALLEST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let polynomial =
        ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 0.166_666_66) * r + 0.5;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (polynomial * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential() {
        for step in 0..=870_000 {
            let x = step as f32 * -1e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - expected).abs() <= 1.2e-7 * expected, "exp({x}) is {found}, not {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn extremes_are_what_they_should_be() {
        for x in [-100.0, -1e30, f32::NEG_INFINITY] {
            assert!((0.0..1e-37).contains(&exp(x)), "exp({x})");
        }
        assert!(exp(f32::NAN).is_nan());
    }
}
