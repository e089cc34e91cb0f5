//! The files of the embedded model, `models/mini`: a trained GPT-2 of 12 layers and 2.7 M parameters.

/// Puts `T` at a multiple of 64 in the binary, so that the tensors in it are used where they lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static ALIGNED_WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/mini/model.safetensors"));

/// `model.safetensors`.
pub(super) static WEIGHTS: &[u8] = &ALIGNED_WEIGHTS.0;

/// `config.json`.
pub(super) static CONFIG: &[u8] = include_bytes!("../../models/mini/config.json");

/// `tokenizer.json`.
pub(super) static TOKENIZER: &[u8] = include_bytes!("../../models/mini/tokenizer.json");
