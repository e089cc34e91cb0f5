//! The operations beside the plain products, at GPT-2 small's shapes: LayerNorm (elements are values), GELU (a product
//! with k = 1 is its epilogue alone, which is mostly `exp`; elements are values), attention and cross-entropy (elements
//! are FLOP).

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lesion_kernels::{Dtype, Epilogue, HeadShape, KvSpan, KvStore, Layout, RowScore, TILE, WeightData, WeightMatrix};
use support::{Weights, activations, isas, team};

const WIDTH: usize = 768;
const INNER: usize = 3072;
const VOCAB: usize = 50_257;
const HEADS: HeadShape = HeadShape { heads: 12, head_dim: 64 };

fn layer_norm(c: &mut Criterion) {
    for isa in isas(true) {
        let mut group = c.benchmark_group(format!("layer_norm/{isa}"));
        let mut team = team(isa);
        for rows in [1024, 16] {
            let (x, mut out) = (activations(rows * WIDTH), vec![0.0; rows * WIDTH]);
            let (weight, bias) = (activations(WIDTH), activations(WIDTH));
            group.throughput(Throughput::Elements(x.len() as u64));
            group.bench_function(format!("{rows}x{WIDTH}"), |b| {
                b.iter(|| team.enter(|kernels| kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out)));
            });
        }
    }
}

fn gelu(c: &mut Criterion) {
    for isa in isas(true) {
        let mut group = c.benchmark_group(format!("gelu/{isa}"));
        let mut team = team(isa);
        let rows = 1024;
        let (a, row, bias) = (activations(rows), activations(INNER), activations(INNER));
        let mut out = vec![0.0; rows * INNER];
        group.throughput(Throughput::Elements(out.len() as u64));
        let b = WeightMatrix::new(WeightData::F32(&row), 1, INNER, Layout::InOut);
        for (name, epilogue) in [("bias", Epilogue::Bias(&bias)), ("bias_gelu", Epilogue::BiasGelu(&bias))] {
            group.bench_function(BenchmarkId::new(format!("{rows}x1x{INNER}"), name), |bencher| {
                bencher.iter(|| team.enter(|kernels| kernels.gemm(&a, b, epilogue, &mut out)));
            });
        }
    }
}

fn attention(c: &mut Criterion) {
    // Sequences, new tokens of each, tokens before them: A, B, a short prompt, a late decode step.
    for isa in isas(true) {
        let mut group = c.benchmark_group(format!("attention/{isa}"));
        let mut team = team(isa);
        for (sequences, tokens, past) in [(1_usize, 1024_usize, 0_usize), (8, 128, 0), (1, 16, 0), (1, 1, 1023)] {
            let rows = sequences * tokens;
            let slots = (past + tokens).next_multiple_of(TILE);
            let span = |i| KvSpan { first_row: i * tokens, rows: tokens, past, slot: i * slots };
            let spans: Vec<KvSpan> = (0..sequences).map(span).collect();
            let mut store = KvStore::new(HEADS, sequences * slots);
            let (qkv, mut z) = (activations(rows * 3 * WIDTH), vec![0.0; rows * WIDTH]);
            let pairs = sequences * (tokens * past + tokens * (tokens + 1) / 2);
            group.throughput(Throughput::Elements((4 * WIDTH * pairs) as u64));
            group.bench_function(format!("{sequences}x{tokens}+{past}"), |b| {
                b.iter(|| team.enter(|kernels| kernels.attention(HEADS, 0.125, &qkv, &spans, &mut store, &mut z)));
            });
        }
    }
}

fn cross_entropy(c: &mut Criterion) {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let weights = Weights::new(dtype);
        for rows in [1024, 16] {
            for isa in isas(rows == 16) {
                let mut group = c.benchmark_group(format!("cross_entropy/{}/{isa}", dtype.name()));
                let mut team = team(isa);
                let x = activations(rows * WIDTH);
                let targets: Vec<u32> = support::ids(rows);
                let mut scores = vec![RowScore::default(); rows];
                let data = weights.window(0, WIDTH * VOCAB);
                let b = WeightMatrix::new(data, WIDTH, VOCAB, Layout::OutIn);
                group.throughput(Throughput::Elements(2 * (rows * WIDTH * VOCAB) as u64));
                group.bench_function(format!("{rows}x{WIDTH}x{VOCAB}"), |bencher| {
                    bencher.iter(|| team.enter(|kernels| kernels.cross_entropy(&x, b, &targets, &mut scores)));
                });
            }
        }
    }
}

criterion_group!(name = benches; config = support::criterion(); targets = layer_norm, gelu, attention, cross_entropy);
criterion_main!(benches);
