//! [`Team`] owns what kernels run on; [`Kernels`] are the kernels while it is at work. Shapes are checked here; the
//! kernels trust them.

use crate::attention::{self, HeadShape, KvSpan, KvStore, TILE};
use crate::gemm::arithmetic::{Bf16, Bf16Pairs, F32, Precision};
use crate::gemm::{self, Epilogue, WeightMatrix};
use crate::pool::{Leader, Pool};
use crate::scratch::Scratch;
use crate::{Candidate, Isa, RowScore, cross_entropy, norm};
use std::fmt;

/// Threads, an instruction set that was checked to be there, and the scratch memory of the kernels.
pub struct Team {
    isa: Isa,
    precision: Precision,
    pool: Pool,
    scratch: Scratch,
}

/// A team that can't be had.
#[derive(Debug)]
pub enum TeamError {
    /// This processor lacks the instructions.
    Isa(Isa),
    /// The number of threads is not in `1..=MAX_THREADS`.
    Threads(usize),
    /// The operating system refuses the threads.
    Spawn(usize, rayon::ThreadPoolBuildError),
}

impl fmt::Display for TeamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TeamError::Isa(isa) => {
                let here: Vec<_> = Isa::available().map(Isa::name).collect();
                write!(f, "instruction set {isa}: this processor has {}", here.join(", "))
            }
            TeamError::Threads(n) => write!(f, "{n} threads: from 1 to {} are possible", Team::MAX_THREADS),
            TeamError::Spawn(n, why) => write!(f, "{n} threads: the operating system refuses them: {why}"),
        }
    }
}

impl std::error::Error for TeamError {}

impl Team {
    /// The most threads a team can have.
    pub const MAX_THREADS: usize = 1024;

    /// A team of `threads` threads that runs the kernels of `isa`.
    ///
    /// # Errors
    /// When the instructions or the threads are not to be had.
    pub fn new(isa: Isa, threads: usize) -> Result<Team, TeamError> {
        if !isa.is_available() {
            return Err(TeamError::Isa(isa));
        }
        if !(1..=Team::MAX_THREADS).contains(&threads) {
            return Err(TeamError::Threads(threads));
        }
        let pool = Pool::new(threads).map_err(|why| TeamError::Spawn(threads, why))?;
        Ok(Team { isa, precision: Precision::F32, pool, scratch: Scratch::new(threads) })
    }

    /// The same team, computing products in `precision` (f32 unless told).
    pub fn with_precision(self, precision: Precision) -> Team {
        Team { precision, ..self }
    }

    /// How products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Anonymous memory held by the kernels' scratch, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    /// The threads, for work that is no kernel.
    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Puts the team to work: `work` runs on one of its threads and calls kernels, which share all of them.
    ///
    /// Entering costs some microseconds, a kernel inside about one: enter once per forward pass.
    pub fn enter<R: Send>(&mut self, work: impl FnOnce(&mut Kernels<'_, '_>) -> R + Send) -> R {
        let Team { isa, precision, pool, scratch } = self;
        let (isa, precision) = (*isa, *precision);
        pool.enter(|leader| work(&mut Kernels { isa, precision, leader, scratch }))
    }
}

/// The kernels, while their team is at work: see [`Team::enter`].
///
/// Results never depend on the number of threads, nor on how rows are batched. Sums run in one fixed order per
/// instruction set.
pub struct Kernels<'a, 'p> {
    isa: Isa,
    precision: Precision,
    leader: &'a mut Leader<'p>,
    scratch: &'a mut Scratch,
}

impl Kernels<'_, '_> {
    /// LayerNorm of each row of `x` (`[rows, width]`, width being `weight.len()`):
    /// `out = (x − mean) / √(variance + eps) · weight + bias` (Ba, Kiros & Hinton 2016).
    ///
    /// # Panics
    /// If the lengths don't fit together.
    pub fn layer_norm(&mut self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        assert!(!weight.is_empty() && weight.len() == bias.len(), "layer_norm: weight and bias");
        assert!(x.len().is_multiple_of(weight.len()) && x.len() == out.len(), "layer_norm: rows");
        norm::layer_norm(self.isa, self.leader, x, weight, bias, eps, out);
    }

    /// `out[m, n] = epilogue(a[m, k] · b[k, n])`; all row-major, m being `a.len() / k`.
    ///
    /// # Panics
    /// If the lengths don't fit together, or k is 0.
    pub fn gemm(&mut self, a: &[f32], b: WeightMatrix<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        check_matrix(&b);
        assert!(a.len().is_multiple_of(b.k), "gemm: a has {} elements, k is {}", a.len(), b.k);
        let rows = a.len() / b.k;
        assert_eq!(Some(out.len()), rows.checked_mul(b.n), "gemm: out");
        assert!(epilogue.bias().is_none_or(|bias| bias.len() == b.n), "gemm: bias");
        if rows == 0 || b.n == 0 {
            return;
        }
        let Kernels { isa, leader, scratch, .. } = self;
        let gemm = match self.precision {
            Precision::F32 => gemm::gemm::<F32>,
            Precision::Bf16 => gemm::gemm::<Bf16>,
            Precision::Bf16Pairs => gemm::gemm::<Bf16Pairs>,
        };
        gemm(*isa, leader, scratch, a, b, epilogue, out);
    }

