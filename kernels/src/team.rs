//! The threads that kernels run on.

/// A team of threads. Kernels cut their work into tasks whose results do not depend on which
/// thread runs them, nor on how many there are.
pub struct Team {
    pool: rayon::ThreadPool,
}

impl Team {
    /// A team of `threads` threads.
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(threads: usize) -> Result<Team, rayon::ThreadPoolBuildError> {
        Ok(Team { pool: rayon::ThreadPoolBuilder::new().num_threads(threads).build()? })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the team: the kernels it calls share its threads without entering the pool again.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}
