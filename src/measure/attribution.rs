//! Direct logit attribution: which heads, MLPs and changes a logit, or the difference of two, is made of.
//!
//! The residual stream is a sum, and with the final LayerNorm's scale s frozen at its actual value the unembedding is linear
//! (Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*). So the logit of token t behind a position is
//!
//! ```text
//! Σ over parts x of  ((x − mean(x)) / s · w_f) · W_U[t]   +   b_f · W_U[t]
//! ```
//!
//! the parts being the embedding, each execution's heads (z through their rows of `c_proj`), its `c_proj` bias and its MLP's
//! output, and the constant being `ln_f`'s bias. It says what parts write into the stream, not what would happen without them:
//! later layers read them, and LayerNorm's scale would be another.
//!
//! - Branches of a group are averaged: the parts of each of n branches count 1/n, at every depth.
//! - Parts are what modifiers left: a zeroed head is 0. Where an attention's output itself is changed at the position, it is
//!   one part, instead of its heads and bias.
//! - A bridge adds what it makes of the stream less what was there: one part.
//! - Where the stream itself is changed (`pre`, `mid`, `post`), the difference is a part: what was there less what is.

use super::MeasureError;
use crate::forward::{Batch, Bridges, Session, Target};
use crate::model::{Linear, Model};
use crate::plan::{Bridge, Execution, Part, Plan, Site, Step};
use std::collections::BTreeMap;

/// What is attributed: a logit, or the difference of two, behind a token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// The last token that has been seen.
    pub position: usize,
    /// The token whose logit it is.
    pub answer: u32,
    /// The token whose logit is subtracted.
    pub other: Option<u32>,
}

/// What a logit is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// The logit, or the difference, as the pass computed it.
    pub value: f64,
    /// The parts, in the order in which they were written into the stream.
    pub parts: Vec<LogitPart>,
    /// What `ln_f`'s bias gives, whatever the text.
    pub constant: f64,
    /// What the final LayerNorm divided by: `√(variance + ε)`.
    pub scale: f64,
}

impl Attribution {
    /// All parts and the constant: the value, but for rounding.
    pub fn sum(&self) -> f64 {
        self.parts.iter().map(|part| part.value).sum::<f64>() + self.constant
    }
}

/// One part of a logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitPart {
    /// The execution's number among all of the plan ([`crate::plan::Placed::index`]); none of the embedding and of bridges.
    pub execution: Option<usize>,
    /// What it is of.
    pub source: LogitSource,
    /// What it adds to the logit, or to the difference.
    pub value: f64,
}

/// What writes into the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitSource {
    /// `wte[token] + wpe[position]`
    Embedding,
    /// A head's z through its rows of `c_proj`.
    Head(usize),
    /// The bias of an attention's `c_proj`.
    AttentionBias,
    /// An attention's whole output, which a modifier changed.
    Attention,
    /// An MLP's output, bias included.
    Mlp,
    /// What modifiers of the stream itself made of it at a site.
    Change(Site),
    /// What a bridge made of the stream, less what was there: the bridge of this number among the plan's
    /// ([`Plan::bridges`]).
    Bridge(usize),
}

