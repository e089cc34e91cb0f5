//! What can be wrong with weights: every message names the file, the tensor and both values.

use std::io;
use std::path::PathBuf;

use super::printable::{printable, printable_path};

/// Why weights were refused.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", printable_path(path))]
    Io {
        /// What was tried: `open`, `read`, `map`…
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A device, a FIFO, a socket or a directory stands where a file should; it was not opened.
    #[error("{} is {kind}, not a regular file", printable_path(path))]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file that is read whole is larger than any honest one.
    #[error("{} has {bytes} bytes; the limit is {limit}", printable_path(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The directory holds no weights that can be read.
    #[error("{} has no model.safetensors and no model.safetensors.index.json{}", printable_path(directory), if *pickle { "; its pytorch_model.bin is a pickle, which is never read" } else { "" })]
    NoWeights {
        /// The directory.
        directory: PathBuf,
        /// Whether `pytorch_model.bin` is there.
        pickle: bool,
    },
    /// The file is not safetensors, or its header contradicts itself.
    #[error("{}: {problem}", printable_path(file))]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        problem: HeaderError,
    },
    /// `model.safetensors.index.json` cannot be followed.
    #[error("{}: {problem}", printable_path(path))]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong, with the names and values.
        problem: String,
    },
    /// Weights lie in a pinned model's directory that its lock doesn't list; they were not opened.
    #[error(
        "{}: model {model:?} doesn't list this file in its lock, so its content was never verified",
        printable_path(path)
    )]
    Unlisted {
        /// The file.
        path: PathBuf,
        /// The model's name.
        model: String,
    },
    /// Two shards hold the same tensor.
    #[error("{} is in two shards: {} and {}", printable(tensor), printable_path(first), printable_path(second))]
    TwoShards {
        /// The tensor.
        tensor: String,
        /// One shard.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor that is needed is not there.
    #[error("{}: missing from {}", printable(tensor), printable_path(file))]
    Missing {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A tensor has another shape than the model's configuration asks for.
    #[error("{}: expected {expected:?}, file has {found:?} ({}){}", printable(tensor), printable_path(file), if *transposed { "; it looks transposed: GPT-2 stores these weights as [in, out]" } else { "" })]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// Whether the two are each other's transpose.
        transposed: bool,
        /// The file.
        file: String,
    },
    /// A tensor is stored in a type that is no weight's.
    #[error("{}: expected F32, F16 or BF16, file has {found} ({})", printable(tensor), printable_path(file))]
    Dtype {
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
        /// The file.
        file: String,
    },
    /// The file on disk is no longer the one that was opened.
    #[error("{} changed while in use: {opened} when opened, {now} now", printable_path(path))]
    Changed {
        /// The file.
        path: PathBuf,
        /// Size and modification time at opening.
        opened: String,
        /// The same, now.
        now: String,
    },
}

/// Why a safetensors header was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too few bytes for a header.
    #[error("{bytes} bytes: too short for a safetensors file, which begins with an 8-byte header length")]
    Short {
        /// The file's size.
        bytes: u64,
    },
    /// Recognised as something else.
    #[error("this is {0}, not safetensors")]
    OtherFormat(&'static str),
    /// The header claims a length that no header has.
    #[error("header length {length}: expected 2 to {limit}")]
    Length {
        /// The length it claims.
        length: u64,
        /// The largest length accepted.
        limit: u64,
    },
    /// The header claims more than the file holds.
    #[error("header length {length}: the file has only {available} bytes after it")]
    PastEnd {
        /// The length it claims.
        length: u64,
        /// The bytes that are there.
        available: u64,
    },
    /// The header is not an object.
    #[error("header begins with byte {0:#04x}: expected `{{`")]
    NotObject(u8),
    /// The header is not UTF-8.
    #[error("header is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The header is not the JSON it should be.
    #[error("header: {}", printable(.0))]
    Json(String),
    /// A tensor's bytes begin before the previous tensor's end, or leave a hole after it.
    #[error("{}: data_offsets [{start}, {end}] {}: the tensor before it ends at {expected}", printable(tensor), if start < expected { "overlap" } else { "leave a hole" })]
    Offsets {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: usize,
        /// One past its last.
        end: usize,
        /// Where it should begin.
        expected: usize,
    },
    /// A tensor ends before it begins.
    #[error("{}: data_offsets [{start}, {end}] run backwards", printable(tensor))]
    Backwards {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: usize,
        /// One past its last.
        end: usize,
    },
    /// A tensor's shape needs another number of bytes than it has.
    #[error("{}: {dtype} {shape:?} needs {} bytes, data_offsets give {found}", printable(tensor), needed.map_or("more than 2^64".to_owned(), |n| n.to_string()))]
    Size {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The bytes the shape needs; `None` when their number overflows.
        needed: Option<usize>,
        /// The bytes it has.
        found: usize,
    },
    /// The tensors do not end where the file ends.
    #[error("tensors end at byte {tensors} of the data, the file has {file}")]
    End {
        /// Where the last tensor ends.
        tensors: usize,
        /// The bytes after the header.
        file: u64,
    },
}
