//! `config.json`, as Hugging Face's `GPT2Config` writes it.
//!
//! Fields that do not touch the forward pass are ignored; one that changes its maths in a way that is not supported is
//! refused, never overlooked.

use serde::Serialize;
use serde_json::Value;

use crate::weights::{UniqueMap, printable, printable_path};

/// The largest size accepted in any field: token ids and positions are 32-bit.
const MAX_SIZE: u64 = i32::MAX as u64;

/// The hyperparameters of a GPT-2, under their names in `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads of a block; divides `n_embd`.
    pub n_head: usize,
    /// Width of the residual stream, `d`.
    pub n_embd: usize,
    /// The longest context, in tokens.
    pub n_positions: usize,
    /// Width of the MLP's hidden layer; `4 · n_embd` unless given.
    pub n_inner: usize,
    /// Token ids are `0..vocab_size`.
    pub vocab_size: usize,
    /// What LayerNorm adds to the variance; fits f32.
    pub layer_norm_epsilon: f64,
    /// The token put before a text when asked for; 50256 unless given. None where it is given as null, or is not given
    /// and the vocabulary has no 50256.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text; found as `bos_token_id` is.
    pub eos_token_id: Option<u32>,
    /// Whether attention scores are divided by `√head_dim`.
    pub scale_attn_weights: bool,
    /// Whether attention scores of layer `l` are divided by `l + 1` too.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the unembedding is `wte`. An `lm_head.weight` in the file is used even so.
    pub tie_word_embeddings: bool,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a JSON object.
    #[error("{}: {}", printable_path(file), printable(problem))]
    Json {
        /// The file.
        file: String,
        /// What the parser says.
        problem: String,
    },
    /// A field that is needed is not there.
    #[error("{}: {field} is missing", printable_path(file))]
    Missing {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that cannot be used.
    #[error("{}: {field} {}: {problem}", printable_path(file), printable(value))]
    Field {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What was expected.
        problem: String,
    },
}

impl Config {
    /// Reads a `config.json`; `source` is the file's name in messages.
    ///
    /// # Errors
    /// Another architecture than GPT-2, a field that is missing or out of range, an option that changes the maths and
    /// is not supported.
    pub fn from_json(json: &[u8], source: &str) -> Result<Config, ConfigError> {
        let UniqueMap(values) = serde_json::from_slice::<UniqueMap<Value>>(json)
            .map_err(|e| ConfigError::Json { file: source.to_owned(), problem: e.to_string() })?;
        let fields = Fields { values, file: source };

        fields.one_of("model_type", None, &["gpt2"])?;
        // `gelu_pytorch_tanh` is the same formula under PyTorch's name; `gelu` is the erf one.
        fields.one_of("activation_function", Some("gelu_new"), &["gelu_new", "gelu_pytorch_tanh"])?;
        // `reorder_and_upcast_attn` needs no look: it only asks for f32 attention, which is all there is.
        if fields.flag("add_cross_attention", false)? {
            return Err(fields.refuse("add_cross_attention", "cross-attention is not supported"));
        }
        if fields.get("pruned_heads").is_some_and(|heads| heads.as_object().is_none_or(|heads| !heads.is_empty())) {
            return Err(fields.refuse("pruned_heads", "pruned heads are not supported; a plan can zero heads"));
        }

        let n_embd = fields.size("n_embd")?;
        let vocab_size = fields.size("vocab_size")?;
        let config = Config {
            n_layer: fields.size("n_layer")?,
            n_head: fields.size("n_head")?,
            n_embd,
            n_positions: fields.size("n_positions")?,
            n_inner: match fields.get("n_inner") {
                None => 4 * n_embd,
                Some(_) => fields.size("n_inner")?,
            },
            vocab_size,
            layer_norm_epsilon: fields.epsilon()?,
            bos_token_id: fields.token("bos_token_id", vocab_size)?,
            eos_token_id: fields.token("eos_token_id", vocab_size)?,
            scale_attn_weights: fields.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        };
        if !config.n_embd.is_multiple_of(config.n_head) {
            return Err(fields.refuse("n_embd", &format!("expected a multiple of n_head {}", config.n_head)));
        }
        if fields.get("n_ctx").is_some() && fields.size("n_ctx")? != config.n_positions {
            return Err(fields.refuse("n_ctx", &format!("expected the same as n_positions {}", config.n_positions)));
        }
        let widest = [config.vocab_size, config.n_positions, 3 * config.n_embd, config.n_inner].into_iter().max();
        let bytes = widest.and_then(|widest| widest.checked_mul(config.n_embd)?.checked_mul(size_of::<f32>()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(fields.refuse("n_embd", "with the other sizes, no memory could hold these weights"));
        }
        Ok(config)
    }

    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// What the attention scores of `layer` are multiplied by.
    pub fn attention_scale(&self, layer: usize) -> f64 {
        let mut divisor = 1.0;
        if self.scale_attn_weights {
            divisor *= (self.head_dim() as f64).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            divisor *= (layer + 1) as f64;
        }
        1.0 / divisor
    }
}

/// The fields of a file, with the checks that name them.
struct Fields<'a> {
    values: std::collections::BTreeMap<String, Value>,
    file: &'a str,
}

