//! Naive f64 twins of every kernel: the truth the tests compare with.
