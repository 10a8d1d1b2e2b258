//! Activations as 16-bit integers: what NPUs compute with where they do not compute with floats.
//!
//! A graph of such activations is written as ONNX asks for: behind every operator its result is quantized and dequantized again
//! (`QuantizeLinear`, `DequantizeLinear`), and a compiler takes each operator with the pairs around it for one on integers. The range
//! of every value has to be known: a graph that observes its values (see [`Graph::observing`](super::Graph::observing)) tells it.

use super::types::DType;

/// The least and the largest number that a value may hold.
pub type Range = [f32; 2];

/// How a value is stored between two operators: `(q - zero_point) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoding {
    /// [`DType::Uint16`] or [`DType::Int16`].
    pub dtype: DType,
    /// Distance of two neighbours.
    pub scale: f32,
    /// The number that stands for zero.
    pub zero_point: u16,
}

/// Steps between the least and the largest number of 16 bits.
const STEPS: f32 = 65_535.0;

/// The scale of what is always zero.
const SMALLEST_SCALE: f32 = 1e-9;

impl Encoding {
    /// Results from 0 to 1, which compilers for NPUs want in this scale and no other.
    pub const FRACTION: Self = Self { dtype: DType::Uint16, scale: 1.0 / 65_536.0, zero_point: 0 };

    /// All 16 bits for what lies in `range`, which is made to hold 0: zeros must be exact.
    pub fn over([least, largest]: Range) -> Self {
        let (least, largest) = (least.min(0.0), largest.max(0.0));
        let scale = ((largest - least) / STEPS).max(SMALLEST_SCALE);
        let zero_point = (-least / scale).round().clamp(0.0, STEPS) as u16;
        Self { dtype: DType::Uint16, scale, zero_point }
    }

    /// Signed numbers around 0. Products of two activations take one of them in this form only, and a state of zeros is one of zeros.
    pub fn symmetric([least, largest]: Range) -> Self {
        let magnitude = least.abs().max(largest.abs());
        let scale = (magnitude / f32::from(super::ENCODED_LARGEST)).max(SMALLEST_SCALE);
        Self { dtype: DType::Int16, scale, zero_point: 0 }
    }

    /// What can be stored.
    pub fn range(self) -> Range {
        let [least, largest] = match self.dtype {
            DType::Int16 => [f32::from(i16::MIN), f32::from(i16::MAX)],
            _ => [0.0, STEPS],
        };
        [least, largest].map(|number| (number - f32::from(self.zero_point)) * self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_zero_and_reach_both_ends() {
        for (range, expected) in [([-1.0, 3.0], [-1.0, 3.0]), ([0.5, 2.0], [0.0, 2.0]), ([-2.0, -1.0], [-2.0, 0.0])] {
            let encoding = Encoding::over(range);
            for (found, expected) in encoding.range().into_iter().zip(expected) {
                assert!((found - expected).abs() <= encoding.scale, "{range:?} became {:?}", encoding.range());
            }
        }
        assert_eq!(Encoding::over([0.0; 2]).zero_point, 0);
        assert!(Encoding::over([0.0; 2]).scale > 0.0);
    }

    #[test]
    fn symmetric_numbers_have_their_zero_in_the_middle() {
        let encoding = Encoding::symmetric([-4.0, 1.0]);
        assert_eq!((encoding.dtype, encoding.zero_point), (DType::Int16, 0));
        let [least, largest] = encoding.range();
        assert!(least <= -4.0 && (largest - 4.0).abs() < 1e-5);
        assert!(Encoding::symmetric([0.0; 2]).scale > 0.0);
    }
}
