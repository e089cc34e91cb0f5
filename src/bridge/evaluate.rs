//! How good shortcuts are, on text that they were not fitted to, each beside A = I: as plans.
//!
//! For a pair 6:11 the plan `0..6,bridge(6:11,NAME),11` and the plan `0..6,11` are compared with the intact model, row by row:
//!
//! - r², of the state at the input of layer 11: `1 − Σ ‖y − ŷ‖² / Σ ‖y − ȳ‖²` over all elements of all rows, y being the intact
//!   model's state, ȳ its mean over the same rows, and ŷ the map's or the plain state.
//! - precision@k: the share of rows whose likeliest token under the intact model is among the plan's k likeliest.
//! - the divergence `KL(intact ‖ plan)`, and the loss (surprisal) of the token that follows, nats.

use super::BridgeError;
use super::samples::Sample;
use super::states::{States, states};
use crate::forward::{Bridges, ForwardError, Session, Shortcuts, plain_threads};
use crate::measure::{divergence, log_softmax};
use crate::plan::{Bridge, Execution, Plan, Step};
use rayon::prelude::*;
use std::sync::Arc;

/// Logits that are held at a time, of each of two plans.
const LOGITS: usize = 1 << 22;

/// The name of the maps in the plans that are compared.
const NAME: &str = "bridge";

/// The k of precision@k.
const TOP: [u32; 2] = [1, 10];

/// What a plan makes of the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Of rows behind a sequence's first token, which behaves unlike all others.
    pub r2: f64,
    /// Of all rows.
    pub r2_with_first: f64,
    /// The share of rows whose likeliest token is the intact model's.
    pub precision_at_1: f64,
    /// The share of rows whose ten likeliest tokens hold the intact model's likeliest.
    pub precision_at_10: f64,
    /// `KL(intact ‖ plan)`, nats a row.
    pub divergence: f64,
    /// Nats a token.
    pub nll: f64,
}

/// A pair of layers on held-out text.
#[derive(Clone, Debug, PartialEq)]
pub struct PairReport {
    /// The layer that the map leads from.
    pub from: usize,
    /// The layer that it leads to.
    pub to: usize,
    /// Rows that were read.
    pub rows: u64,
    /// The intact model's loss, nats a token.
    pub intact_nll: f64,
    /// With the map.
    pub bridge: Reading,
    /// With the layers left out: A = I.
    pub identity: Reading,
}

/// The comparison, a group of samples at a time.
pub struct Evaluation {
    pool: rayon::ThreadPool,
    intact: Plan,
    bridges: Bridges,
    pairs: Vec<Pair>,
    rows: u64,
    intact_nll: f64,
}

struct Pair {
    from: usize,
    to: usize,
    plans: [Plan; 2],
    /// Of the rows behind the first, and of all rows.
    spread: [Spread; 2],
    sums: [Sums; 2],
}

/// Sums over the intact model's states.
#[derive(Clone, Default)]
struct Spread {
    rows: f64,
    sum: Vec<f64>,
    squares: f64,
}

/// Sums of a plan.
#[derive(Clone, Default)]
struct Sums {
    /// `Σ ‖y − ŷ‖²` of the rows behind the first, and of all rows.
    residual: [f64; 2],
    top: [u64; 2],
    divergence: f64,
    nll: f64,
}