/// Takes a logit (or the difference of two) apart, under any plan, whose modifiers find the session's references. Sums are f64; what is summed is f32, as
/// [`Session::watch`] sees it.
///
/// # Errors
/// Where the text has no such position, or ids or plan do not fit the model.
pub fn attribute(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    asked: Attributed,
) -> Result<Attribution, MeasureError> {
    let Attributed { position, answer, other } = asked;
    if position >= ids.len() {
        return Err(MeasureError::Position { position, tokens: ids.len() });
    }
    let batch = Batch::new([ids]);
    let targets: Vec<Target> =
        [Some(answer), other].into_iter().flatten().map(|id| Target { row: position, id }).collect();
    let logits: Vec<f64> = session.score(plan, &batch, &targets)?.iter().map(|score| score.target_logit).collect();
    let value = logits[0] - logits.get(1).copied().unwrap_or(0.0);

    let mut seen = BTreeMap::new();
    session.watch(plan, &batch, &|_, site| is_summed(site), &mut |row| {
        let at = (position - row.rows.start) * row.width;
        seen.insert((row.execution, row.site), widened(&row.values[at..at + row.width]));
    })?;
    let model = session.model();
    let (direction, constant) = direction(model, answer, other);
    let embedding = embedding(model, ids[position], position);
    let embedded = LogitPart { execution: None, source: LogitSource::Embedding, value: dot(&embedding, &direction) };
    let bridges = session.bridges();
    let mut walk = Walk { model, bridges, position, seen, direction, parts: vec![embedded], executions: 0, crossed: 0 };
    let end = walk.sequence(plan.steps(), 1.0, embedding);
    let scale = scale(&end, model.config().layer_norm_epsilon);
    let mut parts = walk.parts;
    parts.iter_mut().for_each(|part| part.value /= scale);
    Ok(Attribution { value, parts, constant, scale })
}

/// What an execution adds to the stream, and the stream itself.
fn is_summed(site: Site) -> bool {
    site.is_residual() || matches!(site, Site::Z | Site::Attn | Site::Mlp)
}

/// The way over a plan's steps, along which parts are collected.
struct Walk<'a> {
    model: &'a Model,
    bridges: &'a Bridges,
    position: usize,
    /// What stood at the sites, by execution; the position's row alone.
    seen: BTreeMap<(usize, Site), Vec<f64>>,
    /// What turns a state into the logit, but for the scale.
    direction: Vec<f64>,
    parts: Vec<LogitPart>,
    executions: usize,
    /// Bridges so far.
    crossed: usize,
}

impl Walk<'_> {
    /// Steps that count `weight`, from a state on; the state behind them.
    fn sequence(&mut self, steps: &[Step], weight: f64, mut state: Vec<f64>) -> Vec<f64> {
        for step in steps {
            state = match step {
                Step::Block(execution) => self.execute(execution, weight, state),
                Step::Group(branches) => {
                    let share = 1.0 / branches.len() as f64;
                    let mut mean = vec![0.0; state.len()];
                    for branch in branches {
                        let end = self.sequence(branch, weight * share, state.clone());
                        mean.iter_mut().zip(&end).for_each(|(mean, end)| *mean += share * end);
                    }
                    mean
                }
                Step::Bridge(bridge) => self.cross(bridge, weight, &state),
            }
        }
        state
    }

    fn cross(&mut self, bridge: &Bridge, weight: f64, state: &[f64]) -> Vec<f64> {
        let map = self.bridges.get(&bridge.name).and_then(|shortcuts| shortcuts.get(bridge.from, bridge.to));
        let map = map.expect("the pass has found it");
        let mut end = widened(map.bias());
        for (x, row) in state.iter().zip(map.weight().chunks_exact(end.len())) {
            end.iter_mut().zip(row).for_each(|(end, w)| *end += x * f64::from(*w));
        }
        let value = weight * (dot(&end, &self.direction) - dot(state, &self.direction));
        self.parts.push(LogitPart { execution: None, source: LogitSource::Bridge(self.crossed), value });
        self.crossed += 1;
        end
    }

    fn execute(&mut self, execution: &Execution, weight: f64, state: Vec<f64>) -> Vec<f64> {
        let mut state = self.stream(Site::Pre, execution, weight, state);
        if execution.part != Part::Mlp {
            self.attention(execution, weight);
            add(&mut state, &self.seen[&(self.executions, Site::Attn)]);
        }
        if execution.part == Part::Block {
            state = self.stream(Site::Mid, execution, weight, state);
        }
        if execution.part != Part::Attention {
            let out = &self.seen[&(self.executions, Site::Mlp)];
            add(&mut state, out);
            let value = weight * dot(out, &self.direction);
            self.part(LogitSource::Mlp, value);
        }
        let state = self.stream(Site::Post, execution, weight, state);
        self.executions += 1;
        state
    }

    /// The stream at a site as it was seen, which is `state` and what modifiers made of it.
    fn stream(&mut self, site: Site, execution: &Execution, weight: f64, state: Vec<f64>) -> Vec<f64> {
        let seen = self.seen[&(self.executions, site)].clone();
        if self.is_changed(site, execution) {
            let change = dot(&seen, &self.direction) - dot(&state, &self.direction);
            self.part(LogitSource::Change(site), weight * change);
        }
        seen
    }

    fn attention(&mut self, execution: &Execution, weight: f64) {
        if self.is_changed(Site::Attn, execution) {
            let value = weight * dot(&self.seen[&(self.executions, Site::Attn)], &self.direction);
            return self.part(LogitSource::Attention, value);
        }
        let c_proj = &self.model.parameters().h[execution.layer].attn.c_proj;
        let dim = self.model.config().head_dim();
        let z = &self.seen[&(self.executions, Site::Z)];
        let terms: Vec<f64> = through(c_proj, &self.direction).iter().zip(z).map(|(row, z)| row * z).collect();
        for (head, terms) in terms.chunks_exact(dim).enumerate() {
            self.part(LogitSource::Head(head), weight * terms.iter().sum::<f64>());
        }
        let bias = dot(&widened(&c_proj.bias), &self.direction);
        self.part(LogitSource::AttentionBias, weight * bias);
    }

    fn is_changed(&self, site: Site, execution: &Execution) -> bool {
        let here = |range: &std::ops::Range<usize>| range.contains(&self.position);
        execution.modifiers.iter().any(|modifier| modifier.site == site && modifier.positions.as_ref().is_none_or(here))
    }

    fn part(&mut self, source: LogitSource, value: f64) {
        self.parts.push(LogitPart { execution: Some(self.executions), source, value });
    }
}

