//! All tensors of a model, by name: one safetensors file, the shards of an index, or bytes of the binary.
//!
//! Opening reads headers only; the tensors' bytes stay in the file until something touches them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lesion_kernels::{Dtype, WeightData};
use rayon::prelude::*;
use safetensors::tensor::TensorInfo;

use super::error::WeightsError;
use super::files::{ReadMode, Stamp, open_regular};
use super::lock::LockedModel;
use super::mapping::Storage;
use super::tensor::Tensor;
use super::{header, index};

const SINGLE: &str = "model.safetensors";

/// Every tensor of a model. `Send + Sync`; the tensors it hands out keep the bytes alive on their own.
#[derive(Debug)]
pub struct Checkpoint {
    sources: Vec<Source>,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Place>,
}

/// A file, or bytes in the binary.
#[derive(Debug)]
struct Source {
    label: String,
    storage: Arc<Storage>,
    /// The open file and what it looked like at opening.
    opened: Option<(File, Stamp)>,
}

/// Where a tensor lies. The header has been checked: `range` is inside the source and as long as shape and type say.
#[derive(Debug)]
struct Place {
    source: usize,
    range: Range<usize>,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
}

/// How many values of a tensor are not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The tensor's name in the file.
    pub tensor: String,
    /// Its NaNs.
    pub nan: usize,
    /// Its positive and negative infinities.
    pub infinite: usize,
}

impl Checkpoint {
    /// Opens `model.safetensors` of a directory or, where there is none, the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// No weights there, anything but regular files, a malformed header or index, shards outside the directory (links
    /// into the blobs of the same model in Hugging Face's cache are inside), a tensor in two shards or in another than
    /// the index says.
    pub fn open(directory: &Path, read: ReadMode) -> Result<Checkpoint, WeightsError> {
        Checkpoint::open_allowed(directory, read, |_| Ok(()))
    }

    /// Opens the weights of a pinned model in its verified `directory`: files that the lock doesn't list have not been
    /// verified, and are refused unopened.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; and weights that the lock doesn't list.
    pub fn open_locked(directory: &Path, model: &LockedModel, read: ReadMode) -> Result<Checkpoint, WeightsError> {
        Checkpoint::open_allowed(directory, read, |file| match model.file(file) {
            Some(_) => Ok(()),
            None => Err(WeightsError::Unlisted { path: directory.join(file), model: model.name().to_owned() }),
        })
    }

