//! The threads that kernels run on: one entry into the rayon pool per forward pass, and inside it parallel loops that
//! cost about a microsecond (workers spin for the next loop instead of going to sleep).
//!
//! Which thread runs a task is left to chance; a task's result must not depend on it.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of the spin loop before a waiting thread gives its time slice away: about 50 µs.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// Threads with one leader at a time.
pub(crate) struct Pool {
    pool: rayon::ThreadPool,
    shared: Shared,
}

/// What the leader and the workers share during one [`Pool::enter`].
struct Shared {
    /// Odd while a loop is open to workers.
    epoch: AtomicUsize,
    /// Workers inside the open loop.
    inside: AtomicUsize,
    /// The next task of the open loop.
    next: AtomicUsize,
    /// The leader has left: workers go home.
    finished: AtomicBool,
    /// A task of the open loop panicked on a worker.
    panicked: AtomicBool,
    /// The open loop. Written by the leader while no worker is inside.
    job: UnsafeCell<Job>,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    run: unsafe fn(*const (), usize),
    context: *const (),
}

unsafe fn no_task(_: *const (), _: usize) {}

// SAFETY: `job` is the only field that is not already Sync. The leader writes it only while the epoch is even and
// `inside` is 0; a worker reads it only after it raised `inside` and then still saw the same odd epoch (both SeqCst),
// so the two never overlap. The context pointer refers to a closure that is Sync and outlives the loop.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub(crate) fn new(threads: usize) -> Result<Pool, rayon::ThreadPoolBuildError> {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("lesion-{i}")).build()?;
        let job = UnsafeCell::new(Job { tasks: 0, run: no_task, context: std::ptr::null() });
        let shared = Shared {
            epoch: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            finished: AtomicBool::new(true),
            panicked: AtomicBool::new(false),
            job,
        };
        Ok(Pool { pool, shared })
    }

    /// Number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the pool. The loops it opens share all threads without entering the pool again.
    pub(crate) fn enter<R: Send>(&mut self, work: impl FnOnce(&mut Leader<'_>) -> R + Send) -> R {
        let (pool, shared) = (&self.pool, &self.shared);
        shared.finished.store(false, Ordering::SeqCst);
        shared.panicked.store(false, Ordering::SeqCst);
        let workers = self.pool.current_num_threads() - 1;
        pool.install(|| {
            seat(workers, shared, || {
                // Workers go home even if `work` panics.
                let _home = GoHome(shared);
                work(&mut Leader { shared, alone: workers == 0 })
            })
        })
    }
}

struct GoHome<'a>(&'a Shared);

impl Drop for GoHome<'_> {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::SeqCst);
    }
}

/// Offers `workers` idle threads a seat, then leads. A seat nobody took is found empty afterwards and costs nothing.
/// Recursion over `join` instead of spawning: its jobs live on the stack, nothing is allocated.
fn seat<R: Send, F: FnOnce() -> R + Send>(workers: usize, shared: &Shared, lead: F) -> R {
    if workers == 0 {
        return lead();
    }
    rayon::join(move || seat(workers - 1, shared, lead), || shared.work()).0
}

impl Shared {
    /// A worker's life: takes tasks of open loops until the leader leaves.
    fn work(&self) {
        let mut seen = 0;
        let mut spins = 0;
        while !self.finished.load(Ordering::SeqCst) {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch.is_multiple_of(2) || epoch == seen {
                wait(&mut spins);
                continue;
            }
            seen = epoch;
            self.inside.fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                // SAFETY: `inside` was raised before the epoch was found unchanged: the leader does not write the job
                // until this thread has left.
                let job = unsafe { *self.job.get() };
                if catch_unwind(AssertUnwindSafe(|| self.take_tasks(job))).is_err() {
                    self.panicked.store(true, Ordering::SeqCst);
                }
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            spins = 0;
        }
    }

    fn take_tasks(&self, job: Job) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                return;
            }
            // SAFETY: `context` is the closure `run` was made for; it outlives the loop (see `Leader::for_each`).
            unsafe { (job.run)(job.context, task) };
        }
    }
}

fn wait(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// The thread that runs a forward pass, and opens loops for the others.
pub(crate) struct Leader<'a> {
    shared: &'a Shared,
    alone: bool,
}

impl Leader<'_> {
    /// Runs `task(0) … task(tasks − 1)`, each once, on any thread, in any order; returns when all are done.
    ///
    /// # Panics
    /// When a task panics.
    pub(crate) fn for_each<F: Fn(usize) + Sync>(&mut self, tasks: usize, task: F) {
        /// # Safety
        /// `context` points to an `F`.
        unsafe fn call<F: Fn(usize) + Sync>(context: *const (), i: usize) {
            // SAFETY: the caller's.
            (unsafe { &*context.cast::<F>() })(i)
        }
        if self.alone || tasks <= 1 {
            (0..tasks).for_each(task);
            return;
        }
        let shared = self.shared;
        let job = Job { tasks, run: call::<F>, context: (&raw const task).cast() };
        // SAFETY: the last loop was closed and left by all workers before `for_each` returned; `&mut self` is the
        // only leader.
        unsafe { *shared.job.get() = job };
        shared.next.store(0, Ordering::SeqCst);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(job)));
        // From here no worker can enter; those inside finish their tasks before `task` goes out of scope.
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0;
        while shared.inside.load(Ordering::SeqCst) != 0 {
            wait(&mut spins);
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::SeqCst), "a kernel task panicked on a worker thread");
    }
}
