//! Linear shortcuts as safetensors files: `bridges.6.11.weight`, `[n_embd, n_embd]` as inputs and outputs, and
//! `bridges.6.11.bias`, both f32, for each pair of layers. Metadata: how they were fitted, to which model, on which text, as
//! JSON under one key, for a header has its keys in no order of its own: the same maps are the same bytes.

use super::bridges::{LinearMap, Shortcuts};
use super::saved::{SavedError, Tensor, little_endian, read_whole, write_new};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The key of the metadata.
const METADATA: &str = "lesion_bridges";

/// What is known of shortcuts besides; all of it for people, and empty where a file does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fitted {
    /// How: `ridge`, `tuned`.
    pub method: String,
    /// The settings: `lambda 0.0001, windows of 256`.
    pub settings: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of its configuration and weights, hex.
    pub weights: String,
    /// The text's name.
    pub text: String,
    /// SHA-256 of the token ids that were fitted to, hex.
    pub tokens_sha256: String,
    /// How many those are.
    pub tokens: String,
}

impl Shortcuts {
    /// Writes them to a new file.
    ///
    /// # Errors
    /// Where there is one, or the system refuses.
    pub fn save(&self, path: &Path, fitted: &Fitted) -> Result<(), SavedError> {
        let mut tensors = Vec::new();
        for ((from, to), map) in self.iter() {
            let width = map.width();
            for (part, shape, values) in [("weight", vec![width; 2], map.weight()), ("bias", vec![width], map.bias())] {
                let (name, bytes) = (format!("bridges.{from}.{to}.{part}"), little_endian(values));
                tensors.push(Tensor { name, dtype: Dtype::F32, shape, bytes });
            }
        }
        let json = serde_json::to_string(fitted).expect("texts are plain data");
        write_new(path, &tensors, HashMap::from([(METADATA.to_owned(), json)]))
    }

    /// Reads what [`Shortcuts::save`] wrote, or a file of your own in its form.
    ///
    /// # Errors
    /// Where it is no such file: a tensor of another name, type or shape, a matrix without its bias, numbers that are not
    /// finite, maps of several widths, or none.
    pub fn read(path: &Path) -> Result<(Shortcuts, Fitted), SavedError> {
        let bytes = read_whole(path)?;
        let failed = |source| SavedError::Format { path: path.to_owned(), source };
        let fault = |tensor: &str, problem: String| SavedError::tensor(path, tensor, problem);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(failed)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = SafeTensors::deserialize(&bytes).map_err(failed)?;
        let mut parts: BTreeMap<(usize, usize), [Option<Vec<f32>>; 2]> = BTreeMap::new();
        for (name, view) in file.iter() {
            let Some((from, to, part)) = part_of(name) else {
                return Err(fault(
                    name,
                    "not part of a bridge, as in bridges.6.11.weight and bridges.6.11.bias".into(),
                ));
            };
            if from > to {
                return Err(fault(name, "it runs backwards: a bridge leads to the same layer or a later one".into()));
            }
            let (dtype, shape) = (view.dtype(), view.shape());
            let fits = match (part, shape) {
                (0, [inputs, outputs]) => inputs == outputs,
                (1, [_]) => true,
                _ => false,
            };
            if dtype != Dtype::F32 || !fits {
                let problem = format!("{dtype:?} {shape:?}: weights are F32 [n_embd, n_embd], biases F32 [n_embd]");
                return Err(fault(name, problem));
            }
            let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")));
            parts.entry((from, to)).or_default()[part] = Some(values.collect());
        }
        let mut shortcuts = Shortcuts::default();
        let mut width = None;
        for ((from, to), parts) in parts {
            let name = format!("bridges.{from}.{to}");
            let [Some(weight), Some(bias)] = parts else {
                return Err(fault(&name, "it has no weight, or no bias: both are needed".into()));
            };
            let map = LinearMap::new(weight, bias).map_err(|error| fault(&name, error.to_string()))?;
            let first = *width.get_or_insert(map.width());
            if map.width() != first {
                return Err(fault(&name, format!("it is {} wide, others are {first}", map.width())));
            }
            shortcuts.insert(from, to, map);
        }
        if shortcuts.is_empty() {
            return Err(fault("bridges.…", "there is none".into()));
        }
        let fitted = match metadata.get(METADATA) {
            None => Fitted::default(),
            Some(json) => {
                serde_json::from_str(json).map_err(|error| fault("metadata", format!("{METADATA}: {error}")))?
            }
        };
        Ok((shortcuts, fitted))
    }
}

