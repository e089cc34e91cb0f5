//! Sweeps against passes one by one, bit for bit, whatever the memory, the batch and the threads.

use super::*;
use crate::forward::SessionOptions;
use crate::plan::{Family, PlanExpr};
use lesion_kernels::{Isa, reference};
use std::collections::BTreeMap;

fn shape() -> PlanShape {
    Model::mini().unwrap().plan_shape()
}

fn plan(text: &str) -> Plan {
    text.parse::<PlanExpr>().unwrap().resolve(&shape()).unwrap()
}

fn family(text: &str) -> Vec<Plan> {
    let members = text.parse::<Family>().unwrap().members(&shape()).unwrap();
    members.into_iter().map(|member| member.plan).collect()
}

/// Everything that a plan can say, sharing all kinds of beginnings and ends.
fn all_kinds() -> Vec<Plan> {
    let mut plans = family("subsets 3..7");
    plans.extend(family("zero-head 11..12"));
    plans.extend(family("zero-head 5..6"));
    plans.extend(family("parallel w2..4 2..6"));
    plans.extend(family("keep-first"));
    let texts = [
        "none",
        "3*4",
        "11..=0",
        "0..7,7a,8..12",
        "0..7,7m",
        "0..12,11a",
        "0..4,(4|5|none|6a),8..12",
        "(none|0)",
        "0..4,((4|5),6|7a)*2,8..12",
        "0..7,7[zero h1 h3],8..12",
        "0..7,7a[zero h1 h3],8..12",
        "(0..12|11..=0)",
        "0..12,(11[zero h0]|11[zero h1])",
        "3a,5m",
        "3a,5m,7",
        "0..11,(11a|11m)",
    ];
    plans.extend(texts.map(plan));
    plans
}

/// Sequences of different lengths; whole ones, answers in the middle and at the end.
fn examples() -> Vec<Example> {
    let scored = [(20, 1..20), (7, 5..7), (33, 30..33), (5, 1..3), (16, 15..16), (2, 1..2), (90, 40..60), (12, 10..12)];
    let ids =
        |number: usize, tokens: usize| (0..tokens).map(|i| ((i * 37 + number * 101 + 5) % 2_000) as u32).collect();
    let example = |(number, (tokens, scored)): (usize, (usize, Range<usize>))| {
        Example::new(number as u64 * 3, ids(number, tokens), scored)
    };
    scored.into_iter().enumerate().map(example).collect()
}

fn options(memory: usize) -> SweepOptions {
    SweepOptions { memory, divergence: true, token_losses: true }
}

fn session(isa: Isa, precision: Precision, threads: usize) -> Session {
    Session::new(&Model::mini().unwrap(), SessionOptions { threads, isa, precision }).unwrap()
}

/// All rows, by plan and example.
fn swept(sweep: &Sweep, session: &mut Session, examples: &[Example]) -> BTreeMap<(usize, u64), Row> {
    let mut rows = BTreeMap::new();
    let ended = sweep.run(session, examples.iter().cloned(), &|_, _| false, &mut |event| {
        if let Event::Rows(new) = event {
            for row in new {
                assert!(rows.insert((row.plan, row.example), row.clone()).is_none(), "{row:?} comes twice");
            }
        }
        ControlFlow::Continue(())
    });
    assert_eq!(ended.unwrap(), Ended::Complete);
    assert_eq!(rows.len(), sweep.plans().len() * examples.len());
    rows
}

/// A plan's losses on an example, from a pass of its own.
fn alone(session: &mut Session, plan: &Plan, example: &Example) -> Row {
    let batch = Batch::new([&example.ids[..]]);
    let targets: Vec<Target> = example.scored.clone().map(|i| Target { row: i - 1, id: example.ids[i] }).collect();
    Row::new(0, example.number, session.score(plan, &batch, &targets).unwrap(), None, true)
}

