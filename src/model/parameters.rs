//! The parameters, under GPT-2's own names.
//!
//! Matrices are views of the file; biases and LayerNorm parameters are small and widened to f32 on opening.

use std::collections::BTreeSet;

use lesion_kernels::{Layout, WeightMatrix};

use super::config::Config;
use super::error::ModelError;
use crate::weights::{Checkpoint, Tensor, WeightsError, printable, printable_path};

/// How many names of unused tensors a warning repeats.
const NAMED: usize = 8;

/// Every parameter of a model.
#[derive(Debug)]
pub struct Parameters {
    /// Token embeddings, `[vocab_size, d]`.
    pub wte: Tensor,
    /// Position embeddings, `[n_positions, d]`.
    pub wpe: Tensor,
    /// The blocks, by layer.
    pub h: Vec<Block>,
    /// The LayerNorm before the unembedding.
    pub ln_f: LayerNorm,
    /// The unembedding of its own, `[vocab_size, d]`, where the file has one.
    lm_head: Option<Tensor>,
}

/// One transformer block.
#[derive(Debug)]
pub struct Block {
    /// The LayerNorm before the attention.
    pub ln_1: LayerNorm,
    /// The attention half.
    pub attn: Attention,
    /// The LayerNorm before the MLP.
    pub ln_2: LayerNorm,
    /// The MLP half.
    pub mlp: Mlp,
}

/// Causal self-attention.
#[derive(Debug)]
pub struct Attention {
    /// `d → 3 d`: queries, keys and values side by side, each with its heads side by side.
    pub c_attn: Linear,
    /// `d → d`: from the heads' outputs side by side.
    pub c_proj: Linear,
}

/// The two-layer perceptron.
#[derive(Debug)]
pub struct Mlp {
    /// `d → n_inner`, before `gelu_new`.
    pub c_fc: Linear,
    /// `n_inner → d`.
    pub c_proj: Linear,
}

/// Gain and offset of a LayerNorm, `[d]` each.
#[derive(Debug)]
pub struct LayerNorm {
    /// The gain.
    pub weight: Vec<f32>,
    /// The offset.
    pub bias: Vec<f32>,
}

/// `x · weight + bias`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    /// `[out]`.
    pub bias: Vec<f32>,
}

impl Linear {
    /// The weight, `[in, out]`.
    pub fn matrix(&self) -> WeightMatrix<'_> {
        let shape = self.weight.shape();
        WeightMatrix::new(self.weight.data(), shape[0], shape[1], Layout::InOut)
    }
}

impl Parameters {
    /// What turns the final state into logits: `wte`, or the `lm_head` that the file holds.
    pub fn unembedding(&self) -> WeightMatrix<'_> {
        let tensor = self.lm_head.as_ref().unwrap_or(&self.wte);
        let shape = tensor.shape();
        WeightMatrix::new(tensor.data(), shape[1], shape[0], Layout::OutIn)
    }

    /// Whether the unembedding is `wte`.
    pub fn is_tied(&self) -> bool {
        self.lm_head.is_none()
    }

    /// Finds every parameter in `checkpoint`, with or without the prefix `transformer.`, and what deserves a warning.
    ///
    /// Attention mask buffers are passed over. Other tensors that are not used are named in a warning, unless they are
    /// layers: a checkpoint of another depth than `config` says is refused.
    pub(super) fn load(checkpoint: &Checkpoint, config: &Config) -> Result<(Parameters, Vec<String>), ModelError> {
        let prefix = match (checkpoint.contains("wte.weight"), checkpoint.contains("transformer.wte.weight")) {
            (true, true) => return Err(ModelError::TwoModels { file: checkpoint.describe() }),
            (false, true) => "transformer.",
            (true, false) => "",
            // Without `wte.weight` the others tell under which name it is missing.
            (false, false) if checkpoint.names().any(|name| name.starts_with("transformer.")) => "transformer.",
            (false, false) => "",
        };
        check_depth(checkpoint, config, prefix)?;

        let mut loader = Loader { checkpoint, prefix, used: BTreeSet::new() };
        let (d, v) = (config.n_embd, config.vocab_size);
        let wte = loader.tensor("wte.weight", &[v, d])?;
        let wpe = loader.tensor("wpe.weight", &[config.n_positions, d])?;
        let h = (0..config.n_layer).map(|layer| loader.block(layer, config)).collect::<Result<_, _>>()?;
        let ln_f = loader.layer_norm("ln_f", d)?;

        let mut warnings = Vec::new();
        // An unembedding in the file is used, whatever the configuration says of tying: dropping it would change the
        // logits, and where it equals `wte` using it changes nothing. So no comparison is needed, which would read
        // both matrices on every opening.
        let lm_head = if checkpoint.contains("lm_head.weight") {
            if config.tie_word_embeddings {
                warnings.push(format!(
                    "{}: lm_head.weight is there and is used, though config.json has tie_word_embeddings true",
                    printable_path(checkpoint.describe())
                ));
            }
            loader.used.insert("lm_head.weight".to_owned());
            Some(checkpoint.tensor("lm_head.weight", &[v, d])?)
        } else if config.tie_word_embeddings {
            None
        } else {
            // Neither tied nor there.
            return Err(checkpoint.tensor("lm_head.weight", &[v, d]).map(|_| ()).unwrap_err().into());
        };
        warnings.extend(loader.unused_warning());
        Ok((Parameters { wte, wpe, h, ln_f, lm_head }, warnings))
    }
}

