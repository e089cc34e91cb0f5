//! [`Team`] owns what kernels run on; [`Kernels`] are the kernels while it is at work. Shapes are checked here; the
//! kernels trust them.

use crate::attention::{self, Columns, HeadShape, KvSpan, KvStore, TILE};
use crate::copy;
use crate::cross_entropy::{self, Wanted};
use crate::divergence::Against;
use crate::gemm::arithmetic::{Bf16, Bf16Pairs, F32, Precision};
use crate::gemm::{self, Epilogue, WeightMatrix};
use crate::pool::{Leader, Pool};
use crate::scratch::Scratch;
use crate::{Candidate, Isa, RowScore, norm};
use std::fmt;
use std::ops::Range;

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

    /// Gives the kernels' scratch back.
    pub fn release_scratch(&mut self) {
        self.scratch = Scratch::new(self.scratch.threads.len());
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
    /// Fills `out` with the pieces, one behind the other.
    ///
    /// # Panics
    /// If they are not as long as `out` together.
    pub fn gather(&mut self, pieces: &[&[f32]], out: &mut [f32]) {
        copy::gather(self.leader, pieces, out);
    }

    /// Copies ranges of `from` to places in `into`: `(from, to)`.
    ///
    /// # Panics
    /// If places overlap, or ranges lie outside or differ in length.
    pub fn scatter(&mut self, from: &[f32], into: &mut [f32], copies: &[(Range<usize>, Range<usize>)]) {
        copy::scatter(self.leader, from, into, copies);
    }

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
        self.gemm_in(self.precision, a, b, epilogue, out);
    }

    /// [`Kernels::gemm`] in f32, whatever the team's precision.
    ///
    /// # Panics
    /// As there.
    pub fn gemm_f32(&mut self, a: &[f32], b: WeightMatrix<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        self.gemm_in(Precision::F32, a, b, epilogue, out);
    }

    fn gemm_in(
        &mut self,
        precision: Precision,
        a: &[f32],
        b: WeightMatrix<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [f32],
    ) {
        check_matrix(&b);
        assert!(a.len().is_multiple_of(b.k), "gemm: a has {} elements, k is {}", a.len(), b.k);
        let rows = a.len() / b.k;
        assert_eq!(Some(out.len()), rows.checked_mul(b.n), "gemm: out");
        assert!(epilogue.bias().is_none_or(|bias| bias.len() == b.n), "gemm: bias");
        if rows == 0 || b.n == 0 {
            return;
        }
        let Kernels { isa, leader, scratch, .. } = self;
        let gemm = match precision {
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
        let width = checked_width(shape);
        let qkv = Columns::all(qkv, 3 * width);
        self.remember(shape, Columns { first: width, ..qkv }, spans, store);
        self.attend(shape, scale, qkv, spans, store, z);
    }

    /// The first half of [`Kernels::attention`]: stores the new keys and values of all spans. `kv` is `[rows, 2 · heads ·
    /// head_dim]`, keys and values side by side. Several spans may take the same rows.
    ///
    /// # Panics
    /// If lengths don't fit together, a span leaves the batch or the store, or spans don't follow each other in slots.
    pub fn remember(&mut self, shape: HeadShape, kv: Columns<'_>, spans: &[KvSpan], store: &mut KvStore) {
        let rows = checked_columns(kv, 2 * checked_width(shape), "keys and values");
        check_spans(spans, rows, store.slots(shape));
        check_order(spans, |span| span.slot..span.slot + (span.past + span.rows).next_multiple_of(TILE));
        attention::remember(self.isa, self.leader, self.scratch, shape, kv, spans, store);
    }

    /// The second half of [`Kernels::attention`]: each row attends to what is stored of its own sequence, up to itself;
    /// `past` counts the tokens before a span's first row here. `q` and `z` are `[rows, heads · head_dim]`. Several spans may
    /// look at the same slots.
    ///
    /// # Panics
    /// If lengths don't fit together, a span leaves the batch or the store, or spans don't follow each other in rows.
    pub fn attend(
        &mut self,
        shape: HeadShape,
        scale: f32,
        q: Columns<'_>,
        spans: &[KvSpan],
        store: &KvStore,
        z: &mut [f32],
    ) {
        let width = checked_width(shape);
        assert!(scale > 0.0, "attention: scale {scale}");
        let rows = checked_columns(q, width, "queries");
        assert_eq!(Some(z.len()), rows.checked_mul(width), "attention: queries and z");
        check_spans(spans, rows, store.slots(shape));
        check_order(spans, |span| span.first_row..span.first_row + span.rows);
        attention::attend(self.isa, self.leader, self.scratch, shape, scale, q, spans, store, z);
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
        if targets.is_empty() {
            assert!(greatest.is_empty(), "cross_entropy: greatest of no rows");
        }
        let count = greatest.len() / targets.len().max(1);
        let fits = greatest.len().is_multiple_of(targets.len().max(1)) && count <= unembedding.n;
        assert!(fits, "cross_entropy: greatest");
        let wanted = Wanted { greatest, against: Against::NOTHING, divergence: &mut [] };
        self.score(x, unembedding, targets, wanted, out);
    }

    /// [`Kernels::cross_entropy`], and the divergence `KL(reference ‖ row)` in nats of every row behind the references,
    /// which are the first rows of `x`. Every row's score has the bits it has without them; a row equal to its reference,
    /// given the reference's own log-sum-exp, is 0 apart. One that is nearly equal may come out below 0, by roundings.
    ///
    /// # Panics
    /// As there, and if the numbers of rows don't fit together or a reference is not there.
    pub fn cross_entropy_against(
        &mut self,
        x: &[f32],
        unembedding: WeightMatrix<'_>,
        targets: &[u32],
        against: Against<'_>,
        divergence: &mut [f64],
        out: &mut [RowScore],
    ) {
        let Against { log_sum_exp, of } = against;
        assert_eq!(targets.len(), log_sum_exp.len() + of.len(), "cross_entropy: references and rows");
        assert_eq!(divergence.len(), of.len(), "cross_entropy: divergence");
        assert!(of.iter().all(|&i| (i as usize) < log_sum_exp.len()), "cross_entropy: a reference that is not there");
        self.score(x, unembedding, targets, Wanted { greatest: &mut [], against, divergence }, out);
    }

    fn score(
        &mut self,
        x: &[f32],
        unembedding: WeightMatrix<'_>,
        targets: &[u32],
        wanted: Wanted<'_>,
        out: &mut [RowScore],
    ) {
        check_matrix(&unembedding);
        assert_eq!(Some(x.len()), targets.len().checked_mul(unembedding.k), "cross_entropy: rows");
        assert_eq!(targets.len(), out.len(), "cross_entropy: out");
        assert!(targets.iter().all(|&t| (t as usize) < unembedding.n), "cross_entropy: a target behind the vocabulary");
        if targets.is_empty() {
            return;
        }
        let Kernels { isa, leader, scratch, .. } = self;
        let score = match self.precision {
            Precision::F32 => cross_entropy::cross_entropy::<F32>,
            Precision::Bf16 => cross_entropy::cross_entropy::<Bf16>,
            Precision::Bf16Pairs => cross_entropy::cross_entropy::<Bf16Pairs>,
        };
        score(*isa, leader, scratch, x, unembedding, targets, wanted, out);
    }
}

