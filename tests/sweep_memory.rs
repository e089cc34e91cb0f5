//! A sweep keeps its budget of memory: by the peak of all live bytes, whatever the plans and examples. Alone in its file: it
//! counts the allocations of the whole process, and what its buffers map beside them.

#![cfg(feature = "mini")]

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use lesion::forward::{Session, SessionOptions};
use lesion::model::Model;
use lesion::plan::{Family, Plan};
use lesion::sweep::{Ended, Event, Example, Row, Sweep, SweepError, SweepOptions};
use lesion_kernels::{Floats, take_mapped_peak};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MB: usize = 1_000_000;

fn family(text: &str) -> Vec<Plan> {
    let shape = Model::mini().unwrap().plan_shape();
    let members = text.parse::<Family>().unwrap().members(&shape).unwrap();
    members.into_iter().map(|member| member.plan).collect()
}

fn example(number: u64, tokens: usize, scored: Range<usize>) -> Example {
    let ids = (0..tokens).map(|i| ((i * 37 + number as usize * 101 + 5) % 2_000) as u32).collect();
    Example::new(number, ids, scored)
}

/// Short questions, and every so often a whole context whose tokens are all scored: chunks of many shapes.
fn mixed(count: u64) -> impl Iterator<Item = Example> {
    (0..count).map(|number| match number % 9 {
        4 => example(number, 256, 1..256),
        7 => example(number, 120, 90..120),
        short => example(number, 8 + short as usize, 6 + short as usize..8 + short as usize),
    })
}

fn questions(count: u64) -> impl Iterator<Item = Example> {
    (0..count).map(|number| example(number, 14, 12..14))
}

fn contexts(count: u64) -> impl Iterator<Item = Example> {
    (0..count).map(|number| example(number, 256, 1..256))
}

/// What is live now, of both kinds.
struct Count {
    allocated: usize,
    mapped: usize,
}

impl Count {
    fn start() -> Count {
        ALLOCATOR.reset_peak_usage();
        Count { allocated: ALLOCATOR.current_usage(), mapped: take_mapped_peak().1 }
    }

    /// The most since then, at most: the two kinds may have had their peaks at different times.
    fn peak(&self) -> usize {
        ALLOCATOR.peak_usage().saturating_sub(self.allocated) + take_mapped_peak().0.saturating_sub(self.mapped)
    }
}

/// The most bytes that are live at once while a sweep runs, beyond those before it. As callers do, this one holds rows until
/// their examples are complete.
fn peak(
    sweep: &Sweep,
    threads: usize,
    examples: impl Iterator<Item = Example>,
    done: &dyn Fn(usize, u64) -> bool,
) -> Result<usize, SweepError> {
    let model = Model::mini().unwrap();
    let mut session = Session::new(&model, SessionOptions { threads, ..SessionOptions::default() })?;
    let plans = sweep.plans().len();
    let (count, mut complete) = (Count::start(), 0);
    let mut pending: HashMap<u64, Vec<Row>> = HashMap::new();
    let ended = sweep.run(&mut session, examples, done, &mut |event| {
        match event {
            Event::Rows(rows) => rows.iter().for_each(|row| {
                let rows = pending.entry(row.example).or_insert_with(|| Vec::with_capacity(plans));
                rows.push(row.clone());
            }),
            Event::Examples(numbers) => numbers.iter().for_each(|number| {
                complete += usize::from(pending.remove(number).is_some_and(|rows| rows.len() == plans));
            }),
            Event::Flop(_) => {}
        }
        ControlFlow::Continue(())
    })?;
    assert_eq!(ended, Ended::Complete);
    assert!(complete > 0, "no example was complete");
    Ok(count.peak())
}

fn sweep(plans: Vec<Plan>, memory: usize, divergence: bool, token_losses: bool) -> Sweep {
    let shape = Model::mini().unwrap().plan_shape();
    Sweep::new(plans, &shape, SweepOptions { memory, divergence, token_losses }).unwrap()
}

/// One test: the count is the process's.
#[test]
fn every_budget_is_kept() {
    let block = vec![0_u8; 3 * MB];
    let seen = ALLOCATOR.current_usage();
    drop(block);
    assert!(seen - ALLOCATOR.current_usage() >= 3 * MB, "the counter counts");
    let count = Count::start();
    Floats::default().resize(MB);
    assert!(count.peak() >= 4 * MB, "mapped bytes are counted");

    let none = |_: usize, _: u64| false;
    let everything = || {
        let families = ["subsets 8..12", "zero-head 10..12", "parallel w2..4 6..10", "keep-first", "skip-attention"];
        families.iter().flat_map(|text| family(text)).collect::<Vec<_>>()
    };
    for megabytes in [12, 32, 64, 96, 256] {
        let memory = megabytes * MB;
        let kept = |what: &str, found: usize| {
            println!("{megabytes} MB, {what}: {:.1} MB", found as f64 / 1e6);
            assert!(found <= memory, "{what}: {found} bytes of {memory}");
        };
        // Shapes in turn: what one chunk has grown is no excuse for the next.
        let all = sweep(everything(), memory, true, true);
        let found = peak(&all, 3, mixed(18), &none).unwrap();
        kept("all kinds of plans, every token", found);
        assert!(megabytes > 12 || found > memory / 2, "the budget was not tried: {found} bytes of {memory}");
        // The one that is asked for most: breadth where it fits, depth where it doesn't.
        let subsets = sweep(family("subsets 5..12"), memory, true, false);
        kept("subsets, questions", peak(&subsets, 2, questions(35), &none).unwrap());
        if ![32, 64].contains(&megabytes) {
            continue;
        }
        kept("subsets, contexts", peak(&subsets, 2, contexts(2), &none).unwrap());
        // On some plans some examples are there: the others are a sweep of their own.
        let done = |plan: usize, example: u64| !(plan + example as usize).is_multiple_of(3);
        let some = sweep(family("subsets 6..12"), memory, true, true);
        kept("some plans alone", peak_of_parts(&some, mixed(9), &done));
        // Many plans for few tokens: what they share is what takes room.
        let many = sweep(family("permutations 6..12"), memory, false, false);
        kept("permutations", peak(&many, 1, questions(2), &none).unwrap());
        kept("permutations but one", peak_of_parts(&many, questions(2), &|plan, _| plan == 3));
    }
}

/// The same where rows are not complete, as some are there already.
fn peak_of_parts(sweep: &Sweep, examples: impl Iterator<Item = Example>, done: &dyn Fn(usize, u64) -> bool) -> usize {
    let model = Model::mini().unwrap();
    let mut session = Session::new(&model, SessionOptions { threads: 2, ..SessionOptions::default() }).unwrap();
    let count = Count::start();
    let mut rows = 0;
    let ended = sweep.run(&mut session, examples, done, &mut |event| {
        rows += if let Event::Rows(new) = event { new.len() } else { 0 };
        ControlFlow::Continue(())
    });
    assert_eq!(ended.unwrap(), Ended::Complete);
    assert!(rows > 0);
    count.peak()
}
