//! A growing buffer of f32 that begins a cache line: a vector never lies across two of them by accident.
//!
//! Large buffers are mapped, each by itself, and the system's again as soon as they are dropped. From the allocator they would
//! not be: glibc raises the size from which on it maps to the largest that was ever freed (`mallopt(3)`), keeps what is smaller
//! in its heap, and a process whose buffers grow by turns would hold half as much again as lives in it.

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes from which on a buffer is mapped: glibc's own threshold, before it rises.
const MAPPED: usize = 128 << 10;

/// Bytes that are mapped now, by all buffers of the process.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The most there have been at once.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The most bytes that this process's buffers have had mapped at once since this was last called, and how many are now: what an
/// allocator that counts does not see.
pub fn take_mapped_peak() -> (usize, usize) {
    let live = LIVE.load(Ordering::SeqCst);
    (PEAK.swap(live, Ordering::SeqCst), live)
}

/// A cache line of f32: buffers made of these are aligned for any vector.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; Line::LEN]);

impl Line {
    const LEN: usize = 16;
    const ZERO: Line = Line([0.0; Line::LEN]);
}

// SAFETY: sixteen f32 in 64 bytes: any bits are valid, none is padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// A growing buffer of f32, 64-byte aligned. New memory is zero; the rest holds what the last user left, also where the
/// buffer was shorter in between.
#[derive(Debug, Default)]
pub struct Floats {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    Mapped(Mapping),
}

/// A mapping that is counted.
#[derive(Debug)]
struct Mapping(MmapMut);

impl Mapping {
    fn new(bytes: usize) -> Mapping {
        let layout =
            Layout::from_size_align(bytes, align_of::<Line>()).expect("a slice is no larger than the address space");
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|_| handle_alloc_error(layout));
        PEAK.fetch_max(LIVE.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
        Mapping(map)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::Lines(Vec::new())
    }
}

impl Memory {
    /// Zero but for what `old` holds.
    fn mapped(bytes: usize, old: &[f32]) -> Memory {
        let mut map = Mapping::new(bytes);
        map.0[..size_of_val(old)].copy_from_slice(bytemuck::cast_slice(old));
        Memory::Mapped(map)
    }

    fn floats(&self) -> &[f32] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Mapped(map) => bytemuck::cast_slice(&map.0),
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Mapped(map) => bytemuck::cast_slice_mut(&mut map.0),
        }
    }
}

impl Clone for Floats {
    fn clone(&self) -> Floats {
        let mut copy = Floats::default();
        copy.copy_from(self);
        copy
    }
}

impl Floats {
    /// Makes it `len` elements long. Memory is never given back.
    pub fn resize(&mut self, len: usize) {
        let count = len.div_ceil(Line::LEN);
        let bytes = count * size_of::<Line>();
        match &mut self.memory {
            memory if size_of_val(memory.floats()) >= bytes => {}
            Memory::Lines(lines) if bytes < MAPPED => {
                lines.reserve_exact(count - lines.len());
                lines.resize(count, Line::ZERO);
            }
            memory => *memory = Memory::mapped(bytes, memory.floats()),
        }
        self.len = len;
    }

    /// The buffer, grown to at least `len` elements.
    pub fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            self.resize(len);
        }
        self
    }

    /// Makes it a copy of `values`.
    pub fn copy_from(&mut self, values: &[f32]) {
        self.resize(values.len());
        self.copy_from_slice(values);
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Lines(lines) => lines.capacity() * size_of::<Line>(),
            Memory::Mapped(map) => map.0.len(),
        }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory.floats()[..self.len]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory.floats_mut()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_a_cache_line_and_keeps_what_it_holds() {
        let mut floats = Floats::default();
        assert!(floats.is_empty());
        for len in [1, 17, 5, 0, 33] {
            floats.resize(len);
            assert_eq!((floats.len(), floats.as_ptr().addr() % 64), (len, 0));
            floats.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
        }
        assert_eq!(floats.at_least(4).len(), 33);
        assert_eq!((floats.at_least(40)[32], floats[39]), (32.0, 0.0));
        floats.copy_from(&[7.0, 8.0]);
        assert_eq!(*floats, [7.0, 8.0]);
        assert_eq!(floats.bytes(), 192);
    }

    #[test]
    fn large_ones_are_mapped_and_keep_what_they_hold() {
        let mut floats = Floats::default();
        let held = [1.0, 2.0, 3.0, 4.0, 5.0];
        let first = MAPPED / size_of::<f32>() - Line::LEN;
        for len in [first, first + 1, 3 * first, 5, 7 * first + 3] {
            floats.resize(len);
            assert_eq!((floats.len(), floats.as_ptr().addr() % 64), (len, 0));
            assert!(floats[5..].iter().all(|x| *x == 0.0), "{len}: new memory is zero");
            assert_eq!(matches!(floats.memory, Memory::Mapped(_)), floats.bytes() >= MAPPED);
            assert!(len == first || floats[..5] == held, "{len}: what it held is there");
            floats[..5].copy_from_slice(&held);
        }
        assert_eq!(floats.bytes(), (7 * first + 3).div_ceil(Line::LEN) * size_of::<Line>());
    }
}
