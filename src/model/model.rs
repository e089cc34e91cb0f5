//! A model: configuration, parameters and tokenizer, opened together.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::config::Config;
use super::error::ModelError;
use super::parameters::Parameters;
use super::tokenizer::Tokenizer;
use crate::weights::{CheckMode, Checkpoint, HubOptions, LockedModel, ReadMode, WeightsLock, read_limited, resolve};

const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A GPT-2. Cheap to clone: clones share the weights, which stay in their file. `Send + Sync`.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    name: String,
    config: Config,
    parameters: Parameters,
    checkpoint: Checkpoint,
    warnings: Vec<String>,
    tokenizer_file: TokenizerFile,
    tokenizer: OnceLock<Tokenizer>,
}

/// Where the tokenizer comes from, once it is needed.
enum TokenizerFile {
    #[cfg(feature = "mini")]
    Embedded(&'static [u8]),
    InDirectory(PathBuf),
}

/// How a model's directory is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Whether the weights are mapped or read.
    pub read: ReadMode,
    /// What the model is called in results; the directory's own name unless given.
    pub name: Option<String>,
}

impl Model {
    /// The model embedded in the binary, `mini`: a scale model of GPT-2 small, trained on sixteen small skills.
    ///
    /// # Errors
    /// None in practice: the tests open it.
    #[cfg(feature = "mini")]
    pub fn mini() -> Result<Model, ModelError> {
        use super::mini;
        let config = Config::from_json(mini::CONFIG, "mini/config.json")?;
        let checkpoint = Checkpoint::from_static("mini/model.safetensors", mini::WEIGHTS)?;
        Model::assemble("mini".to_owned(), config, checkpoint, TokenizerFile::Embedded(mini::TOKENIZER))
    }

    /// Opens a model by name: the embedded one (`mini`, where it is built in), one that the bundled `weights.lock` pins
    /// (`gpt2`), or a directory. A pinned model is looked for in Hugging Face's cache, else downloaded into it, and its
    /// files are verified before their first use; the environment's `HF_*` variables hold.
    ///
    /// [`crate::weights::resolve`] and [`Model::open_dir`] are the same with every setting in the caller's hands, and
    /// with progress.
    ///
    /// # Errors
    /// The name is none of these, or the files can't be had or are not what they should be.
    pub fn open(name: &str) -> Result<Model, ModelError> {
        #[cfg(feature = "mini")]
        if name == "mini" {
            return Model::mini();
        }
        let lock = WeightsLock::bundled();
        let Some(pinned) = lock.model(name) else {
            let directory = Path::new(name);
            if directory.is_dir() {
                return Model::open_dir(directory, &OpenOptions::default());
            }
            let known = lock.models().iter().map(|model| model.name().to_owned()).collect();
            return Err(ModelError::Unknown { name: name.to_owned(), known });
        };
        let directory = resolve(pinned, &HubOptions::from_env()?, CheckMode::Remembered, &mut |_| ())?;
        Model::open_locked(&directory, pinned, ReadMode::default())
    }

    /// Opens the model in a directory of Hugging Face's layout: `config.json`, `model.safetensors` or its shards and,
    /// where there is one, `tokenizer.json`, which is read on first use.
    ///
    /// # Errors
    /// Any of the files is missing (the tokenizer may be), malformed, or disagrees with another.
    pub fn open_dir(directory: &Path, options: &OpenOptions) -> Result<Model, ModelError> {
        let config = read_config(directory)?;
        let checkpoint = Checkpoint::open(directory, options.read)?;
        let name = options.name.clone().unwrap_or_else(|| {
            let own = directory.file_name().unwrap_or(directory.as_os_str());
            own.to_string_lossy().into_owned()
        });
        Model::assemble(name, config, checkpoint, TokenizerFile::InDirectory(directory.to_owned()))
    }

