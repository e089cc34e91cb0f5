//! No kernel touches memory beside its slices: every input and output lies against an inaccessible page, at its end and
//! at its beginning.

#![cfg(all(unix, not(miri)))]

mod common;

use common::*;
use half::{bf16, f16};
use lesion_kernels::{
    Dtype, Epilogue, HeadShape, KvSpan, KvStore, Layout, Precision, RowScore, Team, WeightData, WeightMatrix, reference,
};

/// Which end of a slice lies against an inaccessible page.
#[derive(Clone, Copy, Debug)]
enum Side {
    Start,
    End,
}

/// Memory between two inaccessible pages.
struct Guarded {
    mapping: *mut u8,
    page: usize,
    bytes: usize,
}

impl Guarded {
    fn new(bytes: usize) -> Guarded {
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let bytes = bytes.next_multiple_of(page);
        let (none, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping, whose inner pages are then made accessible.
        let mapping = unsafe {
            let mapping = libc::mmap(std::ptr::null_mut(), bytes + 2 * page, none, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let inner = mapping.cast::<u8>().add(page);
            assert_eq!(libc::mprotect(inner.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE), 0);
            mapping.cast()
        };
        Guarded { mapping, page, bytes }
    }

    /// A copy of `data` against one of the pages.
    fn place<T: Copy>(&mut self, data: &[T], side: Side) -> &mut [T] {
        let size = size_of_val(data);
        assert!(size <= self.bytes);
        let offset = match side {
            Side::Start => 0,
            Side::End => self.bytes - size,
        };
        // SAFETY: inside the accessible pages, aligned (pages and sizes are multiples of the element's), borrowed from
        // `self`, any bits of f32, f16 and bf16 are valid.
        let place =
            unsafe { std::slice::from_raw_parts_mut(self.mapping.add(self.page + offset).cast::<T>(), data.len()) };
        place.copy_from_slice(data);
        place
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows it any more.
        unsafe { libc::munmap(self.mapping.cast(), self.bytes + 2 * self.page) };
    }
}

const SIDES: [Side; 2] = [Side::Start, Side::End];

/// b of a dtype, against a page.
fn place_weights<'a>(at: &'a mut Guarded, dense: &[f32], dtype: Dtype, side: Side) -> WeightData<'a> {
    match dtype {
        Dtype::F32 => WeightData::F32(at.place(dense, side)),
        Dtype::F16 => WeightData::F16(at.place(&dense.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(), side)),
        Dtype::Bf16 => WeightData::Bf16(at.place(&dense.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(), side)),
    }
}

#[test]
fn the_guard_guards() {
    // A child that reads one element too many must die of it.
    for side in SIDES {
        let mut memory = Guarded::new(100);
        let slice = memory.place(&[1_u32; 10], side);
        let beside = match side {
            Side::Start => slice.as_ptr().wrapping_sub(1),
            Side::End => slice.as_ptr().wrapping_add(10),
        };
        // SAFETY: the child only reads and exits; the read is meant to fault.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                // A sanitizer's handler would tell a long story.
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                std::hint::black_box(std::ptr::read_volatile(beside));
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFSIGNALED(status), "{side:?}");
        }
    }
}

