//! Memory that is asked for ahead of use, a few cache lines at a time, while the processor computes something else.

use super::{CACHE_LINE, Layout, WeightMatrix};
use crate::WeightData;
use crate::simd::Simd;
use std::ops::Range;

/// Units of k between two fetches.
pub(crate) const UNITS: usize = 8;

/// The cache lines of a block of memory that will be used soon: equal rows, equally far apart. They are counted from each
/// row's start: of a row that begins amid a line, its last bytes may be left out.
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
        for _ in 0..self.due() {
            let line = self.next();
            if self.write {
                s.prefetch_write(line);
            } else {
                s.prefetch_far(line);
            }
        }
        self.lines -= self.due();
    }

    /// How many lines one call fetches.
    #[inline(always)]
    fn due(&self) -> usize {
        self.at_once.min(self.lines)
    }

    /// The next line.
    #[inline(always)]
    fn next(&mut self) -> *const u8 {
        let line = self.line;
        let step = self.left.min(CACHE_LINE);
        self.left -= step;
        self.line = self.line.wrapping_add(step);
        if self.left == 0 {
            self.left = self.row_bytes;
            self.line = self.line.wrapping_add(self.skip);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Floats;
    use half::{bf16, f16};

    /// Offsets of the lines from `start`, call by call.
    fn visited(mut lines: Lines, start: *const u8) -> Vec<Vec<usize>> {
        let mut calls = Vec::new();
        while lines.lines > 0 {
            let due = lines.due();
            assert!(due > 0, "lines are left that are never due");
            calls.push((0..due).map(|_| lines.next().addr() - start.addr()).collect());
            lines.lines -= due;
        }
        assert_eq!(lines.due(), 0);
        calls
    }

    /// The lines of `rows` of `bytes`, `stride` bytes apart.
    fn expected(first: usize, rows: usize, bytes: usize, stride: usize) -> Vec<usize> {
        (0..rows).flat_map(|row| (0..bytes).step_by(CACHE_LINE).map(move |at| first + row * stride + at)).collect()
    }

    #[test]
    fn an_output_is_passed_over_once_row_by_row_one_line_a_call() {
        let mut floats = Floats::default();
        floats.resize(40 * 50);
        let start = floats.as_ptr().cast::<u8>();
        for (first, rows, columns, stride) in
            [(0, 14, 32, 48), (16, 3, 16, 48), (0, 1, 1, 1), (5, 4, 33, 50), (0, 7, 50, 50), (0, 3, 0, 8), (0, 0, 9, 9)]
        {
            let calls = visited(Lines::of_output(floats[first..].as_ptr(), rows, columns, stride), start);
            assert!(calls.iter().all(|call| call.len() == 1));
            assert_eq!(
                calls.concat(),
                expected(4 * first, rows, 4 * columns, 4 * stride),
                "{rows} × {columns} of {stride}"
            );
        }
    }

    #[test]
    fn weights_are_passed_over_once_row_by_row_in_the_units_there_are() {
        const K: usize = 40;
        const N: usize = 96;
        let (f32s, f16s) = (vec![0.0; K * N], vec![f16::ZERO; K * N]);
        let bf16s = vec![bf16::ZERO; K * N];
        let (f32_at, f16_at, bf16_at) = (f32s.as_ptr().cast::<u8>(), f16s.as_ptr().cast(), bf16s.as_ptr().cast());
        for (data, start, size) in [
            (WeightData::F32(&f32s), f32_at, 4),
            (WeightData::F16(&f16s), f16_at, 2),
            (WeightData::Bf16(&bf16s), bf16_at, 2),
        ] {
            for (k, columns) in
                [(0..K, 0..N), (8..24, 32..64), (3..4, 5..6), (0..1, 0..N), (0..K, 95..96), (7..40, 1..50)]
            {
                for units in [1, 7, 8, 100, 1024] {
                    for layout in [Layout::InOut, Layout::OutIn] {
                        let b = WeightMatrix::new(data, K, N, layout);
                        let want = match layout {
                            Layout::InOut => {
                                expected((k.start * N + columns.start) * size, k.len(), columns.len() * size, N * size)
                            }
                            Layout::OutIn => {
                                expected((columns.start * K + k.start) * size, columns.len(), k.len() * size, K * size)
                            }
                        };
                        let calls = visited(Lines::of_weights(&b, k.clone(), columns.clone(), units), start);
                        assert_eq!(calls.concat(), want, "{layout:?} {k:?} × {columns:?} of {size} bytes");
                        // One call every `UNITS` units.
                        assert!(calls.len() <= units.div_ceil(UNITS), "{} calls in {units} units", calls.len());
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_fetched_of_nothing() {
        let b = WeightMatrix::new(WeightData::F32(&[0.0; 12]), 3, 4, Layout::InOut);
        let empty = [Lines::none(), Lines::of_weights(&b, 0..3, 4..4, 8), Lines::of_weights(&b, 3..3, 0..4, 8)];
        for lines in empty {
            assert_eq!(visited(lines, std::ptr::null()), [[0; 0]; 0]);
        }
        let b = WeightMatrix { layout: Layout::OutIn, stride: 3, ..b };
        assert_eq!(visited(Lines::of_weights(&b, 3..3, 0..4, 8), std::ptr::null()), [[0; 0]; 0]);
    }
}