impl Fields<'_> {
    /// A field that is there and not null, as Python's `None` is written.
    fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }

    fn refuse(&self, field: &'static str, problem: &str) -> ConfigError {
        let value = self.values.get(field).map_or_else(|| "(not given)".to_owned(), Value::to_string);
        ConfigError::Field { file: self.file.to_owned(), field, value, problem: problem.to_owned() }
    }

    fn size(&self, field: &'static str) -> Result<usize, ConfigError> {
        let Some(value) = self.get(field) else {
            return Err(ConfigError::Missing { file: self.file.to_owned(), field });
        };
        match value.as_u64() {
            Some(size @ 1..=MAX_SIZE) => Ok(size as usize),
            _ => Err(self.refuse(field, &format!("expected an integer from 1 to {MAX_SIZE}"))),
        }
    }

    fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(field, "expected true or false")),
        }
    }

    fn one_of(&self, field: &'static str, default: Option<&str>, allowed: &[&str]) -> Result<(), ConfigError> {
        let Some(value) = self.get(field).map(Value::as_str).or(default.map(Some)) else {
            return Err(ConfigError::Missing { file: self.file.to_owned(), field });
        };
        match value {
            Some(value) if allowed.contains(&value) => Ok(()),
            _ => Err(self.refuse(field, &format!("expected {}", allowed.join(" or ")))),
        }
    }

    fn token(&self, field: &'static str, vocab_size: usize) -> Result<Option<u32>, ConfigError> {
        match self.values.get(field) {
            None => Ok(Some(50256).filter(|&id| (id as usize) < vocab_size)),
            Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) if (id as usize) < vocab_size => Ok(Some(id)),
                Some(id) => {
                    let problem = format!("{id} is no token id: vocab_size {vocab_size} allows 0..{vocab_size}");
                    Err(self.refuse(field, &problem))
                }
                None => Err(self.refuse(field, "expected a token id")),
            },
        }
    }

    fn epsilon(&self) -> Result<f64, ConfigError> {
        match self.get("layer_norm_epsilon").map_or(Some(1e-5), Value::as_f64) {
            Some(epsilon) if (epsilon as f32).is_finite() && epsilon >= 0.0 => Ok(epsilon),
            _ => Err(self.refuse("layer_norm_epsilon", "expected a number from 0 that fits f32")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_gpt2config() {
        let json = br#"{"model_type":"gpt2","n_layer":2,"n_head":2,"n_embd":8,"n_positions":16,"vocab_size":50257}"#;
        let config = Config::from_json(json, "config.json").unwrap();
        assert_eq!(config.n_inner, 32);
        assert_eq!(config.layer_norm_epsilon, 1e-5);
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(50256), Some(50256)));
        assert!(config.scale_attn_weights && config.tie_word_embeddings && !config.scale_attn_by_inverse_layer_idx);
        assert_eq!(config.attention_scale(1), 0.5);
    }

    #[test]
    fn the_attention_scale_follows_both_flags() {
        let json = br#"{"model_type":"gpt2","n_layer":2,"n_head":2,"n_embd":8,"n_positions":16,"vocab_size":50257,
            "scale_attn_weights":false,"scale_attn_by_inverse_layer_idx":true}"#;
        let config = Config::from_json(json, "config.json").unwrap();
        assert_eq!(config.attention_scale(0), 1.0);
        assert_eq!(config.attention_scale(3), 0.25);
    }
}
