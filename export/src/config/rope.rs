//! The base of the rotary frequencies.

use serde_json::{Map, Value};

use super::reader::{Reader, Reported, brief};

/// The base, from `rope_theta` or from `rope_parameters`, which may both be there if they agree.
///
/// Scaled frequencies, in the newer `rope_parameters` as well as in the older `rope_scaling`, are refused.
pub(super) fn theta(reader: &mut Reader<'_>) -> Result<f64, Reported> {
    let flat = reader.optional::<f64>("rope_theta");
    let nested = parameters(reader, "rope_parameters");
    let scaling = parameters(reader, "rope_scaling");
    let partial = whole_head(reader, "partial_rotary_factor", None);
    partial?;
    let mut bases =
        [("rope_theta", flat?), ("rope_parameters.rope_theta", nested?), ("rope_scaling.rope_theta", scaling?)]
            .into_iter()
            .filter_map(|(key, base)| base.map(|base| (key, base)));
    let Some((key, base)) = bases.next() else {
        return Err(reader.problem("rope_theta is missing, in the config itself and in rope_parameters".to_owned()));
    };
    match bases.find(|&(_, other)| other != base) {
        Some((other_key, other)) => Err(reader.problem(format!("{key} is {base} but {other_key} is {other}"))),
        None => Ok(base),
    }
}

/// The base in the object `key`, if both are there. Everything in it must mean plain rotary embedding.
fn parameters(reader: &mut Reader<'_>, key: &str) -> Result<Option<f64>, Reported> {
    let Some(value) = reader.raw(key) else { return Ok(None) };
    let Some(object) = value.as_object() else {
        return Err(reader.problem(format!("{key} is {}, an object is needed", brief(value))));
    };
    let mut base = Ok(None);
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let checked = match name.as_str() {
            "rope_theta" => {
                base = reader.scalar(&format!("{key}.rope_theta"), value).map(Some);
                base.map(drop)
            }
            "rope_type" | "type" if value == "default" => Ok(()),
            "rope_type" | "type" => Err(reader.problem(format!(
                "{key}.{name} is {}: scaled rotary embeddings are not supported, only \"default\" is",
                brief(value)
            ))),
            "partial_rotary_factor" => whole_head(reader, key, Some(object)),
            _ => Err(reader.problem(format!("{key}.{name} is {}, which is not understood", brief(value)))),
        };
        base = checked.and(base);
    }
    base
}

/// Refuses a `partial_rotary_factor` other than 1, in `object` called `key` or in the config itself.
fn whole_head(reader: &mut Reader<'_>, key: &str, object: Option<&Map<String, Value>>) -> Result<(), Reported> {
    let value = match object {
        Some(object) => object.get("partial_rotary_factor"),
        None => reader.raw(key),
    };
    match value {
        Some(value) if value.as_f64() != Some(1.0) => {
            Err(reader.problem(format!("partial_rotary_factor is {}, only 1 is supported", brief(value))))
        }
        _ => Ok(()),
    }
}
