//! Activations as safetensors files: tensors under TransformerLens's names, `[tokens, width]` in f32 (`attn.hook_pattern` with
//! all keys of all heads in a row), beside them `tokens` (the ids, u32). Metadata: how many sequences, the plan, the model.

use super::references::Activations;
use super::taps::Tap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The ids' tensor.
const TOKENS: &str = "tokens";

/// What is known of activations besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The tokens, sequence after sequence.
    pub ids: Vec<u32>,
    /// The plan that ran.
    pub plan: String,
    /// The model's name.
    pub model: String,
}

/// Why a file of activations can't be read or written.
#[derive(Debug, Error)]
pub enum SavedError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// Read or write.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no safetensors file.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that is not there, or not as it should be.
    #[error("{path}, tensor {tensor}: {problem}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name, printable.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
}

/// The content of a regular file: reading a FIFO would wait for ever, and a device has no end.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>, SavedError> {
    let failed = |source| SavedError::Io { what: "read", path: path.to_owned(), source };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    fs::read(path).map_err(failed)
}

/// Numbers as the format has them.
pub(super) fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

/// A tensor to write.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// Writes tensors to a new file.
pub(super) fn write_new(
    path: &Path,
    tensors: &[Tensor<'_>],
    metadata: HashMap<String, String>,
) -> Result<(), SavedError> {
    let failed = |source| SavedError::Format { path: path.to_owned(), source };
    let io = |source| SavedError::Io { what: "write", path: path.to_owned(), source };
    let mut views = Vec::with_capacity(tensors.len());
    for Tensor { name, dtype, shape, bytes } in tensors {
        views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?));
    }
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(io)?;
    file.write_all(&bytes).map_err(io)
}

impl SavedError {
    /// What is wrong with a tensor of a file.
    pub(super) fn tensor(path: &Path, name: &str, problem: String) -> SavedError {
        SavedError::Tensor { path: path.to_owned(), tensor: crate::weights::printable(name), problem }
    }
}

impl Activations {
    /// Writes them to a new file.
    ///
    /// # Errors
    /// Where there is one, or the system refuses.
    pub fn save(&self, path: &Path, provenance: &Provenance) -> Result<(), SavedError> {
        let tokens = self.tokens();
        let mut tensors = Vec::new();
        for (tap, values) in self.taps() {
            let shape = vec![tokens, values.len() / tokens.max(1)];
            let (name, bytes) = (tap.to_string(), little_endian(values));
            tensors.push(Tensor { name, dtype: Dtype::F32, shape, bytes });
        }
        let (name, shape) = (TOKENS.to_owned(), vec![provenance.ids.len()]);
        let bytes = Cow::Owned(provenance.ids.iter().flat_map(|id| id.to_le_bytes()).collect());
        tensors.push(Tensor { name, dtype: Dtype::U32, shape, bytes });
        let metadata = HashMap::from([
            ("sequences".to_owned(), self.sequences().to_string()),
            ("plan".to_owned(), provenance.plan.clone()),
            ("model".to_owned(), provenance.model.clone()),
        ]);
        write_new(path, &tensors, metadata)
    }

