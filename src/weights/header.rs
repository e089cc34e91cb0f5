//! The safetensors header: 8 bytes of length (little-endian), then JSON from tensor name to dtype, shape and offsets,
//! then the tensors' bytes without holes.
//!
//! The entries are the `safetensors` crate's own [`TensorInfo`]. What is checked here beside them: duplicate names
//! (the crate keeps the last), the limits before anything is allocated, other formats recognised by content, and
//! messages that name the tensor and both values.

use std::collections::BTreeMap;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::error::HeaderError;
use super::printable::printable;

/// The longest header accepted, as in the `safetensors` crate.
const MAX_LENGTH: u64 = 100_000_000;

/// The bytes of the length field.
pub(super) const LENGTH_BYTES: usize = 8;

/// How much of a file's beginning [`length`] looks at.
pub(super) const START_BYTES: usize = 64;

/// The header's length, from the first [`START_BYTES`] of a file of `file_bytes` bytes (or all of a shorter one).
pub(super) fn length(start: &[u8], file_bytes: u64) -> Result<usize, HeaderError> {
    checked_length(start, file_bytes).map_err(|problem| match other_format(start) {
        Some(format) => HeaderError::OtherFormat(format),
        None => problem,
    })
}

fn checked_length(start: &[u8], file_bytes: u64) -> Result<usize, HeaderError> {
    let Some((length, rest)) = start.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(HeaderError::Short { bytes: file_bytes });
    };
    let length = u64::from_le_bytes(*length);
    if !(2..=MAX_LENGTH).contains(&length) {
        return Err(HeaderError::Length { length, limit: MAX_LENGTH });
    }
    // Files in /proc give a size of 0 and bytes all the same.
    let Some(available) = file_bytes.checked_sub(LENGTH_BYTES as u64) else {
        return Err(HeaderError::Short { bytes: file_bytes });
    };
    if length > available {
        return Err(HeaderError::PastEnd { length, available });
    }
    match rest.first() {
        Some(b'{') => Ok(length as usize),
        Some(&byte) => Err(HeaderError::NotObject(byte)),
        None => Err(HeaderError::Short { bytes: file_bytes }),
    }
}

/// What a file that is not safetensors is, by how it begins.
fn other_format(start: &[u8]) -> Option<&'static str> {
    const FORMATS: [(&[u8], &str); 8] = [
        (
            b"version https://git-lfs.github.com/spec/",
            "a Git LFS pointer (the file itself was not fetched: git lfs pull)",
        ),
        (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?)"),
        (b"\x80\x02", "a Python pickle"),
        (b"\x80\x03", "a Python pickle"),
        (b"\x80\x04", "a Python pickle"),
        (b"\x80\x05", "a Python pickle"),
        (b"GGUF", "a GGUF file"),
        (b"\x89HDF\r\n", "an HDF5 file"),
    ];
    let text = start.trim_ascii_start();
    match FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, format)) => Some(format),
        // ONNX is a protobuf: field 1 (ir_version, a varint), then field 2 (producer) or 7 (graph), length-delimited.
        None if matches!(start, [0x08, 1..=0x7f, 0x12 | 0x3a, ..]) => Some("an ONNX model"),
        None if text.starts_with(b"<!") || text.starts_with(b"<html") => Some("an HTML page (a failed download?)"),
        None => None,
    }
}

/// The tensors of a header, by name, checked against the `data_bytes` that follow it.
pub(super) fn parse(header: &[u8], data_bytes: u64) -> Result<BTreeMap<String, TensorInfo>, HeaderError> {
    let text = str::from_utf8(header).map_err(|e| HeaderError::NotUtf8(e.valid_up_to()))?;
    let Entries(tensors) = serde_json::from_str(text).map_err(|e| HeaderError::Json(e.to_string()))?;
    check_coverage(&tensors, data_bytes)?;
    Ok(tensors)
}

/// Tensors lie one behind the other, each as long as its shape says, and the last ends with the file.
fn check_coverage(tensors: &BTreeMap<String, TensorInfo>, data_bytes: u64) -> Result<(), HeaderError> {
    let mut in_order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut expected = 0;
    for (tensor, info) in in_order {
        let (start, end) = info.data_offsets;
        let Some(found) = end.checked_sub(start) else {
            return Err(HeaderError::Backwards { tensor: tensor.clone(), start, end });
        };
        if start != expected {
            return Err(HeaderError::Offsets { tensor: tensor.clone(), start, end, expected });
        }
        let needed = needed_bytes(info);
        if needed != Some(found) {
            let (dtype, shape) = (info.dtype.to_string(), info.shape.clone());
            return Err(HeaderError::Size { tensor: tensor.clone(), dtype, shape, needed, found });
        }
        expected = end;
    }
    if expected as u64 == data_bytes { Ok(()) } else { Err(HeaderError::End { tensors: expected, file: data_bytes }) }
}

fn needed_bytes(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
    elements.checked_mul(info.dtype.bitsize()).map(|bits| bits.div_ceil(8))
}

/// The header's JSON: every key but `__metadata__` is a tensor, and none comes twice.
struct Entries(BTreeMap<String, TensorInfo>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut tensors = BTreeMap::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            let in_entry = |e: A::Error| A::Error::custom(format!("{}: {e}", printable(&name)));
            let twice = if name == "__metadata__" {
                let value = map.next_value::<Option<BTreeMap<String, String>>>().map_err(in_entry)?;
                metadata.replace(value).is_some()
            } else {
                let info = map.next_value::<TensorInfo>().map_err(in_entry)?;
                tensors.insert(name.clone(), info).is_some()
            };
            if twice {
                return Err(A::Error::custom(format!("{} is in it twice", printable(&name))));
            }
        }
        Ok(Entries(tensors))
    }
}
