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

#[cfg(all(test, feature = "mini"))]
mod tests {
    use super::*;
    use crate::forward::{Session, SessionOptions};
    use crate::measure::token_losses;
    use crate::model::Model;
    use lesion_kernels::Isa;
    use sha2::{Digest, Sha256};

    /// The bits of version 1: of losses under the intact model and three corrupted ones.
    const BITS: [(&str, &str); 6] = [
        ("avx512 f32", "dd75b2b404927fe4"),
        ("avx512 bf16", "c407c2868ed40d46"),
        ("avx2 f32", "5987fd6263b7443a"),
        ("avx2 bf16", "faeede2d02ce61d4"),
        ("portable f32", "79537ac85663334a"),
        ("portable bf16", "050f2ac1ff5954b3"),
    ];

    /// Whoever changes the bits raises the version, and writes the new ones down here.
    #[test]
    fn numerics_version_names_the_bits() {
        let model = Model::mini().unwrap();
        let ids: Vec<u32> = (0..70).map(|i| (i * 37 + 5) % 2_000).collect();
        let mut wrong = Vec::new();
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let mut session = Session::new(&model, SessionOptions { threads: 1, isa, precision }).unwrap();
                let mut hash = Sha256::new();
                for plan in ["0..12", "0..4,(4|5|6|7),8..12", "11..=0", "0..7,7[zero h1],8a,9m"] {
                    let plan = model.plan(plan).unwrap();
                    let losses = token_losses(&mut session, &plan, &[&ids, &ids[..9]]).unwrap();
                    // Rounded to f32: the last bits of an f64 are also the system's logarithm's.
                    losses.concat().iter().for_each(|loss| hash.update((*loss as f32).to_bits().to_le_bytes()));
                }
                let bits: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                let name = session.numerics();
                // Other instruction sets have bits, too; these were seen.
                if BITS.iter().any(|(known, pinned)| *known == name && *pinned != bits) {
                    wrong.push(format!("(\"{name}\", \"{bits}\")"));
                }
            }
        }
        assert!(wrong.is_empty(), "other bits than those of version {NUMERICS_VERSION}: {}", wrong.join(", "));
    }
}
