//! One entry of an ONNX file's `metadata_props`, read without the rest of the file, and where tensors lie in it.
//!
//! An ONNX file is one protobuf message, `ModelProto`: a sequence of fields, each a key (number and wire type) and a value
//! of known length. The graph, which may be gigabytes, is one of the fields and is skipped.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Number of the field `graph` in `ModelProto`. A file without it is no model.
const GRAPH: u64 = 7;

/// Number of the field `metadata_props` in `ModelProto`. Its values are messages of the type `StringStringEntryProto`.
const METADATA_PROPS: u64 = 14;

/// Number of the field `key` in `StringStringEntryProto`.
const KEY: u64 = 1;

/// Number of the field `value` in `StringStringEntryProto`.
const VALUE: u64 = 2;

/// Number of the field `raw_data` in `TensorProto`, with the wire type of what has a length.
const RAW_DATA: u8 = 9 << 3 | 2;

/// Longest entry that is read. A contract has some ten kilobytes.
const LONGEST_ENTRY: u64 = 16 << 20;

/// The text stored under `wanted` in the ONNX file `file` of `length` bytes, if there is one.
pub(super) fn find(file: impl Read + Seek, length: u64, wanted: &str) -> Result<Option<String>, MetadataError> {
    let mut model = Fields { reader: BufReader::new(file), remaining: length };
    let (mut found, mut has_graph) = (None, false);
    while let Some((number, content)) = model.next()? {
        has_graph |= number == GRAPH;
        match content {
            Content::Bytes(length) if number == METADATA_PROPS && found.is_none() => {
                found = value_of(&model.take(length)?, wanted)?;
            }
            Content::Bytes(length) | Content::Fixed(length) => model.skip(length)?,
            Content::Varint => {}
        }
    }
    if has_graph { Ok(found) } else { Err(MetadataError::NoGraph) }
}

/// Whether an ONNX file has the bytes of a tensor, `length` of them, from `offset` on: that is what stands in front of them then.
pub(crate) fn is_tensor_at(mut file: impl Read + Seek, offset: u64, length: u64) -> io::Result<bool> {
    let mut before = vec![RAW_DATA];
    let mut left = length;
    while left >= 0x80 {
        before.push(left as u8 | 0x80);
        left >>= 7;
    }
    before.push(left as u8);
    let Some(start) = offset.checked_sub(before.len() as u64) else { return Ok(false) };
    let mut found = vec![0; before.len()];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut found)?;
    Ok(found == before)
}

/// The value of an entry if its key is `wanted`.
fn value_of(entry: &[u8], wanted: &str) -> Result<Option<String>, MetadataError> {
    let mut fields = Fields { reader: io::Cursor::new(entry), remaining: entry.len() as u64 };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    while let Some((number, content)) = fields.next()? {
        match content {
            Content::Bytes(length) if number == KEY => key = fields.take(length)?,
            Content::Bytes(length) if number == VALUE => value = fields.take(length)?,
            Content::Bytes(length) | Content::Fixed(length) => fields.skip(length)?,
            Content::Varint => {}
        }
    }
    if key != wanted.as_bytes() {
        return Ok(None);
    }
    String::from_utf8(value).map(Some).map_err(|_| MetadataError::Damaged("the entry is not text"))
}

/// What follows the key of a field.
enum Content {
    /// A number, read already.
    Varint,
    /// This many bytes, which are to be taken or skipped.
    Bytes(u64),
    /// A number of this many bytes, which is to be skipped.
    Fixed(u64),
}

/// The fields of one message. Every length is compared with what is left before anything is read or allocated.
struct Fields<R> {
    reader: R,
    remaining: u64,
}

