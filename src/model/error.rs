//! Why a model could not be opened.

use std::path::PathBuf;

use super::config::ConfigError;
use super::tokenizer::TokenizerError;
use crate::weights::{HubError, WeightsError, printable, printable_path};

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is not one of a GPT-2 that is supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights, or another of the model's files, cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// `tokenizer.json` is not one that is supported.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A pinned model's files can't be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// No model of this name.
    #[error("model {name:?}: neither a directory, nor mini, nor a model that weights.lock pins ({})", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The models that are pinned.
        known: Vec<String>,
    },
    /// The model has no tokenizer: it works with token ids only.
    #[error("{} has no tokenizer.json: this model takes token ids only", printable_path(directory))]
    NoTokenizer {
        /// The model's directory.
        directory: PathBuf,
    },
    /// The model has no BOS token to put before a text.
    #[error("model {model}: its config.json names no bos_token_id in its vocabulary: no BOS can be put before a text")]
    NoBos {
        /// The model's name.
        model: String,
    },
    /// Configuration and weights disagree on the number of layers.
    #[error(
        "config.json: n_layer {n_layer}, {} holds {in_file} layers: {} {}", printable_path(file), printable(tensor),
        if in_file > n_layer { "would not be used" } else { "is missing" }
    )]
    LayerCount {
        /// The layers the configuration asks for.
        n_layer: usize,
        /// The layers in the weights.
        in_file: usize,
        /// The first tensor that is too many, or missing.
        tensor: String,
        /// The weights.
        file: String,
    },
    /// The same parameter is there with and without the prefix `transformer.`.
    #[error(
        "{}: both wte.weight and transformer.wte.weight are there: which of the two models is meant?",
        printable_path(file)
    )]
    TwoModels {
        /// The weights.
        file: String,
    },
}