    /// Causal attention of a packed batch (Vaswani et al. 2017).
    ///
    /// `qkv` is `[rows, 3 · heads · head_dim]`: queries, keys and values side by side, as `c_attn` makes them. For each
    /// span the new keys and values are first stored behind its `past` tokens in `store`; then each new row attends to
    /// all tokens of its own sequence up to itself, scores multiplied by `scale`. `z` is `[rows, heads · head_dim]`, the
    /// input of `c_proj`; rows that no span covers are left as they are.
    ///
    /// # Panics
    /// If lengths don't fit together, a span leaves the batch or the store, or spans don't follow each other in both
    /// rows and slots.
    pub fn attention(
        &mut self,
        shape: HeadShape,
        scale: f32,
        qkv: &[f32],
        spans: &[KvSpan],
        store: &mut KvStore,
        z: &mut [f32],
    ) {
        // The kernels trust these numbers: a sum or product that wraps must not pass.
        let width = shape.heads.checked_mul(shape.head_dim).filter(|&width| width > 0);
        let width = width.unwrap_or_else(|| panic!("attention: {shape:?}"));
        assert!(scale > 0.0, "attention: scale {scale}");
        assert!(qkv.len() == 3 * z.len() && z.len().is_multiple_of(width), "attention: qkv and z");
        let (rows, slots) = (z.len() / width, store.slots(shape));
        let (mut row, mut slot) = (0, 0);
        for span in spans {
            assert!(
                span.slot.is_multiple_of(TILE) && span.slot >= slot && span.first_row >= row,
                "attention: {span:?}: not a whole tile, or behind the span before"
            );
            let end = span.slot.checked_add(span.past).and_then(|end| end.checked_add(span.rows));
            let end = end.and_then(|end| end.checked_next_multiple_of(TILE)).filter(|&end| end <= slots);
            slot = end.unwrap_or_else(|| panic!("attention: {span:?} ends behind the store's {slots} slots"));
            let end = span.first_row.checked_add(span.rows).filter(|&end| end <= rows);
            row = end.unwrap_or_else(|| panic!("attention: {span:?} ends behind the batch's {rows} rows"));
        }
        attention::attention(self.isa, self.leader, self.scratch, shape, scale, qkv, spans, store, z);
    }

    /// Scores each row of `x` (`[rows, k]`, already through the final LayerNorm) against its target over all n outputs
    /// of `unembedding`. The logits are never stored; a target's logit has the bits that [`Kernels::gemm`] gives.
    ///
    /// # Panics
    /// If the lengths don't fit together or a target is not below n.
    pub fn cross_entropy(&mut self, x: &[f32], unembedding: WeightMatrix<'_>, targets: &[u32], out: &mut [RowScore]) {
        self.cross_entropy_top(x, unembedding, targets, &mut [], out);
    }

    /// The same, and each row's greatest logits, in descending order: `greatest` is `[rows, as many as are wanted]`. Of
    /// equal logits the lower id comes first.
    ///
    /// # Panics
    /// As [`Kernels::cross_entropy`], and if `greatest` is not as long for each row.
    pub fn cross_entropy_top(
        &mut self,
        x: &[f32],
        unembedding: WeightMatrix<'_>,
        targets: &[u32],
        greatest: &mut [Candidate],
        out: &mut [RowScore],
    ) {
        check_matrix(&unembedding);
        assert_eq!(Some(x.len()), targets.len().checked_mul(unembedding.k), "cross_entropy: rows");
        assert_eq!(targets.len(), out.len(), "cross_entropy: out");
        assert!(targets.iter().all(|&t| (t as usize) < unembedding.n), "cross_entropy: a target behind the vocabulary");
        if targets.is_empty() {
            return assert!(greatest.is_empty(), "cross_entropy: greatest of no rows");
        }
        let count = greatest.len() / targets.len();
        assert!(greatest.len().is_multiple_of(targets.len()) && count <= unembedding.n, "cross_entropy: greatest");
        let Kernels { isa, leader, scratch, .. } = self;
        let score = match self.precision {
            Precision::F32 => cross_entropy::cross_entropy::<F32>,
            Precision::Bf16 => cross_entropy::cross_entropy::<Bf16>,
            Precision::Bf16Pairs => cross_entropy::cross_entropy::<Bf16Pairs>,
        };
        score(*isa, leader, scratch, x, unembedding, targets, greatest, out);
    }
}

fn check_matrix(b: &WeightMatrix<'_>) {
    let len = b.k.checked_mul(b.n);
    assert!(b.k > 0 && len == Some(b.data.len()), "weights: {} elements, k {} × n {}", b.data.len(), b.k, b.n);
}
