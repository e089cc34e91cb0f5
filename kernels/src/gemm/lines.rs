//! Memory that is asked for ahead of use, a few cache lines at a time, while the processor computes something else.

use super::{CACHE_LINE, Layout, WeightMatrix};
use crate::WeightData;
use crate::simd::Simd;
use std::ops::Range;

/// Units of k between two fetches.
pub(crate) const UNITS: usize = 8;

/// The cache lines of a block of memory that will be used soon: equal rows, equally far apart.
pub(crate) struct Lines {
    line: *const u8,
    /// Bytes that are left of the row.
    left: usize,
    row_bytes: usize,
    /// Bytes from the end of a row to the start of the next.
    skip: usize,
    /// Lines that are left.
    lines: usize,
    /// Lines that are fetched together.
    at_once: usize,
    /// Whether the block will be written.
    write: bool,
}

impl Lines {
    /// Nothing to fetch.
    pub(crate) fn none() -> Lines {
        Lines { line: std::ptr::null(), left: 0, row_bytes: 0, skip: 0, lines: 0, at_once: 0, write: false }
    }

    /// A block of an output to be written: `rows` of `columns` f32, `stride` apart. Few at a time, or they would hold up
    /// the loads of what is multiplied.
    #[inline(always)]
    pub(crate) fn of_output(first: *const f32, rows: usize, columns: usize, stride: usize) -> Lines {
        let row_bytes = columns * size_of::<f32>();
        Lines {
            line: first.cast(),
            left: row_bytes,
            row_bytes,
            skip: (stride - columns) * size_of::<f32>(),
            lines: rows * row_bytes.div_ceil(CACHE_LINE),
            at_once: 1,
            write: true,
        }
    }

    /// A block of weights to be read, fetched during `units` of k.
    pub(crate) fn of_weights(b: &WeightMatrix<'_>, k: Range<usize>, columns: Range<usize>, units: usize) -> Lines {
        if columns.is_empty() {
            return Lines::none();
        }
        let stride = b.stride;
        let (first, row, rows) = match b.layout {
            Layout::InOut => (k.start * stride + columns.start, columns.len(), k.len()),
            Layout::OutIn => (columns.start * stride + k.start, k.len(), columns.len()),
        };
        let (start, size) = match b.data {
            WeightData::F32(data) => (data.as_ptr().cast::<u8>(), 4),
            WeightData::F16(data) => (data.as_ptr().cast(), 2),
            WeightData::Bf16(data) => (data.as_ptr().cast(), 2),
        };
        let row_bytes = row * size;
        let lines = rows * row_bytes.div_ceil(CACHE_LINE);
        Lines {
            line: start.wrapping_add(first * size),
            left: row_bytes,
            row_bytes,
            skip: (stride - row) * size,
            lines,
            at_once: (lines * UNITS).div_ceil(units.max(1)),
            write: false,
        }
    }

    /// Fetches the next lines, if there are any.
    #[inline(always)]
    pub(crate) fn fetch<S: Simd>(&mut self, s: S) {
        for _ in 0..self.at_once.min(self.lines) {
            if self.write {
                s.prefetch_write(self.line);
            } else {
                s.prefetch_far(self.line);
            }
            let step = self.left.min(CACHE_LINE);
            self.left -= step;
            self.line = self.line.wrapping_add(step);
            if self.left == 0 {
                self.left = self.row_bytes;
                self.line = self.line.wrapping_add(self.skip);
            }
        }
        self.lines -= self.at_once.min(self.lines);
    }
}
