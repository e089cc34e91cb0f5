//! GPT-2 in f64, written from the paper with loops only: independent of the forward pass and of every SIMD kernel.
//! Itself checked against Hugging Face's f64 values in `golden.rs`.

use lesion::model::{LayerNorm, Linear, Model};
use lesion_kernels::{Epilogue, reference};

/// The residual stream after the layers `plan`, `[tokens][n_embd]`.
pub(crate) fn hidden(model: &Model, plan: &[usize], ids: &[u32]) -> Vec<f64> {
    let (config, parameters) = (model.config(), model.parameters());
    let d = config.n_embd;
    let mut h = vec![0.0; ids.len() * d];
    let (mut wte, mut wpe) = (vec![0.0; d], vec![0.0; d]);
    for (i, &id) in ids.iter().enumerate() {
        parameters.wte.data().widen_into(id as usize * d, &mut wte);
        parameters.wpe.data().widen_into(i * d, &mut wpe);
        for j in 0..d {
            h[i * d + j] = f64::from(wte[j]) + f64::from(wpe[j]);
        }
    }
    for &layer in plan {
        let block = &parameters.h[layer];
        let qkv = linear(&layer_norm(model, &block.ln_1, &h), &block.attn.c_attn);
        let mut z = vec![0.0; h.len()];
        let dim = config.head_dim();
        for head in 0..config.n_head {
            let part = |which: usize| -> Vec<f64> {
                let row = |i: usize| qkv[i * 3 * d + which * d + head * dim..][..dim].to_vec();
                (0..ids.len()).flat_map(row).collect()
            };
            let scale = 1.0 / (dim as f64).sqrt();
            let out = reference::attention(&part(0), &part(1), &part(2), dim, scale);
            for (i, out) in out.chunks_exact(dim).enumerate() {
                z[i * d + head * dim..][..dim].copy_from_slice(out);
            }
        }
        add(&mut h, &linear(&z, &block.attn.c_proj));
        let mut inner = linear(&layer_norm(model, &block.ln_2, &h), &block.mlp.c_fc);
        inner.iter_mut().for_each(|x| *x = reference::gelu(*x));
        add(&mut h, &linear(&inner, &block.mlp.c_proj));
    }
    h
}

/// `−ln p(ids[i + 1] | ids[..= i])` for each i.
pub(crate) fn token_losses(model: &Model, plan: &[usize], ids: &[u32]) -> Vec<f64> {
    let x = layer_norm(model, &model.parameters().ln_f, &hidden(model, plan, ids));
    let unembedding = model.parameters().unembedding();
    let logits = reference::gemm(&x, &unembedding, Epilogue::Store, &[]);
    let rows = logits.chunks_exact(unembedding.n).zip(&ids[1..]);
    rows.map(|(logits, &next)| reference::cross_entropy(logits, next as usize).0).collect()
}

fn linear(x: &[f64], linear: &Linear) -> Vec<f64> {
    reference::gemm(x, &linear.matrix(), Epilogue::Bias(&linear.bias), &[])
}

fn layer_norm(model: &Model, norm: &LayerNorm, x: &[f64]) -> Vec<f64> {
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
    let (weight, bias) = (wide(&norm.weight), wide(&norm.bias));
    let eps = model.config().layer_norm_epsilon;
    x.chunks_exact(weight.len()).flat_map(|row| reference::layer_norm(row, &weight, &bias, eps)).collect()
}

fn add(h: &mut [f64], update: &[f64]) {
    h.iter_mut().zip(update).for_each(|(h, u)| *h += u);
}
