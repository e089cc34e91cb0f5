//! In which arithmetic a session computes.

use std::fmt;

/// The version of the bits: a result computed by another version may differ in its last ones. Raised with any change that
/// makes a kernel, or the order in which they run, give other bits (`numerics_version_names_the_bits` fails then), so that
/// results that are kept are not taken for today's.
pub const NUMERICS_VERSION: u32 = 1;

/// The arithmetic of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32, whatever the file's type.
    #[default]
    F32,
    /// The operands of every matrix product with weights are rounded to bf16, the sums are f32; attention, LayerNorm,
    /// GELU and the softmaxes stay f32. Faster where the processor multiplies bf16. On a trained model losses move by
    /// some thousandths of a nat.
    Bf16,
    /// f64 throughout, for settling arguments: plain Rust without kernels, several times slower than f32.
    F64,
}

impl Precision {
    /// Its name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F64 => "f64",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
