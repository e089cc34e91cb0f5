//! [`Kernels`]: the one handle through which kernels are called.

use crate::attention::{HeadShape, KvSpan, KvStore, TILE};
use crate::gemm::{Epilogue, Layout, WeightMatrix};
use crate::{Isa, RowScore, Team, UnavailableIsa};

/// The kernels of one instruction set on one team of threads, with their scratch memory.
///
/// Holding one is the proof that the processor has the instructions.
pub struct Kernels {
    isa: Isa,
    team: Team,
}

impl Kernels {
    /// Kernels for `isa` on `team`.
    ///
    /// # Errors
    /// [`UnavailableIsa`] when this processor lacks the instructions.
    pub fn new(isa: Isa, team: Team) -> Result<Kernels, UnavailableIsa> {
        if isa.is_available() {
            Ok(Kernels { isa, team })
        } else {
            Err(UnavailableIsa { asked: isa.name().to_owned() })
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads in use.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// `out = (x − mean) / √(variance + eps) · weight + bias` per row of `weight.len()` columns.
    pub fn layer_norm(&mut self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = x.iter().sum::<f32>() / width as f32;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            for i in 0..width {
                out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }

    /// `out[m, n] = epilogue(a[m, k] · b[k, n])`; m is `a.len() / b.k`.
    pub fn gemm(&mut self, a: &[f32], b: WeightMatrix<'_>, epilogue: Epilogue<'_>, out: &mut [f32]) {
        let mut weights = vec![0.0; b.data.len()];
        b.data.widen_into(0, &mut weights);
        for (a, out) in a.chunks_exact(b.k).zip(out.chunks_exact_mut(b.n)) {
            for (j, out) in out.iter_mut().enumerate() {
                let at = |i: usize| match b.layout {
                    Layout::InOut => weights[i * b.n + j],
                    Layout::OutIn => weights[j * b.k + i],
                };
                let sum = (0..b.k).map(|i| a[i] * at(i)).sum::<f32>();
                *out = match epilogue {
                    Epilogue::Store => sum,
                    Epilogue::Bias(bias) => sum + bias[j],
                    Epilogue::BiasGelu(bias) => {
                        let x = sum + bias[j];
                        0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
                    }
                    Epilogue::BiasAdd(bias) => *out + (sum + bias[j]),
                };
            }
        }
    }

    /// Causal attention of a packed batch.
    ///
    /// `qkv` is `[rows, 3 · heads · head_dim]` (queries, keys, values side by side, as `c_attn` makes them).
    /// For each span the new keys and values are first stored behind its `past` tokens in `store`; then each new
    /// row attends to all tokens of its own sequence up to itself. `z` is `[rows, heads · head_dim]`, the input of
    /// `c_proj`. Scores are scaled by `scale`. Rows that no span covers are left as they are.
    pub fn attention(
        &mut self,
        shape: HeadShape,
        scale: f32,
        qkv: &[f32],
        spans: &[KvSpan],
        store: &mut KvStore,
        z: &mut [f32],
    ) {
        let (heads, dim) = (shape.heads, shape.head_dim);
        let width = heads * dim;
        let at = |token: usize, head: usize| ((token / TILE) * heads + head) * TILE * dim;
        for span in spans {
            for row in 0..span.rows {
                let token = span.slot + span.past + row;
                let source = &qkv[(span.first_row + row) * 3 * width..][..3 * width];
                for head in 0..heads {
                    for d in 0..dim {
                        store.keys[at(token, head) + d * TILE + token % TILE] = source[width + head * dim + d];
                        store.values[at(token, head) + (token % TILE) * dim + d] = source[2 * width + head * dim + d];
                    }
                }
                for head in 0..heads {
                    let q = &source[head * dim..][..dim];
                    let scores: Vec<f32> = (span.slot..=token)
                        .map(|t| {
                            scale * (0..dim).map(|d| q[d] * store.keys[at(t, head) + d * TILE + t % TILE]).sum::<f32>()
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f32::NEG_INFINITY, |a, b| if a >= b { a } else { b });
                    let p: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
                    let total: f32 = p.iter().sum();
                    for d in 0..dim {
                        let sum: f32 = (span.slot..=token)
                            .map(|t| p[t - span.slot] * store.values[at(t, head) + (t % TILE) * dim + d])
                            .sum();
                        z[(span.first_row + row) * width + head * dim + d] = sum / total;
                    }
                }
            }
        }
    }

    /// Scores each row of `x` (`[rows, k]`, already through the final LayerNorm) against its target over all
    /// `n` outputs of `unembedding`. The logits are never stored.
    pub fn cross_entropy(&mut self, x: &[f32], unembedding: WeightMatrix<'_>, targets: &[u32], out: &mut [RowScore]) {
        let mut logits = vec![0.0; unembedding.n];
        for ((x, &target), out) in x.chunks_exact(unembedding.k).zip(targets).zip(out) {
            self.gemm(x, unembedding, Epilogue::Store, &mut logits);
            let target = logits[target as usize];
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
            let log_sum_exp = f64::from(max) + sum.ln();
            let mean: f64 = logits.iter().map(|&l| f64::from(l - max).exp() * f64::from(l)).sum::<f64>() / sum;
            *out = RowScore {
                target_logit: target,
                log_sum_exp,
                entropy: log_sum_exp - mean,
                rank: logits.iter().filter(|&&l| l > target).count() as u32,
            };
        }
    }
}
