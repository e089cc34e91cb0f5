//! A model of GPT-2's size that was verified before opens without its weights being read. Alone in its file: it looks at
//! the memory of the whole process.

#![cfg(target_os = "linux")]

use lesion::model::{Model, OpenOptions, synthetic};
use lesion::weights::{CheckMode, Dtype, Records};

/// Bytes of the process in memory, mapped files included.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_verified_model_opens_unread() {
    let directory = tempfile::tempdir().unwrap();
    synthetic::write_model(directory.path(), 12, Dtype::F32).unwrap();
    let weights = directory.path().join("model.safetensors");
    assert_eq!(std::fs::metadata(&weights).unwrap().len(), 548_105_312);
    let records = Records::at(directory.path().join("records"));
    let mut read = 0;
    records.check(&weights, None, CheckMode::Remembered, &mut |done| read = done).unwrap();
    assert_eq!(read, 548_105_312);

    let before = resident();
    let nothing = &mut |done| panic!("{done} bytes were read again");
    assert!(records.check(&weights, None, CheckMode::Remembered, nothing).unwrap().remembered);
    let model = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap();
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert_eq!((model.parameters().h.len(), model.warnings()), (12, &[][..]));
}
