//! Causal attention against f64, and its promises: a row's bits don't depend on the batch, on threads, nor on whether
//! the tokens before it came with it or were there already; nothing leaks backwards in time.

mod common;

use common::*;
use lesion_kernels::{Columns, HeadShape, Isa, KvSpan, KvStore, TILE, Team, reference};
use std::ops::Range;

/// One sequence of `[tokens, 3 · width]` and its f64 result with gates.
struct Sequence {
    shape: HeadShape,
    scale: f32,
    qkv: Vec<f32>,
    tokens: usize,
}

impl Sequence {
    fn new(rng: &mut Rng, shape: HeadShape, tokens: usize) -> Sequence {
        let mut qkv = rng.normals(tokens * 3 * shape.width());
        if rng.below(2) == 0 {
            // Sharper distributions, rising: the running maximum moves from group to group.
            for (token, row) in qkv.chunks_exact_mut(3 * shape.width()).enumerate() {
                row[..2 * shape.width()].iter_mut().for_each(|x| *x *= 1.0 + token as f32 / 150.0);
            }
        }
        Sequence { shape, scale: 1.0 / (shape.head_dim as f32).sqrt(), qkv, tokens }
    }

    fn row(&self) -> usize {
        3 * self.shape.width()
    }

    /// Part 0, 1 or 2 (queries, keys, values) of one head.
    fn part(&self, part: usize, head: usize) -> Vec<f64> {
        let at = part * self.shape.width() + head * self.shape.head_dim;
        self.qkv.chunks_exact(self.row()).flat_map(|row| widened(&row[at..at + self.shape.head_dim])).collect()
    }

    /// z `[tokens, width]` and `Σ p·|v|`, its magnitude.
    fn expected(&self) -> (Vec<f64>, Vec<f64>) {
        let (width, dim) = (self.shape.width(), self.shape.head_dim);
        let mut both = (vec![0.0; self.tokens * width], vec![0.0; self.tokens * width]);
        for head in 0..self.shape.heads {
            let [q, k, v] = [0, 1, 2].map(|part| self.part(part, head));
            let absolute: Vec<f64> = v.iter().map(|v| v.abs()).collect();
            for (v, into) in [(v, &mut both.0), (absolute, &mut both.1)] {
                let z = reference::attention(&q, &k, &v, dim, f64::from(self.scale));
                for (z, into) in z.chunks_exact(dim).zip(into.chunks_exact_mut(width)) {
                    into[head * dim..][..dim].copy_from_slice(z);
                }
            }
        }
        both
    }

    /// z, the tokens coming in chunks of these sizes (the last one is repeated).
    fn run(&self, team: &mut Team, chunks: &[usize]) -> Vec<f32> {
        let mut z = vec![f32::NAN; self.tokens * self.shape.width()];
        let mut store = KvStore::default();
        team.enter(|kernels| {
            let (mut past, mut i) = (0, 0);
            while past < self.tokens {
                let rows = chunks[i.min(chunks.len() - 1)].min(self.tokens - past);
                store.reserve(self.shape, past + rows);
                let qkv = &self.qkv[past * self.row()..(past + rows) * self.row()];
                let z = &mut z[past * self.shape.width()..(past + rows) * self.shape.width()];
                let span = KvSpan { first_row: 0, rows, past, slot: 0 };
                kernels.attention(self.shape, self.scale, qkv, &[span], &mut store, z);
                (past, i) = (past + rows, i + 1);
            }
        });
        z
    }

    fn prefix(&self, tokens: usize) -> Sequence {
        Sequence { qkv: self.qkv[..tokens * self.row()].to_vec(), tokens, ..*self }
    }
}

const LONGEST: usize = if cfg!(miri) { 19 } else { 200 };

fn head_dims() -> Vec<usize> {
    if cfg!(miri) { vec![1, 9, 16] } else { (1..=80).step_by(thin()).collect() }
}

#[test]
fn every_head_width() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(21));
    for head_dim in head_dims() {
        let shape = HeadShape { heads: 1 + head_dim % 3, head_dim };
        let sequence = Sequence::new(&mut rng, shape, LONGEST);
        let (want, magnitude) = sequence.expected();
        for team in &mut teams {
            let (isa, threads) = (team.isa(), team.threads());
            let what = |how: &str| format!("{shape:?} {isa} {threads} threads, {how}");
            let whole = sequence.run(team, &[LONGEST]);
            failures.close(&whole, &want, |i| op_gate(magnitude[i]), what("prefill"));
            failures.same(&sequence.run(team, &[1]), &whole, what("token by token"));
            failures.same(&sequence.run(team, &[5, 1, 1, 23, 64, 2]), &whole, what("in chunks"));
        }
    }
    failures.report();
}

