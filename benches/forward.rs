//! Whole passes of GPT-2 small's full shape, by type of the weights: loss of a prompt (elements are FLOP), decoding
//! (bytes are those of weights, keys and values), corrupted plans (k blocks should cost k/12 of the blocks), opening.

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lesion::bench::Work;
use lesion::forward::{Cache, Session, SessionOptions};
use lesion::measure::token_losses;
use lesion::model::{Model, OpenOptions};
use lesion::plan::{Plan, PlanExpr, PlanShape};
use lesion_kernels::Dtype;
use support::{ids, model, model_directory};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

fn session(model: &Model) -> Session {
    Session::new(model, SessionOptions::default()).expect("this machine's own threads")
}

fn loss(c: &mut Criterion) {
    for dtype in DTYPES {
        let mut group = c.benchmark_group(format!("loss/{}", dtype.name()));
        let model = model(dtype);
        let (mut session, plan) = (session(&model), Plan::intact(12));
        for tokens in [16, 128, 1024] {
            let ids = ids(tokens);
            let work = Work::of(&model, &plan, 1, 0, tokens, tokens - 1);
            group.throughput(Throughput::Elements(work.flop));
            group.bench_function(tokens.to_string(), |b| {
                b.iter(|| token_losses(&mut session, &plan, &[&ids]).expect("fits the context"));
            });
        }
    }
}

fn decode(c: &mut Criterion) {
    const PROMPT: usize = 16;
    const STEPS: usize = 64;
    for dtype in DTYPES {
        let mut group = c.benchmark_group(format!("decode/{}", dtype.name()));
        let model = model(dtype);
        let (mut session, plan, ids) = (session(&model), Plan::intact(12), ids(PROMPT + STEPS));
        let work = Work::of(&model, &plan, 1, PROMPT + STEPS / 2, 1, 1);
        group.throughput(Throughput::Bytes(work.bytes));
        group.bench_function(format!("{PROMPT}+{STEPS}"), |b| {
            b.iter_custom(|steps| {
                let mut time = Duration::ZERO;
                let mut done = 0;
                while done < steps {
                    let mut cache = Cache::new(&session, &plan, PROMPT + STEPS).unwrap();
                    session.extend(&plan, &mut cache, &ids[..PROMPT]).expect("fits the cache");
                    let start = Instant::now();
                    for id in ids[PROMPT..].iter().take((steps - done) as usize) {
                        black_box(session.extend(&plan, &mut cache, &[*id]).expect("fits the cache"));
                        done += 1;
                    }
                    time += start.elapsed();
                }
                time
            });
        });
    }
}

fn plans(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    let model = model(Dtype::F32);
    let (mut session, ids) = (session(&model), ids(128));
    let shape = PlanShape::gpt2(12, 12);
    for text in ["none", "0..3", "0..6", "0..9", "0..12", "11..=0", "0..3,3*4,4..12", "0..4,(4|5|6|7),8..12", "5a,5m"] {
        let plan = text.parse::<PlanExpr>().and_then(|plan| plan.resolve(&shape)).expect("a plan for 12 layers");
        group.bench_function(format!("{text} = {} blocks", plan.cost()), |b| {
            b.iter(|| token_losses(&mut session, &plan, &[&ids]).expect("fits the context"));
        });
    }
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for dtype in DTYPES {
        let directory = model_directory(dtype);
        group.bench_function(dtype.name(), |b| {
            b.iter(|| Model::open_dir(&directory, &OpenOptions::default()).expect("a model"));
        });
    }
}

criterion_group!(name = benches; config = support::criterion(); targets = loss, decode, plans, open);
criterion_main!(benches);