impl<R: SkipAhead> Fields<R> {
    /// Number and content of the next field.
    fn next(&mut self) -> Result<Option<(u64, Content)>, MetadataError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let key = self.varint()?;
        let content = match key & 7 {
            0 => self.varint().map(|_| Content::Varint)?,
            1 => Content::Fixed(8),
            2 => Content::Bytes(self.varint()?),
            5 => Content::Fixed(4),
            _ => return Err(MetadataError::Damaged("a field has an unknown type")),
        };
        match content {
            Content::Bytes(length) | Content::Fixed(length) if length > self.remaining => Err(MetadataError::Truncated),
            content => Ok(Some((key >> 3, content))),
        }
    }

    /// A number of up to ten bytes with seven bits each, low bits first.
    fn varint(&mut self) -> Result<u64, MetadataError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)?[..] else { return Err(MetadataError::Truncated) };
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(MetadataError::Damaged("a number is too long"))
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>, MetadataError> {
        if length > self.remaining {
            return Err(MetadataError::Truncated);
        }
        if length > LONGEST_ENTRY {
            return Err(MetadataError::Damaged("an entry is too long"));
        }
        self.remaining -= length;
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), MetadataError> {
        self.remaining -= length;
        self.reader.skip_ahead(length)?;
        Ok(())
    }
}

/// Moving forward without reading.
trait SkipAhead: Read {
    fn skip_ahead(&mut self, length: u64) -> io::Result<()>;
}

impl<R: Read + Seek> SkipAhead for BufReader<R> {
    fn skip_ahead(&mut self, length: u64) -> io::Result<()> {
        // Stays within the buffer if it can.
        self.seek_relative(length.try_into().map_err(io::Error::other)?)
    }
}

impl SkipAhead for io::Cursor<&[u8]> {
    fn skip_ahead(&mut self, length: u64) -> io::Result<()> {
        self.set_position(self.position() + length);
        Ok(())
    }
}

/// Why the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it ends too early: it is damaged, or was not fetched completely")]
    Truncated,
    #[error("it is no ONNX file, or a damaged one: {0}")]
    Damaged(&'static str),
    #[error("it is no ONNX file: it has no graph")]
    NoGraph,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let varint = |mut n: u64| {
            let mut out = Vec::new();
            while n >= 0x80 {
                out.push(n as u8 | 0x80);
                n >>= 7;
            }
            out.push(n as u8);
            out
        };
        [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(METADATA_PROPS, &[field(KEY, key.as_bytes()), field(VALUE, value)].concat())
    }

    fn model() -> Vec<u8> {
        let version = vec![1 << 3, 10];
        let fixed = [vec![90 << 1 & 0x7f | 1, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let graph = field(GRAPH, &vec![7; 100_000]);
        [version, fixed, entry("first", b"a"), graph, entry("contract", "{\"\u{e4}\"}".as_bytes()), field(8, b"x")]
            .concat()
    }

    fn read(bytes: &[u8], wanted: &str) -> Result<Option<String>, MetadataError> {
        find(io::Cursor::new(bytes), bytes.len() as u64, wanted)
    }

    #[test]
    fn entries_before_and_behind_the_graph_are_found() {
        let model = model();
        assert_eq!(read(&model, "first").unwrap().unwrap(), "a");
        assert_eq!(read(&model, "contract").unwrap().unwrap(), "{\"\u{e4}\"}");
        assert!(read(&model, "other").unwrap().is_none());
    }

    #[test]
    fn damage_is_an_error() {
        let model = model();
        for cut in (0..200).chain(model.len() - 200..model.len()) {
            // Where a field ends, what is left may be whole.
            if let Ok(found) = read(&model[..cut], "contract") {
                assert!(found.is_none() || cut >= model.len() - 3, "cut at {cut}");
            }
        }
        for bytes in [
            &b""[..],
            b"PK\x03\x04 some archive",
            b"<html>not found</html>",
            &[0xff; 64],
            &[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(read(bytes, "contract").is_err(), "{bytes:?}");
        }
        let not_text = [field(GRAPH, b""), entry("contract", &[0xff])].concat();
        assert!(matches!(read(&not_text, "contract"), Err(MetadataError::Damaged(_))));
        let huge = [field(GRAPH, b""), vec![0x72, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert!(matches!(find(io::Cursor::new(huge), u64::MAX, "contract"), Err(MetadataError::Damaged(_))));
    }
}
