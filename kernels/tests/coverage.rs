//! Which instruction sets this run covers. Tests enumerate what the machine has; a machine without AVX-512 would test
//! less in silence, so a run that must cover more says so: `LESION_TEST_REQUIRES=avx512,avx2`.

use lesion_kernels::Isa;

#[test]
fn the_required_instruction_sets_are_here() {
    let here: Vec<&str> = Isa::available().map(Isa::name).collect();
    println!("instruction sets under test: {}", here.join(", "));
    let required = std::env::var("LESION_TEST_REQUIRES").unwrap_or_default();
    let missing: Vec<&str> = required.split(',').filter(|isa| !isa.is_empty() && !here.contains(isa)).collect();
    assert!(missing.is_empty(), "LESION_TEST_REQUIRES: {} not here", missing.join(", "));
}
