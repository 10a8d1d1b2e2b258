//! Rows as they lie in files, whichever version wrote them: fields that are unknown stay, and fields that are missing are missing.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Test;

/// A row, or another object that was written a line.
pub type Record = Map<String, Value>;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Every object, in order.
    pub objects: Vec<Record>,
    /// Where the last line begins if it was cut off, in bytes: whoever wrote it was stopped meanwhile.
    pub torn_at: Option<usize>,
}

impl Records {
    /// As [`Records::read`], of a file as it lies on the disk: a last line may be cut off within a character.
    pub fn read_bytes(bytes: &[u8]) -> Result<Self, Vec<String>> {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return Self::read(text),
            Err(error) => error,
        };
        let whole = error.valid_up_to();
        if error.error_len().is_none() {
            let records = Self::read(std::str::from_utf8(&bytes[..whole]).unwrap_or_default())?;
            // Otherwise the character begins behind a line that is whole, and nobody who writes rows does that.
            if records.torn_at.is_some() {
                return Ok(records);
            }
        }
        Err(vec![format!("byte {whole}: is no UTF-8")])
    }

    /// Reads a JSON array, or JSON objects a line. The last line may be cut off if nothing ends it; anything else that is no object
    /// is an error, with its place.
    pub fn read(text: &str) -> Result<Self, Vec<String>> {
        let mut records = Self::default();
        let mut problems = Vec::new();
        if text.trim_start().starts_with('[') {
            let values: Vec<Value> = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
            for (index, value) in values.into_iter().enumerate() {
                match value {
                    Value::Object(object) => records.objects.push(object),
                    _ => problems.push(format!("row {}: is no object", index + 1)),
                }
            }
        } else {
            let mut start = 0;
            for (index, line) in text.split_inclusive('\n').enumerate() {
                let place = start;
                start += line.len();
                if line.trim().is_empty() {
                    continue;
                }
                match serde_json::from_str(line) {
                    Ok(Value::Object(object)) => records.objects.push(object),
                    Ok(_) => problems.push(format!("line {}: is no object", index + 1)),
                    Err(_) if !line.ends_with('\n') && !records.objects.is_empty() => records.torn_at = Some(place),
                    // A first line may be torn as well, but then it has to begin like one.
                    Err(_) if !line.ends_with('\n') && line.starts_with("{\"") => records.torn_at = Some(place),
                    Err(error) => problems.push(format!("line {}: {error}", index + 1)),
                }
            }
        }
        if problems.is_empty() { Ok(records) } else { Err(problems) }
    }
}

/// The test of a row; nothing if the object is no row.
pub fn test_of(record: &Record) -> Option<Test> {
    let number = |name: &str| usize::try_from(record.get(name)?.as_u64()?).ok();
    Some(Test { prompt: number("n_prompt")?, generate: number("n_gen")?, depth: number("n_depth")? })
}

/// Whether a row has a result. Rows of versions that wrote no other ones do not say so.
pub fn has_result(record: &Record) -> bool {
    record.get("status").is_none_or(|status| status == "ok")
}

/// The fields that tell machines apart. Memory is rounded to gibibytes, because what the kernel takes for itself varies.
const MACHINE: [&str; 6] = ["device", "cpu_info", "cpu_cores", "cpu_threads", "os", "arch"];

/// What tells the machine of a row from others.
pub fn machine_of(record: &Record) -> Vec<Value> {
    let memory = record.get("memory_bytes").and_then(Value::as_u64);
    let memory = memory.map(|bytes| (bytes as f64 / f64::from(1 << 30)).round());
    let fields = MACHINE.iter().map(|name| record.get(*name).cloned().unwrap_or_default());
    fields.chain([memory.map_or(Value::Null, Value::from)]).collect()
}