/// What turns a state into the logit but for the scale, `w_f ⊙ W_U` less its mean, `[n_embd]`; and the constant.
fn direction(model: &Model, answer: u32, other: Option<u32>) -> (Vec<f64>, f64) {
    let ln_f = &model.parameters().ln_f;
    let mut unembedding = unembedding(model, answer);
    if let Some(other) = other {
        unembedding.iter_mut().zip(self::unembedding(model, other)).for_each(|(answer, other)| *answer -= other);
    }
    let constant = dot(&widened(&ln_f.bias), &unembedding);
    let mut direction: Vec<f64> = unembedding.iter().zip(&ln_f.weight).map(|(u, w)| u * f64::from(*w)).collect();
    // A state's mean is taken off it: the direction's own may be taken off instead.
    let mean = direction.iter().sum::<f64>() / direction.len() as f64;
    direction.iter_mut().for_each(|d| *d -= mean);
    (direction, constant)
}

/// A token's row of the unembedding.
fn unembedding(model: &Model, id: u32) -> Vec<f64> {
    let matrix = model.parameters().unembedding();
    let mut row = vec![0.0; matrix.k];
    matrix.data.widen_into(id as usize * matrix.stride, &mut row);
    widened(&row)
}

/// `wte[token] + wpe[position]`
fn embedding(model: &Model, id: u32, position: usize) -> Vec<f64> {
    let width = model.config().n_embd;
    let (mut token, mut place) = (vec![0.0; width], vec![0.0; width]);
    model.parameters().wte.data().widen_into(id as usize * width, &mut token);
    model.parameters().wpe.data().widen_into(position * width, &mut place);
    token.iter().zip(&place).map(|(token, place)| f64::from(*token) + f64::from(*place)).collect()
}

/// `weight · direction`, `[in]`.
fn through(linear: &Linear, direction: &[f64]) -> Vec<f64> {
    let matrix = linear.matrix();
    let mut row = vec![0.0; matrix.n];
    let product = |input: usize| {
        matrix.data.widen_into(input * matrix.stride, &mut row);
        row.iter().zip(direction).map(|(w, d)| f64::from(*w) * d).sum()
    };
    (0..matrix.k).map(product).collect()
}

/// What LayerNorm divides by.
fn scale(x: &[f64], epsilon: f64) -> f64 {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + epsilon).sqrt()
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
}