impl Evaluation {
    /// Of all maps of `shortcuts`.
    ///
    /// # Errors
    /// Where there are none, or they don't fit the session's model.
    pub fn new(session: &Session, shortcuts: Shortcuts) -> Result<Evaluation, BridgeError> {
        let n_layer = session.model().config().n_layer;
        if shortcuts.is_empty() {
            return Err(BridgeError::Nothing { what: "maps" });
        }
        let pair = |from: usize, to: usize| {
            if from > to || to > n_layer {
                return Err(BridgeError::Pair { from, to, n_layer });
            }
            let blocks = |layers: std::ops::Range<usize>| layers.map(Execution::block).map(Step::Block);
            let bridge = Step::Bridge(Bridge { from, to, name: NAME.to_owned(), content: None });
            let over =
                |middle: Option<Step>| Plan::new(blocks(0..from).chain(middle).chain(blocks(to..n_layer)).collect());
            let plans = [over(Some(bridge)), over(None)].map(|plan| plan.map_err(ForwardError::from));
            let [bridged, plain] = plans;
            Ok(Pair { from, to, plans: [bridged?, plain?], spread: Default::default(), sums: Default::default() })
        };
        let pairs = shortcuts.iter().map(|((from, to), _)| pair(from, to)).collect::<Result<_, BridgeError>>()?;
        let mut bridges = Bridges::default();
        bridges.insert(NAME, Arc::new(shortcuts));
        let pool = plain_threads(session.threads()).map_err(ForwardError::from)?;
        Ok(Evaluation { pool, intact: Plan::intact(n_layer), bridges, pairs, rows: 0, intact_nll: 0.0 })
    }

    /// Reads some samples. The session's own bridges are there again afterwards.
    ///
    /// # Errors
    /// Where a sample or a map does not fit the model.
    pub fn add(&mut self, session: &mut Session, samples: &[Sample]) -> Result<(), BridgeError> {
        let own = session.bridges().clone();
        session.set_bridges(self.bridges.clone());
        let read = self.read(session, samples);
        session.set_bridges(own);
        read
    }

    fn read(&mut self, session: &mut Session, samples: &[Sample]) -> Result<(), BridgeError> {
        let n_layer = session.model().config().n_layer;
        let mut layers: Vec<usize> = self.pairs.iter().flat_map(|pair| [pair.from, pair.to]).collect();
        layers.push(n_layer);
        let intact = states(session, &self.intact, samples, &layers)?;
        let next: Vec<u32> = samples.iter().flat_map(Sample::next).copied().collect();
        let is_first = |sample: &Sample| sample.rows.clone().map(|row| row == 0).collect::<Vec<bool>>();
        let first: Vec<bool> = samples.iter().flat_map(is_first).collect();
        let mut pairs = std::mem::take(&mut self.pairs);
        let read = self.read_pairs(session, samples, (&intact, &next, &first), &mut pairs);
        self.pairs = pairs;
        self.rows += if read.is_ok() { next.len() as u64 } else { 0 };
        read
    }

    /// Every pair on the same rows: the intact model's states, the tokens that follow, and which rows are first.
    fn read_pairs(
        &mut self,
        session: &mut Session,
        samples: &[Sample],
        (intact, next, first): (&States, &[u32], &[bool]),
        pairs: &mut [Pair],
    ) -> Result<(), BridgeError> {
        let (width, n_layer) = (session.model().config().n_embd, session.model().config().n_layer);
        for (number, pair) in pairs.iter_mut().enumerate() {
            let target = &intact[&pair.to];
            pair.add_spread(target, first, width);
            let end = pair.plans[0].steps().len();
            let bridged = states(session, &pair.plans[0], samples, &[pair.from + 1, end])?;
            let plain_end = pair.plans[1].steps().len();
            let plain = states(session, &pair.plans[1], samples, &[plain_end])?;
            let guesses = [&bridged[&(pair.from + 1)], &intact[&pair.from]];
            for (sums, guess) in pair.sums.iter_mut().zip(guesses) {
                sums.add_residual(target, guess, first, width);
            }
            let ends = [&bridged[&end], &plain[&plain_end]];
            let nll = self.compare(session, &intact[&n_layer], ends, next, &mut pair.sums)?;
            // The same for every pair.
            self.intact_nll += if number == 0 { nll } else { 0.0 };
        }
        Ok(())
    }

