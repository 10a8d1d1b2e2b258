//! ONNX files read without the bytes of their large tensors: with the weights in it, a file may have two gigabytes.

use std::io::{BufReader, Read, Seek};

use super::decode::{DecodeError, Model, decode};
use super::encode::{GRAPH, INITIALIZER, RAW_DATA, put_varint};

/// Bytes of a tensor from which on they are passed over. What shapes are made of is shorter.
const LARGE: u64 = 64 * 1024;

/// Reads an ONNX file of `length` bytes. How many bytes a large tensor has then follows from its shape.
pub fn read(file: impl Read + Seek, length: u64) -> Result<Model, DecodeError> {
    let mut outline = Vec::new();
    copy(&mut BufReader::new(file), length, Message::Model, &mut outline)?;
    decode(&outline)
}

/// The messages with tensors in them.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Tensor,
}

/// Wire types of protobuf: a number of any size, one of 8 bytes, what has a length, and a number of 4 bytes.
const VARINT: u8 = 0;
const WIDE: u8 = 1;
const LENGTH: u8 = 2;
const NARROW: u8 = 5;

/// Appends a message of `length` bytes without the large tensors in it.
fn copy<R: Read + Seek>(
    from: &mut BufReader<R>,
    length: u64,
    message: Message,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut left = length;
    while left > 0 {
        let start = out.len();
        let key = varint(from, &mut left, out)?;
        match (key & 7) as u8 {
            VARINT => drop(varint(from, &mut left, out)?),
            WIDE => bytes(from, &mut left, 8, out)?,
            NARROW => bytes(from, &mut left, 4, out)?,
            LENGTH => {
                let before = out.len();
                let size = varint(from, &mut left, out)?;
                let inner = match (message, key >> 3) {
                    (Message::Model, field) if field == u64::from(GRAPH) => Message::Graph,
                    (Message::Graph, field) if field == u64::from(INITIALIZER) => Message::Tensor,
                    (Message::Tensor, field) if field == u64::from(RAW_DATA) && size > LARGE => {
                        left = left.checked_sub(size).ok_or(DecodeError::Malformed)?;
                        from.seek_relative(i64::try_from(size).map_err(|_| DecodeError::Malformed)?)?;
                        out.truncate(start);
                        continue;
                    }
                    _ => {
                        bytes(from, &mut left, size, out)?;
                        continue;
                    }
                };
                left = left.checked_sub(size).ok_or(DecodeError::Malformed)?;
                // What is left of it may be shorter, and so may be its length.
                let mut inside = Vec::new();
                copy(from, size, inner, &mut inside)?;
                out.truncate(before);
                put_varint(inside.len() as u64, out);
                out.extend(inside);
            }
            _ => return Err(DecodeError::Malformed),
        }
    }
    Ok(())
}

/// A number of up to ten bytes with seven bits each, low bits first, which is copied too.
fn varint(from: &mut impl Read, left: &mut u64, out: &mut Vec<u8>) -> Result<u64, DecodeError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        bytes(from, left, 1, out)?;
        let byte = out.last().copied().unwrap_or_default();
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(DecodeError::Malformed)
}

/// Copies `size` bytes of the message of which there are `left`.
fn bytes(from: &mut impl Read, left: &mut u64, size: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    *left = left.checked_sub(size).ok_or(DecodeError::Malformed)?;
    // A file that became shorter than its length was is not waited for.
    let copied = from.take(size).read_to_end(out)?;
    if copied as u64 == size { Ok(()) } else { Err(DecodeError::Malformed) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lfm2_graphs::contract::METADATA_KEY;
    use lfm2_graphs::ir::graph::port;
    use lfm2_graphs::ir::{Content, DType, Format, Graph, Source};

    use super::*;
    use crate::proto::{Data, encode, frame};

    /// A graph that adds two constants, one of them large, to its input.
    fn graph(large: usize) -> Graph<'static> {
        let graph = Graph::new(DType::Float32, |_, _, _| Format::Dense(DType::Float32));
        let root = graph.root();
        let x = root.input(port("x", DType::Float32, vec![large.into()]));
        let numbers = root.initializer("large", DType::Float32, &[large], Source::Floats(vec![0.5; large]));
        let sum = x.reshape(&[large as i64]) + numbers + root.single(1.5, DType::Float32);
        root.output(sum, port("y", DType::Float32, vec![large.into()]));
        graph
    }

    fn bytes(content: &Content) -> Vec<Vec<u8>> {
        let all = content.initializers.iter().map(|(_, it)| match &it.source {
            Source::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Source::Ints(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => 1.5_f32.to_le_bytes().to_vec(),
        });
        all.collect()
    }

    fn read_bytes(bytes: &[u8]) -> Result<Model, DecodeError> {
        read(Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn a_filled_frame_is_the_file_and_holes_do_not_depend_on_the_contract() {
        for large in [1, 20_000, 3_000_000] {
            let graph = graph(large);
            let content = graph.content();
            let bytes = bytes(&content);
            let whole = encode(&content, "the contract", bytes.iter().cloned().map(Data::Inline).collect());
            let data = |place: usize, bytes: &Vec<u8>| match place {
                0 => Data::Later { length: bytes.len() as u64 },
                _ => Data::Inline(bytes.clone()),
            };
            let placed = || bytes.iter().enumerate().map(|(place, bytes)| data(place, bytes)).collect();
            let framed = frame(&content, "the contract", placed());
            assert_eq!(framed.holes, frame(&content, "", placed()).holes);
            let [hole] = framed.holes[..] else { panic!("{:?}", framed.holes) };
            assert_eq!((hole.initializer, hole.length), (0, 4 * large as u64));
            let (before, behind) = framed.bytes.split_at(hole.offset as usize);
            let filled = [before, &bytes[hole.initializer], behind].concat();
            assert_eq!(filled.len() as u64, framed.length());
            assert!(filled == whole, "{large}");
        }
    }

    #[test]
    fn large_tensors_are_passed_over_and_described_all_the_same() {
        for large in [10, 20_000, 3_000_000] {
            let graph = graph(large);
            let content = graph.content();
            let file = encode(&content, "the contract", bytes(&content).into_iter().map(Data::Inline).collect());
            let (read, decoded) = (read_bytes(&file).unwrap(), decode(&file).unwrap());
            assert_eq!(read, decoded);
            assert_eq!(read.metadata[METADATA_KEY], "the contract");
            let tensors: Vec<_> = read.tensors.iter().map(|it| (it.name.as_str(), it.bytes)).collect();
            assert_eq!(tensors[0], ("large", 4 * large as u64));
            assert_eq!(read.tensors[1].integers, [large as i64]);
            // Cut anywhere, it is an error or what is there, and never waits or panics.
            for length in (0..file.len()).step_by(file.len() / 50 + 1) {
                drop(read_bytes(&file[..length]));
                self::read(Cursor::new(&file[..length]), file.len() as u64).unwrap_err();
            }
        }
        for other in [&b"PK\x03\x04 some archive"[..], b"<html>not found</html>", &[0xff; 64]] {
            let message = read_bytes(other).unwrap_err().to_string();
            assert!(message.contains("not an ONNX file"), "{message}");
        }
    }
}
