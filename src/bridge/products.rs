//! Products of tall matrices, in blocks of fixed size that threads share: each output element is summed by one thread in one
//! order, so that results do not depend on how many there are. All matrices are row-major.

use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows of a block of outputs.
const BLOCK: usize = 32;

/// What the large products are computed in: f32, or f64 where the gradient is checked.
pub(super) trait Real: RealField + Copy + Send + Sync {
    const ONE: Self;
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
}

impl Real for f32 {
    const ONE: f32 = 1.0;
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const ONE: f64 = 1.0;
    fn of(x: f64) -> f64 {
        x
    }
    fn wide(self) -> f64 {
        self
    }
}

/// `out += aᵀ · b`, a being `[rows, m]`, b `[rows, n]` and out `[m, n]`.
pub(super) fn add_outer(a: &[f64], m: usize, b: &[f64], n: usize, out: &mut [f64]) {
    let rows = a.len() / m;
    let (a, b) = (MatRef::from_row_major_slice(a, rows, m), MatRef::from_row_major_slice(b, rows, n));
    out.par_chunks_mut(BLOCK * n).enumerate().for_each(|(block, out)| {
        let count = out.len() / n;
        let columns = a.subcols(block * BLOCK, count).transpose();
        matmul(MatMut::from_row_major_slice_mut(out, count, n), Accum::Add, columns, b, 1.0, Par::Seq);
        settle::<f64>();
    });
}

/// `a · b`, a being `[rows, k]` and b `[k, n]`, on this thread.
pub(super) fn product<T: Real>(a: &[T], b: &[T], n: usize) -> Vec<T> {
    let k = b.len() / n;
    through(a, MatRef::from_row_major_slice(b, k, n))
}

/// `a · bᵀ`, a being `[rows, k]` and b `[n, k]`, on this thread.
pub(super) fn product_transposed<T: Real>(a: &[T], b: &[T], k: usize) -> Vec<T> {
    let n = b.len() / k;
    through(a, MatRef::from_row_major_slice(b, n, k).transpose())
}

fn through<T: Real>(a: &[T], b: MatRef<'_, T>) -> Vec<T> {
    let (k, n) = (b.nrows(), b.ncols());
    let rows = a.len() / k;
    let mut out = vec![T::of(0.0); rows * n];
    let to = MatMut::from_row_major_slice_mut(&mut out, rows, n);
    matmul(to, Accum::Replace, MatRef::from_row_major_slice(a, rows, k), b, T::ONE, Par::Seq);
    settle::<T>();
    out
}

/// Faer's products leave the upper halves of the vector registers in use, and on some processors `exp` is 35 times slower then,
/// until code that was compiled for those registers ends: a short norm of faer's does.
fn settle<T: Real>() {
    let ones = [T::ONE; 64];
    std::hint::black_box(MatRef::from_row_major_slice(std::hint::black_box(&ones), 1, ones.len()).norm_l2());
}