#[test]
fn every_number_of_tokens() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(22));
    for head_dim in [1, 3, 17, 64] {
        let shape = HeadShape { heads: 2, head_dim };
        let longest = Sequence::new(&mut rng, shape, LONGEST);
        let (want, magnitude) = longest.expected();
        for team in &mut teams {
            let (isa, threads) = (team.isa(), team.threads());
            let whole = longest.run(team, &[LONGEST]);
            failures.close(&whole, &want, |i| op_gate(magnitude[i]), format_args!("{shape:?} {isa}"));
            for tokens in (1..LONGEST).step_by(thin()) {
                let prefix = longest.prefix(tokens);
                let what = |how| format!("{tokens} tokens {shape:?} {isa} {threads} threads {how}");
                let want = &whole[..tokens * shape.width()];
                failures.same(&prefix.run(team, &[tokens]), want, what("at once"));
                failures.same(&prefix.run(team, &[tokens - 1, 1]), want, what("the last one decoded"));
            }
        }
    }
    failures.report();
}

#[test]
fn threads_change_no_bit() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(23));
    for (heads, head_dim) in [(1, 5), (3, 64), (12, 8)] {
        let sequence = Sequence::new(&mut rng, HeadShape { heads, head_dim }, LONGEST);
        let mut first: Option<(Isa, Vec<f32>)> = None;
        for team in &mut teams {
            let got = sequence.run(team, &[LONGEST]);
            match &first {
                Some((isa, want)) if *isa == team.isa() => {
                    failures.same(&got, want, format_args!("{heads} × {head_dim} {isa} {} threads", team.threads()));
                }
                _ => first = Some((team.isa(), got)),
            }
        }
    }
    failures.report();
}

/// Sequences side by side, each continuing its own past, rows and slots with gaps between them.
#[test]
fn a_batch_gives_each_sequence_its_own_bits() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(24));
    for round in 0..if cfg!(miri) { 1 } else { 40_usize.div_ceil(thin()) } {
        let shape = HeadShape { heads: rng.size(4), head_dim: rng.size(40) };
        let sequences: Vec<Sequence> = (0..1 + rng.below(6))
            .map(|_| {
                let tokens = rng.size(LONGEST);
                Sequence::new(&mut rng, shape, tokens)
            })
            .collect();
        let pasts: Vec<usize> = sequences.iter().map(|s| rng.below(s.tokens + 1)).collect();
        let gaps: Vec<usize> = sequences.iter().map(|_| rng.below(3)).collect();
        for team in &mut teams {
            let what = format!("round {round} {shape:?} {} {} threads", team.isa(), team.threads());
            let alone: Vec<Vec<f32>> = sequences.iter().map(|s| s.run(team, &[s.tokens])).collect();
            let slots: usize = sequences.iter().map(|s| s.tokens.next_multiple_of(TILE) + TILE).sum();
            let mut store = KvStore::new(shape, slots);
            assert!(store.slots(shape) >= slots && store.bytes() >= 2 * 4 * slots * shape.width());
            // First what is to be the past, then the rest.
            for (from, to) in
                [(vec![0; pasts.len()], pasts.clone()), (pasts.clone(), sequences.iter().map(|s| s.tokens).collect())]
            {
                let (mut spans, mut qkv, mut slot) = (Vec::new(), Vec::new(), 0);
                for (i, s) in sequences.iter().enumerate() {
                    qkv.extend(vec![f32::NAN; gaps[i] * s.row()]);
                    let first_row = qkv.len() / s.row();
                    spans.push(KvSpan { first_row, rows: to[i] - from[i], past: from[i], slot });
                    qkv.extend(&s.qkv[from[i] * s.row()..to[i] * s.row()]);
                    slot += s.tokens.next_multiple_of(TILE) + TILE * (gaps[i] % 2);
                }
                let mut z = vec![7.5; qkv.len() / 3];
                team.enter(|kernels| {
                    kernels.attention(shape, sequences[0].scale, &qkv, &spans, &mut store, &mut z);
                });
                let width = shape.width();
                for (i, span) in spans.iter().enumerate() {
                    let got = &z[span.first_row * width..(span.first_row + span.rows) * width];
                    failures.same(got, &alone[i][from[i] * width..to[i] * width], format_args!("{what}, sequence {i}"));
                    let gap = &z[(span.first_row - gaps[i]) * width..span.first_row * width];
                    failures.check(gap.iter().all(|&x| x == 7.5), || format!("{what}: rows of no span were written"));
                }
            }
        }
    }
    failures.report();
}

