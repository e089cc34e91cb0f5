//! A growing buffer of f32 that begins a cache line: a vector never lies across two of them by accident.

use bytemuck::{Pod, Zeroable};
use std::ops::{Deref, DerefMut};

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
#[derive(Clone, Debug, Default)]
pub struct Floats {
    lines: Vec<Line>,
    len: usize,
}

impl Floats {
    /// Makes it `len` elements long. Memory is never given back.
    pub fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(Line::LEN);
        if self.lines.len() < lines {
            self.lines.reserve_exact(lines - self.lines.len());
            self.lines.resize(lines, Line::ZERO);
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
        self.lines.capacity() * size_of::<Line>()
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
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
}