fn check_matrix(b: &WeightMatrix<'_>) {
    let WeightMatrix { data, k, n, stride, .. } = b;
    assert!(*k > 0 && b.is_whole(), "weights: {} elements, k {k} × n {n}, stride {stride}", data.len());
}

/// The kernels trust these numbers: a product that wraps must not pass.
fn checked_width(shape: HeadShape) -> usize {
    let width = shape.heads.checked_mul(shape.head_dim).filter(|&width| width > 0 && width <= usize::MAX / 3);
    width.unwrap_or_else(|| panic!("attention: {shape:?}"))
}

/// The rows of a matrix in which `width` columns are meant.
fn checked_columns(columns: Columns<'_>, width: usize, what: &str) -> usize {
    let Columns { data, stride, first } = columns;
    let fits = stride > 0 && first.checked_add(width).is_some_and(|end| end <= stride);
    assert!(fits && data.len().is_multiple_of(stride), "attention: {what}: {} elements, stride {stride}", data.len());
    data.len() / stride
}

/// Spans lie inside the batch and the store.
fn check_spans(spans: &[KvSpan], rows: usize, slots: usize) {
    for span in spans {
        assert!(span.slot.is_multiple_of(TILE), "attention: {span:?}: not a whole tile");
        let end = span.slot.checked_add(span.past).and_then(|end| end.checked_add(span.rows));
        let end = end.and_then(|end| end.checked_next_multiple_of(TILE));
        assert!(end.is_some_and(|end| end <= slots), "attention: {span:?} ends behind the store's {slots} slots");
        let end = span.first_row.checked_add(span.rows);
        assert!(end.is_some_and(|end| end <= rows), "attention: {span:?} ends behind the batch's {rows} rows");
    }
}

/// What is written for one span, no other writes: places of checked spans follow each other.
fn check_order(spans: &[KvSpan], place: impl Fn(&KvSpan) -> Range<usize>) {
    spans.iter().fold(0, |end, span| {
        let place = place(span);
        assert!(place.start >= end, "attention: {span:?} begins before the end of the span before it");
        place.end
    });
}