#[test]
fn a_store_can_be_used_again_and_cloned() {
    let mut rng = Rng(25);
    let shape = HeadShape { heads: 2, head_dim: 9 };
    let sequence = Sequence::new(&mut rng, shape, 30.min(LONGEST));
    for team in &mut teams() {
        let want = sequence.run(team, &[sequence.tokens]);
        let mut store = KvStore::new(shape, sequence.tokens);
        let mut attend = |store: &mut KvStore, qkv: &[f32], past: usize, z: &mut [f32]| {
            let span = KvSpan { first_row: 0, rows: qkv.len() / sequence.row(), past, slot: 0 };
            team.enter(|kernels| kernels.attention(shape, sequence.scale, qkv, &[span], store, z));
        };
        let mut z = vec![0.0; want.len()];
        // What an earlier use left, NaN included, is overwritten or never read.
        attend(&mut store, &vec![f32::NAN; sequence.qkv.len()], 0, &mut z);
        let (head, tail) = sequence.qkv.split_at(10 * sequence.row());
        let (first, last) = z.split_at_mut(10 * shape.width());
        attend(&mut store, head, 0, first);
        // A branch continues from a copy; the original is not touched.
        let mut branch = store.clone();
        attend(&mut branch, &vec![3.0; tail.len()], 10, last);
        attend(&mut store, tail, 10, last);
        assert_eq!(first_difference(&z, &want), None, "{} {} threads", team.isa(), team.threads());
    }
}

#[test]
fn scores_of_any_size_lose_nothing() {
    // Equal scores, far beyond where a product's rounding error is less than 1, under a scale that is no power of two.
    let shape = HeadShape { heads: 1, head_dim: 3 };
    let tokens = 40;
    for size in [1e3_f32, 1e5, 1e7, 3e12] {
        let row = |token: usize| [[size; 3], [size; 3], [token as f32; 3]].concat();
        let qkv: Vec<f32> = (0..tokens).flat_map(row).collect();
        let sequence = Sequence { shape, scale: 0.3, qkv, tokens };
        for team in &mut teams() {
            let z = sequence.run(team, &[tokens]);
            for (token, z) in z.chunks_exact(3).enumerate() {
                let mean = token as f32 / 2.0;
                assert!(
                    z.iter().all(|z| (z - mean).abs() <= 1e-5 * mean),
                    "{size:e}, {}: {z:?}, not {mean}",
                    team.isa()
                );
            }
        }
    }
}

#[test]
fn nothing_of_a_later_token_reaches_an_earlier_row() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(26));
    for (heads, head_dim, tokens) in [(2, 5, 70.min(LONGEST)), (1, 64, 35.min(LONGEST)), (3, 17, LONGEST)] {
        let sequence = Sequence::new(&mut rng, HeadShape { heads, head_dim }, tokens);
        let width = sequence.shape.width();
        for team in &mut teams {
            let clean = sequence.run(team, &[tokens]);
            for token in (0..tokens).step_by(if tokens > 100 { 7 } else { 1 } * thin()) {
                for (value, part) in [(f32::NAN, 0..3), (f32::INFINITY, 1..3), (f32::NEG_INFINITY, 2..3)] {
                    let mut spoilt = Sequence { qkv: sequence.qkv.clone(), ..sequence };
                    spoilt.qkv[token * 3 * width..][part.start * width..part.end * width].fill(value);
                    let got = spoilt.run(team, &[tokens]);
                    let what = format!("{value} at token {token} of {tokens}, {} {}", team.isa(), team.threads());
                    failures.same(&got[..token * width], &clean[..token * width], &what);
                    let own = &got[token * width..(token + 1) * width];
                    failures.check(own.iter().all(|z| !z.is_finite()), || format!("{what}: hidden in its own row"));
                }
            }
        }
    }
    failures.report();
}

