//! The header of one safetensors file.
//!
//! Its entries are parsed with the types of the `safetensors` crate. The crate's own reader wants the whole file in
//! memory, keeps one of several tensors with the same name and stops at the first problem, so the checks are here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use safetensors::tensor;
use serde::de::{IgnoredAny, MapAccess};

use super::{Dtype, TensorInfo, platform};
use crate::entries::{Entries, Entry};
use crate::problems::Problems;

/// Real headers have 100 bytes for each tensor, and so less than a megabyte.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Bytes of the header's length, at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// A tensor found in a file.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    /// First byte of the tensor in the file.
    pub(super) offset: u64,
}

/// Reads the header of `file` and checks it against the file's length. What is wrong with it goes to `problems`, with
/// `file_name`; the tensors returned then are those that could be used.
pub(super) fn read(file: &File, file_name: &str, problems: &mut Problems) -> io::Result<Vec<Found>> {
    let mut report = |problem: String| problems.add(format!("{file_name}: {problem}"));

    let file_length = file.metadata()?.len();
    if file_length < LENGTH_BYTES {
        report(format!("the file has {file_length} bytes and so is truncated or not safetensors; download it again"));
        return Ok(Vec::new());
    }
    let mut length = [0; LENGTH_BYTES as usize];
    platform::read_exact_at(file, &mut length, 0)?;
    let header_length = u64::from_le_bytes(length);
    if header_length > MAX_HEADER_BYTES {
        report(format!(
            "the header claims {header_length} bytes, at most {MAX_HEADER_BYTES} are allowed; this is not safetensors"
        ));
        return Ok(Vec::new());
    }
    let data_start = LENGTH_BYTES + header_length;
    if data_start > file_length {
        report(format!(
            "the header has {header_length} bytes, the file only {file_length}: it is truncated, download it again"
        ));
        return Ok(Vec::new());
    }
    let mut header = vec![0; header_length as usize];
    platform::read_exact_at(file, &mut header, LENGTH_BYTES)?;
    let entries: Entries<Item> = match serde_json::from_slice(&header) {
        Ok(entries) => entries,
        Err(error) => {
            report(format!("the header cannot be read: {error}"));
            return Ok(Vec::new());
        }
    };
    drop(header);
    for name in entries.duplicates() {
        report(format!("{name} is there more than once"));
    }

    let mut tensors: Vec<(String, tensor::TensorInfo)> =
        entries.0.into_iter().filter_map(|(name, item)| item.0.map(|tensor| (name, tensor))).collect();
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    check_offsets(&tensors, file_length - data_start, &mut report);

    let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut found = Vec::with_capacity(tensors.len());
    for (name, tensor) in &tensors {
        let dtype = match tensor.dtype {
            tensor::Dtype::F32 => Dtype::F32,
            tensor::Dtype::F16 => Dtype::F16,
            tensor::Dtype::BF16 => Dtype::Bf16,
            other => {
                refused.entry(other.to_string()).or_default().push(name);
                continue;
            }
        };
        // An offset so large that the sum does not fit has been reported as lying behind the end.
        let offset = data_start.saturating_add(tensor.data_offsets.0 as u64);
        found.push(Found { name: name.clone(), info: TensorInfo { shape: tensor.shape.clone(), dtype }, offset });
    }
    for (dtype, names) in refused {
        report(format!(
            "only BF16, F16 and F32 can be exported, but {} of type {dtype}: {}",
            are(names.len()),
            names.join(", ")
        ));
    }
    Ok(found)
}

/// Checks that `tensors`, which are sorted by their offsets, have the length that their shape needs, and that together
/// they cover the `available` bytes without overlaps and gaps.
fn check_offsets(tensors: &[(String, tensor::TensorInfo)], available: u64, report: &mut impl FnMut(String)) {
    let mut covered = 0_usize;
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        // Dimensions of 0 must not hide others whose product cannot be computed.
        let bits = info
            .shape
            .iter()
            .filter(|&&dimension| dimension > 0)
            .try_fold(info.dtype.bitsize(), |product, &dimension| product.checked_mul(dimension));
        let needed = bits.map(|bits| if info.shape.contains(&0) { 0 } else { bits.div_ceil(8) });
        match (end.checked_sub(start), needed) {
            (None, _) => report(format!("tensor {name} ends at byte {end}, before it starts at byte {start}")),
            (_, None) => report(format!("tensor {name} has the impossible shape {:?}", info.shape)),
            (Some(length), Some(needed)) if length != needed => report(format!(
                "tensor {name} has {length} bytes, its shape {:?} of {} needs {needed}",
                info.shape, info.dtype
            )),
            _ => {}
        }
        if start < covered {
            report(format!("tensor {name} starts at byte {start} of the data, inside another tensor"));
        } else if start > covered {
            report(format!("bytes {covered} to {start} of the data, before tensor {name}, belong to no tensor"));
        }
        covered = covered.max(end);
    }
    let covered = covered as u64;
    if covered > available {
        let beyond = tensors.iter().filter(|(_, info)| info.data_offsets.1 as u64 > available).count();
        report(format!(
            "the tensors need {covered} bytes of data and the file has {available}, so {} beyond its end; \
             the file is truncated or damaged, download it again",
            are(beyond)
        ));
    } else if covered < available {
        report(format!("the last {} bytes belong to no tensor", available - covered));
    }
}

fn are(count: usize) -> String {
    if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") }
}

/// An entry of the header: a tensor, or nothing for the free text of `__metadata__`.
struct Item(Option<tensor::TensorInfo>);

impl Entry for Item {
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        if key == "__metadata__" {
            map.next_value::<IgnoredAny>()?;
            return Ok(Self(None));
        }
        map.next_value().map(|tensor| Self(Some(tensor)))
    }
}