#[test]
fn gemm() {
    let mut rng = Rng(51);
    let [mut a_at, mut b_at, mut bias_at, mut out_at] = [1 << 20, 1 << 20, 1 << 12, 1 << 18].map(Guarded::new);
    let columns: Vec<usize> = (1..=70).chain([127, 128, 129, 256]).collect();
    for team in &mut single_threads() {
        for m in [1, 2, 3, 4, 5, 8, 9, 12, 13, 25, 50, 97] {
            let (every, long) = if m > 30 { (7, m > 96) } else { (1, false) };
            for &n in columns.iter().skip(m % thin()).step_by(every * thin()) {
                let k = rng.pick(&[1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 255, 257, 300]);
                let k = if long { 800 } else { k };
                let (a, dense, bias) = (rng.short(m * k), rng.short(k * n), rng.short(n));
                for side in SIDES {
                    for dtype in DTYPES {
                        for layout in LAYOUTS {
                            let data = place_weights(&mut b_at, &dense, dtype, side);
                            let b = WeightMatrix::new(data, k, n, layout);
                            let (a, bias) = (&*a_at.place(&a, side), &*bias_at.place(&bias, side));
                            let out = out_at.place(&vec![1.0_f32; m * n], side);
                            for epilogue in [Epilogue::BiasAdd(bias), Epilogue::BiasGelu(bias), Epilogue::Store] {
                                team.enter(|kernels| kernels.gemm(a, b, epilogue, out));
                            }
                            let sum: f64 = (0..k).map(|i| f64::from(a[i]) * reference::weight(&b, i, 0)).sum();
                            assert!(
                                (f64::from(out[0]) - sum).abs() < 1e-3,
                                "{m}×{k}×{n} {side:?} {dtype:?} {layout:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Of a matrix only the elements of a view are there: from its first row's first to its last row's last.
#[test]
fn gemm_of_some_outputs() {
    let mut rng = Rng(55);
    let [mut a_at, mut b_at, mut out_at] = [1 << 20, 1 << 20, 1 << 18].map(Guarded::new);
    let pairs = single_threads().into_iter().map(|team| team.with_precision(Precision::Bf16Pairs));
    let mut teams: Vec<Team> = single_threads().into_iter().chain(pairs).collect();
    for team in &mut teams {
        for m in [1, 2, 5, 16, 48, 49, 120] {
            for n in [1, 2, 15, 31, 32, 33, 63, 65, 127, 128, 129, 150].into_iter().skip(m % thin()).step_by(thin()) {
                let k = rng.pick(&[1, 2, 3, 7, 16, 17, 33, 255, 257, 300]);
                let beside = rng.pick(&[1, 7, 32, 200]);
                let (a, sums) = (rng.short(m * k), vec![1.0_f32; m * n]);
                for layout in LAYOUTS {
                    let (lines, line) = if layout == Layout::InOut { (k, n) } else { (n, k) };
                    let stride = line + beside;
                    let elements = rng.short((lines - 1) * stride + line);
                    for (side, dtype) in SIDES.into_iter().flat_map(|side| DTYPES.map(|dtype| (side, dtype))) {
                        let data = place_weights(&mut b_at, &elements, dtype, side);
                        let b = WeightMatrix { data, k, n, layout, stride };
                        let (a, out) = (&*a_at.place(&a, side), out_at.place(&sums, side));
                        team.enter(|kernels| kernels.gemm(a, b, Epilogue::Store, out));
                        let sum: f64 = (0..k).map(|i| f64::from(a[i]) * reference::weight(&b, i, n - 1)).sum();
                        assert!(
                            (f64::from(out[n - 1]) - sum).abs() < 1e-3,
                            "{m}×{k}×{n} {side:?} {dtype:?} {layout:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn layer_norm() {
    let mut rng = Rng(52);
    let [mut x_at, mut weight_at, mut bias_at, mut out_at] = [1 << 16, 1 << 12, 1 << 12, 1 << 16].map(Guarded::new);
    for team in &mut single_threads() {
        for width in (1..=130).step_by(thin()) {
            for rows in [1, 2, 33] {
                let (x, weight, bias) = (rng.normals(rows * width), rng.normals(width), rng.normals(width));
                for side in SIDES {
                    let (x, weight) = (x_at.place(&x, side), weight_at.place(&weight, side));
                    let (bias, out) = (bias_at.place(&bias, side), out_at.place(&vec![f32::NAN; rows * width], side));
                    team.enter(|kernels| kernels.layer_norm(x, weight, bias, 1e-5, out));
                    assert!(out.iter().all(|x| x.is_finite()), "{rows} × {width}");
                }
            }
        }
    }
}

#[test]
fn attention() {
    // Keys and values lie in a store of the kernels' own; they are AddressSanitizer's business.
    let mut rng = Rng(53);
    let [mut qkv_at, mut z_at] = [1 << 20, 1 << 20].map(Guarded::new);
    for team in &mut single_threads() {
        for head_dim in (1..=80).step_by(thin()) {
            let shape = HeadShape { heads: 1 + head_dim % 2, head_dim };
            for rows in [1, 2, 5, 7, 17, 67] {
                let qkv = rng.normals(rows * 3 * shape.width());
                for side in SIDES {
                    let (qkv, z) = (qkv_at.place(&qkv, side), z_at.place(&vec![f32::NAN; qkv.len() / 3], side));
                    let past = rng.below(3) * 15;
                    let mut store = KvStore::new(shape, past + rows);
                    let span = KvSpan { first_row: 0, rows, past, slot: 0 };
                    team.enter(|kernels| kernels.attention(shape, 0.3, qkv, &[span], &mut store, z));
                    assert!(z.iter().all(|x| x.is_finite()), "{shape:?} {rows} rows");
                }
            }
        }
    }
}

#[test]
fn cross_entropy() {
    let mut rng = Rng(54);
    let [mut x_at, mut b_at, mut targets_at, mut out_at] = [1 << 16, 1 << 20, 1 << 12, 1 << 12].map(Guarded::new);
    for team in &mut single_threads() {
        for n in (1..=70).chain([255, 256, 257, 513]).step_by(thin()) {
            for rows in [1, 5, 8, 13, 50] {
                let k = rng.pick(&[1, 3, 7, 8, 15, 16, 17, 33, 65, 257]);
                let (x, dense) = (rng.normals(rows * k), rng.short(k * n));
                let targets: Vec<u32> = (0..rows).map(|row| (n - 1 - row % n) as u32).collect();
                for side in SIDES {
                    for dtype in DTYPES {
                        for layout in [Layout::OutIn, Layout::InOut] {
                            let data = place_weights(&mut b_at, &dense, dtype, side);
                            let b = WeightMatrix::new(data, k, n, layout);
                            let (x, targets) = (&*x_at.place(&x, side), &*targets_at.place(&targets, side));
                            let out = out_at.place(&vec![RowScore::default(); rows], side);
                            team.enter(|kernels| kernels.cross_entropy(x, b, targets, out));
                            assert!(out.iter().all(|score| score.nll().is_finite()), "{rows}×{k}×{n}");
                        }
                    }
                }
            }
        }
    }
}
