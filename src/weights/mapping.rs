//! The bytes of a weights file: mapped, read into memory, or part of the binary.
//!
//! The only `unsafe` of the library outside the kernels is the map here.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use memmap2::Mmap;

/// Bytes that tensors point into. Mapped bytes begin at a page, copied ones at a multiple of 8.
pub(super) enum Storage {
    Mapped(Mmap),
    Copied(AlignedBytes),
    Static(&'static [u8]),
}

impl Storage {
    /// Maps the whole of `file`, which is `bytes` long.
    ///
    /// Touching a page that another program has cut off the file meanwhile raises SIGBUS, which no `Result` can carry:
    /// embedders who cannot rule that out read the file instead ([`ReadMode::Copy`](super::ReadMode::Copy)).
    #[allow(unsafe_code)]
    pub(super) fn map(file: &File, bytes: u64) -> io::Result<Storage> {
        // SAFETY: the map is private and read-only, and lives as long as the `Mmap` that owns it. What the type system
        // cannot promise is that nobody writes to the file. Such a write changes values but breaks no invariant: the
        // header is never parsed from the map (it is read into a buffer first), and the rest is only ever viewed as
        // f32, f16, bf16 or bytes, for which every bit pattern is valid. Truncation raises SIGBUS, as documented.
        let map = unsafe { Mmap::map(file)? };
        // A file that changed its size since its header was checked would put tensors outside the map.
        if map.len() as u64 == bytes { Ok(Storage::Mapped(map)) } else { Err(changed_size()) }
    }

    /// Reads the whole of `file`, which is `bytes` long, from its current position 0.
    pub(super) fn read(file: &mut File, bytes: u64) -> io::Result<Storage> {
        let mut copy = AlignedBytes::try_zeroed(usize::try_from(bytes).map_err(io::Error::other)?)?;
        file.read_exact(copy.as_mut_slice())?;
        if file.read(&mut [0])? == 0 { Ok(Storage::Copied(copy)) } else { Err(changed_size()) }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Storage::Mapped(map) => map,
            Storage::Copied(copy) => copy.as_slice(),
            Storage::Static(bytes) => bytes,
        }
    }
}

/// How the bytes are held and how many they are; not the bytes.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Storage::Mapped(_) => "Mapped",
            Storage::Copied(_) => "Copied",
            Storage::Static(_) => "Static",
        };
        write!(f, "{kind}({} bytes)", self.as_slice().len())
    }
}

fn changed_size() -> io::Error {
    io::Error::other("its size changed while it was being opened")
}

/// Bytes that begin at a multiple of 8, enough for every element type.
pub(super) struct AlignedBytes {
    words: Box<[u64]>,
    len: usize,
}

impl AlignedBytes {
    fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes { words: vec![0; len.div_ceil(8)].into_boxed_slice(), len }
    }

    /// As `zeroed`, for a length that a file gives: more than there is memory for is an error, not an abort.
    fn try_zeroed(len: usize) -> io::Result<AlignedBytes> {
        let count = len.div_ceil(8);
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for {len} bytes")))?;
        words.resize(count, 0);
        Ok(AlignedBytes { words: words.into_boxed_slice(), len })
    }

    pub(super) fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}