/// A range of the tokens of a sequence: its end, its middle, all, one, none.
fn some_of(rng: &mut Rng, tokens: usize) -> Range<usize> {
    let (a, b) = (rng.below(tokens + 1), rng.below(tokens + 1));
    let (from, to) = rng.pick(&[(a, tokens), (a.min(b), a.max(b)), (0, tokens), (tokens - 1, tokens), (a, a)]);
    from..to
}

/// Keys and values of all rows are stored, in two goes; then some rows of each sequence ask, laid out in a way of their own.
#[test]
fn rows_that_ask_alone_get_the_bits_they_get_among_all() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(27));
    for round in 0..if cfg!(miri) { 2 } else { 60_usize.div_ceil(thin()) } {
        let shape = HeadShape { heads: rng.size(4), head_dim: rng.size(70) };
        let width = shape.width();
        let sequences: Vec<Sequence> = (0..1 + rng.below(4))
            .map(|_| {
                let tokens = rng.size(LONGEST);
                Sequence::new(&mut rng, shape, tokens)
            })
            .collect();
        let asking: Vec<Range<usize>> = sequences.iter().map(|s| some_of(&mut rng, s.tokens)).collect();
        let pasts: Vec<usize> = sequences.iter().map(|s| rng.below(s.tokens + 1)).collect();
        let slots: Vec<usize> = sequences
            .iter()
            .scan(0, |next, s| {
                let slot = *next;
                *next += s.tokens.next_multiple_of(TILE) + TILE * (s.tokens % 2);
                Some(slot)
            })
            .collect();
        // Keys and values by themselves, or where `c_attn` puts them; queries by themselves, or amid other columns.
        let (alone, amid) = (rng.below(2) == 0, rng.below(20));
        for team in &mut teams {
            let what = format!("round {round} {shape:?} {} {} threads", team.isa(), team.threads());
            let whole: Vec<Vec<f32>> = sequences.iter().map(|s| s.run(team, &[s.tokens])).collect();
            let mut store = KvStore::new(shape, sequences.iter().map(|s| s.tokens + 2 * TILE).sum());
            for (from, to) in [(&vec![0; pasts.len()], &pasts), (&pasts, &sequences.iter().map(|s| s.tokens).collect())]
            {
                let (mut kv, mut spans, mut first_row) = (Vec::new(), Vec::new(), 0);
                for (i, s) in sequences.iter().enumerate() {
                    let rows = to[i] - from[i];
                    spans.push(KvSpan { first_row, rows, past: from[i], slot: slots[i] });
                    for row in s.qkv[from[i] * s.row()..to[i] * s.row()].chunks_exact(s.row()) {
                        kv.extend(&row[if alone { width } else { 0 }..]);
                    }
                    first_row += rows;
                }
                let kv = Columns {
                    data: &kv,
                    stride: if alone { 2 * width } else { 3 * width },
                    first: if alone { 0 } else { width },
                };
                team.enter(|kernels| kernels.remember(shape, kv, &spans, &mut store));
            }
            let (mut q, mut spans) = (Vec::new(), Vec::new());
            let stride = width + amid + amid / 2;
            for (i, s) in sequences.iter().enumerate() {
                // Rows of nobody, then those that ask.
                q.extend(vec![f32::NAN; i % 2 * stride]);
                spans.push(KvSpan {
                    first_row: q.len() / stride,
                    rows: asking[i].len(),
                    past: asking[i].start,
                    slot: slots[i],
                });
                for row in s.qkv[asking[i].start * s.row()..asking[i].end * s.row()].chunks_exact(s.row()) {
                    q.extend(vec![f32::NAN; amid]);
                    q.extend(&row[..width]);
                    q.extend(vec![f32::NAN; amid / 2]);
                }
            }
            let mut z = vec![7.5; q.len() / stride * width];
            let (kept, q) = (store.clone(), Columns { data: &q, stride, first: amid });
            team.enter(|kernels| kernels.attend(shape, sequences[0].scale, q, &spans, &kept, &mut z));
            for (i, span) in spans.iter().enumerate() {
                let got = &z[span.first_row * width..(span.first_row + span.rows) * width];
                let want = &whole[i][asking[i].start * width..asking[i].end * width];
                failures.same(got, want, format_args!("{what}, rows {:?} of sequence {i}", asking[i]));
                let gap = &z[(span.first_row - i % 2) * width..span.first_row * width];
                failures.check(gap.iter().all(|&x| x == 7.5), || format!("{what}: rows of no span were written"));
            }
        }
    }
    failures.report();
}
