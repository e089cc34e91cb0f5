//! The element types weights are stored in, and their conversion to f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::ops::Range;

/// The element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl Dtype {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// Its name in records: `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }
}

/// Elements of a stored tensor, in the file's own type.
#[derive(Clone, Copy, Debug)]
pub enum WeightData<'a> {
    /// IEEE binary32.
    F32(&'a [f32]),
    /// IEEE binary16.
    F16(&'a [f16]),
    /// The upper half of binary32.
    Bf16(&'a [bf16]),
}

impl<'a> WeightData<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            WeightData::F32(data) => data.len(),
            WeightData::F16(data) => data.len(),
            WeightData::Bf16(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            WeightData::F32(_) => Dtype::F32,
            WeightData::F16(_) => Dtype::F16,
            WeightData::Bf16(_) => Dtype::Bf16,
        }
    }

    /// The elements of a range.
    ///
    /// # Panics
    /// If the range is not inside the data.
    pub fn slice(&self, range: Range<usize>) -> WeightData<'a> {
        match self {
            WeightData::F32(data) => WeightData::F32(&data[range]),
            WeightData::F16(data) => WeightData::F16(&data[range]),
            WeightData::Bf16(data) => WeightData::Bf16(&data[range]),
        }
    }

    /// The elements `start .. start + out.len()`, widened exactly to f32.
    ///
    /// # Panics
    /// If the range is not inside the data.
    pub fn widen_into(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            WeightData::F32(data) => out.copy_from_slice(&data[range]),
            WeightData::F16(data) => data[range].convert_to_f32_slice(out),
            WeightData::Bf16(data) => data[range].convert_to_f32_slice(out),
        }
    }
}
