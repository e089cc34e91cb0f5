//! Memory that kernels reuse from call to call.

use bytemuck::{Pod, Zeroable};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A cache line of f32: buffers made of these are aligned for any vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: sixteen f32 in 64 bytes: any bits are valid, none is padding.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

/// A growing, 64-byte aligned buffer of f32. Its contents are whatever the last user left.
#[derive(Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// The buffer, at least `len` elements long.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// All of the buffer.
    pub(crate) fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Line>()
    }
}

/// What one thread needs while it runs a task.
#[derive(Default)]
pub(crate) struct ThreadScratch {
    /// A packed piece of b; in attention the scores and queries of a block of rows.
    pub(crate) packed: Buffer,
    /// The sums of a task, with few rows those of a block behind them; in attention the running outputs of a block of rows.
    pub(crate) sums: Buffer,
    /// The weights of a few outputs, one behind the other; then the running softmaxes of a task's rows.
    pub(crate) gathered: Buffer,
}

/// One [`ThreadScratch`] for each thread of the team.
pub(crate) struct PerThread(Vec<Mutex<ThreadScratch>>);

impl PerThread {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Grows every thread's buffers to what the coming tasks need at most, in elements: which thread runs a task is
    /// chance, and one that meets its first late would allocate then.
    pub(crate) fn reserve(&self, packed: usize, sums: usize, gathered: usize) {
        for thread in &self.0 {
            let mut own = thread.lock().unwrap_or_else(PoisonError::into_inner);
            own.packed.at_least(packed);
            own.sums.at_least(sums);
            own.gathered.at_least(gathered);
        }
    }

    /// The calling thread's own scratch; the lock is never contended.
    pub(crate) fn own(&self) -> MutexGuard<'_, ThreadScratch> {
        let i = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        // A poisoned scratch is as good as any: contents are never read before they are written.
        self.0[i].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of all kernels.
pub(crate) struct Scratch {
    /// Packed rows of a.
    pub(crate) rows: Buffer,
    /// Sums of the blocks of k that wait to be added up.
    pub(crate) partial_sums: Buffer,
    /// Per (row, vocabulary group) partial results of the cross-entropy.
    pub(crate) partials: Vec<crate::cross_entropy::Partial>,
    /// The greatest logits of each (row, vocabulary group).
    pub(crate) tops: Vec<crate::Candidate>,
    /// First task of each span, in attention.
    pub(crate) span_tasks: Vec<usize>,
    pub(crate) threads: PerThread,
}

impl Scratch {
    pub(crate) fn new(threads: usize) -> Scratch {
        Scratch {
            rows: Buffer::default(),
            partial_sums: Buffer::default(),
            partials: Vec::new(),
            tops: Vec::new(),
            span_tasks: Vec::new(),
            threads: PerThread((0..threads).map(|_| Mutex::default()).collect()),
        }
    }

    /// Anonymous memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let own: usize = (self.threads.0.iter())
            .map(|t| t.lock().unwrap_or_else(PoisonError::into_inner))
            .map(|t| t.packed.bytes() + t.sums.bytes() + t.gathered.bytes())
            .sum();
        own + self.rows.bytes()
            + self.partial_sums.bytes()
            + self.partials.capacity() * size_of::<crate::cross_entropy::Partial>()
            + self.tops.capacity() * size_of::<crate::Candidate>()
            + self.span_tasks.capacity() * size_of::<usize>()
    }
}
