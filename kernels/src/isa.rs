//! The instruction sets a kernel can run on, and which of them this processor has.

use std::fmt;
use std::str::FromStr;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 (F, BW, DQ, VL): 16 lanes of f32.
    Avx512,
    /// AVX2 with FMA and F16C: 8 lanes of f32.
    Avx2,
    /// NEON: 8 lanes of f32 in two registers.
    Neon,
    /// Rust without intrinsics.
    Portable,
}

/// The instruction set asked for is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnavailableIsa {
    /// What was asked for.
    pub asked: String,
}

impl fmt::Display for UnavailableIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here: Vec<_> = Isa::available().map(|isa| isa.name()).collect();
        write!(f, "instruction set `{}`: this machine and build have {}", self.asked.escape_debug(), here.join(", "))
    }
}

impl std::error::Error for UnavailableIsa {}

impl Isa {
    /// Every instruction set there are kernels for, the widest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Whether this processor (and operating system) can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
            // Miri knows no assembler, which NEON's prefetch is written in.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => !cfg!(miri) && std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon => false,
        }
    }

    /// Whether it multiplies pairs of bf16 faster than an FMA multiplies single ones: AVX-512's BF16 extension, on AMD.
    pub(crate) fn has_fast_bf16_pairs(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => self.is_available() && is_x86_feature_detected!("avx512bf16") && is_amd(),
            _ => false,
        }
    }

    /// The instruction sets this machine has, the widest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The widest instruction set this machine has.
    pub fn best() -> Isa {
        Isa::available().next().unwrap_or(Isa::Portable)
    }

    /// Its name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnavailableIsa;

    /// Parses a name; an unknown name and an instruction set this machine lacks are the same error.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Isa::available().find(|isa| isa.name() == text).ok_or_else(|| UnavailableIsa { asked: text.to_owned() })
    }
}

#[cfg(all(test, target_arch = "aarch64", not(miri)))]
mod tests {
    use super::*;

    /// Or the other tests would pass without running it.
    #[test]
    fn neon_is_there() {
        assert_eq!(Isa::best(), Isa::Neon);
    }
}
