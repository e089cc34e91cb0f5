//! Every numeric kernel of `lesion`: matrix products with fused epilogues, causal attention over
//! per-execution keys and values, LayerNorm, GELU, the cross-entropy over a vocabulary and divergences of distributions
//! over it.
//!
//! The crate takes slices and shapes; it knows nothing of GPT-2, of files or of plans.
//! All `unsafe` numeric code of the project is here.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod copy;
mod cross_entropy;
mod divergence;
mod dtype;
mod floats;
mod gemm;
mod isa;
mod kernels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod peak;
mod pool;
mod portable;
pub mod reference;
mod scratch;
mod simd;
mod top;

pub use attention::{Columns, HeadShape, KvSpan, KvStore, TILE};
pub use cross_entropy::RowScore;
pub use divergence::Against;
pub use dtype::{Dtype, WeightData};
pub use floats::{Floats, take_mapped_peak};
pub use gemm::arithmetic::Precision;
pub use gemm::{Epilogue, Layout, WeightMatrix};
pub use isa::{Isa, UnavailableIsa};
pub use kernels::{Kernels, Team, TeamError};
pub use top::Candidate;
