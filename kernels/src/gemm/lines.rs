//! Memory that is asked for ahead of use, a cache line at a time, while the processor computes something else.

use super::{CACHE_LINE, Layout, WeightMatrix};
use crate::WeightData;
use crate::simd::Simd;
use std::ops::Range;

/// The cache lines of a block of memory that will be used soon: equal rows, equally far apart.
pub(crate) struct Lines {
    line: *const u8,
    /// Bytes that are left of the row.
    left: usize,
    row_bytes: usize,
    /// Bytes from the end of a row to the start of the next.
    skip: usize,
    lines: usize,
    /// Whether the block will be written.
    write: bool,
}

impl Lines {
    /// Nothing to fetch.
    pub(crate) fn none() -> Lines {
        Lines { line: std::ptr::null(), left: 0, row_bytes: 0, skip: 0, lines: 0, write: false }
    }

    /// A block of weights to be read, where there are any columns.
    pub(crate) fn of_weights(b: &WeightMatrix<'_>, k: Range<usize>, columns: Range<usize>) -> Lines {
        if columns.is_empty() {
            return Lines::none();
        }
        let (first, row, stride, rows) = match b.layout {
            Layout::InOut => (k.start * b.n + columns.start, columns.len(), b.n, k.len()),
            Layout::OutIn => (columns.start * b.k + k.start, k.len(), b.k, columns.len()),
        };
        let (start, size) = match b.data {
            WeightData::F32(data) => (data.as_ptr().cast::<u8>(), 4),
            WeightData::F16(data) => (data.as_ptr().cast(), 2),
            WeightData::Bf16(data) => (data.as_ptr().cast(), 2),
        };
        let row_bytes = row * size;
        Lines {
            line: start.wrapping_add(first * size),
            left: row_bytes,
            row_bytes,
            skip: (stride - row) * size,
            lines: rows * row_bytes.div_ceil(CACHE_LINE),
            write: false,
        }
    }

    /// A block of an output to be written: `rows` of `columns` f32, `stride` apart.
    #[inline(always)]
    pub(crate) fn of_output(first: *const f32, rows: usize, columns: usize, stride: usize) -> Lines {
        let row_bytes = columns * size_of::<f32>();
        Lines {
            line: first.cast(),
            left: row_bytes,
            row_bytes,
            skip: (stride - columns) * size_of::<f32>(),
            lines: rows * row_bytes.div_ceil(CACHE_LINE),
            write: true,
        }
    }

    /// Fetches the next line, if there is one.
    #[inline(always)]
    pub(crate) fn fetch<S: Simd>(&mut self, s: S) {
        if self.lines == 0 {
            return;
        }
        if self.write {
            s.prefetch_write(self.line);
        } else {
            s.prefetch_far(self.line);
        }
        self.lines -= 1;
        let step = self.left.min(CACHE_LINE);
        self.left -= step;
        self.line = self.line.wrapping_add(step);
        if self.left == 0 {
            self.left = self.row_bytes;
            self.line = self.line.wrapping_add(self.skip);
        }
    }
}