    fn open_allowed(
        directory: &Path,
        read: ReadMode,
        allowed: impl Fn(&str) -> Result<(), WeightsError>,
    ) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint = Checkpoint { sources: Vec::new(), files: Vec::new(), tensors: BTreeMap::new() };
        // Asked about the link itself: a dangling one is an error to report, not an absent file.
        if fs::symlink_metadata(directory.join(SINGLE)).is_ok() {
            allowed(SINGLE)?;
            checkpoint.add_file(&directory.join(SINGLE), read)?;
        } else if fs::symlink_metadata(directory.join(index::INDEX)).is_ok() {
            allowed(index::INDEX)?;
            let shards = index::read(directory)?;
            shards.keys().try_for_each(|shard| allowed(shard))?;
            for (shard, tensors) in shards {
                let source = checkpoint.sources.len();
                checkpoint.add_file(&directory.join(&shard), read)?;
                let elsewhere = |tensor: &&String| checkpoint.tensors.get(*tensor).is_none_or(|p| p.source != source);
                if let Some(tensor) = tensors.iter().find(elsewhere) {
                    return Err(WeightsError::Missing { tensor: tensor.clone(), file: checkpoint.label(source) });
                }
            }
        } else {
            let pickle = directory.join("pytorch_model.bin").exists();
            return Err(WeightsError::NoWeights { directory: directory.to_owned(), pickle });
        }
        Ok(checkpoint)
    }

    /// A safetensors file that is part of the binary; `name` stands for the file in messages.
    ///
    /// # Errors
    /// A malformed header.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint = Checkpoint { sources: Vec::new(), files: Vec::new(), tensors: BTreeMap::new() };
        let refuse = |problem| WeightsError::Header { file: name.to_owned(), problem };
        let start = &bytes[..bytes.len().min(header::START_BYTES)];
        let length = header::length(start, bytes.len() as u64).map_err(refuse)?;
        let header = &bytes[header::LENGTH_BYTES..][..length];
        let tensors = header::parse(header, (bytes.len() - header::LENGTH_BYTES - length) as u64).map_err(refuse)?;
        let source = Source { label: name.to_owned(), storage: Arc::new(Storage::Static(bytes)), opened: None };
        checkpoint.add_source(source, header::LENGTH_BYTES + length, tensors)?;
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: &Path, read: ReadMode) -> Result<(), WeightsError> {
        let io = |operation| move |source| WeightsError::Io { operation, path: path.to_owned(), source };
        let label = path.to_string_lossy().into_owned();
        let (mut file, stamp) = open_regular(path)?;

        let mut start = Vec::with_capacity(header::START_BYTES);
        (&mut file).take(header::START_BYTES as u64).read_to_end(&mut start).map_err(io("read"))?;
        let refuse = |problem| WeightsError::Header { file: label.clone(), problem };
        let length = header::length(&start, stamp.bytes).map_err(refuse)?;
        let mut header = vec![0; length];
        file.seek(std::io::SeekFrom::Start(header::LENGTH_BYTES as u64)).map_err(io("read"))?;
        file.read_exact(&mut header).map_err(io("read"))?;
        let data_start = header::LENGTH_BYTES + length;
        let tensors = header::parse(&header, stamp.bytes - data_start as u64).map_err(refuse)?;

        file.rewind().map_err(io("read"))?;
        let storage = match read {
            ReadMode::Map => Storage::map(&file, stamp.bytes).map_err(io("map"))?,
            ReadMode::Copy => Storage::read(&mut file, stamp.bytes).map_err(io("read"))?,
        };
        self.files.push(path.to_owned());
        let source = Source { label, storage: Arc::new(storage), opened: Some((file, stamp)) };
        self.add_source(source, data_start, tensors)
    }

    /// Adds the tensors of a header that has been checked against the source's size.
    fn add_source(
        &mut self,
        source: Source,
        data_start: usize,
        tensors: BTreeMap<String, TensorInfo>,
    ) -> Result<(), WeightsError> {
        let number = self.sources.len();
        for (name, info) in tensors {
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            match self.tensors.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(Place { source: number, range, dtype: info.dtype, shape: info.shape });
                }
                Entry::Occupied(entry) => {
                    let (tensor, first) = (entry.key().clone(), self.sources[entry.get().source].label.clone());
                    return Err(WeightsError::TwoShards { tensor, first, second: source.label });
                }
            }
        }
        self.sources.push(source);
        Ok(())
    }

    fn label(&self, source: usize) -> String {
        self.sources[source].label.clone()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of this name, which must have this shape.
    ///
    /// # Errors
    /// It is missing, has another shape, or is not stored as F32, F16 or BF16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, WeightsError> {
        let Some(place) = self.tensors.get(name) else {
            return Err(WeightsError::Missing { tensor: name.to_owned(), file: self.describe() });
        };
        let file = || self.label(place.source);
        if place.shape != shape {
            return Err(WeightsError::Shape {
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: place.shape.clone(),
                transposed: place.shape.iter().rev().eq(shape),
                file: file(),
            });
        }
        self.at(place).ok_or_else(|| WeightsError::Dtype {
            tensor: name.to_owned(),
            found: place.dtype.to_string(),
            file: file(),
        })
    }

    /// The tensor at a place; `None` when its type is no weight's.
    fn at(&self, place: &Place) -> Option<Tensor> {
        let dtype = match place.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            _ => return None,
        };
        Some(Tensor::new(&self.sources[place.source].storage, place.range.clone(), dtype, &place.shape))
    }

    /// What holds the tensors, for messages: the file, or the first of several shards and their number.
    pub fn describe(&self) -> String {
        match self.sources.as_slice() {
            [] => String::new(),
            [one] => one.label.clone(),
            [first, ..] => format!("{} and {} more shards", first.label, self.sources.len() - 1),
        }
    }

    /// The files, in the order of their names; none for bytes of the binary.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The bytes of the binary, where the weights are part of it.
    pub fn embedded(&self) -> Option<&'static [u8]> {
        self.sources.iter().find_map(|source| match &*source.storage {
            Storage::Static(bytes) => Some(*bytes),
            _ => None,
        })
    }

    /// The file that holds a tensor; none for one that isn't there, and for bytes of the binary.
    pub fn file_of(&self, tensor: &str) -> Option<&Path> {
        let place = self.tensors.get(tensor)?;
        self.files.get(place.source).map(PathBuf::as_path)
    }

    /// Asks the system whether every open file still has the size and modification time it had at opening.
    ///
    /// # Errors
    /// One that has not; or the system does not say.
    pub fn check_unchanged(&self) -> Result<(), WeightsError> {
        let opened = self.sources.iter().filter_map(|source| source.opened.as_ref());
        for (path, (file, opened)) in self.files.iter().zip(opened) {
            let metadata = file.metadata().map_err(|source| WeightsError::Io {
                operation: "examine",
                path: path.clone(),
                source,
            })?;
            let now = Stamp::of(&metadata);
            if now != *opened {
                let (opened, now) = (opened.to_string(), now.to_string());
                return Err(WeightsError::Changed { path: path.clone(), opened, now });
            }
        }
        Ok(())
    }

    /// The tensors named by `wanted` that hold NaN or infinities, by name, with their counts. Reads every value of
    /// them: for use when a file is verified, not at every opening. Tensors of other types than F32, F16 and BF16 are
    /// passed over.
    pub fn non_finite(&self, wanted: impl Fn(&str) -> bool + Sync) -> Vec<NonFinite> {
        let wanted: Vec<(&String, &Place)> = self.tensors.iter().filter(|(name, _)| wanted(name)).collect();
        let counts = wanted.into_par_iter().filter_map(|(name, place)| {
            let tensor = self.at(place)?;
            let (nan, infinite) = match tensor.data() {
                WeightData::F32(values) => count(values, |x| x.is_nan(), |x| x.is_infinite()),
                WeightData::F16(values) => count(values, |x| x.is_nan(), |x| x.is_infinite()),
                WeightData::Bf16(values) => count(values, |x| x.is_nan(), |x| x.is_infinite()),
            };
            (nan + infinite > 0).then(|| NonFinite { tensor: name.clone(), nan, infinite })
        });
        counts.collect()
    }
}

/// How many `values` are NaN and how many infinite.
fn count<T: Sync>(
    values: &[T],
    nan: impl Fn(&T) -> bool + Sync,
    infinite: impl Fn(&T) -> bool + Sync,
) -> (usize, usize) {
    values
        .par_chunks(1 << 16)
        .map(|chunk| (chunk.iter().filter(|x| nan(x)).count(), chunk.iter().filter(|x| infinite(x)).count()))
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}
