//! Products of tall matrices, in blocks of fixed size that threads share: each output element is summed by one thread in one
//! order, so that results do not depend on how many there are. All matrices are row-major.

use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows of a block of outputs.
const BLOCK: usize = 32;

/// `out += aᵀ · b`, a being `[rows, m]`, b `[rows, n]` and out `[m, n]`.
pub(super) fn add_outer(a: &[f64], m: usize, b: &[f64], n: usize, out: &mut [f64]) {
    let rows = a.len() / m;
    let (a, b) = (MatRef::from_row_major_slice(a, rows, m), MatRef::from_row_major_slice(b, rows, n));
    out.par_chunks_mut(BLOCK * n).enumerate().for_each(|(block, out)| {
        let count = out.len() / n;
        let columns = a.subcols(block * BLOCK, count).transpose();
        matmul(MatMut::from_row_major_slice_mut(out, count, n), Accum::Add, columns, b, 1.0, Par::Seq);
    });
}

/// `a · b`, a being `[rows, k]` and b `[k, n]`, on this thread.
pub(super) fn product<T: RealField + Copy>(a: &[T], b: &[T], n: usize, one: T) -> Vec<T> {
    let k = b.len() / n;
    through(a, MatRef::from_row_major_slice(b, k, n), one)
}

/// `a · bᵀ`, a being `[rows, k]` and b `[n, k]`, on this thread.
pub(super) fn product_transposed<T: RealField + Copy>(a: &[T], b: &[T], k: usize, one: T) -> Vec<T> {
    let n = b.len() / k;
    through(a, MatRef::from_row_major_slice(b, n, k).transpose(), one)
}

fn through<T: RealField + Copy>(a: &[T], b: MatRef<'_, T>, one: T) -> Vec<T> {
    let (k, n) = (b.nrows(), b.ncols());
    let rows = a.len() / k;
    let mut out = vec![T::zero_impl(); rows * n];
    let to = MatMut::from_row_major_slice_mut(&mut out, rows, n);
    matmul(to, Accum::Replace, MatRef::from_row_major_slice(a, rows, k), b, one, Par::Seq);
    out
}
