//! `model.safetensors.index.json`: which shard holds which tensor.
//!
//! The index comes with the weights, from a stranger, and names files: its paths may not leave the model's directory,
//! and nothing is opened before all of them have been checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::error::WeightsError;
use super::files::{check_regular, read_limited};
use super::json::UniqueMap;
use super::printable::printable;

/// The name of the index in a model's directory.
pub(super) const INDEX: &str = "model.safetensors.index.json";

const MAX_BYTES: u64 = 100_000_000;

#[derive(Deserialize)]
struct IndexFile {
    weight_map: UniqueMap<String>,
}

/// The tensors of each shard (paths relative to `directory`), as the index has them; every shard is a regular file
/// inside the model.
pub(super) fn read(directory: &Path) -> Result<BTreeMap<String, Vec<String>>, WeightsError> {
    let path = directory.join(INDEX);
    let refuse = |problem: String| WeightsError::Index { path: path.clone(), problem };
    let index: IndexFile =
        serde_json::from_slice(&read_limited(&path, MAX_BYTES)?).map_err(|e| refuse(printable(&e.to_string())))?;

    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, shard) in index.weight_map.0 {
        shards.entry(shard).or_default().push(tensor);
    }
    if shards.is_empty() {
        return Err(refuse("weight_map is empty".to_owned()));
    }
    for shard in shards.keys() {
        let inside = Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
        if shard.is_empty() || !inside {
            return Err(refuse(format!("shard {}: expected a path inside the model's directory", printable(shard))));
        }
    }
    let roots = roots(directory)?;
    for shard in shards.keys() {
        let file = directory.join(shard);
        let real = canonical(&file)?;
        if !roots.iter().any(|root| real.starts_with(root)) {
            let (shard, real) = (printable(shard), printable(&real.to_string_lossy()));
            return Err(refuse(format!("shard {shard}: a link to {real}, outside the model's directory")));
        }
        let metadata = fs::metadata(&real).map_err(|source| io_error("examine", &file, source))?;
        check_regular(&file, &metadata)?;
    }
    Ok(shards)
}

/// Where a shard may really lie: in the model's directory or, for a snapshot in Hugging Face's cache
/// (`models--owner--name/snapshots/<revision>`), among the blobs of the same model, which its files are links to.
fn roots(directory: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let directory = canonical(directory)?;
    let blobs = directory.ancestors().find_map(|ancestor| {
        let model = ancestor.parent().filter(|_| ancestor.file_name().is_some_and(|name| name == "snapshots"))?;
        model.file_name()?.to_str()?.starts_with("models--").then(|| model.join("blobs"))
    });
    Ok([directory].into_iter().chain(blobs).collect())
}

fn canonical(path: &Path) -> Result<PathBuf, WeightsError> {
    fs::canonicalize(path).map_err(|source| io_error("open", path, source))
}

fn io_error(operation: &'static str, path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io { operation, path: path.to_owned(), source }
}