    /// Reads what [`Activations::save`] wrote. A direction to steer along is one row without ids.
    ///
    /// # Errors
    /// Where it is no such file.
    pub fn read(path: &Path) -> Result<(Activations, Provenance), SavedError> {
        let bytes = read_whole(path)?;
        let failed = |source| SavedError::Format { path: path.to_owned(), source };
        let fault = |tensor: &str, problem: String| SavedError::tensor(path, tensor, problem);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(failed)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = SafeTensors::deserialize(&bytes).map_err(failed)?;
        let mut found: Option<Activations> = None;
        let mut provenance = Provenance::default();
        let text = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        (provenance.plan, provenance.model) = (text("plan"), text("model"));
        for (name, view) in file.iter() {
            if name == TOKENS {
                if view.dtype() != Dtype::U32 || view.shape().len() != 1 {
                    return Err(fault(name, format!("{:?} {:?}: ids are one row of U32", view.dtype(), view.shape())));
                }
                let ids = view.data().chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
                provenance.ids = ids.collect();
                continue;
            }
            // One name for each: `blocks.05` would come beside `blocks.5`.
            let Some(tap) = name.parse::<Tap>().ok().filter(|tap| tap.to_string() == name) else {
                return Err(fault(name, "not a site, as in blocks.5.attn.hook_z".to_owned()));
            };
            let (Dtype::F32, &[tokens, _]) = (view.dtype(), view.shape()) else {
                return Err(fault(
                    name,
                    format!("{:?} {:?}: activations are F32, [tokens, width]", view.dtype(), view.shape()),
                ));
            };
            let activations = found.get_or_insert_with(|| Activations::new(tokens));
            if activations.tokens() != tokens {
                return Err(fault(name, format!("{tokens} tokens, others have {}", activations.tokens())));
            }
            let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")));
            activations.extend(&tap, &values.collect::<Vec<f32>>());
        }
        let mut found = found.ok_or_else(|| fault("blocks.…", "there is none".to_owned()))?;
        if let Some(sequences) = metadata.get("sequences") {
            let sequences =
                sequences.parse().ok().filter(|&sequences| 0 < sequences && sequences <= found.tokens().max(1));
            found.set_sequences(
                sequences.ok_or_else(|| fault("metadata", "sequences: not a number of them".to_owned()))?,
            );
        }
        Ok((found, provenance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Site;

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut activations = Activations::new(2);
        activations.set(5, Site::Z, vec![1.0, -0.0, f32::NAN, 1e-40]);
        activations.set(11, Site::Ln1, vec![3.0, 4.0]);
        let mut other = Activations::new(1);
        other.set(5, Site::Z, vec![7.0, 8.0]);
        other.set(11, Site::Ln1, vec![9.0]);
        activations.append(&other);
        let provenance = Provenance { ids: vec![0, 7, 9], plan: "0..12".into(), model: "mini".into() };
        activations.save(&path, &provenance).unwrap();
        let (found, said) = Activations::read(&path).unwrap();
        assert_eq!((said, found.tokens(), found.sequences()), (provenance.clone(), 3, 2));
        let bits = |a: &Activations| a.at(5, Site::Z).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&found), found.at(11, Site::Ln1)), (bits(&activations), activations.at(11, Site::Ln1)));
        let there = activations.save(&path, &provenance).unwrap_err().to_string();
        assert!(there.starts_with("cannot write"), "{there}");
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let written = |tensors: Vec<(&str, Dtype, Vec<usize>)>, sequences: Option<&str>| {
            let zeros = [0_u8; 64];
            let views = tensors.into_iter().map(|(name, dtype, shape)| {
                let len = shape.iter().product::<usize>() * 4;
                (name, TensorView::new(dtype, shape, &zeros[..len]).unwrap())
            });
            let metadata = sequences.map(|sequences| HashMap::from([("sequences".to_owned(), sequences.to_owned())]));
            fs::write(&path, safetensors::serialize(views, metadata).unwrap()).unwrap();
            Activations::read(&path).unwrap_err().to_string()
        };
        let z = "blocks.5.attn.hook_z";
        for (tensors, sequences, wanted) in [
            (vec![("wte", Dtype::F32, vec![2, 2])], None, "not a site"),
            (vec![("blocks.x.attn.hook_z", Dtype::F32, vec![2, 2])], None, "not a site"),
            (vec![(z, Dtype::I32, vec![2, 2])], None, "activations are F32"),
            (vec![(z, Dtype::F32, vec![4])], None, "[4]: activations are F32, [tokens, width]"),
            (
                vec![(z, Dtype::F32, vec![2, 2]), ("blocks.6.attn.hook_z", Dtype::F32, vec![1, 2])],
                None,
                "tokens, others have",
            ),
            (vec![(TOKENS, Dtype::F32, vec![2])], None, "ids are one row of U32"),
            (vec![(TOKENS, Dtype::U32, vec![2])], None, "there is none"),
            (vec![(z, Dtype::F32, vec![2, 2])], Some("3"), "not a number of them"),
            (vec![(z, Dtype::F32, vec![2, 2])], Some("0"), "not a number of them"),
        ] {
            let error = written(tensors, sequences);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        fs::write(&path, b"not safetensors").unwrap();
        assert!(Activations::read(&path).is_err());
        assert!(Activations::read(&folder.path().join("none")).unwrap_err().to_string().starts_with("cannot read"));
    }
}