/// `bridges.6.11.weight`: the ends, and 0 for a weight or 1 for a bias.
fn part_of(name: &str) -> Option<(usize, usize, usize)> {
    // One name for each: no signs, no leading zeros.
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| number.to_string() == text);
    let mut parts = name.split('.');
    let ("bridges", from, to) = (parts.next()?, number(parts.next()?)?, number(parts.next()?)?) else { return None };
    let part = match parts.next()? {
        "weight" => 0,
        "bias" => 1,
        _ => return None,
    };
    parts.next().is_none().then_some((from, to, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use std::fs;

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.safetensors");
        let mut shortcuts = Shortcuts::default();
        shortcuts.insert(6, 11, LinearMap::new(vec![1.0, -0.0, 1e-40, 3.0], vec![0.5, 7.0]).unwrap());
        shortcuts.insert(0, 12, LinearMap::identity(2));
        let fitted = Fitted { method: "ridge".into(), model: "mini".into(), ..Fitted::default() };
        shortcuts.save(&path, &fitted).unwrap();
        let (found, said) = Shortcuts::read(&path).unwrap();
        assert_eq!((&found, &said), (&shortcuts, &fitted));
        assert_eq!(found.get(6, 11).unwrap().content(), shortcuts.get(6, 11).unwrap().content());
        let there = shortcuts.save(&path, &fitted).unwrap_err().to_string();
        assert!(there.starts_with("cannot write"), "{there}");
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.safetensors");
        let written = |tensors: &[(&str, Dtype, &[usize])], value: f32| {
            let bytes: Vec<u8> = [value; 16].iter().flat_map(|x| x.to_le_bytes()).collect();
            let views = tensors.iter().map(|(name, dtype, shape)| {
                let size = if *dtype == Dtype::F32 { 4 } else { 2 };
                let len = shape.iter().product::<usize>() * size;
                (*name, TensorView::new(*dtype, shape.to_vec(), &bytes[..len]).unwrap())
            });
            fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
            Shortcuts::read(&path).unwrap_err().to_string()
        };
        let (weight, bias) = ("bridges.6.11.weight", "bridges.6.11.bias");
        let f32 = Dtype::F32;
        type Tensors<'a> = &'a [(&'a str, Dtype, &'a [usize])];
        let cases: [(Tensors<'_>, f32, &str); 14] = [
            (&[], 0.0, "there is none"),
            (&[("wte", f32, &[2, 2])], 0.0, "not part of a bridge"),
            (&[("bridges.6.weight", f32, &[2, 2])], 0.0, "not part of a bridge"),
            (&[("bridges.+6.11.weight", f32, &[2, 2])], 0.0, "not part of a bridge"),
            (&[("bridges.06.11.weight", f32, &[2, 2])], 0.0, "not part of a bridge"),
            (&[("bridges.6.11.weight.x", f32, &[2, 2])], 0.0, "not part of a bridge"),
            (&[("bridges.99999999999999999999.11.bias", f32, &[2])], 0.0, "not part of a bridge"),
            (&[("bridges.11.6.weight", f32, &[2, 2])], 0.0, "it runs backwards"),
            (&[(weight, Dtype::F16, &[2, 2])], 0.0, "F16 [2, 2]: weights are F32"),
            (&[(weight, f32, &[2, 3])], 0.0, "[2, 3]: weights are F32 [n_embd, n_embd]"),
            (&[(weight, f32, &[2, 2]), (bias, f32, &[1, 2])], 0.0, "biases F32 [n_embd]"),
            (&[(weight, f32, &[2, 2])], 0.0, "both are needed"),
            (&[(weight, f32, &[2, 2]), (bias, f32, &[3])], 0.0, "4 weights and 3 biases"),
            (&[(weight, f32, &[2, 2]), (bias, f32, &[2])], f32::NAN, "6 of its numbers are NaN or infinite"),
        ];
        for (tensors, value, wanted) in cases {
            let error = written(tensors, value);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        let widths: Tensors<'_> = &[
            ("bridges.0.1.weight", f32, &[2, 2]),
            ("bridges.0.1.bias", f32, &[2]),
            ("bridges.0.2.weight", f32, &[3, 3]),
            ("bridges.0.2.bias", f32, &[3]),
        ];
        assert!(written(widths, 1.0).contains("it is 3 wide, others are 2"));
        let map = Fitted::default();
        let mut shortcuts = Shortcuts::default();
        shortcuts.insert(0, 1, LinearMap::identity(1));
        fs::remove_file(&path).unwrap();
        shortcuts.save(&path, &map).unwrap();
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|window| window == b"method").unwrap();
        for (from, to) in [(at, b'"'), (at + 9, b'7')] {
            let mut wrong = bytes.clone();
            wrong[from] = to;
            fs::write(&path, wrong).unwrap();
            assert!(Shortcuts::read(&path).is_err(), "metadata that is none");
        }
        for bytes in [&b""[..], b"\x01\0\0\0\0\0\0\0", b"not safetensors", &[0xff; 16]] {
            fs::write(&path, bytes).unwrap();
            assert!(Shortcuts::read(&path).is_err());
        }
        assert!(Shortcuts::read(&folder.path().join("none")).unwrap_err().to_string().starts_with("cannot read"));
    }
}