    /// Final states of the intact model and of both plans as predictions; the intact model's loss.
    fn compare(
        &self,
        session: &mut Session,
        intact: &[f32],
        ends: [&Vec<f32>; 2],
        next: &[u32],
        sums: &mut [Sums; 2],
    ) -> Result<f64, BridgeError> {
        let (width, vocab_size) = (session.model().config().n_embd, session.model().config().vocab_size);
        let rows = (LOGITS / vocab_size).max(1);
        let mut intact_nll = 0.0;
        for first in (0..next.len()).step_by(rows) {
            let last = next.len().min(first + rows);
            let block = first * width..last * width;
            let clean = session.unembed(&intact[block.clone()])?.to_vec();
            for (which, (end, sums)) in ends.iter().zip(&mut *sums).enumerate() {
                let logits = session.unembed(&end[block.clone()])?;
                let pairs = clean.par_chunks_exact(vocab_size).zip(logits.par_chunks_exact(vocab_size));
                let one = |((clean, logits), &next): ((&[f32], &[f32]), &u32)| {
                    let (p, q) = (log_softmax(clean), log_softmax(logits));
                    let likeliest = (0..p.len()).fold(0, |best, id| if clean[id] > clean[best] { id } else { best });
                    // What is not a number is no hit.
                    let rank = match logits[likeliest].is_nan() || clean[likeliest].is_nan() {
                        true => u32::MAX,
                        false => logits.iter().filter(|&&logit| logit > logits[likeliest]).count() as u32,
                    };
                    (divergence(&p, &q), rank, -q[next as usize], -p[next as usize])
                };
                let read: Vec<_> = self.pool.install(|| pairs.zip(&next[first..last]).map(one).collect());
                for (divergence, rank, nll, clean_nll) in read {
                    sums.divergence += divergence;
                    sums.nll += nll;
                    sums.top.iter_mut().zip(TOP).for_each(|(top, k)| *top += u64::from(rank < k));
                    intact_nll += if which == 0 { clean_nll } else { 0.0 };
                }
            }
        }
        Ok(intact_nll)
    }

    /// What came out.
    ///
    /// # Errors
    /// Where no rows were read.
    pub fn finish(self) -> Result<Vec<PairReport>, BridgeError> {
        if self.rows == 0 {
            return Err(BridgeError::Nothing { what: "rows of held-out text" });
        }
        let rows = self.rows as f64;
        let report = |pair: &Pair| {
            let reading = |sums: &Sums| {
                let [r2, r2_with_first] = [0, 1].map(|i| 1.0 - sums.residual[i] / pair.spread[i].total());
                let [precision_at_1, precision_at_10] = sums.top.map(|top| top as f64 / rows);
                let (divergence, nll) = (sums.divergence / rows, sums.nll / rows);
                Reading { r2, r2_with_first, precision_at_1, precision_at_10, divergence, nll }
            };
            let [bridge, identity] = [0, 1].map(|i| reading(&pair.sums[i]));
            let (from, to, intact_nll) = (pair.from, pair.to, self.intact_nll / rows);
            PairReport { from, to, rows: self.rows, intact_nll, bridge, identity }
        };
        Ok(self.pairs.iter().map(report).collect())
    }
}

impl Pair {
    fn add_spread(&mut self, target: &[f32], first: &[bool], width: usize) {
        for (row, first) in target.chunks_exact(width).zip(first) {
            for spread in self.spread.iter_mut().skip(usize::from(*first)) {
                spread.rows += 1.0;
                spread.sum.resize(width, 0.0);
                spread.sum.iter_mut().zip(row).for_each(|(sum, y)| *sum += f64::from(*y));
                spread.squares += row.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>();
            }
        }
    }
}

impl Spread {
    /// `Σ ‖y − ȳ‖²`
    fn total(&self) -> f64 {
        self.squares - self.sum.iter().map(|sum| sum * sum).sum::<f64>() / self.rows
    }
}

impl Sums {
    fn add_residual(&mut self, target: &[f32], guess: &[f32], first: &[bool], width: usize) {
        let rows = target.chunks_exact(width).zip(guess.chunks_exact(width)).zip(first);
        for ((y, guess), first) in rows {
            let squares: f64 = y.iter().zip(guess).map(|(y, guess)| (f64::from(*y) - f64::from(*guess)).powi(2)).sum();
            self.residual.iter_mut().skip(usize::from(*first)).for_each(|sum| *sum += squares);
        }
    }
}