    /// Opens a pinned model in the directory that [`crate::weights::resolve`] gave, under the name it is pinned as.
    /// Weights that lie there and that the lock doesn't list have not been verified, and are refused.
    ///
    /// # Errors
    /// As [`Model::open_dir`]; and weights that the lock doesn't list.
    pub fn open_locked(directory: &Path, pinned: &LockedModel, read: ReadMode) -> Result<Model, ModelError> {
        let config = read_config(directory)?;
        let checkpoint = Checkpoint::open_locked(directory, pinned, read)?;
        let tokenizer = TokenizerFile::InDirectory(directory.to_owned());
        Model::assemble(pinned.name().to_owned(), config, checkpoint, tokenizer)
    }

    fn assemble(
        name: String,
        config: Config,
        checkpoint: Checkpoint,
        tokenizer_file: TokenizerFile,
    ) -> Result<Model, ModelError> {
        let (parameters, warnings) = Parameters::load(&checkpoint, &config)?;
        let tokenizer = OnceLock::new();
        Ok(Model(Arc::new(Inner { name, config, parameters, checkpoint, warnings, tokenizer_file, tokenizer })))
    }

    /// Whether the two are clones of one opened model.
    pub(crate) fn is_same(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The hyperparameters.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The BOS token.
    ///
    /// # Errors
    /// [`ModelError::NoBos`] where the configuration names none.
    pub fn bos(&self) -> Result<u32, ModelError> {
        self.0.config.bos_token_id.ok_or_else(|| ModelError::NoBos { model: self.0.name.clone() })
    }

    /// The parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.0.parameters
    }

    /// The files the parameters lie in.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.0.checkpoint
    }

    /// What the model is called in results.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What was accepted on opening but deserves to be known, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The tokenizer, read on first use: work on token ids never needs one.
    ///
    /// # Errors
    /// The model has none, or one that is not supported.
    pub fn tokenizer(&self) -> Result<&Tokenizer, ModelError> {
        if let Some(tokenizer) = self.0.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = self.0.read_tokenizer()?;
        Ok(self.0.tokenizer.get_or_init(|| tokenizer))
    }

    /// The SHA-256 of `tokenizer.json`; none where the model has none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn tokenizer_sha256(&self) -> Result<Option<[u8; 32]>, ModelError> {
        match self.0.tokenizer_bytes() {
            Ok((bytes, _)) => Ok(Some(Sha256::digest(bytes).into())),
            Err(ModelError::NoTokenizer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_config(directory: &Path) -> Result<Config, ModelError> {
    let file = directory.join("config.json");
    Ok(Config::from_json(&read_limited(&file, MAX_CONFIG_BYTES)?, &file.to_string_lossy())?)
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Model").field("name", &inner.name).field("config", &inner.config).finish_non_exhaustive()
    }
}

impl Inner {
    fn read_tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let (bytes, source) = self.tokenizer_bytes()?;
        Ok(Tokenizer::from_bytes(&bytes, self.config.vocab_size, &source)?)
    }

    /// The bytes of `tokenizer.json`, and the file's name in messages.
    fn tokenizer_bytes(&self) -> Result<(Cow<'static, [u8]>, String), ModelError> {
        match &self.tokenizer_file {
            #[cfg(feature = "mini")]
            TokenizerFile::Embedded(bytes) => Ok((Cow::Borrowed(bytes), "mini/tokenizer.json".to_owned())),
            TokenizerFile::InDirectory(directory) => {
                let file = directory.join("tokenizer.json");
                // Asked about the link itself: a dangling one, or one that can't be read, is an error to report.
                let absent = std::fs::symlink_metadata(&file).is_err_and(|e| e.kind() == ErrorKind::NotFound);
                if absent {
                    return Err(ModelError::NoTokenizer { directory: directory.clone() });
                }
                let bytes = read_limited(&file, MAX_TOKENIZER_BYTES)?;
                Ok((Cow::Owned(bytes), file.to_string_lossy().into_owned()))
            }
        }
    }
}
