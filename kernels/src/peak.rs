//! What the machine can do at most, measured on the spot: the yardstick for kernels (FLOP/s) and for decoding (bytes/s).
//!
//! All run on all threads of a team at once, in small pieces of work that any thread takes, until the caller's time is
//! up; all count only what was done, so a busy machine gives a low figure. Measure them between repetitions of the
//! work they are compared with.

use crate::gemm::arithmetic::{Arithmetic, Bf16Pairs, F32};
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Precision, Team};
use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// Chained operations of one piece: about 20 µs.
const CHAIN: usize = 163_840;

/// Elements of one piece of a read: 512 KiB.
const PIECE: usize = 128 * 1024;

impl Team {
    /// FLOP/s of f32 FMAs on registers alone (two FLOP each), on all threads for about `time`.
    pub fn fma_rate(&mut self, time: Duration) -> f64 {
        self.register_rate::<F32>(time)
    }

    /// The same of products of bf16, by the faster way there is here ([`Precision::fastest_bf16`]).
    pub fn bf16_rate(&mut self, time: Duration) -> f64 {
        match Precision::fastest_bf16(self.isa()) {
            Precision::Bf16Pairs => self.register_rate::<Bf16Pairs>(time),
            _ => self.fma_rate(time),
        }
    }

    fn register_rate<A: Arithmetic>(&mut self, time: Duration) -> f64 {
        struct Op<A>(PhantomData<A>);
        impl<A: Arithmetic> SimdOp for Op<A> {
            /// FLOP done.
            type Output = usize;
            const PAIRS: bool = A::UNIT == 2;
            #[inline(always)]
            fn eval<S: Simd>(self, s: S) -> usize {
                // Enough chains to hide the latency, no more than the matrix product's tile keeps in registers.
                match S::MR * S::NV {
                    ..12 => chains::<S, A, 6>(s),
                    12..24 => chains::<S, A, 12>(s),
                    _ => chains::<S, A, 24>(s),
                }
            }
        }
        let isa = self.isa();
        let piece = || dispatch(isa, Op::<A>(PhantomData));
        let (tasks, flop) = (16 * self.threads(), piece());
        self.pool().enter(|leader| {
            let done = until(time, || {
                leader.for_each(tasks, |_| {
                    black_box(piece());
                })
            });
            (tasks * flop) as f64 * done
        })
    }

    /// Bytes/s of reading `data` from end to end with wide loads, again and again for about `time`, on all threads: the
    /// memory's rate where `data` is much larger than the last cache. `data` should have been written, or the pages that
    /// the system shares for zeroes are read.
    pub fn read_rate(&mut self, data: &[f32], time: Duration) -> f64 {
        struct Op<'a>(&'a [f32]);
        impl SimdOp for Op<'_> {
            type Output = f32;
            #[inline(always)]
            fn eval<S: Simd>(self, s: S) -> f32 {
                let mut sums = [s.splat(0.0); 8];
                let mut lines = self.0.chunks_exact(8 * S::LANES);
                for line in &mut lines {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: a line holds 8 vectors.
                        *sum = s.add(*sum, unsafe { s.load(line.as_ptr().add(i * S::LANES)) });
                    }
                }
                let all = sums.into_iter().fold(s.splat(0.0), |all, sum| s.add(all, sum));
                s.sum(all) + lines.remainder().iter().sum::<f32>()
            }
        }
        let isa = self.isa();
        self.pool().enter(|leader| {
            let done = until(time, || {
                leader.for_each(data.len().div_ceil(PIECE), |i| {
                    let piece = &data[i * PIECE..data.len().min((i + 1) * PIECE)];
                    black_box(dispatch(isa, Op(piece)));
                })
            });
            size_of_val(data) as f64 * done
        })
    }
}

/// Runs `work` until `time` has passed, at least once; how often per second.
fn until(time: Duration, mut work: impl FnMut()) -> f64 {
    // The first run wakes the threads.
    work();
    let start = Instant::now();
    let mut runs = 0;
    loop {
        work();
        runs += 1;
        let passed = start.elapsed();
        if passed >= time {
            return f64::from(runs) / passed.as_secs_f64();
        }
    }
}

/// `CHAINS` independent chains that stay at 1, without overflow and subnormals; returns the FLOP.
#[inline(always)]
fn chains<S: Simd, A: Arithmetic, const CHAINS: usize>(s: S) -> usize {
    let (half, tiny) =
        (s.splat(black_box(0.5)), A::along_k(s, &[black_box((-30_f32).exp2()); 32][..A::UNIT * S::LANES]));
    let mut x: [S::V; CHAINS] = std::array::from_fn(|_| s.splat(black_box(1.0)));
    let steps = CHAIN / CHAINS;
    for _ in 0..steps {
        for x in &mut x {
            *x = match A::UNIT {
                1 => A::multiply_add(s, *x, half, half),
                // The sum is in place, as the instruction has it: another one would leave too few registers. Two bf16,
                // read in the f32 1, are 1 and 0.
                _ => A::multiply_add(s, *x, tiny, *x),
            };
        }
    }
    let sum = s.sum(x.into_iter().fold(s.splat(0.0), |all, x| s.add(all, x)));
    assert_eq!(sum, (CHAINS * S::LANES) as f32, "every chain stays at 1");
    steps * CHAINS * S::LANES * A::UNIT * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    const SHORT: Duration = Duration::from_millis(2);

    #[test]
    fn rates_are_those_of_a_machine() {
        // One element over a whole piece, and no multiple of any vector.
        let data = vec![1.0; 3 * PIECE + 1];
        for isa in Isa::available() {
            for threads in 1..=2 {
                let mut team = Team::new(isa, threads).unwrap();
                let rates = [team.fma_rate(SHORT), team.bf16_rate(SHORT), team.read_rate(&data, SHORT)];
                assert!(rates.iter().all(|rate| (1e6..1e15).contains(rate)), "{isa}, {threads} threads: {rates:?}");
            }
        }
    }

    #[test]
    fn reading_nothing_has_no_rate() {
        assert_eq!(Team::new(Isa::Portable, 1).unwrap().read_rate(&[], SHORT), 0.0);
    }
}
