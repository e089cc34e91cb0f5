//! Attention patterns as data, and what a head's pattern looks like in a few numbers.
//!
//! A pattern is `[queries, keys]`, rows that sum to 1, 0 behind the query's own position. In f32, behind what modifiers did.
//! Summaries are means over queries from the third on: the first sees itself alone, and the second sees only the first and
//! itself, so that the previous token is the first.

use super::MeasureError;
use crate::forward::{Batch, Seen, Session};
use crate::model::Model;
use crate::plan::{Action, AddressError, Part, Plan, Site};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Queries that summaries leave out.
pub const FIRST_QUERIES: usize = 2;

/// A head of an execution, by where it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSummary {
    /// The execution's number among all of the plan ([`crate::plan::Placed::index`]).
    pub execution: usize,
    /// The head.
    pub head: usize,
    /// Entropy of the pattern, nats (Clark et al. 2019, *What Does BERT Look At?*): 0 looks at one token, ln n at n alike.
    pub entropy: f64,
    /// Attention to position 0, where BOS is: where heads look that find nothing (Xiao et al. 2023, attention sinks).
    pub first: f64,
    /// Attention to the token before the query (Clark et al. 2019; Elhage et al. 2021, previous-token heads).
    pub previous: f64,
}

/// The pattern of one head of the execution that `name` names (`steps.4`, `blocks.5@1`, `blocks.5`), `[tokens, tokens]`.
///
/// # Errors
/// Where the plan has no such execution, or it no attention or no such head; where ids or plan do not fit the
/// model.
pub fn attention_pattern(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    name: &str,
    head: usize,
) -> Result<Vec<f32>, MeasureError> {
    let n_head = session.model().config().n_head;
    if head >= n_head {
        return Err(MeasureError::Head { head, n_head });
    }
    let found = plan.locate(name).map_err(|error: AddressError| MeasureError::Forward(error.into()))?;
    if found.execution.part == Part::Mlp {
        return Err(MeasureError::NoAttention { name: name.to_owned(), layer: found.execution.layer });
    }
    let execution = found.index;
    let mut pattern = Vec::new();
    let batch = Batch::new([ids]);
    let wants = |index, site| index == execution && site == Site::Pattern;
    session.watch(plan, &batch, &wants, &mut |seen| {
        pattern.extend_from_slice(&seen.values[head * ids.len()..(head + 1) * ids.len()]);
    })?;
    Ok(pattern)
}

/// Every head of every attention of `plan`, in the order in which they run. NaN where the text has no third token.
///
/// # Errors
/// Where ids or plan do not fit the model.
pub fn head_summaries(session: &mut Session, plan: &Plan, ids: &[u32]) -> Result<Vec<HeadSummary>, MeasureError> {
    let n_head = session.model().config().n_head;
    let mut sums = Vec::new();
    each_head(session, plan, ids, &mut |HeadQuery { execution, head, query, pattern }| {
        if query == 0 {
            sums.push(HeadSummary { execution, head, entropy: 0.0, first: 0.0, previous: 0.0 });
        }
        if query < FIRST_QUERIES {
            return;
        }
        let term = |&p: &f32| if p == 0.0 { 0.0 } else { -f64::from(p) * f64::from(p).ln() };
        // All heads of an execution come before the next.
        let at = sums.len() - n_head + head;
        sums[at].entropy += pattern.iter().map(term).sum::<f64>();
        sums[at].first += f64::from(pattern[0]);
        sums[at].previous += f64::from(pattern[query - 1]);
    })?;
    // 0 / 0 is NaN.
    let queries = ids.len().saturating_sub(FIRST_QUERIES) as f64;
    for HeadSummary { entropy, first, previous, .. } in &mut sums {
        [entropy, first, previous].into_iter().for_each(|sum| *sum /= queries);
    }
    Ok(sums)
}

/// How much each head attends to the token that followed the query's earlier occurrence, in the second copy of random tokens
/// (the prefix-matching score of Olsson et al. 2022, *In-context Learning and Induction Heads*, on two copies). In the order
/// of [`head_summaries`].
///
/// # Errors
/// Where the plan does not fit the model, or changes positions or takes references, which belong to another text
/// ([`MeasureError::OwnText`]).
pub fn induction_scores(session: &mut Session, plan: &Plan, copied: &Repeated) -> Result<Vec<f64>, MeasureError> {
    if is_of_one_text(plan) {
        return Err(MeasureError::OwnText);
    }
    let Repeated { ids, period } = copied;
    let (second, n_head) = (ids.len() - period, session.model().config().n_head);
    let mut sums: Vec<f64> = Vec::new();
    each_head(session, plan, ids, &mut |HeadQuery { head, query, pattern, .. }| {
        if query == 0 {
            sums.push(0.0);
        }
        if query >= second {
            let at = sums.len() - n_head + head;
            sums[at] += f64::from(pattern[query + 1 - period]);
        }
    })?;
    Ok(sums.into_iter().map(|sum| sum / *period as f64).collect())
}

/// Whether a plan changes things at positions, or takes values of references: it then belongs to one text.
pub fn is_of_one_text(plan: &Plan) -> bool {
    plan.any_modifier(|modifier| {
        let keys = matches!(modifier.action, Action::Knockout { .. });
        keys || modifier.positions.is_some() || modifier.reference().is_some()
    })
}

/// Random tokens, twice, behind BOS where the model has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// All of them.
    pub ids: Vec<u32>,
    /// From a token to its copy.
    pub period: usize,
}

impl Repeated {
    /// `period` different tokens, drawn alike from all but BOS: Fisher–Yates, ChaCha8 seeded by `seed`. As many as fit
    /// where the context or the vocabulary holds fewer.
    pub fn draw(model: &Model, period: usize, seed: u64) -> Repeated {
        let config = model.config();
        let bos = config.bos_token_id;
        let mut all: Vec<u32> = (0..config.vocab_size as u32).filter(|id| Some(*id) != bos).collect();
        let before = usize::from(bos.is_some());
        let period = period.min(all.len()).min(config.n_positions.saturating_sub(before) / 2);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for i in 0..period {
            let left = (all.len() - i) as u128;
            let pick = (u128::from(random.next_u64()) * left) >> 64;
            all.swap(i, i + pick as usize);
        }
        let ids = bos.into_iter().chain(all[..period].iter().copied()).chain(all[..period].iter().copied());
        Repeated { ids: ids.collect(), period }
    }
}

/// One row of a head's pattern.
struct HeadQuery<'a> {
    execution: usize,
    head: usize,
    query: usize,
    /// Over the keys up to the query's own.
    pattern: &'a [f32],
}

/// Shows the patterns of all heads, execution by execution, query by query.
fn each_head(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    see: &mut (dyn FnMut(HeadQuery<'_>) + Send),
) -> Result<(), MeasureError> {
    let tokens = ids.len();
    let batch = Batch::new([ids]);
    session.watch(plan, &batch, &|_, site| site == Site::Pattern, &mut |seen: Seen<'_>| {
        // One sequence: a row is its query's position.
        let query = seen.rows.start;
        for (head, keys) in seen.values.chunks_exact(tokens).enumerate() {
            see(HeadQuery { execution: seen.execution, head, query, pattern: &keys[..=query] });
        }
    })?;
    Ok(())
}
