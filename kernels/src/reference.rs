//! Naive f64 twins of every kernel, written to be read, not to be fast: the truth that tests compare with, and what an f64
//! pass is made of.

use crate::gemm::{Epilogue, Layout, WeightMatrix};

/// `½x(1 + tanh(√(2/π)(x + 0.044715x³)))`
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}

/// One row of LayerNorm.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + eps).sqrt();
    x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * scale * w + b).collect()
}

/// The element (i, j) of the `[k, n]` matrix that `b` stands for.
pub fn weight(b: &WeightMatrix<'_>, i: usize, j: usize) -> f64 {
    let at = match b.layout {
        Layout::InOut => i * b.stride + j,
        Layout::OutIn => j * b.stride + i,
    };
    let mut one = [0.0];
    b.data.widen_into(at, &mut one);
    f64::from(one[0])
}

/// `epilogue(a · b)` for a of `[rows, k]`, given what the output held before.
pub fn gemm(a: &[f64], b: &WeightMatrix<'_>, epilogue: Epilogue<'_>, before: &[f64]) -> Vec<f64> {
    let mut dense = vec![0.0; b.k * b.n];
    for i in 0..b.k {
        for j in 0..b.n {
            dense[i * b.n + j] = weight(b, i, j);
        }
    }
    let rows = a.len() / b.k;
    let mut out = vec![0.0; rows * b.n];
    for (row, out) in out.chunks_exact_mut(b.n).enumerate() {
        for i in 0..b.k {
            let x = a[row * b.k + i];
            for (out, w) in out.iter_mut().zip(&dense[i * b.n..]) {
                *out += x * w;
            }
        }
        for (j, out) in out.iter_mut().enumerate() {
            *out = match epilogue {
                Epilogue::Store => *out,
                Epilogue::Bias(bias) => *out + f64::from(bias[j]),
                Epilogue::BiasGelu(bias) => gelu(*out + f64::from(bias[j])),
                Epilogue::BiasAdd(bias) => before[row * b.n + j] + (*out + f64::from(bias[j])),
            };
        }
    }
    out
}

/// Causal attention of one sequence and one head: queries, keys and values `[tokens, dim]`.
pub fn attention(q: &[f64], k: &[f64], v: &[f64], dim: usize, scale: f64) -> Vec<f64> {
    let tokens = q.len() / dim;
    let mut z = vec![0.0; q.len()];
    for t in 0..tokens {
        let q = &q[t * dim..][..dim];
        let scores: Vec<f64> =
            (0..=t).map(|j| scale * q.iter().zip(&k[j * dim..]).map(|(a, b)| a * b).sum::<f64>()).collect();
        for (j, p) in softmax(&scores).into_iter().enumerate() {
            for d in 0..dim {
                z[t * dim + d] += p * v[j * dim + d];
            }
        }
    }
    z
}

/// `exp(x) / Σ exp(x)`
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = greatest(x);
    let p: Vec<f64> = x.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.into_iter().map(|p| p / sum).collect()
}

/// Cross-entropy of one row of logits: (negative log-likelihood of the target, log-sum-exp, entropy, rank).
pub fn cross_entropy(logits: &[f64], target: usize) -> (f64, f64, f64, u32) {
    // While every logit is −∞ there is no maximum to subtract: ln Σ is ln 0.
    let shift = if logits.iter().all(|&l| l == f64::NEG_INFINITY) { 0.0 } else { greatest(logits) };
    let sum: f64 = logits.iter().map(|l| (l - shift).exp()).sum();
    let log_sum_exp = shift + sum.ln();
    // A logit of weight 0 adds nothing, even −∞.
    let weighted = logits.iter().map(|l| (l - shift, (l - shift).exp() / sum)).filter(|(_, p)| *p != 0.0);
    let entropy = sum.ln() - weighted.map(|(l, p)| p * l).sum::<f64>();
    let rank = logits.iter().filter(|&&l| l > logits[target]).count() as u32;
    (log_sum_exp - logits[target], log_sum_exp, entropy, rank)
}

/// `KL(p ‖ q)` of two rows of logits, nats.
pub fn divergence(p_logits: &[f64], q_logits: &[f64]) -> f64 {
    let log_sum_exp = |logits: &[f64]| cross_entropy(logits, 0).1;
    let (p_sum, q_sum) = (log_sum_exp(p_logits), log_sum_exp(q_logits));
    let apart = p_logits.iter().zip(q_logits).map(|(l, m)| ((l - p_sum).exp(), l - m)).filter(|(p, _)| *p != 0.0);
    apart.map(|(p, d)| p * d).sum::<f64>() + (q_sum - p_sum)
}

/// The greatest value, NaN if there is one.
fn greatest(x: &[f64]) -> f64 {
    x.iter().fold(f64::NEG_INFINITY, |m, &v| if m.is_nan() || m >= v { m } else { v })
}
