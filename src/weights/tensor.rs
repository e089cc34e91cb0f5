//! One tensor of a checkpoint.

use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfBitsSliceExt;
use lesion_kernels::{Dtype, WeightData};

use super::mapping::{AlignedBytes, Storage};

#[cfg(target_endian = "big")]
compile_error!("safetensors are little-endian, and weights are used as they lie in the file");

/// A tensor: elements in the type they are stored in, row-major, and their shape. Cheap to clone; the bytes stay alive
/// as long as a tensor points into them.
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Arc<Storage>,
    range: Range<usize>,
    dtype: Dtype,
    shape: Arc<[usize]>,
}

impl Tensor {
    /// A view of `range` of `storage`, which holds exactly the elements of `shape`. Where the file misaligns them, a
    /// copy takes its place.
    pub(super) fn new(storage: &Arc<Storage>, range: Range<usize>, dtype: Dtype, shape: &[usize]) -> Tensor {
        let bytes = &storage.as_slice()[range.clone()];
        debug_assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.size());
        let (storage, range) = if (bytes.as_ptr() as usize).is_multiple_of(dtype.size()) {
            (Arc::clone(storage), range)
        } else {
            (Arc::new(Storage::Copied(AlignedBytes::copy_of(bytes))), 0..bytes.len())
        };
        Tensor { storage, range, dtype, shape: shape.into() }
    }

    /// The elements, row-major.
    pub fn data(&self) -> WeightData<'_> {
        // The casts cannot fail: `new` has seen to alignment and length.
        let bytes = &self.storage.as_slice()[self.range.clone()];
        match self.dtype {
            Dtype::F32 => WeightData::F32(bytemuck::cast_slice(bytes)),
            Dtype::F16 => WeightData::F16(bytemuck::cast_slice::<u8, u16>(bytes).reinterpret_cast()),
            Dtype::Bf16 => WeightData::Bf16(bytemuck::cast_slice::<u8, u16>(bytes).reinterpret_cast()),
        }
    }

    /// The elements, widened exactly to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let data = self.data();
        let mut out = vec![0.0; data.len()];
        data.widen_into(0, &mut out);
        out
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the stored elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
}
