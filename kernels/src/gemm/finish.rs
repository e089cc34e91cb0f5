//! The end of a product: complete sums get their epilogue and are stored.

use super::lines::Lines;
use super::{Epilogue, NT, SharedOut};
use crate::simd::Simd;
use std::ops::Range;

/// The epilogue of complete sums, and where they go.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// Columns of the output.
    pub(crate) n: usize,
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) out: SharedOut<f32>,
}

impl Finish<'_> {
    /// The memory of `rows` and `columns`, which are inside the output: to be fetched before they are stored.
    #[inline(always)]
    pub(crate) fn lines(&self, rows: &Range<usize>, columns: &Range<usize>) -> Lines {
        // SAFETY: an element of the output.
        let first = unsafe { self.out.at(rows.start * self.n + columns.start) };
        Lines::of_output(first, rows.len(), columns.len(), self.n)
    }

    /// Stores the sums of `rows` and `columns`, the rows [`NT`] apart, with their epilogue.
    ///
    /// # Safety
    /// No other task has these rows and columns, which are inside the output; the bias is as long as it has columns.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(&self, s: S, rows: Range<usize>, columns: Range<usize>, sums: &[f32]) {
        // SAFETY: the caller's.
        unsafe {
            match self.epilogue {
                Epilogue::Store => self.each::<S, false, false>(s, rows, columns, sums, None),
                Epilogue::Bias(bias) => self.each::<S, false, false>(s, rows, columns, sums, Some(bias)),
                Epilogue::BiasGelu(bias) => self.each::<S, true, false>(s, rows, columns, sums, Some(bias)),
                Epilogue::BiasAdd(bias) => self.each::<S, false, true>(s, rows, columns, sums, Some(bias)),
            }
        }
    }

    /// # Safety
    /// As [`Finish::store`].
    #[inline(always)]
    unsafe fn each<S: Simd, const GELU: bool, const ADD: bool>(
        &self,
        s: S,
        rows: Range<usize>,
        columns: Range<usize>,
        sums: &[f32],
        bias: Option<&[f32]>,
    ) {
        for column in columns.clone().step_by(S::LANES) {
            let n = columns.end - column;
            let sums = sums[column - columns.start..].chunks(NT);
            // SAFETY: `n` columns from here on, of the bias and of each row of the output, are the caller's; each chunk
            // of sums holds a vector.
            unsafe {
                let bias = bias.map(|bias| s.load_first(bias.as_ptr().add(column), n));
                for (row, sums) in rows.clone().zip(sums) {
                    assert!(sums.len() >= S::LANES);
                    let out = self.out.at(row * self.n + column);
                    let sum = s.load(sums.as_ptr());
                    let mut value = bias.map_or(sum, |bias| s.add(sum, bias));
                    if GELU {
                        value = s.gelu(value);
                    }
                    if n >= S::LANES {
                        s.store(out, if ADD { s.add(s.load(out), value) } else { value });
                    } else {
                        s.store_first(out, if ADD { s.add(s.load_first(out, n), value) } else { value }, n);
                    }
                }
            }
        }
    }
}
