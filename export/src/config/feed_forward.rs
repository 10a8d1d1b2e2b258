//! The inner width of the feed-forward blocks.

use super::reader::{Reader, Reported};

/// What `Lfm2Config` takes for absent keys.
const DEFAULT_MULTIPLIER: f64 = 1.0;
const DEFAULT_MULTIPLE: usize = 256;

/// The effective width: `block_ff_dim` or else `intermediate_size`, adjusted where the config asks for it.
///
/// Real checkpoints have both with different values (one unadjusted, one adjusted); transformers lets `block_ff_dim` win.
pub(super) fn size(reader: &mut Reader<'_>) -> Result<usize, Reported> {
    let block = reader.optional::<usize>("block_ff_dim");
    let intermediate = reader.optional::<usize>("intermediate_size");
    let adjusts = reader.optional::<bool>("block_auto_adjust_ff_dim");
    let width = block?.or(intermediate?);
    let width = width.ok_or_else(|| reader.problem("intermediate_size is missing, and so is block_ff_dim".to_owned()));
    let adjusts = adjusts?.unwrap_or_else(|| {
        reader.note("block_auto_adjust_ff_dim is absent, which means true".to_owned());
        true
    });
    if !adjusts {
        return width;
    }
    let multiplier = multiplier(reader);
    let multiple = reader.optional::<usize>("block_multiple_of").map(|multiple| multiple.unwrap_or(DEFAULT_MULTIPLE));
    let (width, multiplier, multiple) = (width?, multiplier?, multiple?);
    if multiple == 0 {
        return Err(reader.problem("block_multiple_of is 0".to_owned()));
    }
    adjusted(width, multiplier, multiple)
        .ok_or_else(|| reader.problem(format!("the feed-forward width {width} cannot be adjusted by {multiplier:?}")))
}

/// The factor after the first two thirds; `None` if it is explicitly null, which also means that nothing is rounded.
fn multiplier(reader: &mut Reader<'_>) -> Result<Option<f64>, Reported> {
    let key = "block_ffn_dim_multiplier";
    if reader.is_null(key) {
        return Ok(None);
    }
    let multiplier = reader.optional(key)?.unwrap_or(DEFAULT_MULTIPLIER);
    if multiplier < 0.0 {
        return Err(reader.problem(format!("{key} is {multiplier}, a positive number is needed")));
    }
    Ok(Some(multiplier))
}

/// Two thirds, times the multiplier, rounded up to a multiple: each step truncated as in transformers.
fn adjusted(width: usize, multiplier: Option<f64>, multiple: usize) -> Option<usize> {
    let width = width.checked_mul(2)? / 3;
    let Some(multiplier) = multiplier else { return Some(width) };
    // The conversion saturates, and the saturated value fails the check of the whole.
    let width = (multiplier * width as f64) as usize;
    width.checked_next_multiple_of(multiple)
}

#[cfg(test)]
mod tests {
    use super::adjusted;

    #[test]
    fn the_released_sizes_come_out() {
        for (width, effective) in [(6656, 4608), (10240, 6912), (12288, 8192)] {
            assert_eq!(adjusted(width, Some(1.0), 256), Some(effective));
        }
    }

    #[test]
    fn without_a_multiplier_nothing_is_rounded() {
        assert_eq!(adjusted(100, None, 256), Some(66));
        assert_eq!(adjusted(100, Some(1.3), 32), Some(96)); // 66 -> 85.8 -> 85 -> 96
        assert_eq!(adjusted(usize::MAX, Some(1.0), 256), None);
        assert_eq!(adjusted(3, Some(1e300), 2), None);
    }
}
