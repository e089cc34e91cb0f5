//! One peer in a process of its own: GPT-2 in f32 on candle. `candle-worker candle-f32 MODELS TOKENS THREADS`; the
//! protocol is that of ../worker.py.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::{Embedding, LayerNorm, VarBuilder, layer_norm, ops::softmax_last_dim};
use serde_json::{Value, json};
use std::io::BufRead;
use std::time::Instant;

const HEADS: usize = 12;
const WIDTH: usize = 768;
const STEPS: usize = 64;

/// `x · weight + bias`, weight `[in, out]`.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn load(vb: VarBuilder, inputs: usize, outputs: usize) -> Result<Linear> {
        Ok(Linear { weight: vb.get((inputs, outputs), "weight")?, bias: vb.get(outputs, "bias")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        x.reshape((b * t, width))?.matmul(&self.weight)?.broadcast_add(&self.bias)?.reshape((b, t, ()))
    }
}

struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_c_proj: Linear,
}

struct Gpt2 {
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
}

type Cache = Vec<Option<(Tensor, Tensor)>>;

impl Gpt2 {
    fn load(path: &str) -> Result<Gpt2> {
        let file = [format!("{path}/model.safetensors")];
        // SAFETY: nobody changes the file while it is mapped.
        let vb = unsafe { VarBuilder::from_mmaped_safetensors(&file, DType::F32, &Device::Cpu)? };
        let norm = |vb: VarBuilder| layer_norm(WIDTH, 1e-5, vb);
        let block = |l: usize| -> Result<Block> {
            let vb = vb.pp(format!("h.{l}"));
            Ok(Block {
                ln_1: norm(vb.pp("ln_1"))?,
                c_attn: Linear::load(vb.pp("attn.c_attn"), WIDTH, 3 * WIDTH)?,
                attn_c_proj: Linear::load(vb.pp("attn.c_proj"), WIDTH, WIDTH)?,
                ln_2: norm(vb.pp("ln_2"))?,
                c_fc: Linear::load(vb.pp("mlp.c_fc"), WIDTH, 4 * WIDTH)?,
                mlp_c_proj: Linear::load(vb.pp("mlp.c_proj"), 4 * WIDTH, WIDTH)?,
            })
        };
        Ok(Gpt2 {
            wte: vb.get((50257, WIDTH), "wte.weight")?,
            wpe: vb.get((1024, WIDTH), "wpe.weight")?,
            blocks: (0..12).map(block).collect::<Result<_>>()?,
            ln_f: norm(vb.pp("ln_f"))?,
        })
    }

    /// `[batch, tokens]` ids behind `past` cached tokens to the final hidden states, `[batch · tokens, WIDTH]`.
    fn forward(&self, ids: &Tensor, past: usize, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let place = self.wpe.narrow(0, past, t)?;
        let mut h = Embedding::new(self.wte.clone(), WIDTH).forward(ids)?.broadcast_add(&place)?;
        // 0 where a row may look, −∞ behind its own position; one row may look everywhere.
        let mask = (t > 1).then(|| {
            let mask = (0..t).flat_map(|i| (0..t).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }));
            Tensor::from_vec(mask.collect::<Vec<_>>(), (t, t), &Device::Cpu)
        });
        let mask = mask.transpose()?;
        for (l, block) in self.blocks.iter().enumerate() {
            let qkv = block.c_attn.forward(&block.ln_1.forward(&h)?)?;
            let part = |i: usize| {
                qkv.narrow(2, i * WIDTH, WIDTH)?.reshape((b, t, HEADS, WIDTH / HEADS))?.transpose(1, 2)?.contiguous()
            };
            let (q, mut k, mut v) = (part(0)?, part(1)?, part(2)?);
            if let Some(cache) = cache.as_mut() {
                if let Some((past_k, past_v)) = &cache[l] {
                    k = Tensor::cat(&[past_k, &k], 2)?;
                    v = Tensor::cat(&[past_v, &v], 2)?;
                }
                cache[l] = Some((k.clone(), v.clone()));
            }
            let mut scores = (q.matmul(&k.t()?)? * (1.0 / ((WIDTH / HEADS) as f64).sqrt()))?;
            if let Some(mask) = &mask {
                scores = scores.broadcast_add(mask)?;
            }
            let z = softmax_last_dim(&scores)?.matmul(&v)?.transpose(1, 2)?.reshape((b, t, WIDTH))?;
            h = (h + block.attn_c_proj.forward(&z)?)?;
            let inner = block.c_fc.forward(&block.ln_2.forward(&h)?)?.gelu()?;
            h = (h + block.mlp_c_proj.forward(&inner)?)?;
        }
        self.ln_f.forward(&h)?.reshape((b * t, WIDTH))
    }

    fn loss(&self, ids: &Tensor) -> Result<f64> {
        let (b, t) = ids.dims2()?;
        let logits = self.forward(ids, 0, None)?.matmul(&self.wte.t()?)?.reshape((b, t, ()))?;
        let logits = logits.narrow(1, 0, t - 1)?.flatten_to(1)?.contiguous()?;
        let targets = ids.narrow(1, 1, t - 1)?.flatten_all()?;
        Ok(f64::from(candle_nn::loss::cross_entropy(&logits, &targets)?.to_scalar::<f32>()?))
    }

    fn decode(&self, ids: &Tensor) -> Result<(f64, Vec<u32>)> {
        let mut cache: Cache = vec![None; self.blocks.len()];
        let likeliest = |h: Tensor| -> Result<u32> {
            let last = h.i(h.dim(0)? - 1..)?;
            last.matmul(&self.wte.t()?)?.argmax(D::Minus1)?.i(0)?.to_scalar()
        };
        let past = ids.dim(1)?;
        let mut tokens = vec![likeliest(self.forward(ids, 0, Some(&mut cache))?)?];
        let start = Instant::now();
        for step in 0..STEPS {
            let id = Tensor::new(&[[tokens[step]]], &Device::Cpu)?;
            tokens.push(likeliest(self.forward(&id, past + step, Some(&mut cache))?)?);
        }
        Ok((start.elapsed().as_secs_f64(), tokens))
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, models, tokens, threads] = &arguments[..] else { return Err("PEER MODELS TOKENS THREADS".into()) };
    // Before any thread is started; candle reads it once.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads) };
    let tokens: Value = serde_json::from_str(&std::fs::read_to_string(tokens)?)?;
    let ids = |work: &str| -> Result<Tensor> {
        let rows: Vec<Vec<u32>> = serde_json::from_value(tokens[work].clone()).map_err(candle_core::Error::wrap)?;
        Tensor::new(rows, &Device::Cpu)
    };
    let model = Gpt2::load(&format!("{models}/gpt2-f32"))?;
    model.loss(&ids("C")?)?;
    println!("{}", json!({"peer": name, "versions": {"candle": "0.11"}}));
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let work = command["work"].as_str().ok_or("no work")?;
        let ids = ids(work)?;
        model.loss(&Tensor::new(&[[0u32; 16]], &Device::Cpu)?)?;
        let (mut answer, mut seconds) = (json!({}), Vec::new());
        for _ in 0..command["times"].as_u64().ok_or("no times")? {
            if work == "D" {
                let (time, tokens) = model.decode(&ids)?;
                answer["tokens"] = json!(tokens);
                seconds.push(time);
            } else {
                let start = Instant::now();
                answer["loss"] = json!(model.loss(&ids)?);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        answer["seconds"] = json!(seconds);
        println!("{answer}");
    }
    Ok(())
}
