//! Memory that kernels reuse from call to call.

use crate::Floats;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What one thread needs while it runs a task.
#[derive(Default)]
pub(crate) struct ThreadScratch {
    /// A packed piece of b; in attention the scores and queries of a block of rows.
    pub(crate) packed: Floats,
    /// The sums of a task; in attention the running outputs of a block of rows.
    pub(crate) sums: Floats,
    /// The weights of a few outputs, one behind the other; then the running softmaxes of a task's rows.
    pub(crate) gathered: Floats,
    /// A strip of the references' logits and probabilities, with which other rows are compared.
    pub(crate) strip: Floats,
}

/// One [`ThreadScratch`] for each thread of the team.
pub(crate) struct PerThread(Vec<Mutex<ThreadScratch>>);

impl PerThread {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Grows every thread's buffers to what the coming tasks need at most, in elements: which thread runs a task is
    /// chance, and one that meets its first late would allocate then.
    pub(crate) fn reserve(&self, packed: usize, sums: usize, gathered: usize, strip: usize) {
        for thread in &self.0 {
            let mut own = thread.lock().unwrap_or_else(PoisonError::into_inner);
            own.packed.at_least(packed);
            own.sums.at_least(sums);
            own.gathered.at_least(gathered);
            own.strip.at_least(strip);
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
    pub(crate) rows: Floats,
    /// Sums that wait: many rows' for their next piece of k, few rows' to be added up over the blocks of k.
    pub(crate) partial_sums: Floats,
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
            rows: Floats::default(),
            partial_sums: Floats::default(),
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
            .map(|t| t.packed.bytes() + t.sums.bytes() + t.gathered.bytes() + t.strip.bytes())
            .sum();
        own + self.rows.bytes()
            + self.partial_sums.bytes()
            + self.partials.capacity() * size_of::<crate::cross_entropy::Partial>()
            + self.tops.capacity() * size_of::<crate::Candidate>()
            + self.span_tasks.capacity() * size_of::<usize>()
    }
}
