//! f32 matrix products at GPT-2 small's shapes: `gemm-peers THREADS ROUNDS`. In each round every library computes every
//! product once, after an untimed run of the same; prints JSON with all times. Each library gets both layouts of b,
//! and the driver keeps its better one; lesion gets the layout that the file has.

use lesion_kernels::{Epilogue, Isa, Layout, Team, WeightData, WeightMatrix};
use serde_json::json;
use std::time::{Duration, Instant};

/// Rows, k, n, and whether the file holds b as `[n, k]`.
const SHAPES: [(usize, usize, usize, bool); 5] = [
    (1024, 768, 768, false),
    (1024, 768, 2304, false),
    (1024, 768, 3072, false),
    (1024, 3072, 768, false),
    (1024, 768, 50257, true),
];

/// `out[m, n] = a[m, k] · b`, all row-major; b is `[k, n]`, or `[n, k]` if `transposed`.
struct Product<'a> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
    m: usize,
    k: usize,
    n: usize,
    transposed: bool,
    threads: usize,
}

impl Product<'_> {
    /// Row and column strides of b, in elements.
    fn strides(&self) -> (isize, isize) {
        if self.transposed { (1, self.k as isize) } else { (self.n as isize, 1) }
    }

    fn faer(&mut self) {
        use faer::{Accum, MatMut, MatRef, Par};
        let a = MatRef::from_row_major_slice(self.a, self.m, self.k);
        let b = if self.transposed {
            MatRef::from_column_major_slice(self.b, self.k, self.n)
        } else {
            MatRef::from_row_major_slice(self.b, self.k, self.n)
        };
        let out = MatMut::from_row_major_slice_mut(self.out, self.m, self.n);
        faer::linalg::matmul::matmul(out, Accum::Replace, a, b, 1.0, Par::rayon(self.threads));
    }

    fn gemm(&mut self) {
        let (rows, columns) = self.strides();
        let (k, n) = (self.k as isize, self.n as isize);
        // SAFETY: the slices have the lengths of their shapes.
        unsafe {
            gemm::gemm(
                self.m,
                self.n,
                self.k,
                self.out.as_mut_ptr(),
                1,
                n,
                false,
                self.a.as_ptr(),
                1,
                k,
                self.b.as_ptr(),
                columns,
                rows,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(self.threads),
            );
        }
    }

    fn matrixmultiply(&mut self) {
        let (rows, columns) = self.strides();
        let (k, n) = (self.k as isize, self.n as isize);
        let (a, b, out) = (self.a.as_ptr(), self.b.as_ptr(), self.out.as_mut_ptr());
        // SAFETY: the slices have the lengths of their shapes.
        unsafe { matrixmultiply::sgemm(self.m, self.k, self.n, 1.0, a, k, 1, b, rows, columns, 0.0, out, n, 1) }
    }

    fn lesion(&mut self, team: &mut Team) {
        let layout = if self.transposed { Layout::OutIn } else { Layout::InOut };
        let b = WeightMatrix::new(WeightData::F32(self.b), self.k, self.n, layout);
        team.enter(|kernels| kernels.gemm(self.a, b, Epilogue::Store, self.out));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("THREADS ROUNDS"));
    let (threads, rounds) = (arguments.next().expect("THREADS"), arguments.next().expect("ROUNDS"));
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("MATMUL_NUM_THREADS", threads.to_string());
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
    }
    let mut teams: Vec<Team> = Isa::available().map(|isa| Team::new(isa, threads).expect("threads")).collect();
    let mut rows = Vec::new();
    for (m, k, n, file_transposed) in SHAPES {
        let fill =
            |len: usize| (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0);
        let (a, b): (Vec<f32>, Vec<f32>) = (fill(m * k).collect(), fill(k * n).collect());
        let mut out = vec![0.0; m * n];
        let flop = 2.0 * (m * k * n) as f64;
        let (mut times, mut peaks) = (std::collections::BTreeMap::<String, Vec<f64>>::new(), Vec::new());
        let mut first = Vec::new();
        for round in 0..=rounds {
            let best = teams.iter_mut().map(|team| team.fma_rate(Duration::from_millis(100))).fold(0.0, f64::max);
            for name in ["lesion", "faer", "gemm", "matrixmultiply"] {
                for transposed in [false, true] {
                    if name == "lesion" && transposed != file_transposed {
                        continue;
                    }
                    let mut product = Product { a: &a, b: &b, out: &mut out, m, k, n, transposed, threads };
                    let mut run = || match name {
                        "lesion" => product.lesion(&mut teams[0]),
                        "faer" => product.faer(),
                        "gemm" => product.gemm(),
                        _ => product.matrixmultiply(),
                    };
                    run();
                    let start = Instant::now();
                    run();
                    let seconds = start.elapsed().as_secs_f64();
                    // The same layout must give the same product.
                    if transposed == file_transposed {
                        if name == "lesion" {
                            first.clone_from(&out);
                        } else {
                            let worst = first.iter().zip(&out).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                            assert!(worst < 1e-2, "{name} {m}x{k}x{n}: differs by {worst}");
                        }
                    }
                    let layout = if transposed { "[n, k]" } else { "[k, n]" };
                    if round > 0 {
                        times.entry(format!("{name} {layout}")).or_default().push(seconds);
                    }
                }
            }
            if round > 0 {
                peaks.push(best);
            }
        }
        rows.push(json!({"shape": format!("{m}x{k}x{n}"), "flop": flop, "fma": peaks, "seconds": times}));
    }
    println!("{}", json!(rows));
}