/// A machine in a few words.
pub fn machine_name(record: &Record) -> String {
    let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
    let cores = record.get("cpu_cores").and_then(Value::as_u64).map(|cores| format!("{cores} cores"));
    let memory = record.get("memory_bytes").and_then(Value::as_u64);
    let memory = memory.map(|bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30)));
    let parts: Vec<_> = [text("device"), text("cpu_info"), cores, memory, text("os")].into_iter().flatten().collect();
    if parts.is_empty() { "unknown machine".to_owned() } else { parts.join(", ") }
}

/// A part of the cells: of `count` parts the one with the number `index`, from 0. `2/10` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Number of the part.
    pub index: usize,
    /// Number of parts.
    pub count: usize,
}

impl Shard {
    /// Everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether the cell at `place` among all cells belongs to it. Neighbours, which tend to take as long as each other, go to
    /// different parts.
    pub fn has(self, place: usize) -> bool {
        place % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            Some((index, count)) => Err(format!("asks for part {index} of {count}; parts are counted from 0")),
            None => Err(format!("takes I/N, such as 0/4, not {text:?}")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrays_and_torn_ends() {
        let read = |text: &str| Records::read(text).map(|records| (records.objects.len(), records.torn_at));
        assert_eq!(read(""), Ok((0, None)));
        assert_eq!(read("{\"a\":1}\n\n{\"b\":2}"), Ok((2, None)), "whole, though nothing ends it");
        assert_eq!(read("{\"a\":1}\n{\"b\":"), Ok((1, Some(8))));
        assert_eq!(read("{\"a"), Ok((0, Some(0))));
        assert_eq!(read("[{\"a\":1},{}]"), Ok((2, None)));
        assert_eq!(read("{\"a\":1}\n{\"b\":\n3\n").unwrap_err().len(), 2, "only the last line can be torn");
        assert!(read("| a table |").unwrap_err()[0].starts_with("line 1"));
        assert!(read("[{\"a\":1},2]").unwrap_err()[0].starts_with("row 2"));
    }

    #[test]
    fn a_line_may_be_torn_within_a_character() {
        let read = |bytes: &[u8]| Records::read_bytes(bytes).map(|records| (records.objects.len(), records.torn_at));
        assert_eq!(read("{\"a\":\"é\"}\n".as_bytes()), Ok((1, None)));
        let torn = "{\"a\":1}\n{\"b\":\"é".as_bytes();
        assert_eq!(read(&torn[..torn.len() - 1]), Ok((1, Some(8))));
        assert_eq!(read(b"{\"a\":1}\n\xc3").unwrap_err(), ["byte 8: is no UTF-8"], "no row begins like that");
        assert_eq!(read(b"{\"a\":\"\xff\"}\n").unwrap_err(), ["byte 6: is no UTF-8"]);
    }

    #[test]
    fn machines_are_told_apart() {
        let record = |text: &str| serde_json::from_str::<Record>(text).unwrap();
        let a = record(r#"{"device":"pi","cpu_info":"X","memory_bytes":8589934592,"kernel":"1"}"#);
        let b = record(r#"{"device":"pi","cpu_info":"X","memory_bytes":8589000000,"kernel":"2"}"#);
        let c = record(r#"{"device":"pi 2","cpu_info":"X","memory_bytes":8589934592}"#);
        assert_eq!(machine_of(&a), machine_of(&b));
        assert_ne!(machine_of(&a), machine_of(&c));
        assert_eq!(machine_name(&a), "pi, X, 8 GiB");
        assert_eq!(machine_name(&Record::new()), "unknown machine");
    }

    #[test]
    fn shards_are_a_partition() {
        let shards: Vec<Shard> = ["0/3", "1/3", "2/3"].map(|text| text.parse().unwrap()).into();
        for place in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(place)).count(), 1);
        }
        assert!(Shard::WHOLE.has(17));
        assert_eq!(shards[1].to_string(), "1/3");
        for text in ["3/3", "1", "a/b", "-1/2", "0/0", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
