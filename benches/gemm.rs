//! Matrix products at GPT-2 small's shapes, by type of the weights and instruction set; ids are `MxKxN`, elements are
//! FLOP. With few rows a product is as fast as its weights arrive: `hot` uses the same matrix again (7 to 9 MB, in the
//! last cache of most machines), `cold` goes through more of them than the caches hold, as a pass does.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lesion_kernels::{Dtype, Epilogue, Layout, WeightMatrix};
use support::{Weights, activations, isas, team};

/// Rows up to which weights are also streamed, and the portable code is timed.
const FEW: usize = 16;

/// `c_attn`, `attn.c_proj`, `c_fc`, `mlp.c_proj`.
const PROJECTIONS: [(usize, usize); 4] = [(768, 2304), (768, 768), (768, 3072), (3072, 768)];

fn gemm(c: &mut Criterion) {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let weights = Weights::new(dtype);
        for rows in [1024, FEW, 1] {
            for isa in isas(rows <= FEW) {
                let mut team = team(isa);
                let mut group = c.benchmark_group(format!("gemm/{}/{isa}", dtype.name()));
                let projections = PROJECTIONS.map(|(k, n)| (k, n, Layout::InOut));
                // With many rows the unembedding never stands alone: see the cross-entropy in `ops`.
                let unembedding = (rows <= FEW).then_some((768, 50_257, Layout::OutIn));
                for (k, n, layout) in projections.into_iter().chain(unembedding) {
                    let (a, mut out) = (activations(rows * k), vec![0.0; rows * n]);
                    let matrices = weights.matrices(k * n);
                    group.throughput(Throughput::Elements(2 * (rows * k * n) as u64));
                    let mut bench = |temperature: &str, matrices: usize| {
                        let mut next = 0;
                        group.bench_function(BenchmarkId::new(format!("{rows}x{k}x{n}"), temperature), |b| {
                            b.iter(|| {
                                let data = weights.window(next, k * n);
                                next = (next + 1) % matrices;
                                let b = WeightMatrix::new(data, k, n, layout);
                                team.enter(|kernels| kernels.gemm(&a, b, Epilogue::Store, &mut out));
                            });
                        });
                    };
                    if matrices > 1 {
                        bench("hot", 1);
                    }
                    if rows <= FEW {
                        bench("cold", matrices);
                    }
                }
            }
        }
    }
}

criterion_group!(name = benches; config = support::criterion(); targets = gemm);
criterion_main!(benches);