/// Bit for bit, NaN equal to NaN.
fn same(a: &Row, b: &Row) -> bool {
    let bits = |row: &Row| {
        let mut bits: Vec<u64> = [row.nll, row.entropy].iter().chain(&row.token_nll).map(|x| x.to_bits()).collect();
        bits.extend([row.tokens, row.top1, row.first_rank, row.non_finite].map(u64::from));
        bits
    };
    bits(a) == bits(b)
}

#[test]
fn rows_are_those_of_passes_one_by_one() {
    let examples = examples();
    let sweep = Sweep::new(all_kinds(), &shape(), options(64 << 20)).unwrap();
    for isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            // Plain Rust is slow: a part of it all.
            let (plans, examples) = match isa {
                Isa::Portable => (sweep.plans().iter().step_by(7).cloned().collect(), &examples[..4]),
                _ => (sweep.plans().to_vec(), &examples[..]),
            };
            let sweep = Sweep::new(plans, &shape(), options(64 << 20)).unwrap();
            let mut session = session(isa, precision, 2);
            let rows = swept(&sweep, &mut session, examples);
            for ((plan, number), row) in &rows {
                let example = examples.iter().find(|example| example.number == *number).unwrap();
                let alone = alone(&mut session, &sweep.plans()[*plan], example);
                assert!(same(row, &alone), "{isa} {precision} {}: {row:?} against {alone:?}", sweep.plans()[*plan]);
            }
        }
    }
}

#[test]
fn neither_memory_nor_threads_nor_company_change_a_bit() {
    let (examples, plans) = (examples(), all_kinds());
    let rows = |memory, threads, plans: &[Plan], examples: &[Example]| {
        let sweep = Sweep::new(plans.to_vec(), &shape(), options(memory)).unwrap();
        swept(&sweep, &mut session(Isa::best(), Precision::F32, threads), examples)
    };
    let all = rows(256 << 20, 2, &plans, &examples);
    for (memory, threads) in [(8 << 20, 1), (10 << 20, 3), (64 << 20, 4)] {
        let some = rows(memory, threads, &plans, &examples);
        assert!(all.values().zip(some.values()).all(|(a, b)| same(a, b) && a.divergence == b.divergence), "{memory}");
    }
    for (i, example) in examples.iter().enumerate() {
        let one = rows(64 << 20, 2, &plans[i..i + 20], std::slice::from_ref(example));
        for ((plan, number), row) in one {
            let other = &all[&(plan + i, number)];
            assert!(same(&row, other) && row.divergence == other.divergence, "{row:?} against {other:?}");
        }
    }
}

#[test]
fn divergences_are_those_of_the_distributions() {
    let examples = examples();
    let plans = all_kinds();
    let sweep = Sweep::new(plans, &shape(), options(64 << 20)).unwrap();
    let mut session = session(Isa::best(), Precision::F32, 2);
    let rows = swept(&sweep, &mut session, &examples);
    let intact = Plan::intact(12);
    let wide = |logits: &[f32]| -> Vec<f64> { logits.iter().map(|&x| f64::from(x)).collect() };
    for example in &examples[..4] {
        let clean = wide(session.all_logits(&intact, &example.ids).unwrap());
        for (index, plan) in sweep.plans().iter().enumerate().step_by(5) {
            let corrupted = wide(session.all_logits(plan, &example.ids).unwrap());
            let at = |logits: &[f64], i: usize| logits[(i - 1) * 2048..i * 2048].to_vec();
            let want: f64 =
                example.scored.clone().map(|i| reference::divergence(&at(&clean, i), &at(&corrupted, i))).sum();
            let got = rows[&(index, example.number)].divergence.unwrap();
            assert!((got - want).abs() <= 1e-5 + 1e-4 * want, "{plan}: {got} against {want}");
        }
    }
    // The intact model is nothing apart from itself, wherever it is computed.
    let (index, _) = sweep.plans().iter().enumerate().find(|(_, plan)| **plan == intact).unwrap();
    assert!(examples.iter().all(|example| rows[&(index, example.number)].divergence == Some(0.0)));
}