/// Whether a tensor of this name is a causal mask that older checkpoints store beside the weights (`h.3.attn.bias`,
/// `h.3.attn.masked_bias`). It is no parameter: the forward pass is causal by itself.
pub fn is_mask_buffer(name: &str) -> bool {
    layer_of(name.strip_prefix("transformer.").unwrap_or(name))
        .is_some_and(|(_, rest)| matches!(rest, "attn.bias" | "attn.masked_bias"))
}

/// `h.3.ln_1.weight` → (3, `ln_1.weight`).
fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("h.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}

/// Compares the number of layers in the file with the configuration's.
fn check_depth(checkpoint: &Checkpoint, config: &Config, prefix: &str) -> Result<(), ModelError> {
    let layers = || checkpoint.names().filter_map(|name| Some((layer_of(name.strip_prefix(prefix)?)?.0, name)));
    let in_file = layers().map(|(layer, _)| layer.saturating_add(1)).max().unwrap_or(0);
    let tensor = if in_file > config.n_layer {
        layers().filter(|(layer, _)| *layer >= config.n_layer).min().map(|(_, name)| name.to_owned())
    } else if in_file < config.n_layer {
        Some(format!("{prefix}h.{in_file}.ln_1.weight"))
    } else {
        None
    };
    match tensor {
        None => Ok(()),
        Some(tensor) => {
            Err(ModelError::LayerCount { n_layer: config.n_layer, in_file, tensor, file: checkpoint.describe() })
        }
    }
}

/// Takes tensors out of a checkpoint and remembers which.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'static str,
    used: BTreeSet<String>,
}

impl Loader<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.checkpoint.tensor(&name, shape)?;
        self.used.insert(name);
        Ok(tensor)
    }

    fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>, WeightsError> {
        Ok(self.tensor(name, &[n])?.to_f32())
    }

    fn layer_norm(&mut self, name: &str, d: usize) -> Result<LayerNorm, WeightsError> {
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), d)?,
            bias: self.vector(&format!("{name}.bias"), d)?,
        })
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, WeightsError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[inputs, outputs])?,
            bias: self.vector(&format!("{name}.bias"), outputs)?,
        })
    }

    fn block(&mut self, layer: usize, config: &Config) -> Result<Block, WeightsError> {
        let (d, inner) = (config.n_embd, config.n_inner);
        Ok(Block {
            ln_1: self.layer_norm(&format!("h.{layer}.ln_1"), d)?,
            attn: Attention {
                c_attn: self.linear(&format!("h.{layer}.attn.c_attn"), d, 3 * d)?,
                c_proj: self.linear(&format!("h.{layer}.attn.c_proj"), d, d)?,
            },
            ln_2: self.layer_norm(&format!("h.{layer}.ln_2"), d)?,
            mlp: Mlp {
                c_fc: self.linear(&format!("h.{layer}.mlp.c_fc"), d, inner)?,
                c_proj: self.linear(&format!("h.{layer}.mlp.c_proj"), inner, d)?,
            },
        })
    }

    /// Names what the file holds and nothing used.
    fn unused_warning(&self) -> Option<String> {
        let unused: Vec<&str> =
            self.checkpoint.names().filter(|name| !self.used.contains(*name) && !is_mask_buffer(name)).collect();
        let named = unused.iter().take(NAMED).map(|name| printable(name)).collect::<Vec<_>>().join(", ");
        let more = if unused.len() > NAMED { format!(" and {} more", unused.len() - NAMED) } else { String::new() };
        (!unused.is_empty()).then(|| format!("{}: not used: {named}{more}", printable_path(self.checkpoint.describe())))
    }
}
