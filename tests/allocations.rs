//! A pass of a shape seen before allocates nothing. Alone in its file: it counts the allocations of the whole process.

#![cfg(feature = "mini")]

use lesion::forward::{Batch, Bridges, Cache, LinearMap, Precision, Session, SessionOptions, Shortcuts, Target};
use lesion::model::Model;
use lesion_kernels::{Floats, Isa, take_mapped_peak};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Passes before the counted ones, and those that are counted. Rayon's queue allocates a block at every 63rd entry,
/// which is not the engine's to change: a session here makes fewer.
const WARM_UP: usize = 4;
const PASSES: usize = 8;

/// Allocations and reallocations of all threads while `work` runs, and whether a buffer was mapped.
fn allocations(mut work: impl FnMut()) -> usize {
    let (_, mapped) = take_mapped_peak();
    let before = ALLOCATOR.stats();
    work();
    let change = ALLOCATOR.stats() - before;
    change.allocations + change.reallocations + usize::from(take_mapped_peak().0 > mapped)
}

#[test]
fn a_pass_of_a_shape_seen_before_allocates_nothing() {
    assert_ne!(allocations(|| drop(std::hint::black_box(vec![1]))), 0, "the counter counts");
    assert_ne!(allocations(|| Floats::default().resize(1 << 20)), 0, "and what is mapped");
    let model = Model::mini().unwrap();
    let ids: Vec<u32> = (0..70).map(|i| i * 37 % 2048).collect();
    let turned = (0..128 * 128).map(|at| if (at / 128 + 1) % 128 == at % 128 { 1.0 } else { 0.0 });
    let mut shortcuts = Shortcuts::default();
    shortcuts.insert(6, 11, LinearMap::new(turned.collect(), vec![0.5; 128]).unwrap());
    let mut bridges = Bridges::default();
    bridges.insert("turn", Arc::new(shortcuts));
    for text in
        ["0..12", "0..8", "0..4,(4|5|(6|7),6|none),8..12", "0..6,6a,7m,7[zero h1 h7]", "0..6,bridge(6:11,turn),11"]
    {
        let plan = model.plan(text).unwrap();
        // Which kernels run makes little difference here, and the portable ones are slow.
        for isa in Isa::available().filter(|isa| text == "0..12" || *isa == Isa::best()) {
            for (threads, precision) in
                [(1, Precision::F32), (2, Precision::F32), (1, Precision::Bf16), (2, Precision::Bf16)]
            {
                let at = format!("{text}, {isa}, {threads} threads, {precision}");
                let mut session = Session::new(&model, SessionOptions { threads, isa, precision }).unwrap();
                session.set_bridges(bridges.clone());

                let batch = Batch::new([&ids[..45], &ids[45..46], &ids[46..]]);
                let targets: Vec<_> = (0..44).map(|row| Target { row, id: ids[row + 1] }).collect();
                let shorter = Batch::new([&ids[..17]]);
                let mut score = || {
                    let sum: f64 =
                        session.score(&plan, &batch, &targets).unwrap().iter().map(|score| score.nll()).sum();
                    session.score(&plan, &shorter, &targets[..5]).unwrap();
                    assert!(sum.is_finite());
                };
                (0..WARM_UP).for_each(|_| score());
                let scoring = allocations(|| (0..PASSES).for_each(|_| score()));

                let mut cache = Cache::new(&session, &plan, 64).unwrap();
                session.extend(&plan, &mut cache, &ids[..16]).unwrap();
                session.extend(&plan, &mut cache, &ids[16..17]).unwrap();
                let mut decode = || {
                    let token = cache.tokens();
                    session.extend(&plan, &mut cache, &ids[token..token + 1]).unwrap();
                };
                let decoding = allocations(|| (0..PASSES).for_each(|_| decode()));

                session.logits(&plan, &ids[..40]).unwrap();
                let again = || (0..PASSES).for_each(|_| drop(session.logits(&plan, &ids[..40]).map(|_| ())));
                let found = [scoring, decoding, allocations(again)];
                assert_eq!(found, [0; 3], "score, extend, logits {found:?}: {at}");
            }
        }
    }
}