#[test]
fn f64_goes_plan_by_plan() {
    let examples = examples();
    let asked = SweepOptions { divergence: false, ..options(64 << 20) };
    let plans: Vec<Plan> = all_kinds().into_iter().step_by(9).collect();
    let sweep = Sweep::new(plans.clone(), &shape(), asked).unwrap();
    let mut session = session(Isa::Portable, Precision::F64, 2);
    for ((plan, number), row) in swept(&sweep, &mut session, &examples[..2]) {
        let example = examples.iter().find(|example| example.number == number).unwrap();
        assert!(same(&row, &alone(&mut session, &sweep.plans()[plan], example)));
        assert_eq!(row.divergence, None);
    }
    let asked = Sweep::new(plans, &shape(), options(64 << 20)).unwrap();
    let refused = asked.run(&mut session, examples, &|_, _| false, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(SweepError::NoDivergence)));
}

#[test]
fn what_is_done_is_not_done_again() {
    let (examples, plans) = (examples(), family("subsets 0..5"));
    let sweep = Sweep::new(plans, &shape(), options(64 << 20)).unwrap();
    let mut session = session(Isa::best(), Precision::F32, 2);
    let all = swept(&sweep, &mut session, &examples);
    // The first examples but for a few plans, and two plans everywhere.
    let done = |plan: usize, example: u64| (example < 9 && !(5..9).contains(&plan)) || plan == 3 || plan == 20;
    let mut came = BTreeMap::new();
    sweep
        .run(&mut session, examples.iter().cloned(), &done, &mut |event| {
            if let Event::Rows(rows) = event {
                came.extend(rows.iter().map(|row| ((row.plan, row.example), row.clone())));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    for (key, row) in &all {
        match came.get(key) {
            Some(again) => assert!(same(row, again) && row.divergence == again.divergence),
            None => assert!(done(key.0, key.1), "{key:?} is missing"),
        }
    }
    assert!(came.keys().all(|(plan, _)| *plan != 3 && *plan != 20));
}

#[test]
fn a_caller_may_break_off() {
    let sweep = Sweep::new(family("subsets 0..6"), &shape(), options(64 << 20)).unwrap();
    let mut session = session(Isa::best(), Precision::F32, 1);
    let mut events = 0;
    let ended = sweep.run(&mut session, examples(), &|_, _| false, &mut |_| {
        events += 1;
        if events < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!((ended.unwrap(), events), (Ended::Cancelled, 3));
}

#[test]
fn cost_is_known_beforehand() {
    let sweep = |text: &str| Sweep::new(family(text), &shape(), options(64 << 20)).unwrap().cost();
    let subsets = sweep("subsets");
    assert_eq!((subsets.shared.to_string(), subsets.naive.to_string()), ("4095".into(), "24576".into()));
    assert!((subsets.saving() - 6.0).abs() < 0.01);
    assert_eq!(sweep("drop-last").shared.to_string(), "12");
    assert_eq!(sweep("skip-one").naive.to_string(), "132");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut session = session(Isa::best(), Precision::F32, 1);
    let refused = |session: &mut Session, example: Example, memory: usize| {
        let sweep = Sweep::new(family("subsets 0..4"), &shape(), options(memory)).unwrap();
        sweep.run(session, [example], &|_, _| false, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    let example = |ids: Vec<u32>, scored: Range<usize>| Example::new(7, ids, scored);
    assert_eq!(
        refused(&mut session, example(vec![1; 300], 1..300), 64 << 20),
        "example 7: sequence 0 has 299 tokens, the model's context is 256"
    );
    assert_eq!(
        refused(&mut session, example(vec![1, 2_048], 1..2), 64 << 20),
        "example 7: token id 2048 in sequence 0: the vocabulary has ids 0..=2047"
    );
    assert_eq!(
        refused(&mut session, example(vec![1, 2], 0..1), 64 << 20),
        "example 7: tokens 0..1 of 2 can't be scored"
    );
    assert_eq!(
        refused(&mut session, example(vec![1, 2], 1..3), 64 << 20),
        "example 7: tokens 1..3 of 2 can't be scored"
    );
    let error = refused(&mut session, example(vec![1; 200], 1..200), 1 << 20);
    assert!(error.starts_with("memory: 1048576 bytes are allowed, example 7 of 200 tokens needs about "), "{error}");
    assert!(matches!(Sweep::new(Vec::new(), &shape(), options(0)), Err(SweepError::NoPlans)));
    let deep = Sweep::new(vec![Plan::from_layers([12]).unwrap()], &shape(), options(0)).unwrap_err();
    assert_eq!(deep.to_string(), "plan 12: steps.0: layer 12 of 12: layers are 0..=11");
}

/// Modifiers of some positions: at every kind of site, behind each other, in groups, behind repeats.
fn of_positions() -> Vec<Plan> {
    let mut plans = vec![plan("0..12"), plan("0..5,5*2,6..12"), plan("0..8,(8|9),10..12")];
    for site in ["pre", "mid", "post", "attn", "mlp", "z", "q", "k", "v"] {
        for (layer, first) in [(0, 1), (3, 4), (3, 0), (10, 15), (11, 2), (11, 29)] {
            plans.push(plan(&format!("0..{layer},{layer}[zero {site} @{first}..{}],{}..12", first + 3, layer + 1)));
        }
    }
    let texts = [
        "0..2,2[zero pre @6..9],3..7,7[zero h1 @3..40],8..12",
        "0..2,2[zero pre @6..9],3..7,7[zero h1],8..12",
        "0..2,2[zero k @6..9, zero h3],3..12",
        "0..2,2[zero k, zero mlp @8..9],3..12",
        "0..2,2[zero k],3..12",
        "0..2,2[zero k],3[zero v @9..12],4..12",
        "0..5,5[zero pre @4..5],5,6..12",
        "0..5,5,5[zero mlp @4..5],6..12",
        "0..5,5,5[noise 0.5 mlp @4..5],6..12",
        "0..5,5[noise 0.5 pre @3..9],6..12",
        "0..8,(8[zero mlp @4..5]|9),10..12",
        "0..6,6[zero mid @5..6],7,(8|9),10..12",
        "0..6,6[knockout h1 keys 2..4 @5..6],7..12",
        "0..6,6[zero post @7..8]",
        "0..6",
        "0..7",
        "0..6,6[zero post @7..8],7..12",
        "0..11,11a[zero h0 @5..6]",
        "3a[zero h0 @5..6],5m",
        "3a,5m",
    ];
    plans.extend(texts.map(plan));
    plans
}

#[test]
fn rows_in_common_are_computed_once_and_are_the_same() {
    let scored = [(40, 30..34), (90, 40..60), (37, 1..37), (36, 35..36)];
    let example = |(number, (tokens, scored)): (usize, (u32, Range<usize>))| {
        let ids = (0..tokens).map(|i| (i * 37 + number as u32 * 101 + 5) % 2_000).collect();
        Example::new(number as u64, ids, scored)
    };
    let examples: Vec<Example> = scored.into_iter().enumerate().map(example).collect();
    let plans = of_positions();
    let asked = SweepOptions { divergence: false, ..options(256 << 20) };
    let sweep = Sweep::new(plans.clone(), &shape(), asked).unwrap();
    assert!(sweep.jobs.bases.len() > 20, "{}", sweep.jobs.bases.len());
    let all = swept(&sweep, &mut session(Isa::best(), Precision::F32, 2), &examples);
    let mut one = session(Isa::best(), Precision::F32, 2);
    for ((plan, number), row) in &all {
        let alone = alone(&mut one, &plans[*plan], &examples[*number as usize]);
        assert!(same(row, &alone), "{}: {row:?} against {alone:?}", plans[*plan]);
    }
    // Where there is no room to hold what others have rows of, and in the other precision.
    let little = Sweep::new(plans.clone(), &shape(), SweepOptions { memory: 5 << 20, ..asked }).unwrap();
    let rows = swept(&little, &mut session(Isa::best(), Precision::F32, 3), &examples);
    assert!(all.values().zip(rows.values()).all(|(a, b)| same(a, b)));
    let mut one = session(Isa::best(), Precision::Bf16, 1);
    for ((plan, number), row) in swept(&sweep, &mut session(Isa::best(), Precision::Bf16, 2), &examples) {
        assert!(same(&row, &alone(&mut one, &plans[plan], &examples[number as usize])), "{}: {row:?}", plans[plan]);
    }
}

#[test]
fn flop_of_common_rows_are_announced() {
    let asked = SweepOptions { divergence: false, ..options(256 << 20) };
    let (ids, mut done) = ((0..40).collect::<Vec<u32>>(), 0);
    let example = Example::new(0, ids, 39..40);
    let sweep = Sweep::new(of_positions(), &shape(), asked).unwrap();
    let model = Model::mini().unwrap();
    let announced = sweep.flop(&model, [&example]).unwrap();
    let mut session = session(Isa::best(), Precision::F32, 2);
    let tell = &mut |event: Event<'_>| {
        if let Event::Flop(flop) = event {
            done += flop;
        }
        ControlFlow::Continue(())
    };
    sweep.run(&mut session, [example.clone()], &|_, _| false, tell).unwrap();
    assert_eq!(done, announced);
    let whole = Jobs::new(&Graph { common: vec![None; sweep.graph.nodes.len()], ..sweep.graph.clone() }, None);
    let whole = Sweep { jobs: whole, ..sweep }.flop(&model, [&example]).unwrap();
    assert!(done < whole, "{done} of {whole}");
}

#[test]
fn answers_to_one_prompt_share_a_pass() {
    let prompts: [&[u32]; 3] = [&[5, 9, 300, 41, 7, 8, 1_000], &[5, 9, 300, 41, 7, 8, 1_000], &[6, 9, 300]];
    let mut examples = Vec::new();
    for (i, prompt) in prompts.into_iter().enumerate() {
        for answer in 0..4 {
            let ids = [prompt, &[answer + 10 * i as u32]].concat();
            examples.push(Example::new(examples.len() as u64, ids, prompt.len()..prompt.len() + 1));
        }
    }
    let mut plans = family("zero-head 11..12");
    plans.extend(
        ["0..12", "0..4,4[noise 0.3 pre],5..12", "0..11,11[zero mlp @2..3]", "none", "0..11,(11a|11m)"].map(plan),
    );
    let sweep = Sweep::new(plans.clone(), &shape(), options(64 << 20)).unwrap();
    let mut one = session(Isa::best(), Precision::F32, 1);
    let rows = swept(&sweep, &mut session(Isa::best(), Precision::F32, 2), &examples);
    for ((plan, number), row) in &rows {
        assert!(same(row, &alone(&mut one, &plans[*plan], &examples[*number as usize])), "{}: {row:?}", plans[*plan]);
    }
    // Twelve examples, three passes: the same prompt goes on being the same one.
    let flop = |examples: &[Example]| sweep.flop(&Model::mini().unwrap(), examples).unwrap();
    let (all, apart) = (flop(&examples), examples.iter().map(|example| flop(std::slice::from_ref(example))).sum());
    assert!(2 * all < apart, "{all} of {apart}");
}

/// Ends in the middle of other plans, ends that others have rows of, early sites in a last half: whatever is asked together.
#[test]
fn plans_may_end_anywhere() {
    let sets: [&[&str]; 9] = [
        &["0..4,5a", "0..4,5[zero pre @3..4],6..12"],
        &["0..3,4..6", "0..3,4,5[zero mlp @3..4]", "0..3,4,5[zero mlp @3..4],6..12"],
        &["0..11,11[zero mlp @3..4]", "0..11,11[zero mlp @3..4],11"],
        &["0..11,11a[zero k]", "0..11,11a[zero k @3..4]", "0..11,11a[knockout h1 keys 0]"],
        &[
            "0..12",
            "0..5,5[zero h0],6..12",
            "0..5,5[zero pre @3..4,zero h0]",
            "0..5,5[zero pre @3..4,zero h0],6..12",
            "0..5,5[zero pre @3..4,zero h1],6..12",
            "0..5,5[zero h1],6..12",
        ],
        &["0..5[zero post @3..4]", "0..5,4[zero post @2..4]", "0..5,4[zero post @2..4],7"],
        &[
            "0..11,11[zero h0,noise 0.1 post]",
            "0..11,11[zero h1,noise 0.1 post]",
            "0..11,11[zero h2,noise 0.1 post]",
            "0..11,11[zero h3,noise 0.1 post]",
        ],
        &["0..3,3[zero z @2..4],(4|5[zero pre @3..4]),6", "0..3,(4|5),6", "0..3,3[zero z @2..4],(4|5),6", "none"],
        &["3[zero h1 @2..4]*2,5m", "3,3[zero h1 @2..4],5m", "3*2,5m", "3*2", "3*2,5[zero mlp @4]"],
    ];
    let scored = [(8, 7..8), (8, 1..8), (20, 5..20), (8, 6..8)];
    let example = |(number, (tokens, scored)): (usize, (u32, Range<usize>))| {
        let ids = (0..tokens).map(|i| (i * 37 + number as u32 * 101 + 5) % 2_000).collect();
        Example::new(number as u64, ids, scored)
    };
    let examples: Vec<Example> = scored.into_iter().enumerate().map(example).collect();
    let (mut together, mut one) = (session(Isa::best(), Precision::F32, 2), session(Isa::best(), Precision::F32, 1));
    let all: Vec<&str> = sets.concat();
    for (set, divergence) in sets.iter().copied().chain([&all[..]]).flat_map(|set| [(set, true), (set, false)]) {
        let plans: Vec<Plan> = set.iter().map(|text| plan(text)).collect();
        let want: BTreeMap<(usize, u64), Row> = plans
            .iter()
            .enumerate()
            .flat_map(|(i, plan)| examples.iter().map(move |example| ((i, example.number), plan, example)))
            .map(|(key, plan, example)| (key, alone(&mut one, plan, example)))
            .collect();
        for megabytes in [3, 4, 5, 6, 8, 12, 64] {
            let asked = SweepOptions { divergence, ..options(megabytes << 20) };
            let sweep = Sweep::new(plans.clone(), &shape(), asked).unwrap();
            let mut rows = BTreeMap::new();
            let tell = &mut |event: Event<'_>| {
                if let Event::Rows(new) = event {
                    rows.extend(new.iter().map(|row| ((row.plan, row.example), row.clone())));
                }
                ControlFlow::Continue(())
            };
            match sweep.run(&mut together, examples.iter().cloned(), &|_, _| false, tell) {
                Err(SweepError::Memory { .. }) if megabytes < 12 => continue,
                ended => assert_eq!(ended.unwrap(), Ended::Complete),
            }
            assert_eq!(rows.len(), want.len());
            for (key, row) in &rows {
                assert!(same(row, &want[key]), "{set:?}, {megabytes} MB, {}: {row:?}", plans[key.0]);
            }
        }
        // What is left of a sweep has the rows of what is done.
        let asked = SweepOptions { divergence, ..options(64 << 20) };
        let sweep = Sweep::new(plans.clone(), &shape(), asked).unwrap();
        let tell = &mut |event: Event<'_>| {
            if let Event::Rows(new) = event {
                new.iter().for_each(|row| assert!(same(row, &want[&(row.plan, row.example)]), "{row:?}"));
            }
            ControlFlow::Continue(())
        };
        sweep.run(&mut together, examples.iter().cloned(), &|plan, _| plan % 2 == 0, tell).unwrap();
    }
}
