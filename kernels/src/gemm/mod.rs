//! Matrix product with a weight matrix: `out[m, n] = epilogue(a[m, k] · b[k, n])`.
//!
//! `a` is f32 and row-major; `b` stays in its file's type and is widened on the way.
//!
//! **Order of sums.** An output element is the sum, in order, of the partial sums of the blocks of [`KC`] consecutive
//! k, each a chain of FMAs from zero. `KC` is a constant of the format, not of the machine, and every path below keeps
//! the order, so an element's bits depend neither on m and n, nor on other rows and outputs, nor on the number of threads,
//! nor on the dtype or layout of equal weights. In f32 AVX-512 and AVX2 give the same bits; the portable path, without FMA, gives its own.
//!
//! **Loops.** Many rows ([`packed`]): a piece of `a` is packed into panels of `MR` rows ([`rows`]); a task takes a strip of
//! [`NT`] columns and a range of rows, packs a piece of the strip, which stays in L2, and runs register tiles over it. A
//! panel of b (`KC × NR`, 32 KiB with AVX-512) stays in L1 while panels of a stream past. A register tile's finished sums get
//! their epilogue and are stored ([`finish`]) before the next tile begins. For few rows, up to [`FEW`], b is the slower side
//! to come: where it lies `[k, n]` they have a loop of their own ([`few`]), where it lies `[n, k]` the same loop with pieces
//! of b that stay in L1, and a single row one of its own again ([`row`]). What comes from memory next is fetched meanwhile
//! ([`lines`]).

pub(crate) mod arithmetic;
pub(crate) mod few;
mod finish;
pub(crate) mod lines;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod tile;

use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::Simd;
use crate::{Isa, WeightData};
use arithmetic::Arithmetic;
use rows::FEW;
use std::ops::Range;
pub(crate) use tile::PackedTile;

/// Consecutive k that are summed from zero before they join the total. Part of the order of sums: never tuned to a
/// machine.
pub(crate) const KC: usize = 256;

/// Bytes that come from memory at a time.
const CACHE_LINE: usize = 64;

/// Columns of a strip.
pub(crate) const NT: usize = 128;

/// The parts of a range of k that lie in one block each, in order.
#[inline(always)]
pub(crate) fn blocks(k: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (k.start / KC * KC..k.end).step_by(KC).map(move |start| start.max(k.start)..k.end.min(start + KC))
}

/// How a weight matrix of `k` inputs and `n` outputs lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[k, n]` row-major: GPT-2's `Conv1D` weights.
    InOut,
    /// `[n, k]` row-major: `wte` used as the unembedding.
    OutIn,
}

/// A weight matrix of `k` inputs and `n` outputs, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    /// From the first element to the last.
    pub data: WeightData<'a>,
    /// Inputs: the length of the sums.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// How they lie in memory.
    pub layout: Layout,
    /// Elements from a row in memory to the next.
    pub stride: usize,
}

impl<'a> WeightMatrix<'a> {
    /// A whole matrix: `k · n` elements.
    pub fn new(data: WeightData<'a>, k: usize, n: usize, layout: Layout) -> WeightMatrix<'a> {
        let stride = if layout == Layout::InOut { n } else { k };
        WeightMatrix { data, k, n, layout, stride }
    }

    /// Some of its outputs.
    ///
    /// # Panics
    /// If they are none, or not all there.
    pub fn outputs(&self, outputs: Range<usize>) -> WeightMatrix<'a> {
        assert!(!outputs.is_empty() && outputs.end <= self.n, "outputs {outputs:?} of {}", self.n);
        let n = outputs.len();
        let elements = match self.layout {
            Layout::InOut => outputs.start..(self.k - 1) * self.stride + outputs.end,
            Layout::OutIn => outputs.start * self.stride..(outputs.end - 1) * self.stride + self.k,
        };
        WeightMatrix { data: self.data.slice(elements), n, ..*self }
    }

    /// Whether the elements are as many as the shape says.
    pub(crate) fn is_whole(&self) -> bool {
        let (rows, row) = if self.layout == Layout::InOut { (self.k, self.n) } else { (self.n, self.k) };
        let len = rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(self.stride)?.checked_add(row));
        self.stride >= row && len == Some(self.data.len())
    }
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// `out = sum`
    Store,
    /// `out = sum + bias[n]`
    Bias(&'a [f32]),
    /// `out = gelu_new(sum + bias[n])`
    BiasGelu(&'a [f32]),
    /// `out = out + (sum + bias[n])`: the residual stream takes the update.
    BiasAdd(&'a [f32]),
}

impl Epilogue<'_> {
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        match self {
            Epilogue::Store => None,
            Epilogue::Bias(bias) | Epilogue::BiasGelu(bias) | Epilogue::BiasAdd(bias) => Some(bias),
        }
    }

    /// Finishes up to a vector of sums of one row, columns `column .. column + n`, and stores them at `out`.
    ///
    /// # Safety
    /// The first `min(n, LANES)` f32 are writable (and readable) at `out`, and as many from `column` on are inside the bias.
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Simd>(&self, s: S, sum: S::V, column: usize, n: usize, out: *mut f32) {
        // SAFETY: bias and out hold n elements from here, by the caller's word.
        unsafe {
            let load = |p: *const f32| if n >= S::LANES { s.load(p) } else { s.load_first(p, n) };
            let value = match self {
                Epilogue::Store => sum,
                Epilogue::Bias(bias) => s.add(sum, load(bias.as_ptr().add(column))),
                Epilogue::BiasGelu(bias) => s.gelu(s.add(sum, load(bias.as_ptr().add(column)))),
                Epilogue::BiasAdd(bias) => s.add(load(out), s.add(sum, load(bias.as_ptr().add(column)))),
            };
            if n >= S::LANES { s.store(out, value) } else { s.store_first(out, value, n) }
        }
    }
}

/// The product, by the loop that suits its number of rows and the layout of b.
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let gemm = match (a.len() / b.k, b.layout) {
        (1, Layout::OutIn) => row::gemm::<A>,
        (..=FEW, Layout::InOut) => few::gemm::<A>,
        _ => packed::gemm::<A>,
    };
    gemm(isa, leader, scratch, a, b, epilogue, out);
}

/// The output of a parallel loop whose tasks write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct SharedOut<T>(*mut T);

// SAFETY: tasks write disjoint elements (each user argues why); the pointer itself may cross threads.
unsafe impl<T: Send> Sync for SharedOut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedOut<T> {}

impl<T> From<*mut T> for SharedOut<T> {
    fn from(pointer: *mut T) -> Self {
        SharedOut(pointer)
    }
}

impl<T> SharedOut<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        SharedOut(slice.as_mut_ptr())
    }

    /// The element `i`.
    ///
    /// # Safety
    /// `i` is inside the slice this was made of.
    #[inline(always)]
    pub(crate) unsafe fn at(self, i: usize) -> *mut T {
        // SAFETY: the caller's.
        unsafe { self.0.add(i) }
    }
}
