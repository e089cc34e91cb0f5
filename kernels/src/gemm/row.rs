//! The product of one row with weights that lie `[n, k]`, as in decoding's unembedding: b is read once, from where it lies,
//! as fast as memory gives it, and never copied. The order of sums is that of the packed product.
//!
//! A task is some outputs; blocks of `LANES × LANES` elements of b are transposed in registers, so that here, too, a lane
//! is one output's chain over k.

use super::arithmetic::{Arithmetic, Element};
use super::{CACHE_LINE, Epilogue, SharedOut, WeightMatrix, blocks};
use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};
use std::marker::PhantomData;
use std::ops::Range;

/// Outputs of a task, `[n, k]`.
const OUTPUTS: usize = 256;

/// Elements of k, `[n, k]`, that are fetched ahead of use.
const K_AHEAD: usize = 128;

/// The product of a single row.
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let units = &mut scratch.rows.at_least(A::units(b.k))[..A::units(b.k)];
    dispatch(isa, Units::<A> { a, units, arithmetic: PhantomData });
    let a = &*units;
    let work = b.k * b.n;
    let out = SharedOut::new(out);
    leader.share(work, b.n.div_ceil(OUTPUTS), |task| {
        let columns = task * OUTPUTS..b.n.min((task + 1) * OUTPUTS);
        dispatch(isa, Outputs::<A> { a, b: &b, columns, epilogue, out, arithmetic: PhantomData });
    });
}

/// The row as units of the arithmetic.
struct Units<'a, A> {
    a: &'a [f32],
    units: &'a mut [f32],
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Units<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (a, units) in self.a.chunks(S::LANES * A::UNIT).zip(self.units.chunks_mut(S::LANES)) {
            // SAFETY: the chunk holds `units.len() ≤ LANES` elements.
            unsafe { s.store_first(units.as_mut_ptr(), A::along_k(s, a), units.len()) };
        }
    }
}

/// Some outputs of b, `[n, k]`.
struct Outputs<'a, A> {
    /// `[units]`
    a: &'a [f32],
    b: &'a WeightMatrix<'a>,
    columns: Range<usize>,
    epilogue: Epilogue<'a>,
    out: SharedOut<f32>,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Outputs<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.b.data {
            WeightData::F32(data) => self.with(s, data),
            WeightData::F16(data) => self.with(s, data),
            WeightData::Bf16(data) => self.with(s, data),
        }
    }
}

impl<A: Arithmetic> Outputs<'_, A> {
    #[inline(always)]
    fn with<S: Simd, E: Element>(self, s: S, b: &[E]) {
        let Outputs { a, columns, epilogue, out, .. } = self;
        let (k, stride) = (self.b.k, self.b.stride);
        let step = S::LANES * A::UNIT;
        for column in columns.clone().step_by(S::LANES) {
            let outputs = S::LANES.min(columns.end - column);
            let mut total = s.splat(0.0);
            for block in blocks(0..k) {
                let mut chain = s.splat(0.0);
                for from in block.clone().step_by(step) {
                    let to = block.end.min(from + step);
                    let at = column * stride + from;
                    let mut square = [s.splat(0.0); 16];
                    let square = &mut square[..S::LANES];
                    if outputs == S::LANES && to - from == step {
                        let rows = &b[at..at + (S::LANES - 1) * stride + step];
                        // Behind the end of these outputs' rows come those of the next ones.
                        let further = if from + K_AHEAD < k { 0 } else { (S::LANES - 1) * stride };
                        let coming = b.as_ptr().wrapping_add(at + K_AHEAD + further);
                        for (j, v) in square.iter_mut().enumerate() {
                            // SAFETY: `step` elements of row `j < LANES`.
                            *v = A::along_k(s, unsafe {
                                std::slice::from_raw_parts(rows.as_ptr().add(j * stride), step)
                            });
                            if (from * size_of::<E>()).is_multiple_of(CACHE_LINE) {
                                s.prefetch(coming.wrapping_add(j * stride).cast());
                            }
                        }
                    } else {
                        for (j, v) in square.iter_mut().enumerate().take(outputs) {
                            *v = A::along_k(s, &b[at + j * stride..at + j * stride + (to - from)]);
                        }
                    }
                    s.transpose(square);
                    for (&a, &v) in a[from / A::UNIT..A::units(to)].iter().zip(&*square) {
                        chain = A::multiply_add(s, s.splat(a), v, chain);
                    }
                }
                total = if block.start > 0 { s.add(total, chain) } else { chain };
            }
            // SAFETY: this task alone writes its outputs, and the vector ends with them; the bias has n elements
            // (`Kernels::gemm` checked).
            unsafe { epilogue.finish(s, total, column, outputs, out.at(column)) };
        }
    }
}
