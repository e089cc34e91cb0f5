//! The threads that kernels run on: one entry into the rayon pool per forward pass, and inside it parallel loops that
//! cost about a microsecond (workers spin for the next loop instead of going to sleep).
//!
//! Which thread runs a task is left to chance; a task's result must not depend on it.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of the spin loop before a waiting thread gives its time slice away: about 50 µs.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// Multiply-adds below which a loop stays with the leader: some 5 µs, a few times what opening a loop costs.
const WORTH_SHARING: usize = 500_000;

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
    /// Index of the leader's thread in the pool.
    leader: AtomicUsize,
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

// SAFETY: `job` is the only field that is not already Sync. The leader writes it only while the epoch is even, after it
// saw `inside` at 0 behind the close of the loop before. A worker reads it only if, after raising `inside`, it still
// finds the odd epoch it came for (both SeqCst): then the leader's next close has not happened, and behind that close
// it waits for `inside` to fall. A worker that raises `inside` later finds another epoch and reads nothing. The context
// pointer refers to a closure that is Sync and outlives the loop.
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
            leader: AtomicUsize::new(0),
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
            shared.leader.store(rayon::current_thread_index().unwrap_or(0), Ordering::SeqCst);
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
        // Work that waits for rayon (another pool, say) makes the leader look for jobs: it must not sit down itself.
        if rayon::current_thread_index() == Some(self.leader.load(Ordering::SeqCst)) {
            return;
        }
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
    /// [`Leader::for_each`] for a loop of about `work` multiply-adds: one that is over sooner than the others could join
    /// in is not shared.
    pub(crate) fn share<F: Fn(usize) + Sync>(&mut self, work: usize, tasks: usize, task: F) {
        if work < WORTH_SHARING { (0..tasks).for_each(task) } else { self.for_each(tasks, task) }
    }

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
        let panicked = shared.panicked.swap(false, Ordering::SeqCst);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a kernel task panicked on a worker thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    const LOOPS: usize = if cfg!(miri) { 5 } else { 100 };
    const MOST_THREADS: usize = if cfg!(miri) { 3 } else { 8 };

    /// One loop: every task runs exactly once.
    fn exactly_once(leader: &mut Leader<'_>, tasks: usize) {
        let runs: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        leader.for_each(tasks, |i| {
            runs[i].fetch_add(1, Ordering::Relaxed);
            if i % 4 == 0 {
                // Leaves a task to the others.
                std::thread::yield_now();
            }
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{tasks} tasks: {runs:?}");
    }

    fn many_loops(pool: &mut Pool) {
        for round in 0..3 {
            pool.enter(|leader| {
                for i in 0..LOOPS {
                    exactly_once(leader, (i * 7 + round) % 23);
                }
            });
        }
    }

    #[test]
    fn every_task_runs_exactly_once_however_many_threads() {
        for threads in 1..=MOST_THREADS {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            many_loops(&mut pool);
        }
    }

    #[test]
    fn what_one_loop_writes_the_next_one_reads() {
        let mut pool = Pool::new(3).unwrap();
        let cells: Vec<AtomicU32> = (0..40).map(|_| AtomicU32::new(0)).collect();
        pool.enter(|leader| {
            for round in 0..LOOPS as u32 {
                leader.for_each(cells.len(), |i| {
                    // A neighbour's value of this round or the last: never an older one.
                    let seen = cells[(i + 1) % cells.len()].load(Ordering::Relaxed);
                    assert!(seen == round || seen == round + 1, "round {round}: {seen}");
                    cells[i].store(round + 1, Ordering::Relaxed);
                });
            }
        });
    }

    #[test]
    fn a_panicking_task_reaches_the_caller_and_the_team_goes_on() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads).unwrap();
            for bad in [0, 5, 19] {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    pool.enter(|leader| leader.for_each(20, |i| assert!(i != bad, "task {i}")));
                }));
                assert!(outcome.is_err(), "{threads} threads: the panic of task {bad} was lost");
                pool.enter(|leader| exactly_once(leader, 50));
            }
        }
    }

    #[test]
    fn panics_of_several_threads_end_with_their_loop() {
        let mut pool = Pool::new(3).unwrap();
        pool.enter(|leader| {
            for _ in 0..LOOPS / 2 {
                let outcome = catch_unwind(AssertUnwindSafe(|| leader.for_each(64, |_| panic!("every task"))));
                assert!(outcome.is_err());
                exactly_once(leader, 64);
            }
        });
    }

    #[test]
    fn work_that_panics_leaves_no_worker_behind() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads).unwrap();
            for _ in 0..3 {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    pool.enter(|leader| {
                        exactly_once(leader, 9);
                        panic!("between two loops");
                    })
                }));
                assert!(outcome.is_err());
            }
            pool.enter(|leader| exactly_once(leader, 9));
        }
    }

    #[test]
    fn pools_side_by_side_do_not_meet() {
        std::thread::scope(|scope| {
            for threads in [2, 3] {
                scope.spawn(move || many_loops(&mut Pool::new(threads).unwrap()));
            }
        });
    }

    #[test]
    fn work_may_wait_for_another_pool_or_for_rayon() {
        let (mut outer, mut inner) = (Pool::new(3).unwrap(), Pool::new(2).unwrap());
        for _ in 0..LOOPS.min(100) {
            outer.enter(|leader| {
                inner.enter(|leader| exactly_once(leader, 9));
                rayon::join(std::thread::yield_now, || ());
                exactly_once(leader, 9);
            });
        }
    }
}
