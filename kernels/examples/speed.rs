//! s
use lesion_kernels::*;
use std::time::Instant;
fn main() {
    let threads: usize = std::env::args().nth(1).map_or(2, |s| s.parse().unwrap());
    for isa in Isa::available() {
        if isa == Isa::Portable {
            continue;
        }
        let mut team = Team::new(isa, threads).unwrap();
        for (m, k, n, layout) in [
            (1024, 768, 768, Layout::InOut),
            (1024, 768, 2304, Layout::InOut),
            (1024, 768, 3072, Layout::InOut),
            (1024, 3072, 768, Layout::InOut),
            (1024, 768, 50257, Layout::OutIn),
            (16, 768, 2304, Layout::InOut),
            (1, 768, 2304, Layout::InOut),
            (1, 3072, 768, Layout::InOut),
            (1, 768, 50257, Layout::OutIn),
        ] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i % 13) as f32 - 6.0).collect();
            let mut out = vec![0.0; m * n];
            let w = WeightMatrix { data: WeightData::F32(&b), k, n, layout };
            let mut best = f64::MAX;
            for _ in 0..(if m == 1 {
                50
            } else if n > 10000 {
                4
            } else {
                12
            }) {
                let t = Instant::now();
                team.enter(|kernels| kernels.gemm(&a, w, Epilogue::Store, &mut out));
                best = best.min(t.elapsed().as_secs_f64());
            }
            println!(
                "{isa} {m}x{k}x{n} {layout:?}: {:.1} GFLOP/s {:.1} GB/s {:.3} ms",
                2.0 * (m * k * n) as f64 / best / 1e9,
                (k * n * 4) as f64 / best / 1e9,
                best * 1e3
            );
        }
    }
}
